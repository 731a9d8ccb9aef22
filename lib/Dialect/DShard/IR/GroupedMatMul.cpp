//===- GroupedMatMul.cpp - Products with the matrix of each row's group ---===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

/// Integers, one for each row.
static LogicalResult verifyGroups(Operation *op, RankedTensorType rows,
                                  RankedTensorType groups) {
  Type element = groups.getElementType();
  if (!element.isInteger() || element.isInteger(1))
    return op->emitOpError()
           << "groups have element type " << element << ", expected integers";
  if (groups.getShape() != rows.getShape().drop_back())
    return op->emitOpError() << "groups are " << groups
                             << ", expected one for each row of " << rows;
  return success();
}

/// The first group that a rank's shard of `local` groups holds.
static Value buildFirstGroup(DShardBuilder &make,
                             const PartitionContext &context, Operation *op,
                             ArrayRef<AxisRefAttr> axes, int64_t local) {
  Value rank = context.buildRankIndex(make.builder, op, axes);
  return make.binary<MulOp>(
      rank, make.scalar(double(local), make.builder.getI64Type()));
}

static Type wideType(OpBuilder &builder, Type element) {
  return element.isF64() ? element : builder.getF32Type();
}

//===----------------------------------------------------------------------===//
// grouped_matmul
//===----------------------------------------------------------------------===//

LogicalResult GroupedMatMulOp::verify() {
  RankedTensorType rows = getRows().getType(), weights = getWeights().getType(),
                   result = getResult().getType();
  // grouped_matmul_c1
  if (weights.getRank() != 3)
    return emitOpError() << "weights have " << weights.getRank()
                         << " dims, expected 3";
  if (rows.getRank() < 1)
    return emitOpError() << "rows have no dims, expected at least 1";
  if (rows.getElementType() != weights.getElementType() ||
      rows.getElementType() != result.getElementType())
    return emitOpError() << "element types differ: " << rows.getElementType()
                         << " x " << weights.getElementType() << " -> "
                         << result.getElementType();
  // grouped_matmul_c2
  if (failed(verifyGroups(*this, rows, getGroups().getType())))
    return failure();
  // grouped_matmul_c3
  int64_t k = weights.getDimSize(getTransposeWeights() ? 2 : 1),
          n = weights.getDimSize(getTransposeWeights() ? 1 : 2);
  if (rows.getShape().back() != k)
    return emitOpError() << "contracted sizes differ: "
                         << rows.getShape().back() << " != " << k;
  SmallVector<int64_t> expected(rows.getShape());
  expected.back() = n;
  if (result != rows.clone(expected))
    return emitOpError() << "result is " << result << ", expected "
                         << rows.clone(expected);
  // grouped_matmul_c4
  if (Value offset = getOffset())
    return verifyIndexScalar(*this, "offset", offset);
  return success();
}

ShardingRule GroupedMatMulOp::getShardingRule() {
  RankedTensorType rows = getRows().getType(), weights = getWeights().getType();
  ShardingRule rule;
  TensorFactors left, groups;
  for (int64_t size : rows.getShape().drop_back())
    groups.push_back({rule.addFactor(size)});
  left = groups;
  TensorFactors result = groups;
  // A rank that holds some of the matrices gives zeros for the other rows.
  int64_t e = rule.addFactor(weights.getDimSize(0), FactorKind::reduce);
  int64_t k = rule.addFactor(rows.getShape().back(), FactorKind::reduce);
  int64_t n = rule.addFactor(getResult().getType().getShape().back());
  left.push_back({k});
  result.push_back({n});
  if (getTransposeWeights())
    std::swap(k, n);
  rule.operands = {left, {{e}, {k}, {n}}, groups};
  rule.linear = {true, true, false};
  if (getOffset()) {
    rule.operands.emplace_back();
    rule.linear.push_back(false);
  }
  rule.results = {result};
  return rule;
}

