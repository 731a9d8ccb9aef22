//===- NormOps.cpp - ONNX normalisations and softmax ----------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

static int64_t product(ArrayRef<int64_t> sizes) {
  int64_t result = 1;
  for (int64_t size : sizes)
    result *= size;
  return result;
}

/// Outputs 1 and 2: mean and inverse deviation of each row, in f32 (f64).
static void setMoments(NodeImporter &n, Value rows, ArrayRef<int64_t> outer,
                       double epsilon) {
  Arithmetic a(n);
  Value wide = a.wide(rows);
  int64_t last = n.rank(rows) - 1;
  Value mean = n.reduce(ReductionKind::mean, wide, last, true);
  Value rest = a.sub(wide, mean);
  Value variance = n.reduce(ReductionKind::mean, a.mul(rest, rest), last, true);
  SmallVector<int64_t> shape(outer);
  shape.resize(n.rank(n.input(0)), 1);
  n.set(1, n.reshape(mean, shape));
  n.set(2, n.reshape(n.pointwise<RsqrtOp>(a.add(variance, epsilon)), shape));
}

/// The dims from `axis` on become the one last dim that dshard's norms work on.
static Value importNorm(NodeImporter &n, StringRef op, bool hasBias) {
  Value x = n.input(0), weight = n.input(1);
  Value bias = hasBias && n.hasInput(2) ? n.input(2) : Value();
  int64_t axis = n.axis(n.intAttr("axis", -1), n.rank(x));
  double epsilon = n.floatAttr("epsilon", 1e-5);
  int64_t stash = n.intAttr("stash_type", pb::TensorProto::FLOAT);
  if (!n.failed() && stash != pb::TensorProto::FLOAT && !n.elementOf(x).isF64())
    n.fail("stash_type " + Twine(stash) +
           " is not supported; only 1 (float) is");
  for (int i = 1; i < n.numOutputs(); ++i)
    if (n.hasOutput(i) && (op != "layer" || i > 2))
      n.fail("output " + Twine(i) + " is not supported");
  if (n.failed())
    return {};
  SmallVector<int64_t> shape(n.shape(x));
  int64_t size = product(ArrayRef(shape).drop_front(axis));
  auto flat = [&](Value parameter, int i) {
    // Leading ones of a scale do not matter; a smaller one is broadcast.
    if (n.typeOf(parameter).getNumElements() != size) {
      if (n.rank(parameter) > static_cast<int64_t>(shape.size()) - axis) {
        n.fail("input " + Twine(i) + " has " +
               Twine(n.typeOf(parameter).getNumElements()) + " elements; " +
               Twine(size) + " are needed");
        return Value();
      }
      parameter = n.broadcastTo(parameter, ArrayRef(shape).drop_front(axis));
    }
    return n.cast(n.reshape(parameter, {size}), n.elementOf(x));
  };
  SmallVector<int64_t> rows(ArrayRef(shape).take_front(axis));
  rows.push_back(size);
  SmallVector<Value> operands = {n.reshape(x, rows), flat(weight, 1)};
  if (bias)
    operands.push_back(flat(bias, 2));
  if (n.hasOutput(1) || n.hasOutput(2))
    setMoments(n, operands[0], ArrayRef(shape).take_front(axis), epsilon);
  auto type = n.type(rows, n.elementOf(x));
  Value result =
      op == "rms"
          ? n.build<RmsNormOp>(type, operands, n.attr("epsilon", epsilon))
          : n.build<LayerNormOp>(type, operands, n.attr("epsilon", epsilon));
  return n.reshape(result, shape);
}

void onnx::importLayerNorm(NodeImporter &n) {
  if (n.expectInputs(2, 3))
    n.set(0, importNorm(n, "layer", true));
}
void onnx::importRmsNorm(NodeImporter &n) {
  if (n.expectInputs(2, 2))
    n.set(0, importNorm(n, "rms", false));
}

static Value softmax(NodeImporter &n) {
  Value x = n.input(0);
  bool old = n.opset() < 13; // over all dims from axis on
  int64_t axis = n.axis(n.intAttr("axis", old ? 1 : -1), n.rank(x));
  if (n.failed())
    return {};
  Value rows = old ? n.flatten(x, axis) : x;
  axis = old ? 1 : axis;
  return n.reshape(
      n.build<SoftmaxOp>(n.typeOf(rows), rows, n.attr("dim", axis)),
      n.shape(x));
}
void onnx::importSoftmax(NodeImporter &n) {
  if (n.expectInputs(1, 1))
    n.set(0, softmax(n));
}

/// x - max - log(sum(exp(x - max))): the log of a softmax would lose small
/// ones.
void onnx::importLogSoftmax(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value given = n.input(0);
  bool old = n.opset() < 13;
  int64_t axis = n.axis(n.intAttr("axis", old ? 1 : -1), n.rank(given));
  if (n.failed())
    return;
  Value x = old ? n.flatten(given, axis) : given;
  axis = old ? 1 : axis;
  Value shifted =
      n.pointwise<SubOp>({x, n.reduce(ReductionKind::max, x, axis, true)});
  Value sum =
      n.reduce(ReductionKind::sum, n.pointwise<ExpOp>(shifted), axis, true);
  Value result = n.pointwise<SubOp>({shifted, n.pointwise<LogOp>(sum)});
  n.set(0, n.reshape(result, n.shape(given)));
}
