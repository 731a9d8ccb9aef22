//===- VjpMatMul.cpp - Gradients of matrix products -----------------------===//

#include "Vjp.h"
#include <numeric>

using namespace mlir;
using namespace mlir::dshard;

LogicalResult mlir::dshard::buildVjp(MatMulOp op, Vjp &vjp) {
  Value lhs = op.getLhs(), rhs = op.getRhs(), g = vjp.given[0];
  bool transposeLhs = op.getTransposeLhs(), transposeRhs = op.getTransposeRhs();
  DShardBuilder &make = vjp.make;
  RankedTensorType left = make.typeOf(lhs), right = make.typeOf(rhs);

  // [m,n] x [n,k], or the transpose of that: the other product of the two.
  Value leftGradient = transposeLhs ? make.matmul(rhs, g, transposeRhs, true)
                                    : make.matmul(g, rhs, false, !transposeRhs);
  vjp.wanted[0] = vjp.sumTo(leftGradient, left);

  if (right.getRank() != 2) {
    Value rightGradient = transposeRhs
                              ? make.matmul(g, lhs, true, transposeLhs)
                              : make.matmul(lhs, g, !transposeLhs, false);
    vjp.wanted[1] = vjp.sumTo(rightGradient, right);
    return success();
  }
  // A weight: contracts all leading dims, each of which may be sharded.
  if (transposeLhs) {
    SmallVector<int64_t> permutation(left.getRank());
    std::iota(permutation.begin(), permutation.end(), 0);
    std::swap(permutation[left.getRank() - 2], permutation[left.getRank() - 1]);
    lhs = make.transpose(lhs, permutation);
  }
  vjp.wanted[1] = transposeRhs
                      ? make.create<WeightGradOp>(right, g, lhs).getResult()
                      : make.create<WeightGradOp>(right, lhs, g).getResult();
  return success();
}

LogicalResult mlir::dshard::buildVjp(WeightGradOp op, Vjp &vjp) {
  Value g = vjp.given[0]; // [m,n]
  vjp.wanted[0] = vjp.make.matmul(op.getRhs(), g, false, true);
  vjp.wanted[1] = vjp.make.matmul(op.getLhs(), g);
  return success();
}

LogicalResult mlir::dshard::buildVjp(GroupedMatMulOp op, Vjp &vjp) {
  Value g = vjp.given[0], groups = op.getGroups(), offset = op.getOffset();
  bool transposed = op.getTransposeWeights();
  vjp.wanted[0] = vjp.make.create<GroupedMatMulOp>(
      op.getRows().getType(), g, op.getWeights(), groups, offset, !transposed);
  Value left = transposed ? g : op.getRows(),
        right = transposed ? op.getRows() : g;
  vjp.wanted[1] = vjp.make.create<GroupedWeightGradOp>(
      op.getWeights().getType(), left, right, groups, offset);
  return success();
}

LogicalResult mlir::dshard::buildVjp(GroupedWeightGradOp op, Vjp &vjp) {
  Value g = vjp.given[0], groups = op.getGroups(); // g [e,m,n]
  vjp.wanted[0] = vjp.make.create<GroupedMatMulOp>(
      op.getLhs().getType(), op.getRhs(), g, groups, op.getOffset(), true);
  vjp.wanted[1] = vjp.make.create<GroupedMatMulOp>(
      op.getRhs().getType(), op.getLhs(), g, groups, op.getOffset(), false);
  return success();
}
