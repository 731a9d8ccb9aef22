//===- OptimizerOps.cpp - ai.onnx.preview.training ------------------------===//
//
// One step of an optimizer, for any number of tensors: inputs are the learning
// rate R, the step T, and then groups of as many tensors each: values X,
// gradients G, and what the optimizer keeps.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// How many tensors each of the `groups` has; 0 after a failure.
static int countTensors(NodeImporter &n, int groups) {
  int tensors = n.numInputs() - 2;
  if (tensors < groups || tensors % groups) {
    n.fail("has " + Twine(n.numInputs()) + " inputs; 2 and a multiple of " +
           Twine(groups) + " are needed");
    return 0;
  }
  if (!n.expectInputs(n.numInputs(), n.numInputs()))
    return 0;
  for (int i = 0; i < n.numInputs(); ++i)
    if (!n.input(i))
      return 0;
  for (int i = 2; i < n.numInputs(); ++i)
    if (n.typeOf(n.input(i)) !=
        n.typeOf(n.input(2 + (i - 2) % (tensors / groups)))) {
      n.fail("input " + Twine(i) +
             " has another type than the value it is for");
      return 0;
    }
  for (int i : {0, 1})
    if (n.typeOf(n.input(i)).getNumElements() != 1) {
      n.fail("input " + Twine(i) + " must hold one number");
      return 0;
    }
  return tensors / groups;
}

namespace {
/// Input i of R and T as a number of the type of x.
struct Scalars {
  NodeImporter &n;
  Value get(int i, Value x) {
    return n.cast(n.reshape(n.input(i), {}), n.elementOf(x));
  }
};
} // namespace

void onnx::importMomentum(NodeImporter &n) {
  int count = countTensors(n, 3);
  double alpha = n.floatAttr("alpha", 0), beta = n.floatAttr("beta", 0),
         decay = n.floatAttr("norm_coefficient", 0);
  std::string mode = n.stringAttr("mode", "");
  if (!n.failed() && mode != "standard" && mode != "nesterov")
    return n.fail("mode is " + quote(mode) +
                  "; standard or nesterov is needed");
  Arithmetic a(n);
  Scalars scalars{n};
  for (int i = 0; i < count && !n.failed(); ++i) {
    Value x = n.input(2 + i), g = n.input(2 + count + i),
          v = n.input(2 + 2 * count + i);
    Value rate = scalars.get(0, x), step = scalars.get(1, x);
    g = a.add(a.mul(x, decay), g);
    // The first step takes the whole gradient.
    Value weight =
        a.select(a.greater(step, 0.0), a.number(x, beta), a.number(x, 1.0));
    Value next = a.add(a.mul(v, alpha), a.mul(g, weight));
    Value change = mode == "nesterov" ? a.add(g, a.mul(next, alpha)) : next;
    n.set(i, a.sub(x, a.mul(change, rate)));
    n.set(count + i, next);
  }
}

void onnx::importAdagrad(NodeImporter &n) {
  int count = countTensors(n, 3);
  double decayFactor = n.floatAttr("decay_factor", 0),
         epsilon = n.floatAttr("epsilon", 1e-6),
         decay = n.floatAttr("norm_coefficient", 0);
  Arithmetic a(n);
  Scalars scalars{n};
  for (int i = 0; i < count && !n.failed(); ++i) {
    Value x = n.input(2 + i), g = n.input(2 + count + i),
          h = n.input(2 + 2 * count + i);
    Value rate = a.div(scalars.get(0, x),
                       a.add(a.mul(scalars.get(1, x), decayFactor), 1.0));
    g = a.add(a.mul(x, decay), g);
    Value next = a.add(h, a.mul(g, g));
    n.set(i, a.sub(x, a.div(a.mul(g, rate), a.add(a.sqrt(next), epsilon))));
    n.set(count + i, next);
  }
}

void onnx::importAdam(NodeImporter &n) {
  int count = countTensors(n, 4);
  double alpha = n.floatAttr("alpha", 0.9), beta = n.floatAttr("beta", 0.999),
         epsilon = n.floatAttr("epsilon", 1e-6),
         decay = n.floatAttr("norm_coefficient", 0),
         decayPost = n.floatAttr("norm_coefficient_post", 0);
  Arithmetic a(n);
  Scalars scalars{n};
  for (int i = 0; i < count && !n.failed(); ++i) {
    Value x = n.input(2 + i), g = n.input(2 + count + i),
          v = n.input(2 + 2 * count + i), h = n.input(2 + 3 * count + i);
    Value rate = scalars.get(0, x), step = scalars.get(1, x);
    auto rest = [&](double base) { // 1 - base^T
      Value power = n.pointwise<PowOp>({a.number(x, base), step});
      return a.sub(a.number(x, 1.0), power);
    };
    Value started = a.greater(step, 0.0);
    Value safe = a.select(started, rest(alpha), a.number(x, 1.0));
    rate =
        a.select(started, a.div(a.mul(rate, a.sqrt(rest(beta))), safe), rate);
    g = a.add(a.mul(x, decay), g);
    Value mean = a.add(a.mul(v, alpha), a.mul(g, 1 - alpha)),
          square = a.add(a.mul(h, beta), a.mul(a.mul(g, g), 1 - beta));
    Value moved =
        a.sub(x, a.div(a.mul(mean, rate), a.add(a.sqrt(square), epsilon)));
    n.set(i, a.mul(moved, 1 - decayPost));
    n.set(count + i, mean);
    n.set(2 * count + i, square);
  }
}

//===----------------------------------------------------------------------===//
// ai.onnx.ml
//===----------------------------------------------------------------------===//

void onnx::importBinarizer(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  double threshold = n.floatAttr("threshold", 0);
  if (n.failed())
    return;
  Arithmetic a(n);
  n.set(0, n.cast(a.greater(x, threshold), n.elementOf(x)));
}

/// Columns of the last dim by number.
void onnx::importArrayFeatureExtractor(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), indices = n.input(1);
  if (n.failed())
    return;
  if (n.rank(x) < 1 || !isa<IntegerType>(n.elementOf(indices)))
    return n.fail("needs dims to choose from, and integers that choose");
  int64_t count = n.typeOf(indices).getNumElements();
  n.set(0, n.gather(x, n.reshape(indices, {count}), n.rank(x) - 1));
}
