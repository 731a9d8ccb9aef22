//===- Elementwise.cpp - Verify pointwise ops -----------------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

static Type elementTypeOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getElementType();
}

/// pointwise_c1: operands broadcast (numpy) to exactly the result's shape.
static LogicalResult verifyShapes(Operation *op) {
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  SmallVector<int64_t> needed(type.getRank(), 1);
  for (auto [n, value] : llvm::enumerate(op->getOperands())) {
    auto operand = cast<RankedTensorType>(value.getType());
    int64_t lead = type.getRank() - operand.getRank();
    if (lead < 0)
      return op->emitOpError()
             << "operand " << n << " has " << operand.getRank()
             << " dims, the result " << type.getRank();
    for (int64_t i = 0; i < operand.getRank(); ++i) {
      int64_t size = operand.getDimSize(i);
      if (size != 1 && size != type.getDimSize(lead + i))
        return op->emitOpError()
               << "operand " << n << " does not broadcast to the result: dim "
               << i << " has size " << size
               << " != " << type.getDimSize(lead + i);
      if (size != 1)
        needed[lead + i] = size;
    }
  }
  for (auto [i, size] : llvm::enumerate(type.getShape()))
    if (size != needed[i])
      return op->emitOpError() << "result dim " << i << " has size " << size
                               << ", the operands give " << needed[i];
  return success();
}

static LogicalResult verifySame(Operation *op, size_t first) {
  Type expected = elementTypeOf(op->getResult(0));
  for (size_t i = first; i < op->getNumOperands(); ++i)
    if (elementTypeOf(op->getOperand(i)) != expected)
      return op->emitOpError()
             << "operand " << i << " has element type "
             << elementTypeOf(op->getOperand(i)) << ", the result " << expected;
  return success();
}

static LogicalResult verifyBoolean(Operation *op, Value value,
                                   const Twine &what) {
  if (elementTypeOf(value).isInteger(1))
    return success();
  return op->emitOpError() << what << " has element type "
                           << elementTypeOf(value) << ", expected i1";
}

/// pointwise_c2: element types.
bool mlir::dshard::isLinearCast(RankedTensorType from, RankedTensorType to) {
  Type source = from.getElementType(), target = to.getElementType();
  if (source.isInteger(1) || target.isInteger(1))
    return false;
  return isa<FloatType>(target) ||
         (isa<IntegerType>(source) &&
          target.getIntOrFloatBitWidth() >= source.getIntOrFloatBitWidth());
}

LogicalResult mlir::dshard::verifyPointwise(Operation *op) {
  if (failed(verifyShapes(op)))
    return failure();
  if (isa<CastOp>(op))
    return success();
  Value result = op->getResult(0);
  if (isa<CompareOp>(op)) {
    if (elementTypeOf(op->getOperand(0)) != elementTypeOf(op->getOperand(1)))
      return op->emitOpError()
             << "compares " << elementTypeOf(op->getOperand(0)) << " with "
             << elementTypeOf(op->getOperand(1));
    return verifyBoolean(op, result, "result");
  }
  if (isa<SelectOp>(op)) {
    if (failed(verifyBoolean(op, op->getOperand(0), "condition")))
      return failure();
    return verifySame(op, 1);
  }
  if (isa<IsNanOp>(op)) {
    if (!isa<FloatType>(elementTypeOf(op->getOperand(0))))
      return op->emitOpError()
             << "operand has element type " << elementTypeOf(op->getOperand(0))
             << ", expected a float";
    return verifyBoolean(op, result, "result");
  }
  if (isa<BitCastOp>(op)) {
    Type from = elementTypeOf(op->getOperand(0)), to = elementTypeOf(result);
    if (from.isInteger(1) || to.isInteger(1) ||
        from.getIntOrFloatBitWidth() != to.getIntOrFloatBitWidth())
      return op->emitOpError() << "reads " << from << " as " << to
                               << "; their widths must agree, and booleans "
                                  "have none";
    return success();
  }
  if (isa<BitAndOp, BitOrOp, BitXorOp, ShiftLeftOp, ShiftRightOp>(op) &&
      (!isa<IntegerType>(elementTypeOf(result)) ||
       elementTypeOf(result).isInteger(1)))
    return op->emitOpError() << "result has element type "
                             << elementTypeOf(result) << ", expected integers";
  if (isa<NotOp, AndOp, OrOp, XorOp>(op) &&
      failed(verifyBoolean(op, result, "result")))
    return failure();
  bool needsFloat = isa<ExpOp, LogOp, SqrtOp, RsqrtOp, ReciprocalOp, SinOp,
                        CosOp, AtanOp, TanhOp, ErfOp, SigmoidOp, SiluOp,
                        FloorOp, CeilOp, RoundOp, GeluOp, SwigluOp>(op);
  if (needsFloat && !isa<FloatType>(elementTypeOf(result)))
    return op->emitOpError() << "result has element type "
                             << elementTypeOf(result) << ", expected a float";
  return verifySame(op, 0);
}