LogicalResult GroupedMatMulOp::partition(OpBuilder &builder,
                                         ValueRange operands,
                                         const PartitionContext &context,
                                         SmallVectorImpl<Value> &results) {
  int64_t local = cast<RankedTensorType>(operands[1].getType()).getDimSize(0);
  if (local == getWeights().getType().getDimSize(0))
    return partitionByCloning(*this, builder, operands, context, results);
  if (getOffset())
    return emitOpError()
           << "has an offset, which only a local grouped_matmul has";
  DShardBuilder make(builder, *this);
  Value first = buildFirstGroup(
      make, context, *this, context.operandShardings[1].getDims()[0].getAxes(),
      local);
  results.push_back(make.create<GroupedMatMulOp>(
      context.localResultTypes[0], operands[0], operands[1], operands[2], first,
      getTransposeWeights()));
  return success();
}

LogicalResult GroupedMatMulOp::decompose(OpBuilder &builder,
                                         ValueRange operands,
                                         SmallVectorImpl<Value> &results) {
  // The matrix of every row, which a kernel need not store.
  DShardBuilder make(builder, *this);
  Value rows = operands[0], weights = operands[1], groups = operands[2];
  Value offset = operands.size() > 3 ? operands[3] : Value();
  Type element = make.typeOf(rows).getElementType(),
       wide = wideType(builder, element);
  SmallVector<int64_t> taken(make.typeOf(groups).getShape());
  int64_t rank = taken.size();
  llvm::append_range(taken, make.typeOf(weights).getShape().drop_front());
  Value matrices = make.create<GatherOp>(make.typeOf(weights).clone(taken),
                                         weights, groups, offset, uint64_t(0));
  SmallVector<int64_t> spread(make.typeOf(rows).getShape());
  bool transposed = getTransposeWeights();
  spread.insert(transposed ? spread.end() - 1 : spread.end(), 1);
  Value products = make.binary<MulOp>(
      make.cast(matrices, wide), make.cast(make.reshape(rows, spread), wide));
  Value sum = make.reduce(products, ReductionKind::sum,
                          {transposed ? rank + 1 : rank}, /*keepDims=*/false);
  results.push_back(make.cast(sum, element));
  return success();
}

double GroupedMatMulOp::getFlops() {
  return 2.0 * double(getResult().getType().getNumElements()) *
         double(getRows().getType().getShape().back());
}

double GroupedMatMulOp::getBytes() {
  // No more matrices are read than there are rows.
  RankedTensorType weights = getWeights().getType();
  double width = weights.getElementTypeBitWidth() / 8.0,
         rows = double(getGroups().getType().getNumElements());
  double used =
      std::min(rows / std::max<double>(1, weights.getDimSize(0)), 1.0);
  return width * (double(getRows().getType().getNumElements()) +
                  double(getResult().getType().getNumElements()) +
                  used * double(weights.getNumElements())) +
         rows * getGroups().getType().getElementTypeBitWidth() / 8.0;
}

//===----------------------------------------------------------------------===//
// grouped_weight_grad
//===----------------------------------------------------------------------===//

LogicalResult GroupedWeightGradOp::verify() {
  RankedTensorType lhs = getLhs().getType(), rhs = getRhs().getType(),
                   result = getResult().getType();
  // grouped_weight_grad_c1
  if (lhs.getRank() < 2 || rhs.getRank() != lhs.getRank())
    return emitOpError() << "operands have " << lhs.getRank() << " and "
                         << rhs.getRank()
                         << " dims, expected the same number, at least 2";
  if (lhs.getShape().drop_back() != rhs.getShape().drop_back())
    return emitOpError() << "leading dims differ: " << lhs << " and " << rhs;
  if (lhs.getElementType() != rhs.getElementType() ||
      lhs.getElementType() != result.getElementType())
    return emitOpError() << "element types differ: " << lhs.getElementType()
                         << " x " << rhs.getElementType() << " -> "
                         << result.getElementType();
  // grouped_weight_grad_c2
  if (failed(verifyGroups(*this, lhs, getGroups().getType())))
    return failure();
  // grouped_weight_grad_c3
  if (result.getRank() != 3 || result.getDimSize(1) != lhs.getShape().back() ||
      result.getDimSize(2) != rhs.getShape().back())
    return emitOpError() << "result is " << result << ", expected e x "
                         << lhs.getShape().back() << " x "
                         << rhs.getShape().back();
  // grouped_weight_grad_c4
  if (Value offset = getOffset())
    return verifyIndexScalar(*this, "offset", offset);
  return success();
}

