//===- Layout.cpp - Constants and ops that only move elements -------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include <numeric>

using namespace mlir;
using namespace mlir::dshard;

/// Folding an annotated op would lose what a strategy said of it.
static bool isAnnotated(Operation *op) {
  return op->hasAttr(shardingsAttrName);
}

//===----------------------------------------------------------------------===//
// constant
//===----------------------------------------------------------------------===//

LogicalResult ConstantOp::verify() {
  if (getValue().getShapedType() != getResult().getType())
    return emitOpError() << "value is " << getValue().getShapedType()
                         << ", the result " << getResult().getType();
  return success();
}

OpFoldResult ConstantOp::fold(FoldAdaptor) {
  return isAnnotated(*this) ? Attribute() : Attribute(getValue());
}

ShardingRule ConstantOp::getShardingRule() {
  ShardingRule rule;
  TensorFactors dims;
  for (int64_t size : getResult().getType().getShape())
    dims.push_back({rule.addFactor(size)});
  rule.results = {dims};
  return rule;
}

LogicalResult ConstantOp::partition(OpBuilder &builder, ValueRange operands,
                                    const PartitionContext &context,
                                    SmallVectorImpl<Value> &results) {
  RankedTensorType local = context.localResultTypes[0];
  auto dense = dyn_cast<DenseElementsAttr>(getValue());
  if (local == getResult().getType() || (dense && dense.isSplat())) {
    ElementsAttr value = getValue();
    if (local != getResult().getType())
      value = dense.resizeSplat(local);
    results.push_back(ConstantOp::create(builder, getLoc(), local, value));
    return success();
  }
  // A constant has neither path nor part; its shards belong to who reads them.
  DShardBuilder make(builder, getLoc(), builder.getStringAttr(""),
                     PartAttr::get(getContext(), Part::forward));
  for (Operation *user : getResult().getUsers())
    if (getPathOf(user) && getPartOf(user)) {
      make.path = getPathOf(user);
      make.part = getPartOf(user);
      break;
    }
  Value value =
      ConstantOp::create(builder, getLoc(), getResult().getType(), getValue());
  for (auto [i, dim] : llvm::enumerate(context.resultShardings[0].getDims())) {
    SmallVector<Attribute> axes;
    for (AxisRefAttr axis : dim.getAxes())
      if (context.mesh.getSize(axis) != 1)
        axes.push_back(axis);
    if (axes.empty())
      continue;
    SmallVector<int64_t> shape(make.typeOf(value).getShape());
    shape[i] = local.getDimSize(i);
    value = make.create<LocalSliceOp>(
        local.clone(shape), value, uint64_t(i), builder.getArrayAttr(axes),
        builder.getStringAttr("own shard of a constant"));
  }
  results.push_back(value);
  return success();
}

//===----------------------------------------------------------------------===//
// reshape
//===----------------------------------------------------------------------===//

LogicalResult ReshapeOp::verify() {
  RankedTensorType input = getInput().getType(), result = getResult().getType();
  // reshape_c1
  if (input.getNumElements() != result.getNumElements())
    return emitOpError() << "input has " << input.getNumElements()
                         << " elements, the result " << result.getNumElements();
  if (input.getElementType() != result.getElementType())
    return emitOpError() << "input has element type " << input.getElementType()
                         << ", the result " << result.getElementType();
  return success();
}

OpFoldResult ReshapeOp::fold(FoldAdaptor adaptor) {
  if (isAnnotated(*this))
    return {};
  if (getInput().getType() == getResult().getType())
    return getInput();
  if (auto value = dyn_cast_if_present<DenseElementsAttr>(adaptor.getInput()))
    return value.reshape(getResult().getType());
  if (auto producer = getInput().getDefiningOp<ReshapeOp>())
    if (!isAnnotated(producer)) {
      getInputMutable().assign(producer.getInput());
      return getResult();
    }
  return {};
}

