//===- ChannelNormOps.cpp - ONNX normalisations over channels and batches -===//

#include "Arithmetic.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// A value of one number per channel, beside x [N,C,...].
static Value perChannel(NodeImporter &n, Value value, Value x, int i) {
  if (n.failed())
    return {};
  int64_t channels = n.shape(x)[1];
  if (n.rank(value) != 1 || n.shape(value)[0] != channels) {
    n.fail("input " + Twine(i) + " must have one dim of " + Twine(channels) +
           " elements, one for each channel");
    return {};
  }
  SmallVector<int64_t> shape(n.rank(x), 1);
  shape[1] = channels;
  return n.reshape(value, shape);
}

namespace {
/// Mean and variance over dims, which are kept.
struct Moments {
  Value mean, variance;
};
} // namespace

static Moments momentsOf(NodeImporter &n, Value x, ArrayRef<int64_t> dims) {
  Arithmetic a(n);
  Value mean = n.reduce(ReductionKind::mean, x, dims, true);
  Value rest = a.sub(x, mean);
  return {mean, n.reduce(ReductionKind::mean, a.mul(rest, rest), dims, true)};
}

static Value normalize(NodeImporter &n, Value x, Moments moments,
                       double epsilon, Value scale, Value bias) {
  Arithmetic a(n);
  Value deviation = a.sqrt(a.add(moments.variance, epsilon));
  return a.add(a.mul(a.div(a.sub(x, moments.mean), deviation), scale), bias);
}

static bool expectChannels(NodeImporter &n, Value x) {
  if (n.failed())
    return false;
  if (n.rank(x) < 2)
    n.fail("the input has " + Twine(n.rank(x)) +
           " dims; a batch and channels are needed");
  else if (!isa<FloatType>(n.elementOf(x)))
    n.fail("the input must hold floating-point numbers");
  return !n.failed();
}

void onnx::importBatchNorm(NodeImporter &n) {
  if (!n.expectInputs(5, 5))
    return;
  Value x = n.input(0);
  double epsilon = n.floatAttr("epsilon", 1e-5),
         momentum = n.floatAttr("momentum", 0.9);
  bool training = n.intAttr("training_mode", 0) != 0;
  if (n.intAttr("spatial", 1) == 0)
    return n.fail("spatial = 0 is not supported");
  if (!expectChannels(n, x))
    return;
  Arithmetic a(n);
  Value wide = a.wide(x), parameter[4];
  for (int i = 0; i < 4; ++i)
    parameter[i] =
        n.cast(perChannel(n, n.input(i + 1), x, i + 1), n.elementOf(wide));
  Moments moments = {parameter[2], parameter[3]};
  if (training) {
    auto dims = llvm::to_vector(llvm::seq<int64_t>(2, n.rank(x)));
    dims.insert(dims.begin(), 0);
    moments = momentsOf(n, wide, dims);
    Value now[] = {moments.mean, moments.variance};
    for (int i = 0; i < 2; ++i) {
      Value running =
          a.add(a.mul(parameter[i + 2], momentum), a.mul(now[i], 1 - momentum));
      if (n.hasOutput(i + 1))
        n.set(i + 1,
              a.narrow(n.reshape(running, {n.shape(x)[1]}), n.input(i + 3)));
    }
  }
  n.set(0, a.narrow(
               normalize(n, wide, moments, epsilon, parameter[0], parameter[1]),
               x));
}

void onnx::importInstanceNorm(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value x = n.input(0);
  double epsilon = n.floatAttr("epsilon", 1e-5);
  if (!expectChannels(n, x))
    return;
  if (n.rank(x) < 3)
    return n.fail("the input has no dims beside batch and channels");
  Arithmetic a(n);
  Value wide = a.wide(x);
  Value scale = n.cast(perChannel(n, n.input(1), x, 1), n.elementOf(wide)),
        bias = n.cast(perChannel(n, n.input(2), x, 2), n.elementOf(wide));
  auto dims = llvm::to_vector(llvm::seq<int64_t>(2, n.rank(x)));
  n.set(0, a.narrow(normalize(n, wide, momentsOf(n, wide, dims), epsilon, scale,
                              bias),
                    x));
}