ShardingRule GroupedWeightGradOp::getShardingRule() {
  RankedTensorType lhs = getLhs().getType(), result = getResult().getType();
  ShardingRule rule;
  TensorFactors left, right, groups;
  for (int64_t size : lhs.getShape().drop_back())
    groups.push_back({rule.addFactor(size, FactorKind::reduce)});
  left = right = groups;
  int64_t e = rule.addFactor(result.getDimSize(0)),
          m = rule.addFactor(result.getDimSize(1)),
          n = rule.addFactor(result.getDimSize(2));
  left.push_back({m});
  right.push_back({n});
  rule.operands = {left, right, groups};
  rule.linear = {true, true, false};
  if (getOffset()) {
    rule.operands.emplace_back();
    rule.linear.push_back(false);
  }
  rule.results = {{{e}, {m}, {n}}};
  return rule;
}

LogicalResult GroupedWeightGradOp::partition(OpBuilder &builder,
                                             ValueRange operands,
                                             const PartitionContext &context,
                                             SmallVectorImpl<Value> &results) {
  RankedTensorType type = context.localResultTypes[0];
  int64_t local = type.getDimSize(0);
  if (local == getResult().getType().getDimSize(0))
    return partitionByCloning(*this, builder, operands, context, results);
  if (getOffset())
    return emitOpError()
           << "has an offset, which only a local grouped_weight_grad has";
  DShardBuilder make(builder, *this);
  Value first =
      buildFirstGroup(make, context, *this,
                      context.resultShardings[0].getDims()[0].getAxes(), local);
  results.push_back(make.create<GroupedWeightGradOp>(
      type, operands[0], operands[1], operands[2], first));
  return success();
}

LogicalResult GroupedWeightGradOp::decompose(OpBuilder &builder,
                                             ValueRange operands,
                                             SmallVectorImpl<Value> &results) {
  // For every group a product of all rows, zeros where they are of others.
  DShardBuilder make(builder, *this);
  Value lhs = operands[0], rhs = operands[1], groups = operands[2];
  int64_t rows = make.typeOf(groups).getNumElements(),
          count = getResult().getType().getDimSize(0),
          m = make.typeOf(lhs).getShape().back(),
          n = make.typeOf(rhs).getShape().back();
  Type i64 = builder.getI64Type();
  Value own = make.cast(make.reshape(groups, {1, rows, 1}), i64);
  if (operands.size() > 3)
    own = make.binary<SubOp>(own, operands[3]);
  Value number =
      make.create<IotaOp>(RankedTensorType::get({count, 1, 1}, i64),
                          uint64_t(0), llvm::APFloat(0.0), llvm::APFloat(1.0));
  Value isMember = make.compare(own, number, ComparePredicate::eq);
  Value zero = make.scalar(0, make.typeOf(lhs).getElementType());
  Value masked = make.select(isMember, make.reshape(lhs, {1, rows, m}), zero);
  results.push_back(make.matmul(masked, make.reshape(rhs, {1, rows, n}),
                                /*transposeLhs=*/true));
  return success();
}

double GroupedWeightGradOp::getFlops() {
  return 2.0 * double(getLhs().getType().getNumElements()) *
         double(getRhs().getType().getShape().back());
}
