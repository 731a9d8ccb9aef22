//===- Index.cpp - Look-ups and index grids -------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

static bool isIntegerTensor(Value value) {
  Type type = cast<RankedTensorType>(value.getType()).getElementType();
  return type.isInteger() && !type.isInteger(1);
}

LogicalResult mlir::dshard::verifyIndexScalar(Operation *op, StringRef name,
                                              Value value) {
  if (value.getType() ==
      RankedTensorType::get({}, IntegerType::get(op->getContext(), 64)))
    return success();
  return op->emitOpError() << name << " is " << value.getType()
                           << ", expected tensor<i64>";
}

/// What a shard of the indexed dim needs: indices that count from the global
/// start, and the first element that the rank holds.
static std::pair<Value, Value>
buildShardIndices(DShardBuilder &make, const PartitionContext &context,
                  Operation *op, Value indices, ArrayRef<AxisRefAttr> axes,
                  int64_t global, int64_t local) {
  Value rank = context.buildRankIndex(make.builder, op, axes);
  Value offset = make.binary<MulOp>(
      rank, make.scalar(double(local), make.builder.getI64Type()));
  // A negative index counts from the global end, which a shard cannot see.
  Value size =
      make.scalar(double(global), make.typeOf(indices).getElementType());
  Value zero = make.scalar(0, make.typeOf(indices).getElementType());
  indices = make.select(make.compare(indices, zero, ComparePredicate::lt),
                        make.binary<AddOp>(indices, size), indices);
  return {indices, offset};
}

//===----------------------------------------------------------------------===//
// gather
//===----------------------------------------------------------------------===//

LogicalResult GatherOp::verify() {
  RankedTensorType input = getInput().getType(),
                   indices = getIndices().getType();
  // gather_c1
  int64_t dim = getDim();
  if (dim < 0 || dim >= input.getRank())
    return emitOpError() << "dim " << dim << " is not one of "
                         << input.getRank();
  if (!isIntegerTensor(getIndices()))
    return emitOpError() << "indices have element type "
                         << indices.getElementType() << ", expected integers";
  SmallVector<int64_t> expected(input.getShape().take_front(dim));
  llvm::append_range(expected, indices.getShape());
  llvm::append_range(expected, input.getShape().drop_front(dim + 1));
  if (getResult().getType() != input.clone(expected))
    return emitOpError() << "result is " << getResult().getType()
                         << ", expected " << input.clone(expected);
  // gather_c2
  if (Value offset = getOffset())
    return verifyIndexScalar(*this, "offset", offset);
  return success();
}

ShardingRule GatherOp::getShardingRule() {
  RankedTensorType input = getInput().getType(),
                   indices = getIndices().getType();
  int64_t dim = getDim();
  // A rank that does not hold the row gives zeros, so partial sums join them;
  // booleans have no sum.
  bool canSum = !input.getElementType().isInteger(1);
  ShardingRule rule;
  TensorFactors operand, index, result;
  for (int64_t size : indices.getShape())
    index.push_back({rule.addFactor(size)});
  for (int64_t i = 0; i < input.getRank(); ++i) {
    int64_t size = input.getDimSize(i);
    if (i == dim) {
      operand.push_back({rule.addFactor(size, canSum ? FactorKind::reduce
                                                     : FactorKind::gather)});
      llvm::append_range(result, index);
      continue;
    }
    operand.push_back({rule.addFactor(size)});
    result.push_back(operand.back());
  }
  rule.operands = {operand, index};
  rule.linear = {true, false};
  if (getOffset()) {
    rule.operands.emplace_back();
    rule.linear.push_back(false);
  }
  rule.results = {result};
  return rule;
}

