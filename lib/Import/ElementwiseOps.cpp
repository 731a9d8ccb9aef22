//===- ElementwiseOps.cpp - Pointwise ONNX ops ----------------------------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

template <typename OpTy> static void importUnary(NodeImporter &n) {
  if (n.expectInputs(1, 1))
    n.set(0, n.pointwise<OpTy>(n.input(0)));
}

#define DSHARD_UNARY(name)                                                     \
  void onnx::import##name(NodeImporter &n) { importUnary<name##Op>(n); }
DSHARD_UNARY(Neg)
DSHARD_UNARY(Abs)
DSHARD_UNARY(Exp)
DSHARD_UNARY(Log)
DSHARD_UNARY(Sqrt)
DSHARD_UNARY(Reciprocal)
DSHARD_UNARY(Sin)
DSHARD_UNARY(Cos)
DSHARD_UNARY(Atan)
DSHARD_UNARY(Tanh)
DSHARD_UNARY(Erf)
DSHARD_UNARY(Sigmoid)
DSHARD_UNARY(Relu)
DSHARD_UNARY(Floor)
DSHARD_UNARY(Ceil)
DSHARD_UNARY(Round)
DSHARD_UNARY(Sign)
DSHARD_UNARY(Not)
#undef DSHARD_UNARY

void onnx::importIsNan(NodeImporter &n) {
  if (n.expectInputs(1, 1))
    n.set(0, n.pointwise<IsNanOp>(n.input(0), n.graph.builder().getI1Type()));
}

void onnx::importGelu(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  std::string form = n.stringAttr("approximate", "none");
  if (form != "none" && form != "tanh")
    return n.fail("approximate is " + quote(form) + "; none or tanh is needed");
  SmallVector<NamedAttribute> flags;
  if (form == "tanh")
    flags.push_back(n.unit("tanh_approximation"));
  n.set(0, n.pointwise<GeluOp>(n.input(0), {}, flags));
}

void onnx::importSwish(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  double alpha = n.floatAttr("alpha", 1.0);
  if (alpha == 1.0)
    return n.set(0, n.pointwise<SiluOp>(x));
  Value scaled = n.pointwise<MulOp>({x, n.scalar(n.elementOf(x), alpha)});
  n.set(0, n.pointwise<MulOp>({x, n.pointwise<SigmoidOp>(scaled)}));
}

/// Both operands of one element type.
static bool expectSameTypes(NodeImporter &n, Value lhs, Value rhs) {
  if (!lhs || !rhs)
    return false;
  if (n.elementOf(lhs) == n.elementOf(rhs))
    return true;
  std::string text;
  llvm::raw_string_ostream os(text);
  os << "element types differ: " << n.elementOf(lhs)
     << " != " << n.elementOf(rhs);
  n.fail(text);
  return false;
}

/// Before opset 7 the second operand is only broadcast if `broadcast` says so,
/// and `axis` says where its dims stand in the first's.
static Value broadcastAsOnceAgreed(NodeImporter &n, Value lhs, Value rhs) {
  if (n.failed() || n.opset() >= 7)
    return rhs;
  bool broadcast = n.intAttr("broadcast", 0) != 0;
  int64_t suffix = n.rank(lhs) - n.rank(rhs), axis = n.intAttr("axis", suffix);
  if (n.failed() || (!broadcast && n.shape(lhs) == n.shape(rhs)))
    return rhs;
  axis = axis < 0 ? axis + n.rank(lhs) : axis;
  if (!broadcast || axis < 0 || axis + n.rank(rhs) > n.rank(lhs)) {
    n.fail("the second operand does not suit the first; broadcast and axis "
           "say how in opset " +
           Twine(n.opset()));
    return {};
  }
  SmallVector<int64_t> shape(n.rank(lhs) - axis, 1);
  llvm::copy(n.shape(rhs), shape.begin());
  return n.reshape(rhs, shape);
}

template <typename OpTy> static void importBinary(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value lhs = n.input(0), rhs = n.input(1);
  rhs = broadcastAsOnceAgreed(n, lhs, rhs);
  if (expectSameTypes(n, lhs, rhs))
    n.set(0, n.pointwise<OpTy>({lhs, rhs}));
}

#define DSHARD_BINARY(name)                                                    \
  void onnx::import##name(NodeImporter &n) { importBinary<name##Op>(n); }
DSHARD_BINARY(Add)
DSHARD_BINARY(Sub)
DSHARD_BINARY(Mul)
DSHARD_BINARY(Div)
DSHARD_BINARY(And)
DSHARD_BINARY(Or)
DSHARD_BINARY(Xor)
#undef DSHARD_BINARY

void onnx::importPow(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value base = n.input(0);
  Value exponent = broadcastAsOnceAgreed(n, base, n.input(1));
  if (n.failed())
    return;
  // An integer to the power of a float is computed among floats.
  Type result = n.elementOf(base);
  bool widens =
      !isa<FloatType>(result) && isa<FloatType>(n.elementOf(exponent));
  Type element = widens ? n.elementOf(exponent) : result;
  Value power =
      n.pointwise<PowOp>({n.cast(base, element), n.cast(exponent, element)});
  n.set(0, n.cast(power, result));
}

