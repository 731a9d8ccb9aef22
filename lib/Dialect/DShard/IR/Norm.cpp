//===- Norm.cpp - Normalisations and softmax ------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

/// `vector` (weight, bias) has one dim, the input's last, and its element type.
static LogicalResult verifyVector(Operation *op, StringRef name, Value input,
                                  Value vector) {
  auto type = cast<RankedTensorType>(input.getType());
  auto vectorType = cast<RankedTensorType>(vector.getType());
  if (vectorType.getRank() != 1 ||
      vectorType.getDimSize(0) != type.getShape().back())
    return op->emitOpError()
           << name << " is " << vectorType << ", expected one dim of size "
           << type.getShape().back();
  if (vectorType.getElementType() != type.getElementType())
    return op->emitOpError()
           << name << " has element type " << vectorType.getElementType()
           << ", input " << type.getElementType();
  return success();
}

static LogicalResult verifyNormInput(Operation *op, Value input, Value result) {
  auto type = cast<RankedTensorType>(input.getType());
  if (type.getRank() < 1)
    return op->emitOpError() << "input has no dims, expected at least 1";
  if (!isa<FloatType>(type.getElementType()))
    return op->emitOpError() << "input has element type "
                             << type.getElementType() << ", expected a float";
  if (result.getType() != type)
    return op->emitOpError()
           << "result is " << result.getType() << ", expected " << type;
  return success();
}

/// Every dim is parallel but `whole`; vectors share the last dim's factor.
static ShardingRule getRowRule(Operation *op, int64_t whole) {
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  ShardingRule rule;
  TensorFactors dims(type.getRank());
  for (auto [i, size] : llvm::enumerate(type.getShape()))
    dims[i].push_back(rule.addFactor(
        size, int64_t(i) == whole ? FactorKind::gather : FactorKind::parallel));
  rule.operands.push_back(dims);
  for (size_t i = 1; i < op->getNumOperands(); ++i)
    rule.operands.push_back({dims.back()});
  rule.results.push_back(dims);
  rule.linear.assign(op->getNumOperands(), false);
  return rule;
}

static Type getWideType(Value value) {
  Type type = cast<RankedTensorType>(value.getType()).getElementType();
  return type.isF64() ? type : Type(Float32Type::get(value.getContext()));
}

//===----------------------------------------------------------------------===//
// rms_norm
//===----------------------------------------------------------------------===//

LogicalResult RmsNormOp::verify() {
  if (failed(verifyNormInput(*this, getInput(), getResult())))
    return failure();
  // rms_norm_c1
  return verifyVector(*this, "weight", getInput(), getWeight());
}

ShardingRule RmsNormOp::getShardingRule() {
  ShardingRule rule = getRowRule(*this, getInput().getType().getRank() - 1);
  rule.linear[1] = true;
  return rule;
}

LogicalResult RmsNormOp::decompose(OpBuilder &builder, ValueRange operands,
                                   SmallVectorImpl<Value> &results) {
  DShardBuilder make(builder, *this);
  Type wide = getWideType(operands[0]);
  Value x = make.cast(operands[0], wide);
  Value meanSquare = make.reduce(make.binary<MulOp>(x, x), ReductionKind::mean,
                                 {make.typeOf(x).getRank() - 1}, true);
  Value scale = make.unary<RsqrtOp>(make.binary<AddOp>(
      meanSquare, make.scalar(getEpsilon().convertToDouble(), wide)));
  Value y = make.binary<MulOp>(make.binary<MulOp>(x, scale),
                               make.cast(operands[1], wide));
  results.push_back(make.cast(y, getInput().getType().getElementType()));
  return success();
}

//===----------------------------------------------------------------------===//
// layer_norm
//===----------------------------------------------------------------------===//

LogicalResult LayerNormOp::verify() {
  if (failed(verifyNormInput(*this, getInput(), getResult())))
    return failure();
  // layer_norm_c1
  if (failed(verifyVector(*this, "weight", getInput(), getWeight())))
    return failure();
  if (Value bias = getBias())
    return verifyVector(*this, "bias", getInput(), bias);
  return success();
}

ShardingRule LayerNormOp::getShardingRule() {
  return getRowRule(*this, getInput().getType().getRank() - 1);
}

LogicalResult LayerNormOp::decompose(OpBuilder &builder, ValueRange operands,
                                     SmallVectorImpl<Value> &results) {
  DShardBuilder make(builder, *this);
  Type wide = getWideType(operands[0]);
  Value x = make.cast(operands[0], wide);
  int64_t last = make.typeOf(x).getRank() - 1;
  Value centered =
      make.binary<SubOp>(x, make.reduce(x, ReductionKind::mean, {last}, true));
  Value variance = make.reduce(make.binary<MulOp>(centered, centered),
                               ReductionKind::mean, {last}, true);
  Value scale = make.unary<RsqrtOp>(make.binary<AddOp>(
      variance, make.scalar(getEpsilon().convertToDouble(), wide)));
  Value y = make.binary<MulOp>(make.binary<MulOp>(centered, scale),
                               make.cast(operands[1], wide));
  if (getBias())
    y = make.binary<AddOp>(y, make.cast(operands[2], wide));
  results.push_back(make.cast(y, getInput().getType().getElementType()));
  return success();
}

//===----------------------------------------------------------------------===//
// softmax
//===----------------------------------------------------------------------===//

LogicalResult SoftmaxOp::verify() {
  // softmax_c1
  if (failed(verifyNormInput(*this, getInput(), getResult())))
    return failure();
  int64_t dim = getDim(), rank = getInput().getType().getRank();
  if (dim < 0 || dim >= rank)
    return emitOpError() << "dim " << dim << " is not one of " << rank;
  return success();
}

ShardingRule SoftmaxOp::getShardingRule() {
  return getRowRule(*this, int64_t(getDim()));
}

LogicalResult SoftmaxOp::decompose(OpBuilder &builder, ValueRange operands,
                                   SmallVectorImpl<Value> &results) {
  DShardBuilder make(builder, *this);
  Value x = make.cast(operands[0], getWideType(operands[0]));
  int64_t dim = getDim();
  Value peak = make.reduce(x, ReductionKind::max, {dim}, true);
  Value weights = make.unary<ExpOp>(make.binary<SubOp>(x, peak));
  Value sum = make.reduce(weights, ReductionKind::sum, {dim}, true);
  results.push_back(make.cast(make.binary<DivOp>(weights, sum),
                              getInput().getType().getElementType()));
  return success();
}