LogicalResult GatherOp::partition(OpBuilder &builder, ValueRange operands,
                                  const PartitionContext &context,
                                  SmallVectorImpl<Value> &results) {
  int64_t dim = getDim();
  int64_t global = getInput().getType().getDimSize(dim);
  int64_t local = cast<RankedTensorType>(operands[0].getType()).getDimSize(dim);
  if (local == global)
    return partitionByCloning(*this, builder, operands, context, results);
  if (getOffset())
    return emitOpError() << "has an offset, which only a local gather has";
  DShardBuilder make(builder, *this);
  auto [indices, offset] = buildShardIndices(
      make, context, *this, operands[1],
      context.operandShardings[0].getDims()[dim].getAxes(), global, local);
  results.push_back(make.create<GatherOp>(context.localResultTypes[0],
                                          operands[0], indices, offset,
                                          uint64_t(dim)));
  return success();
}

//===----------------------------------------------------------------------===//
// gather_nd
//===----------------------------------------------------------------------===//

LogicalResult GatherNdOp::verify() {
  RankedTensorType input = getInput().getType(),
                   indices = getIndices().getType();
  int64_t batch = getBatchDims();
  if (!isIntegerTensor(getIndices()))
    return emitOpError() << "indices have element type "
                         << indices.getElementType() << ", expected integers";
  if (indices.getRank() < 1)
    return emitOpError() << "indices have no dims, expected at least 1";
  if (batch < 0 || batch >= indices.getRank() || batch > input.getRank())
    return emitOpError() << batch << " batch dims, indices have "
                         << indices.getRank() << " dims, input "
                         << input.getRank();
  for (int64_t i = 0; i < batch; ++i)
    if (input.getDimSize(i) != indices.getDimSize(i))
      return emitOpError() << "batch dim " << i
                           << " differs: " << input.getDimSize(i)
                           << " != " << indices.getDimSize(i);
  // gather_nd_c1
  int64_t tuple = indices.getShape().back();
  if (tuple < 1 || tuple > input.getRank() - batch)
    return emitOpError() << "index tuples have " << tuple
                         << " entries, expected 1 to "
                         << input.getRank() - batch;
  SmallVector<int64_t> expected(indices.getShape().drop_back());
  llvm::append_range(expected, input.getShape().drop_front(batch + tuple));
  if (getResult().getType() != input.clone(expected))
    return emitOpError() << "result is " << getResult().getType()
                         << ", expected " << input.clone(expected);
  return success();
}

ShardingRule GatherNdOp::getShardingRule() {
  RankedTensorType input = getInput().getType(),
                   indices = getIndices().getType();
  int64_t batch = getBatchDims(), tuple = indices.getShape().back();
  ShardingRule rule;
  TensorFactors operand, index, result;
  for (int64_t i = 0; i + 1 < indices.getRank(); ++i)
    index.push_back({rule.addFactor(indices.getDimSize(i))});
  result = index;
  index.push_back({rule.addFactor(tuple, FactorKind::gather)});
  for (int64_t i = 0; i < input.getRank(); ++i) {
    if (i < batch) {
      operand.push_back(index[i]);
    } else if (i < batch + tuple) {
      operand.push_back(
          {rule.addFactor(input.getDimSize(i), FactorKind::gather)});
    } else {
      operand.push_back({rule.addFactor(input.getDimSize(i))});
      result.push_back(operand.back());
    }
  }
  rule.operands = {operand, index};
  rule.results = {result};
  rule.linear = {true, false};
  return rule;
}

//===----------------------------------------------------------------------===//
// scatter_add
//===----------------------------------------------------------------------===//

LogicalResult ScatterAddOp::verify() {
  RankedTensorType result = getResult().getType(),
                   indices = getIndices().getType();
  // scatter_add_c1
  int64_t dim = getDim();
  if (dim < 0 || dim >= result.getRank())
    return emitOpError() << "dim " << dim << " is not one of "
                         << result.getRank();
  if (!isIntegerTensor(getIndices()))
    return emitOpError() << "indices have element type "
                         << indices.getElementType() << ", expected integers";
  if (result.getElementType().isInteger(1))
    return emitOpError() << "booleans have no sum: the result is " << result;
  SmallVector<int64_t> expected(result.getShape().take_front(dim));
  llvm::append_range(expected, indices.getShape());
  llvm::append_range(expected, result.getShape().drop_front(dim + 1));
  if (getUpdates().getType() != result.clone(expected))
    return emitOpError() << "updates are " << getUpdates().getType()
                         << ", expected " << result.clone(expected);
  // scatter_add_c2
  if (Value offset = getOffset())
    return verifyIndexScalar(*this, "offset", offset);
  return success();
}

