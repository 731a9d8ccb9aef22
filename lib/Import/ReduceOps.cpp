//===- ReduceOps.cpp - ONNX reductions ------------------------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Axes are an attribute before opset 18 (13 for ReduceSum), an input since.
/// Nothing: the op reduces nothing.
static std::optional<std::vector<int64_t>> reducedAxes(NodeImporter &n,
                                                       Value x) {
  std::vector<int64_t> axes;
  bool isNoop = n.intAttr("noop_with_empty_axes", 0);
  if (auto attribute = n.intsAttr("axes"))
    axes = *attribute;
  else if (n.hasInput(1))
    axes = n.staticInts(1, "axes");
  if (axes.empty()) {
    if (isNoop)
      return std::nullopt;
    for (int64_t i : llvm::seq<int64_t>(0, n.rank(x)))
      axes.push_back(i);
  }
  return n.axes(axes, n.rank(x));
}

/// `before` and `after` work elementwise around the reduction.
static void importReduce(NodeImporter &n, ReductionKind kind,
                         llvm::function_ref<Value(Value)> before = nullptr,
                         llvm::function_ref<Value(Value)> after = nullptr) {
  if (!n.expectInputs(1, 2))
    return;
  Value x = n.input(0);
  auto axes = reducedAxes(n, x);
  bool keepDims = n.intAttr("keepdims", 1) != 0;
  if (n.failed())
    return;
  if (kind == ReductionKind::mean && !isa<FloatType>(n.elementOf(x)))
    return n.fail("the mean of integers is not supported");
  x = before ? before(x) : x;
  if (axes)
    x = n.reduce(kind, x, *axes, keepDims);
  n.set(0, after ? after(x) : x);
}

void onnx::importReduceSum(NodeImporter &n) {
  importReduce(n, ReductionKind::sum);
}
void onnx::importReduceMean(NodeImporter &n) {
  importReduce(n, ReductionKind::mean);
}
void onnx::importReduceMax(NodeImporter &n) {
  importReduce(n, ReductionKind::max);
}
void onnx::importReduceMin(NodeImporter &n) {
  importReduce(n, ReductionKind::min);
}
void onnx::importReduceProd(NodeImporter &n) {
  importReduce(n, ReductionKind::product);
}
void onnx::importReduceSumSquare(NodeImporter &n) {
  importReduce(n, ReductionKind::sum, [&](Value x) {
    return n.pointwise<MulOp>({x, x});
  });
}
void onnx::importReduceL1(NodeImporter &n) {
  importReduce(n, ReductionKind::sum,
               [&](Value x) { return n.pointwise<AbsOp>(x); });
}
/// Halves are squared as f32: their squares overflow where the norm does not.
void onnx::importReduceL2(NodeImporter &n) {
  Arithmetic a(n);
  Value x;
  importReduce(
      n, ReductionKind::sum,
      [&](Value input) {
        x = input;
        Value wide = a.wide(input);
        return a.mul(wide, wide);
      },
      [&](Value sum) { return a.narrow(a.sqrt(sum), x); });
}

void onnx::importReduceLogSum(NodeImporter &n) {
  importReduce(n, ReductionKind::sum, nullptr,
               [&](Value x) { return n.pointwise<LogOp>(x); });
}

/// max + log(sum(exp(x - max))): exp never overflows.
void onnx::importReduceLogSumExp(NodeImporter &n) {
  if (!n.expectInputs(1, 2))
    return;
  Value x = n.input(0);
  auto axes = reducedAxes(n, x);
  bool keepDims = n.intAttr("keepdims", 1) != 0;
  if (n.failed() || !axes)
    return n.set(0, x);
  if (!isa<FloatType>(n.elementOf(x)))
    return n.fail("the input must hold floating-point numbers");
  Arithmetic a(n);
  Value wide = a.wide(x);
  auto largest = [&](bool keeps) {
    Value most = n.reduce(ReductionKind::max, wide, *axes, keeps);
    // Infinities would cancel.
    Value endless =
        a.equal(a.abs(most), std::numeric_limits<double>::infinity());
    return a.select(endless, a.number(most, 0.0), most);
  };
  Value sum = n.reduce(ReductionKind::sum, a.exp(a.sub(wide, largest(true))),
                       *axes, keepDims);
  n.set(0, a.narrow(a.add(a.log(sum), largest(keepDims)), x));
}