ShardingRule ReshapeOp::getShardingRule() {
  ArrayRef<int64_t> input = getInput().getType().getShape(),
                    result = getResult().getType().getShape();
  ShardingRule rule;
  TensorFactors from(input.size()), to(result.size());
  rule.linear = {true};
  if (getInput().getType().getNumElements() == 0) {
    rule.operands = {from};
    rule.results = {to};
    return rule;
  }
  // Walks both shapes major to minor, taking the largest common major part of
  // what is left of the two current dims: 32 | 2x16 gives 2 and 16.
  size_t i = 0, j = 0;
  int64_t a = 1, b = 1; // what is left of dims i - 1 and j - 1
  // Inside a run whose dims have no common major part no factor is shared
  // until the products meet again; then the needs are for whole dims.
  while (true) {
    while (a == 1 && i < input.size())
      a = input[i++];
    while (b == 1 && j < result.size())
      b = result[j++];
    if (a == 1 && b == 1)
      break;
    int64_t common = std::gcd(a, b);
    if (common == a || common == b) {
      int64_t factor = rule.addFactor(common);
      from[i - 1].push_back(factor);
      to[j - 1].push_back(factor);
      a /= common;
      b /= common;
      continue;
    }
    if (common != 1) {
      int64_t factor = rule.addFactor(common);
      from[i - 1].push_back(factor);
      to[j - 1].push_back(factor);
      a /= common;
      b /= common;
    }
    int64_t left = a, right = b;
    from[i - 1].push_back(rule.addFactor(a, FactorKind::gather));
    to[j - 1].push_back(rule.addFactor(b, FactorKind::gather));
    while (left != right) {
      if (left < right) {
        left *= input[i];
        if (input[i] != 1)
          from[i].push_back(rule.addFactor(input[i], FactorKind::gather));
        ++i;
      } else {
        right *= result[j];
        if (result[j] != 1)
          to[j].push_back(rule.addFactor(result[j], FactorKind::gather));
        ++j;
      }
    }
    a = b = 1;
  }
  rule.operands = {from};
  rule.results = {to};
  return rule;
}

//===----------------------------------------------------------------------===//
// transpose
//===----------------------------------------------------------------------===//

LogicalResult TransposeOp::verify() {
  RankedTensorType input = getInput().getType(), result = getResult().getType();
  // transpose_c1
  if (int64_t(getPermutation().size()) != input.getRank())
    return emitOpError() << "permutation has " << getPermutation().size()
                         << " entries, the input " << input.getRank()
                         << " dims";
  SmallVector<int64_t> expected;
  SmallVector<bool> seen(input.getRank(), false);
  for (int64_t dim : getPermutation()) {
    if (dim < 0 || dim >= input.getRank())
      return emitOpError() << "permutation names dim " << dim << " of "
                           << input.getRank();
    if (seen[dim])
      return emitOpError() << "permutation names dim " << dim << " twice";
    seen[dim] = true;
    expected.push_back(input.getDimSize(dim));
  }
  if (result != input.clone(expected))
    return emitOpError() << "result is " << result << ", expected "
                         << input.clone(expected);
  return success();
}

OpFoldResult TransposeOp::fold(FoldAdaptor) {
  if (isAnnotated(*this))
    return {};
  if (llvm::equal(getPermutation(),
                  llvm::seq<int64_t>(0, getPermutation().size())))
    return getInput();
  auto producer = getInput().getDefiningOp<TransposeOp>();
  if (!producer || isAnnotated(producer))
    return {};
  SmallVector<int64_t> composed;
  for (int64_t dim : getPermutation())
    composed.push_back(producer.getPermutation()[dim]);
  setPermutation(composed);
  getInputMutable().assign(producer.getInput());
  return getResult();
}

ShardingRule TransposeOp::getShardingRule() {
  ShardingRule rule;
  TensorFactors input, result;
  for (int64_t size : getInput().getType().getShape())
    input.push_back({rule.addFactor(size)});
  for (int64_t dim : getPermutation())
    result.push_back(input[dim]);
  rule.operands = {input};
  rule.results = {result};
  rule.linear = {true};
  return rule;
}

//===----------------------------------------------------------------------===//
// broadcast_to
//===----------------------------------------------------------------------===//

LogicalResult BroadcastToOp::verify() {
  RankedTensorType input = getInput().getType(), result = getResult().getType();
  if (input.getElementType() != result.getElementType())
    return emitOpError() << "input has element type " << input.getElementType()
                         << ", the result " << result.getElementType();
  // broadcast_to_c1
  int64_t lead = result.getRank() - input.getRank();
  if (lead < 0)
    return emitOpError() << "input has " << input.getRank()
                         << " dims, the result only " << result.getRank();
  for (auto [i, size] : llvm::enumerate(input.getShape()))
    if (size != 1 && size != result.getDimSize(lead + i))
      return emitOpError() << "input dim " << i << " has size " << size
                           << ", expected 1 or " << result.getDimSize(lead + i);
  return success();
}

ShardingRule BroadcastToOp::getShardingRule() {
  ShardingRule rule = getPointwiseRule(*this);
  rule.linear = {true};
  return rule;
}

//===----------------------------------------------------------------------===//
// concat
//===----------------------------------------------------------------------===//