ShardingRule ScatterAddOp::getShardingRule() {
  RankedTensorType type = getResult().getType(),
                   indices = getIndices().getType();
  int64_t dim = getDim();
  ShardingRule rule;
  TensorFactors index, updates, result;
  for (int64_t size : indices.getShape())
    index.push_back({rule.addFactor(size, FactorKind::reduce)});
  for (int64_t i = 0; i < type.getRank(); ++i) {
    result.push_back({rule.addFactor(type.getDimSize(i))});
    if (i == dim)
      llvm::append_range(updates, index);
    else
      updates.push_back(result.back());
  }
  rule.operands = {index, updates};
  rule.linear = {false, true};
  if (getOffset()) {
    rule.operands.emplace_back();
    rule.linear.push_back(false);
  }
  rule.results = {result};
  return rule;
}

LogicalResult ScatterAddOp::partition(OpBuilder &builder, ValueRange operands,
                                      const PartitionContext &context,
                                      SmallVectorImpl<Value> &results) {
  int64_t dim = getDim();
  int64_t global = getResult().getType().getDimSize(dim);
  int64_t local = context.localResultTypes[0].getDimSize(dim);
  if (local == global)
    return partitionByCloning(*this, builder, operands, context, results);
  if (getOffset())
    return emitOpError() << "has an offset, which only a local scatter_add has";
  DShardBuilder make(builder, *this);
  auto [indices, offset] = buildShardIndices(
      make, context, *this, operands[0],
      context.resultShardings[0].getDims()[dim].getAxes(), global, local);
  results.push_back(make.create<ScatterAddOp>(context.localResultTypes[0],
                                              indices, operands[1], offset,
                                              uint64_t(dim)));
  return success();
}

//===----------------------------------------------------------------------===//
// iota
//===----------------------------------------------------------------------===//

LogicalResult IotaOp::verify() {
  // iota_c1
  int64_t dim = getDim(), rank = getResult().getType().getRank();
  if (dim < 0 || dim >= rank)
    return emitOpError() << "dim " << dim << " is not one of " << rank;
  return success();
}

ShardingRule IotaOp::getShardingRule() {
  ShardingRule rule;
  TensorFactors result;
  for (int64_t size : getResult().getType().getShape())
    result.push_back({rule.addFactor(size)});
  rule.results = {result};
  return rule;
}

LogicalResult IotaOp::partition(OpBuilder &builder, ValueRange operands,
                                const PartitionContext &context,
                                SmallVectorImpl<Value> &results) {
  int64_t dim = getDim();
  RankedTensorType local = context.localResultTypes[0];
  if (local.getDimSize(dim) == getResult().getType().getDimSize(dim))
    return partitionByCloning(*this, builder, operands, context, results);
  // Counts in i64 and converts at the end: a shard rounds as the whole does.
  DShardBuilder make(builder, *this);
  Type i64 = builder.getI64Type(), elementType = local.getElementType();
  Value rank = context.buildRankIndex(
      builder, *this, context.resultShardings[0].getDims()[dim].getAxes());
  Value offset =
      make.binary<MulOp>(rank, make.scalar(double(local.getDimSize(dim)), i64));
  Value index = make.create<IotaOp>(local.clone(i64), uint64_t(dim),
                                    llvm::APFloat(0.0), llvm::APFloat(1.0));
  Value value = make.cast(make.binary<AddOp>(index, offset), elementType);
  if (double step = getStep().convertToDouble(); step != 1)
    value = make.binary<MulOp>(value, make.scalar(step, elementType));
  if (double start = getStart().convertToDouble(); start != 0)
    value = make.binary<AddOp>(value, make.scalar(start, elementType));
  results.push_back(value);
  return success();
}
