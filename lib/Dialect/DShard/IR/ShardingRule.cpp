//===- ShardingRule.cpp - Factor rules and what partition shares ----------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "mlir/IR/IRMapping.h"

using namespace mlir;
using namespace mlir::dshard;

int64_t ShardingRule::addFactor(int64_t size, FactorKind kind,
                                ReductionKind reduction) {
  factors.push_back({size, kind, reduction});
  return factors.size() - 1;
}

LogicalResult ShardingRule::verify(Operation *op) const {
  // rule_c1
  if (operands.size() != op->getNumOperands() ||
      results.size() != op->getNumResults())
    return op->emitOpError()
           << "sharding rule has " << operands.size() << " operands and "
           << results.size() << " results, the op " << op->getNumOperands()
           << " and " << op->getNumResults();
  if (linear.size() != operands.size())
    return op->emitOpError()
           << "sharding rule says of " << linear.size() << " operands of "
           << operands.size() << " whether it is linear in them";
  SmallVector<bool> used(factors.size(), false);
  auto verifyTensor = [&](const TensorFactors &dims, Type type,
                          const Twine &what, bool isResult) -> LogicalResult {
    auto tensor = cast<RankedTensorType>(type);
    // rule_c2
    if (static_cast<int64_t>(dims.size()) != tensor.getRank())
      return op->emitOpError()
             << "sharding rule: " << what << " has " << dims.size()
             << " dims, its type " << tensor.getRank();
    SmallVector<bool> here(factors.size(), false);
    for (auto [i, list] : llvm::enumerate(dims)) {
      int64_t product = 1;
      for (int64_t factor : list) {
        if (factor < 0 || factor >= static_cast<int64_t>(factors.size()))
          return op->emitOpError()
                 << "sharding rule: " << what << " names factor " << factor
                 << " of " << factors.size();
        // rule_c4
        if (here[factor])
          return op->emitOpError() << "sharding rule: factor " << factor
                                   << " is twice in " << what;
        here[factor] = used[factor] = true;
        // rule_c5
        if (isResult && factors[factor].kind == FactorKind::reduce)
          return op->emitOpError() << "sharding rule: reduce factor " << factor
                                   << " is in " << what;
        product *= factors[factor].size;
      }
      // rule_c6
      if (!list.empty() && product != tensor.getDimSize(i))
        return op->emitOpError() << "sharding rule: factors of dim " << i
                                 << " of " << what << " make " << product
                                 << ", its size is " << tensor.getDimSize(i);
    }
    return success();
  };
  for (auto [i, dims] : llvm::enumerate(operands))
    if (failed(verifyTensor(dims, op->getOperand(i).getType(),
                            "operand " + Twine(i), false)))
      return failure();
  for (auto [i, dims] : llvm::enumerate(results))
    if (failed(verifyTensor(dims, op->getResult(i).getType(),
                            "result " + Twine(i), true)))
      return failure();
  // rule_c3
  for (auto [i, isUsed] : llvm::enumerate(used))
    if (!isUsed)
      return op->emitOpError() << "sharding rule: factor " << i
                               << " is in no operand and no result";
  return success();
}

FailureOr<ShardingRule> mlir::dshard::getShardingRuleOf(Operation *op) {
  auto interface = dyn_cast<ShardingRuleInterface>(op);
  if (!interface)
    return op->emitOpError() << "has no sharding rule; only dshard's compute "
                                "ops can be sharded";
  ShardingRule rule = interface.getShardingRule();
  if (failed(rule.verify(op)))
    return failure();
  return rule;
}

ShardingRule mlir::dshard::getPointwiseRule(Operation *op) {
  ShardingRule rule;
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  TensorFactors result(type.getRank());
  for (auto [i, size] : llvm::enumerate(type.getShape()))
    if (size != 1)
      result[i].push_back(rule.addFactor(size));
  for (Value value : op->getOperands()) {
    auto operand = cast<RankedTensorType>(value.getType());
    TensorFactors dims(operand.getRank());
    int64_t lead = type.getRank() - operand.getRank();
    for (int64_t i = 0; i < operand.getRank(); ++i)
      if (operand.getDimSize(i) == type.getDimSize(lead + i))
        dims[i] = result[lead + i];
    rule.operands.push_back(std::move(dims));
  }
  rule.results.push_back(std::move(result));
  rule.linear.assign(op->getNumOperands(), false);
  return rule;
}

