//===- MatMulOps.cpp - ONNX matrix products -------------------------------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// A tied head reads Transpose(weight): the product takes the weight itself.
static Value seeThroughTranspose(Value value, bool &transposed) {
  auto transpose = value ? value.getDefiningOp<TransposeOp>() : TransposeOp();
  if (!transpose || !isa<BlockArgument>(transpose.getInput()))
    return value;
  if (transpose.getPermutation() != ArrayRef<int64_t>{1, 0})
    return value;
  transposed = !transposed;
  return transpose.getInput();
}

void onnx::importMatMul(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value lhs = n.input(0), rhs = n.input(1);
  if (n.failed())
    return;
  if (n.elementOf(lhs) != n.elementOf(rhs))
    return n.fail("element types of the operands differ");
  int64_t lhsRank = n.rank(lhs), rhsRank = n.rank(rhs);
  if (lhsRank == 0 || rhsRank == 0)
    return n.fail("an operand has no dims");
  // A vector is a row on the left and a column on the right.
  if (lhsRank == 1)
    lhs = n.reshape(lhs, {1, n.shape(lhs)[0]});
  if (rhsRank == 1)
    rhs = n.reshape(rhs, {n.shape(rhs)[0], 1});
  bool transposeRhs = false;
  rhs = seeThroughTranspose(rhs, transposeRhs);
  Value result = n.matmul(lhs, rhs, false, transposeRhs);
  if (n.failed())
    return;
  SmallVector<int64_t> shape(n.shape(result));
  if (rhsRank == 1)
    shape.pop_back();
  if (lhsRank == 1)
    shape.erase(shape.end() - (rhsRank == 1 ? 1 : 2));
  n.set(0, n.reshape(result, shape));
}

void onnx::importGemm(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value a = n.input(0), b = n.input(1);
  if (n.failed())
    return;
  if (n.rank(a) != 2 || n.rank(b) != 2)
    return n.fail("operands have " + Twine(n.rank(a)) + " and " +
                  Twine(n.rank(b)) + " dims; both need 2");
  if (n.elementOf(a) != n.elementOf(b))
    return n.fail("element types of the operands differ");
  bool transposeA = n.intAttr("transA", 0) != 0,
       transposeB = n.intAttr("transB", 0) != 0;
  (void)n.intAttr("broadcast", 1); // before opset 7
  b = seeThroughTranspose(b, transposeB);
  Value result = n.matmul(a, b, transposeA, transposeB);
  auto scale = [&](Value value, double factor) {
    return factor == 1.0 || !value
               ? value
               : n.pointwise<MulOp>(
                     {value, n.scalar(n.elementOf(value), factor)});
  };
  result = scale(result, n.floatAttr("alpha", 1.0));
  double beta = n.floatAttr("beta", 1.0);
  if (n.hasInput(2) && beta != 0.0) {
    Value sum = n.pointwise<AddOp>({result, scale(n.input(2), beta)});
    if (sum && n.shape(sum) != n.shape(result))
      return n.fail("input 2 does not broadcast to the product");
    result = sum;
  }
  n.set(0, result);
}
