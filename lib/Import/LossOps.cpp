//===- LossOps.cpp - ONNX losses ------------------------------------------===//
//
// The class of each place is chosen by comparing class numbers with the label:
// scores that are sharded over classes stay so.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// -logs[n, labels[n, ...], ...], weighted and reduced; logs [N,C,...].
static Value negativeLogLikelihood(NodeImporter &n, Value logs, Value labels,
                                   Value weights) {
  std::string reduction = n.stringAttr("reduction", "mean");
  bool ignores = n.find("ignore_index");
  int64_t ignored = n.intAttr("ignore_index", -1);
  if (n.failed())
    return {};
  if (reduction != "mean" && reduction != "sum" && reduction != "none") {
    n.fail("reduction is " + quote(reduction) +
           "; none, sum or mean is needed");
    return {};
  }
  SmallVector<int64_t> shape(n.shape(logs));
  if (shape.size() < 2) {
    n.fail("the input has " + Twine(shape.size()) +
           " dims; a batch and classes are needed");
    return {};
  }
  int64_t classes = shape[1];
  shape.erase(shape.begin() + 1);
  if (n.shape(labels) != ArrayRef<int64_t>(shape) ||
      !isa<IntegerType>(n.elementOf(labels))) {
    n.fail("input 1 (target) must hold integers, one for each place of the "
           "input without its classes");
    return {};
  }
  if (weights && (n.rank(weights) != 1 || n.shape(weights)[0] != classes ||
                  n.elementOf(weights) != n.elementOf(n.input(0)))) {
    n.fail("input 2 (weight) must have one number of the input's type for "
           "each of the " +
           Twine(classes) + " classes");
    return {};
  }
  Arithmetic a(n);
  Type i64 = n.graph.builder().getI64Type();
  labels = n.cast(labels, i64);
  SmallVector<int64_t> one(shape), count(shape.size() + 1, 1);
  one.insert(one.begin() + 1, 1);
  count[1] = classes;
  Value chosen = a.equal(n.reshape(labels, one), n.iota(count, i64, 1));
  Value zero = a.number(logs, 0.0);
  auto choose = [&](Value x) {
    Value kept = n.pointwise<SelectOp>({chosen, x, zero}, n.elementOf(logs));
    return n.reduce(ReductionKind::sum, kept, 1, false);
  };
  Value loss = a.neg(choose(logs));
  Value weight;
  if (weights)
    weight = choose(n.reshape(n.cast(weights, n.elementOf(logs)), count));
  if (ignores && !n.failed()) {
    Value isIgnored = a.equal(labels, double(ignored));
    Value whole = weight ? weight : n.splat(n.typeOf(loss), 1.0);
    weight = a.select(isIgnored, a.number(whole, 0.0), whole);
    // What is ignored may be infinite.
    loss = a.select(isIgnored, a.number(loss, 0.0), loss);
  }
  if (weight)
    loss = a.mul(loss, weight);
  if (reduction == "none" || n.failed())
    return loss;
  auto all = llvm::to_vector(llvm::seq<int64_t>(0, n.rank(loss)));
  if (reduction == "sum")
    return n.reduce(ReductionKind::sum, loss, all, false);
  if (!weight)
    return n.reduce(ReductionKind::mean, loss, all, false);
  return a.div(n.reduce(ReductionKind::sum, loss, all, false),
               n.reduce(ReductionKind::sum, weight, all, false));
}

void onnx::importNegativeLogLikelihoodLoss(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value x = n.input(0);
  if (n.failed())
    return;
  if (!isa<FloatType>(n.elementOf(x)))
    return n.fail("the input must hold floating-point numbers");
  Arithmetic a(n);
  n.set(0, a.narrow(negativeLogLikelihood(n, a.wide(x), n.input(1), n.input(2)),
                    x));
}

void onnx::importSoftmaxCrossEntropyLoss(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value x = n.input(0);
  if (n.failed())
    return;
  if (n.rank(x) < 2 || !isa<FloatType>(n.elementOf(x)))
    return n.fail("the scores must be floating-point numbers with a batch and "
                  "classes");
  Arithmetic a(n);
  Value wide = a.wide(x);
  Value shifted = a.sub(wide, n.reduce(ReductionKind::max, wide, 1, true));
  Value sum = n.reduce(ReductionKind::sum, a.exp(shifted), 1, true);
  Value logs = a.sub(shifted, a.log(sum));
  n.set(0, a.narrow(negativeLogLikelihood(n, logs, n.input(1), n.input(2)), x));
  n.set(1, a.narrow(logs, x));
}