Value PartitionContext::buildRankIndex(OpBuilder &builder, Operation *like,
                                       ArrayRef<AxisRefAttr> axes) const {
  SmallVector<Attribute> used;
  for (AxisRefAttr axis : axes)
    if (mesh.getSize(axis) != 1)
      used.push_back(axis);
  DShardBuilder make(builder, like);
  if (used.empty())
    return make.scalar(0, builder.getI64Type());
  return make.create<RankIndexOp>(
      RankedTensorType::get({}, builder.getI64Type()),
      builder.getArrayAttr(used));
}

LogicalResult mlir::dshard::partitionByCloning(
    Operation *op, OpBuilder &builder, ValueRange operands,
    const PartitionContext &context, SmallVectorImpl<Value> &results) {
  IRMapping mapping;
  mapping.map(op->getOperands(), operands);
  Operation *local = builder.clone(*op, mapping);
  for (auto [result, type] :
       llvm::zip_equal(local->getResults(), context.localResultTypes))
    result.setType(type);
  // Shardings speak of global values; what they said is in the types now.
  local->removeAttr(shardingsAttrName);
  llvm::append_range(results, local->getResults());
  return success();
}

static double countBytes(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!tensor || !tensor.hasStaticShape())
    return 0;
  unsigned bits = tensor.getElementTypeBitWidth();
  return double(tensor.getNumElements()) * ((bits + 7) / 8);
}

double mlir::dshard::countResultElements(Operation *op) {
  double elements = 0;
  for (Type type : op->getResultTypes())
    if (auto tensor = dyn_cast<RankedTensorType>(type))
      if (tensor.hasStaticShape())
        elements += tensor.getNumElements();
  return elements;
}

double mlir::dshard::countOperandAndResultBytes(Operation *op) {
  double bytes = 0;
  for (Type type : op->getOperandTypes())
    bytes += countBytes(type);
  for (Type type : op->getResultTypes())
    bytes += countBytes(type);
  return bytes;
}

//===----------------------------------------------------------------------===//
// DShardBuilder
//===----------------------------------------------------------------------===//

SmallVector<int64_t> DShardBuilder::broadcastShape(ArrayRef<int64_t> lhs,
                                                   ArrayRef<int64_t> rhs) {
  if (lhs.size() < rhs.size())
    std::swap(lhs, rhs);
  SmallVector<int64_t> shape(lhs.begin(), lhs.end());
  size_t lead = lhs.size() - rhs.size();
  for (auto [i, size] : llvm::enumerate(rhs))
    if (shape[lead + i] == 1 || size > shape[lead + i])
      shape[lead + i] = size;
  return shape;
}

Value DShardBuilder::matmul(Value lhs, Value rhs, bool transposeLhs,
                            bool transposeRhs) {
  ArrayRef<int64_t> left = typeOf(lhs).getShape(),
                    right = typeOf(rhs).getShape();
  SmallVector<int64_t> shape =
      broadcastShape(left.drop_back(2), right.drop_back(2));
  shape.push_back(left[left.size() - (transposeLhs ? 1 : 2)]);
  shape.push_back(right[right.size() - (transposeRhs ? 2 : 1)]);
  return create<MatMulOp>(typeOf(lhs).clone(shape), lhs, rhs, transposeLhs,
                          transposeRhs);
}

Value DShardBuilder::scalar(double value, Type elementType) {
  return splat(value, RankedTensorType::get({}, elementType));
}

Value DShardBuilder::splat(double value, RankedTensorType type) {
  Attribute element;
  if (auto floatType = dyn_cast<FloatType>(type.getElementType()))
    element = FloatAttr::get(floatType, value);
  else
    element =
        IntegerAttr::get(type.getElementType(), static_cast<int64_t>(value));
  return ConstantOp::create(builder, loc, type,
                            DenseElementsAttr::get(type, element));
}