/// Groups of channels. The scale is one number per channel since opset 21, per
/// group before.
void onnx::importGroupNorm(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value x = n.input(0);
  int64_t groups = n.intAttr("num_groups", 0),
          stash = n.intAttr("stash_type", pb::TensorProto::FLOAT);
  double epsilon = n.floatAttr("epsilon", 1e-5);
  if (!expectChannels(n, x))
    return;
  int64_t batch = n.shape(x)[0], channels = n.shape(x)[1];
  if (groups < 1 || channels % groups)
    return n.fail("num_groups " + Twine(groups) + " does not divide " +
                  Twine(channels) + " channels");
  if (stash != pb::TensorProto::FLOAT && !n.elementOf(x).isF64())
    return n.fail("stash_type " + Twine(stash) +
                  " is not supported; only 1 (float) is");
  Arithmetic a(n);
  int64_t inside = channels / groups, size = 1;
  for (int64_t extent : n.shape(x).drop_front(2))
    size *= extent;
  Value wide = n.reshape(a.wide(x), {batch, groups, inside, size});
  auto parameter = [&](int i) {
    Value value = n.input(i);
    if (n.failed())
      return Value();
    int64_t have = n.typeOf(value).getNumElements();
    if (n.rank(value) != 1 || (have != channels && have != groups)) {
      n.fail("input " + Twine(i) + " must have one dim of " + Twine(channels) +
             " elements, one for each channel");
      return Value();
    }
    value = n.cast(value, n.elementOf(wide));
    bool perGroup = have == groups && n.opset() < 21;
    if (!perGroup && have != channels) {
      n.fail("input " + Twine(i) + " has " + Twine(have) + " elements; " +
             Twine(channels) + " are needed");
      return Value();
    }
    return n.reshape(value, {1, groups, perGroup ? 1 : inside, 1});
  };
  Value scale = parameter(1), bias = parameter(2);
  Value result =
      normalize(n, wide, momentsOf(n, wide, {2, 3}), epsilon, scale, bias);
  n.set(0, a.narrow(n.reshape(result, n.shape(x)), x));
}

/// (x - mean) / (deviation + 1e-9) over `axes`.
void onnx::importMeanVarianceNorm(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  std::vector<int64_t> axes = {0, 2, 3};
  if (auto given = n.intsAttr("axes"))
    axes = *given;
  axes = n.axes(axes, n.rank(x));
  if (n.failed())
    return;
  if (!isa<FloatType>(n.elementOf(x)))
    return n.fail("the input must hold floating-point numbers");
  Arithmetic a(n);
  Value wide = a.wide(x);
  Moments moments = momentsOf(n, wide, axes);
  Value deviation = a.add(a.sqrt(moments.variance), 1e-9);
  n.set(0, a.narrow(a.div(a.sub(wide, moments.mean), deviation), x));
}

/// x over its norm along one dim; 0 where the norm is.
void onnx::importLpNorm(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t p = n.intAttr("p", 2), dim = n.axis(n.intAttr("axis", -1), n.rank(x));
  if (n.failed())
    return;
  if (p != 1 && p != 2)
    return n.fail("p is " + Twine(p) + "; 1 or 2 is needed");
  Arithmetic a(n);
  Value wide = a.wide(x);
  Value sum = n.reduce(ReductionKind::sum,
                       p == 1 ? a.abs(wide) : a.mul(wide, wide), dim, true);
  Value norm = p == 1 ? sum : a.sqrt(sum);
  Value none = a.equal(norm, 0.0);
  Value safe = a.select(none, a.number(norm, 1.0), norm);
  n.set(0, a.narrow(a.select(none, a.number(wide, 0.0), a.div(wide, safe)), x));
}
