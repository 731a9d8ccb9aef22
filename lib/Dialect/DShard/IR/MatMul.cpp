//===- MatMul.cpp - Matrix products ---------------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// Sizes and dim positions of a product, flags applied.
struct MatMulDims {
  RankedTensorType lhs, rhs, result;
  int64_t lhsM, lhsK, rhsK, rhsN;

  explicit MatMulDims(MatMulOp op)
      : lhs(op.getLhs().getType()), rhs(op.getRhs().getType()),
        result(op.getResult().getType()) {
    lhsM = lhs.getRank() - (op.getTransposeLhs() ? 1 : 2);
    lhsK = lhs.getRank() - (op.getTransposeLhs() ? 2 : 1);
    rhsK = rhs.getRank() - (op.getTransposeRhs() ? 1 : 2);
    rhsN = rhs.getRank() - (op.getTransposeRhs() ? 2 : 1);
  }
};
} // namespace

LogicalResult MatMulOp::verify() {
  // matmul_c1
  if (getLhs().getType().getRank() < 2 || getRhs().getType().getRank() < 2)
    return emitOpError() << "operands have " << getLhs().getType().getRank()
                         << " and " << getRhs().getType().getRank()
                         << " dims, expected at least 2";
  MatMulDims dims(*this);
  if (dims.lhs.getElementType() != dims.rhs.getElementType() ||
      dims.lhs.getElementType() != dims.result.getElementType())
    return emitOpError() << "element types differ: "
                         << dims.lhs.getElementType() << " x "
                         << dims.rhs.getElementType() << " -> "
                         << dims.result.getElementType();
  // matmul_c2
  if (dims.lhs.getDimSize(dims.lhsK) != dims.rhs.getDimSize(dims.rhsK))
    return emitOpError() << "contracted sizes differ: "
                         << dims.lhs.getDimSize(dims.lhsK)
                         << " != " << dims.rhs.getDimSize(dims.rhsK);
  // matmul_c3
  int64_t rank = std::max(dims.lhs.getRank(), dims.rhs.getRank());
  if (dims.result.getRank() != rank)
    return emitOpError() << "result has " << dims.result.getRank()
                         << " dims, expected " << rank;
  for (int64_t i = 0; i < rank - 2; ++i) {
    int64_t left = i - (rank - dims.lhs.getRank()),
            right = i - (rank - dims.rhs.getRank());
    int64_t a = left < 0 ? 1 : dims.lhs.getDimSize(left),
            b = right < 0 ? 1 : dims.rhs.getDimSize(right);
    if (a != b && a != 1 && b != 1)
      return emitOpError() << "batch dim " << i << " does not broadcast: " << a
                           << " != " << b;
    int64_t expected = a == 1 ? b : a;
    if (dims.result.getDimSize(i) != expected)
      return emitOpError() << "result dim " << i << " has size "
                           << dims.result.getDimSize(i) << ", expected "
                           << expected;
  }
  int64_t m = dims.lhs.getDimSize(dims.lhsM),
          n = dims.rhs.getDimSize(dims.rhsN);
  if (dims.result.getDimSize(rank - 2) != m ||
      dims.result.getDimSize(rank - 1) != n)
    return emitOpError() << "result is " << dims.result.getDimSize(rank - 2)
                         << " x " << dims.result.getDimSize(rank - 1)
                         << ", expected " << m << " x " << n;
  return success();
}