void onnx::importMod(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value lhs = n.input(0), rhs = n.input(1);
  if (!expectSameTypes(n, lhs, rhs))
    return;
  SmallVector<NamedAttribute> flags;
  if (n.intAttr("fmod", 0))
    flags.push_back(n.unit("fmod"));
  n.set(0, n.pointwise<ModOp>({lhs, rhs}, {}, flags));
}

static void importCompare(NodeImporter &n, ComparePredicate predicate) {
  if (!n.expectInputs(2, 2))
    return;
  Value lhs = n.input(0), rhs = n.input(1);
  rhs = broadcastAsOnceAgreed(n, lhs, rhs);
  if (expectSameTypes(n, lhs, rhs))
    n.set(0, n.compare(predicate, lhs, rhs));
}
void onnx::importEqual(NodeImporter &n) {
  importCompare(n, ComparePredicate::eq);
}
void onnx::importLess(NodeImporter &n) {
  importCompare(n, ComparePredicate::lt);
}
void onnx::importLessOrEqual(NodeImporter &n) {
  importCompare(n, ComparePredicate::le);
}
void onnx::importGreater(NodeImporter &n) {
  importCompare(n, ComparePredicate::gt);
}
void onnx::importGreaterOrEqual(NodeImporter &n) {
  importCompare(n, ComparePredicate::ge);
}

/// Max, Min, Sum, Mean take any number of inputs.
template <typename OpTy> static Value combine(NodeImporter &n) {
  if (!n.expectInputs(1, INT32_MAX))
    return {};
  Value result = n.input(0);
  for (int i = 1; i < n.numInputs(); ++i) {
    Value next = n.input(i);
    if (!expectSameTypes(n, result, next))
      return {};
    result = n.pointwise<OpTy>({result, next});
  }
  return result;
}
void onnx::importMax(NodeImporter &n) { n.set(0, combine<MaxOp>(n)); }
void onnx::importMin(NodeImporter &n) { n.set(0, combine<MinOp>(n)); }
void onnx::importSum(NodeImporter &n) { n.set(0, combine<AddOp>(n)); }
void onnx::importMean(NodeImporter &n) {
  Value sum = combine<AddOp>(n);
  n.set(0, n.numInputs() == 1
               ? sum
               : n.pointwise<MulOp>(
                     {sum, n.scalar(n.elementOf(sum), 1.0 / n.numInputs())}));
}

void onnx::importWhere(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value condition = n.input(0), yes = n.input(1), no = n.input(2);
  if (condition && !n.elementOf(condition).isInteger(1))
    return n.fail("the condition must be boolean");
  if (expectSameTypes(n, yes, no))
    n.set(0, n.pointwise<SelectOp>({condition, yes, no}, n.elementOf(yes)));
}

void onnx::importClip(NodeImporter &n) {
  if (!n.expectInputs(1, 3))
    return;
  Value x = n.input(0);
  if (n.opset() < 11) { // attributes
    for (StringRef name : {"min", "max"}) {
      if (!n.find(name))
        continue;
      Value bound = n.scalar(n.elementOf(x), n.floatAttr(name, 0));
      x = name == "min" ? n.pointwise<MaxOp>({x, bound})
                        : n.pointwise<MinOp>({x, bound});
    }
    return n.set(0, x);
  }
  // max(x, low) first: low > high gives high, as ONNX says.
  if (n.hasInput(1))
    x = n.pointwise<MaxOp>({x, n.input(1)});
  if (n.hasInput(2))
    x = n.pointwise<MinOp>({x, n.input(2)});
  n.set(0, x);
}

void onnx::importCast(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  int64_t to = n.intAttr("to");
  if (n.failed())
    return;
  Type element =
      elementType(n.graph.builder().getContext(), static_cast<int>(to));
  if (!element)
    return n.fail("casts to element type " +
                  dataTypeName(static_cast<int>(to)) +
                  ", which is not supported");
  n.set(0, n.cast(n.input(0), element));
}

void onnx::importCastLike(NodeImporter &n) {
  if (n.expectInputs(2, 2))
    n.set(0, n.cast(n.input(0), n.elementOf(n.input(1))));
}

void onnx::importIdentity(NodeImporter &n) {
  if (n.expectInputs(1, 1))
    n.set(0, n.input(0));
}

void onnx::importDropout(NodeImporter &n) {
  if (!n.expectInputs(1, 3))
    return;
  if (n.hasInput(2)) {
    auto training = n.staticInts(2, "training_mode");
    if (n.failed())
      return;
    double ratio =
        n.hasInput(1) ? n.knownScalar(n.input(1)).value_or(0.5) : 0.5;
    if ((training.size() != 1 || training[0] != 0) && ratio != 0)
      return n.fail(
          "training mode is not supported; export the model for inference");
  }
  (void)n.intAttr("is_test", 1); // before opset 7
  Value x = n.input(0);
  n.set(0, x);
  Type mask = n.graph.builder().getI1Type();
  if (n.opset() < 10)
    mask = n.elementOf(x);
  if (n.hasOutput(1))
    n.set(1, n.splat(n.type(n.shape(x), mask), 1));
}