LogicalResult ConcatOp::verify() {
  // concat_c1
  if (getInputs().empty())
    return emitOpError() << "has no input, expected at least 1";
  RankedTensorType result = getResult().getType();
  int64_t dim = getDim(), sum = 0;
  if (dim < 0 || dim >= result.getRank())
    return emitOpError() << "dim " << dim << " is not one of "
                         << result.getRank();
  for (auto [n, value] : llvm::enumerate(getInputs())) {
    auto input = cast<RankedTensorType>(value.getType());
    if (input.getRank() != result.getRank())
      return emitOpError() << "input " << n << " has " << input.getRank()
                           << " dims, the result " << result.getRank();
    if (input.getElementType() != result.getElementType())
      return emitOpError() << "input " << n << " has element type "
                           << input.getElementType() << ", the result "
                           << result.getElementType();
    for (int64_t i = 0; i < result.getRank(); ++i)
      if (i != dim && input.getDimSize(i) != result.getDimSize(i))
        return emitOpError() << "input " << n << " dim " << i << " has size "
                             << input.getDimSize(i) << ", the result "
                             << result.getDimSize(i);
    sum += input.getDimSize(dim);
  }
  if (sum != result.getDimSize(dim))
    return emitOpError() << "sizes of dim " << dim << " sum up to " << sum
                         << ", the result has " << result.getDimSize(dim);
  return success();
}

ShardingRule ConcatOp::getShardingRule() {
  int64_t dim = getDim();
  ShardingRule rule;
  TensorFactors result;
  for (auto [i, size] : llvm::enumerate(getResult().getType().getShape()))
    result.push_back({rule.addFactor(
        size, int64_t(i) == dim ? FactorKind::gather : FactorKind::parallel)});
  for (Value value : getInputs()) {
    TensorFactors input = result;
    int64_t size = cast<RankedTensorType>(value.getType()).getDimSize(dim);
    input[dim] = {rule.addFactor(size, FactorKind::gather)};
    rule.operands.push_back(input);
  }
  rule.results = {result};
  rule.linear.assign(getInputs().size(), false);
  rule.jointlyLinear = true;
  return rule;
}

//===----------------------------------------------------------------------===//
// slice and pad
//===----------------------------------------------------------------------===//

/// Dims in `whole` pass unchanged; of the others operand and result each need
/// all, by factors of their own.
static ShardingRule getBoxRule(Operation *op,
                               llvm::function_ref<bool(int64_t)> isWhole) {
  auto input = cast<RankedTensorType>(op->getOperand(0).getType()),
       type = cast<RankedTensorType>(op->getResult(0).getType());
  ShardingRule rule;
  TensorFactors operand(input.getRank()), result(type.getRank());
  for (int64_t i = 0; i < input.getRank(); ++i) {
    if (isWhole(i)) {
      operand[i] = result[i] = {rule.addFactor(input.getDimSize(i))};
      continue;
    }
    operand[i] = {rule.addFactor(input.getDimSize(i), FactorKind::gather)};
    result[i] = {rule.addFactor(type.getDimSize(i), FactorKind::gather)};
  }
  rule.operands = {operand};
  rule.results = {result};
  return rule;
}

LogicalResult SliceOp::verify() {
  RankedTensorType input = getInput().getType(), result = getResult().getType();
  // slice_c1
  int64_t rank = input.getRank();
  if (result.getRank() != rank || int64_t(getStarts().size()) != rank ||
      int64_t(getStrides().size()) != rank)
    return emitOpError() << "input has " << rank << " dims, the result "
                         << result.getRank() << ", with " << getStarts().size()
                         << " starts and " << getStrides().size() << " strides";
  if (input.getElementType() != result.getElementType())
    return emitOpError() << "input has element type " << input.getElementType()
                         << ", the result " << result.getElementType();
  for (int64_t i = 0; i < rank; ++i) {
    int64_t start = getStarts()[i], stride = getStrides()[i],
            size = result.getDimSize(i), limit = input.getDimSize(i);
    if (stride == 0)
      return emitOpError() << "stride of dim " << i << " is 0";
    if (size == 0)
      continue;
    int64_t last = 0;
    bool overflow = llvm::MulOverflow(size - 1, stride, last) ||
                    llvm::AddOverflow(start, last, last);
    if (overflow || start < 0 || start >= limit || last < 0 || last >= limit)
      return emitOpError() << "dim " << i << " takes elements " << start
                           << " to " << last << ", the input has " << limit;
  }
  return success();
}

ShardingRule SliceOp::getShardingRule() {
  ShardingRule rule = getBoxRule(*this, [&](int64_t i) {
    return getStarts()[i] == 0 && getStrides()[i] == 1 &&
           getResult().getType().getDimSize(i) ==
               getInput().getType().getDimSize(i);
  });
  rule.linear = {true};
  return rule;
}