ShardingRule MatMulOp::getShardingRule() {
  MatMulDims dims(*this);
  ShardingRule rule;
  TensorFactors lhs(dims.lhs.getRank()), rhs(dims.rhs.getRank()),
      result(dims.result.getRank());
  int64_t rank = dims.result.getRank();
  for (int64_t i = 0; i < rank - 2; ++i) {
    int64_t size = dims.result.getDimSize(i);
    if (size == 1)
      continue;
    int64_t factor = rule.addFactor(size);
    result[i].push_back(factor);
    int64_t left = i - (rank - dims.lhs.getRank()),
            right = i - (rank - dims.rhs.getRank());
    if (left >= 0 && dims.lhs.getDimSize(left) == size)
      lhs[left].push_back(factor);
    if (right >= 0 && dims.rhs.getDimSize(right) == size)
      rhs[right].push_back(factor);
  }
  int64_t m = rule.addFactor(dims.lhs.getDimSize(dims.lhsM));
  int64_t n = rule.addFactor(dims.rhs.getDimSize(dims.rhsN));
  int64_t k =
      rule.addFactor(dims.lhs.getDimSize(dims.lhsK), FactorKind::reduce);
  lhs[dims.lhsM].push_back(m);
  lhs[dims.lhsK].push_back(k);
  rhs[dims.rhsK].push_back(k);
  rhs[dims.rhsN].push_back(n);
  result[rank - 2].push_back(m);
  result[rank - 1].push_back(n);
  rule.operands = {lhs, rhs};
  rule.results = {result};
  rule.linear = {true, true};
  return rule;
}

double MatMulOp::getFlops() {
  MatMulDims dims(*this);
  return 2.0 * double(dims.result.getNumElements()) *
         double(dims.lhs.getDimSize(dims.lhsK));
}

//===----------------------------------------------------------------------===//
// weight_grad
//===----------------------------------------------------------------------===//

LogicalResult WeightGradOp::verify() {
  RankedTensorType lhs = getLhs().getType(), rhs = getRhs().getType(),
                   result = getResult().getType();
  // weight_grad_c1
  if (lhs.getRank() < 2 || rhs.getRank() != lhs.getRank())
    return emitOpError() << "operands have " << lhs.getRank() << " and "
                         << rhs.getRank()
                         << " dims, expected the same number, at least 2";
  for (int64_t i = 0; i < lhs.getRank() - 1; ++i)
    if (lhs.getDimSize(i) != rhs.getDimSize(i))
      return emitOpError() << "leading dim " << i
                           << " differs: " << lhs.getDimSize(i)
                           << " != " << rhs.getDimSize(i);
  if (lhs.getElementType() != rhs.getElementType() ||
      lhs.getElementType() != result.getElementType())
    return emitOpError() << "element types differ: " << lhs.getElementType()
                         << " x " << rhs.getElementType() << " -> "
                         << result.getElementType();
  // weight_grad_c2
  SmallVector<int64_t> expected = {lhs.getShape().back(),
                                   rhs.getShape().back()};
  if (result != lhs.clone(expected))
    return emitOpError() << "result is " << result << ", expected "
                         << lhs.clone(expected);
  return success();
}

ShardingRule WeightGradOp::getShardingRule() {
  RankedTensorType lhs = getLhs().getType();
  ShardingRule rule;
  TensorFactors left;
  for (int64_t size : lhs.getShape().drop_back())
    left.push_back({rule.addFactor(size, FactorKind::reduce)});
  TensorFactors right = left;
  left.push_back({rule.addFactor(lhs.getShape().back())});
  right.push_back({rule.addFactor(getRhs().getType().getShape().back())});
  rule.operands = {left, right};
  rule.results = {{left.back(), right.back()}};
  rule.linear = {true, true};
  return rule;
}

LogicalResult WeightGradOp::partition(OpBuilder &builder, ValueRange operands,
                                      const PartitionContext &,
                                      SmallVectorImpl<Value> &results) {
  return decompose(builder, operands, results);
}

LogicalResult WeightGradOp::decompose(OpBuilder &builder, ValueRange operands,
                                      SmallVectorImpl<Value> &results) {
  // One product of the flattened operands.
  DShardBuilder make(builder, *this);
  auto flatten = [&](Value value) {
    ArrayRef<int64_t> shape = make.typeOf(value).getShape();
    int64_t rows = 1;
    for (int64_t size : shape.drop_back())
      rows *= size;
    return make.reshape(value, {rows, shape.back()});
  };
  results.push_back(make.matmul(flatten(operands[0]), flatten(operands[1]),
                                /*transposeLhs=*/true));
  return success();
}

double WeightGradOp::getFlops() {
  return 2.0 * double(getLhs().getType().getNumElements()) *
         double(getRhs().getType().getShape().back());
}
