//===- BitOps.cpp - ONNX ops on bits --------------------------------------===//

#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Integers of any width, but no booleans.
static bool isWhole(Type element) {
  return element && isa<IntegerType>(element) && !element.isInteger(1);
}

template <typename OpTy> static void importBits(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), y = n.input(1);
  if (n.failed())
    return;
  if (n.elementOf(x) != n.elementOf(y) || !isWhole(n.elementOf(x)))
    return n.fail("both inputs must hold integers of one type");
  n.set(0, n.pointwise<OpTy>({x, y}));
}
void onnx::importBitwiseAnd(NodeImporter &n) { importBits<BitAndOp>(n); }
void onnx::importBitwiseOr(NodeImporter &n) { importBits<BitOrOp>(n); }
void onnx::importBitwiseXor(NodeImporter &n) { importBits<BitXorOp>(n); }

void onnx::importBitShift(NodeImporter &n) {
  std::string direction = n.stringAttr("direction", "");
  if (direction == "LEFT")
    importBits<ShiftLeftOp>(n);
  else if (direction == "RIGHT")
    importBits<ShiftRightOp>(n);
  else
    n.fail("direction is " + quote(direction) + "; LEFT or RIGHT is needed");
}

/// All bits differ from those of -1.
void onnx::importBitwiseNot(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  if (n.failed())
    return;
  if (!isWhole(n.elementOf(x)))
    return n.fail("the input must hold integers");
  unsigned width = n.elementOf(x).getIntOrFloatBitWidth();
  Value ones = n.constant(DenseElementsAttr::get(n.type({}, n.elementOf(x)),
                                                 APInt::getAllOnes(width)));
  n.set(0, n.pointwise<BitXorOp>({x, ones}));
}

void onnx::importBitCast(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int to = static_cast<int>(n.intAttr("to", 0));
  if (n.failed())
    return;
  Type from = n.elementOf(x),
       target = elementType(n.graph.builder().getContext(), to);
  if (!target)
    return n.fail("reads bits as element type " + dataTypeName(to) +
                  ", which is not supported");
  auto bits = [](Type type) {
    return type.isInteger(1) ? 8 : type.getIntOrFloatBitWidth();
  };
  if (bits(from) != bits(target))
    return n.fail("reads elements of " + Twine(bits(from)) + " bits as " +
                  Twine(bits(target)));
  if (from == target)
    return n.set(0, x);
  // A boolean is a byte of 0 or 1.
  if (target.isInteger(1))
    return n.fail("reads bits as booleans, whose bytes are only 0 or 1; "
                  "compare with 0 instead");
  Type byte = IntegerType::get(x.getContext(), 8, IntegerType::Unsigned);
  if (from.isInteger(1))
    x = n.cast(x, byte);
  if (n.elementOf(x) != target)
    x = n.build<BitCastOp>(n.type(n.shape(x), target), x);
  n.set(0, x);
}

void onnx::importIsInf(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  bool positive = n.intAttr("detect_positive", 1) != 0,
       negative = n.intAttr("detect_negative", 1) != 0;
  if (n.failed())
    return;
  if (!isa<FloatType>(n.elementOf(x)))
    return n.fail("the input must hold floating-point numbers");
  Arithmetic a(n);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (positive && negative)
    return n.set(0, a.equal(a.abs(x), infinity));
  if (positive || negative)
    return n.set(0, a.equal(x, positive ? infinity : -infinity));
  n.set(0, n.splat(n.type(n.shape(x), n.graph.builder().getI1Type()), 0));
}
