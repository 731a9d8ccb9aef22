//===- MatMul.cpp - Matrix products ---------------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"

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