LogicalResult SliceOp::partition(OpBuilder &builder, ValueRange operands,
                                 const PartitionContext &context,
                                 SmallVectorImpl<Value> &results) {
  // Only whole dims are sharded: their start stays 0, the local type has the
  // size.
  return partitionByCloning(*this, builder, operands, context, results);
}

LogicalResult PadOp::verify() {
  RankedTensorType input = getInput().getType(), result = getResult().getType();
  // pad_c1
  int64_t rank = input.getRank();
  if (result.getRank() != rank || int64_t(getLow().size()) != rank ||
      int64_t(getHigh().size()) != rank)
    return emitOpError() << "input has " << rank << " dims, the result "
                         << result.getRank() << ", with " << getLow().size()
                         << " low and " << getHigh().size() << " high numbers";
  if (input.getElementType() != result.getElementType())
    return emitOpError() << "input has element type " << input.getElementType()
                         << ", the result " << result.getElementType();
  for (int64_t i = 0; i < rank; ++i) {
    if (getLow()[i] < 0 || getHigh()[i] < 0)
      return emitOpError() << "dim " << i << " is padded by " << getLow()[i]
                           << " and " << getHigh()[i]
                           << ", expected no negative number";
    int64_t sum = 0;
    if (llvm::AddOverflow(getLow()[i], input.getDimSize(i), sum) ||
        llvm::AddOverflow(sum, getHigh()[i], sum) ||
        sum != result.getDimSize(i))
      return emitOpError() << "dim " << i << " of the result has size "
                           << result.getDimSize(i) << ", expected "
                           << getLow()[i] << " + " << input.getDimSize(i)
                           << " + " << getHigh()[i];
  }
  return success();
}

ShardingRule PadOp::getShardingRule() {
  ShardingRule rule = getBoxRule(
      *this, [&](int64_t i) { return getLow()[i] == 0 && getHigh()[i] == 0; });
  rule.linear = {getValue().isZero()};
  return rule;
}

LogicalResult PadOp::partition(OpBuilder &builder, ValueRange operands,
                               const PartitionContext &context,
                               SmallVectorImpl<Value> &results) {
  // Only dims without padding are sharded.
  return partitionByCloning(*this, builder, operands, context, results);
}

//===----------------------------------------------------------------------===//
// reorder
//===----------------------------------------------------------------------===//

LogicalResult mlir::dshard::verifySequenceLayout(Operation *op,
                                                 SequenceLayout layout,
                                                 int64_t parts, int64_t size) {
  if (parts < 1)
    return op->emitOpError()
           << "has " << parts << " parts, expected at least 1";
  int64_t chunks = parts;
  if (layout == SequenceLayout::zigzag &&
      llvm::MulOverflow(parts, int64_t(2), chunks))
    return op->emitOpError() << "has too many parts: " << parts;
  if (size % chunks != 0)
    return op->emitOpError()
           << "layout " << stringifySequenceLayout(layout) << " of " << parts
           << " parts needs a sequence that " << chunks
           << " divides, its size is " << size;
  return success();
}

int64_t mlir::dshard::getNaturalPosition(SequenceLayout layout, int64_t parts,
                                         int64_t size, int64_t index) {
  int64_t share = size / parts;
  if (share == 0)
    return index;
  int64_t part = index / share, inside = index % share;
  switch (layout) {
  case SequenceLayout::contiguous:
    return index;
  case SequenceLayout::zigzag: {
    int64_t chunk = share / 2;
    return inside < chunk ? part * chunk + inside
                          : (2 * parts - 1 - part) * chunk + inside - chunk;
  }
  case SequenceLayout::striped:
    return inside * parts + part;
  }
  return index;
}

LogicalResult ReorderOp::verify() {
  RankedTensorType input = getInput().getType();
  // reorder_c2
  if (getResult().getType() != input)
    return emitOpError() << "result is " << getResult().getType()
                         << ", expected " << input;
  // reorder_c1
  int64_t dim = getDim();
  if (dim < 0 || dim >= input.getRank())
    return emitOpError() << "dim " << dim << " is not one of "
                         << input.getRank();
  return verifySequenceLayout(*this, getLayout(), getParts(),
                              input.getDimSize(dim));
}

ShardingRule ReorderOp::getShardingRule() {
  ShardingRule rule;
  TensorFactors dims;
  for (auto [i, size] : llvm::enumerate(getInput().getType().getShape()))
    dims.push_back({rule.addFactor(
        size, i == getDim() ? FactorKind::gather : FactorKind::parallel)});
  rule.operands = {dims};
  rule.results = {dims};
  rule.linear = {true};
  return rule;
}
