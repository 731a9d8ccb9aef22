//===- PoolOps.cpp - ONNX pools and sums over neighbours ------------------===//

#include "Arithmetic.h"
#include "Windows.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Below every element: what a place outside of the image counts as for max.
static double lowest(Type element) {
  auto integer = dyn_cast<IntegerType>(element);
  if (!integer)
    return -std::numeric_limits<double>::infinity();
  return integer.isUnsigned() ? 0.0 : -std::ldexp(1.0, integer.getWidth() - 1);
}

/// The number of each element of x in its buffer; dims from 2 on count in
/// column-major order if `columnMajor`.
static Value elementNumbers(NodeImporter &n, Value x, bool columnMajor) {
  Type i64 = n.graph.builder().getI64Type();
  ArrayRef<int64_t> shape = n.shape(x);
  int64_t rank = shape.size(), image = 1;
  SmallVector<int64_t> strides(rank, 1);
  for (int64_t i = 2; i < rank; ++i)
    image *= shape[i];
  strides[1] = image;
  strides[0] = image * shape[1];
  int64_t stride = 1;
  for (int64_t i = 0; i < rank - 2; ++i) {
    int64_t dim = columnMajor ? 2 + i : rank - 1 - i;
    strides[dim] = stride;
    stride *= shape[dim];
  }
  Value sum;
  for (int64_t i : llvm::seq<int64_t>(0, rank)) {
    SmallVector<int64_t> line(rank, 1);
    line[i] = shape[i];
    Value part = n.iota(line, i64, i, 0, static_cast<double>(strides[i]));
    sum = sum ? n.pointwise<AddOp>({sum, part}) : part;
  }
  return n.broadcastTo(sum, shape);
}

void onnx::importMaxPool(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  bool columnMajor = n.intAttr("storage_order", 0) != 0;
  if (n.failed())
    return;
  auto windows = readWindows(n, x, readKernelShape(n, x));
  if (n.failed())
    return;
  auto dims = kernelDims(windows);
  Value open =
      openWindows(n, channelsLast(n, x), windows, lowest(n.elementOf(x)));
  n.set(0, channelsFirst(n, n.reduce(ReductionKind::max, open, dims, false)));
  if (!n.hasOutput(1))
    return;
  // The first place in a window that holds its maximum.
  Arithmetic a(n);
  double last = std::ldexp(1.0, 52);
  Value numbers = openWindows(
      n, channelsLast(n, elementNumbers(n, x, columnMajor)), windows, last);
  Value best = n.reduce(ReductionKind::max, open, dims, true);
  Value hits = a.select(a.equal(open, best), numbers, a.number(numbers, last));
  n.set(1, channelsFirst(n, n.reduce(ReductionKind::min, hits, dims, false)));
}

/// How many elements each window sees along its dim; padded ones, too, if
/// `withPads`.
static Value countElements(NodeImporter &n, const Window &w, bool withPads,
                           Type element) {
  if (n.failed())
    return {};
  SmallVector<double> counts;
  int64_t begin = withPads ? -w.low : 0,
          end = withPads ? w.size + w.high : w.size;
  for (int64_t o = 0; o < w.count; ++o) {
    int64_t count = 0;
    for (int64_t k = 0; k < w.kernel; ++k) {
      int64_t at = o * w.stride + k * w.dilation - w.low;
      count += at >= begin && at < end;
    }
    counts.push_back(static_cast<double>(count));
  }
  return n.floats(counts, element);
}

void onnx::importAveragePool(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Arithmetic a(n);
  Value x = n.input(0), wide = a.wide(x);
  bool withPads = n.intAttr("count_include_pad", 0) != 0;
  if (n.failed())
    return;
  auto windows = readWindows(n, x, readKernelShape(n, x));
  if (n.failed())
    return;
  Value sum = channelsFirst(
      n, n.reduce(ReductionKind::sum,
                  openWindows(n, channelsLast(n, wide), windows, 0),
                  kernelDims(windows), false));
  Value count;
  for (auto [i, w] : llvm::enumerate(windows)) {
    SmallVector<int64_t> line(windows.size() - i, 1);
    line[0] = w.count;
    Value part =
        n.reshape(countElements(n, w, withPads, n.elementOf(wide)), line);
    count = count ? a.mul(count, part) : part;
  }
  n.set(0, a.narrow(a.div(sum, count), x));
}

/// (sum |x|^p)^(1/p) over `dims`.
static Value powerNorm(NodeImporter &n, Value x, double p,
                       ArrayRef<int64_t> dims, bool keepDims) {
  Arithmetic a(n);
  auto power = [&](Value value, double exponent) {
    return exponent == 1.0
               ? value
               : n.pointwise<PowOp>({value, a.number(value, exponent)});
  };
  Value sum = n.reduce(ReductionKind::sum, power(a.abs(x), p), dims, keepDims);
  return power(sum, 1.0 / p);
}

/// p, a number in the oldest form and an integer since; not 0.
static double normOrder(NodeImporter &n) {
  double p = n.opset() < 2 ? n.floatAttr("p", 2.0)
                           : static_cast<double>(n.intAttr("p", 2));
  if (!n.failed() && p < 1)
    n.fail("p is " + Twine(static_cast<int64_t>(p)) + "; 1 or more is needed");
  return n.failed() ? 2.0 : p;
}

void onnx::importLpPool(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Arithmetic a(n);
  Value x = n.input(0);
  double p = normOrder(n);
  if (n.failed())
    return;
  auto windows = readWindows(n, x, readKernelShape(n, x));
  if (n.failed())
    return;
  Value open = openWindows(n, channelsLast(n, a.wide(x)), windows, 0);
  Value norm = powerNorm(n, open, p, kernelDims(windows), false);
  n.set(0, a.narrow(channelsFirst(n, norm), x));
}

/// The dims that a global pool goes over; nothing (and a failure) if there are
/// none.
static SmallVector<int64_t> imageDims(NodeImporter &n, Value x) {
  if (!n.failed() && n.rank(x) < 3)
    n.fail("the input has " + Twine(n.rank(x)) + " dims; 3 or more are needed");
  if (n.failed())
    return {};
  return llvm::to_vector(llvm::seq<int64_t>(2, n.rank(x)));
}

void onnx::importGlobalAveragePool(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  auto dims = imageDims(n, x);
  if (!n.failed())
    n.set(0, n.reduce(ReductionKind::mean, x, dims, true));
}

void onnx::importGlobalMaxPool(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  auto dims = imageDims(n, x);
  if (!n.failed())
    n.set(0, n.reduce(ReductionKind::max, x, dims, true));
}

void onnx::importGlobalLpPool(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Arithmetic a(n);
  Value x = n.input(0);
  double p = normOrder(n);
  auto dims = imageDims(n, x);
  if (!n.failed())
    n.set(0, a.narrow(powerNorm(n, a.wide(x), p, dims, true), x));
}

/// x / (bias + alpha / size * squares of `size` channels around)^beta.
void onnx::importLrn(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Arithmetic a(n);
  Value x = n.input(0);
  int64_t size = n.intAttr("size", 0);
  double alpha = n.floatAttr("alpha", 1e-4), beta = n.floatAttr("beta", 0.75),
         bias = n.floatAttr("bias", 1.0);
  if (n.failed())
    return;
  if (n.rank(x) < 2 || size < 1 || size > 65536)
    return n.fail("size is " + Twine(size) + " for an input of " +
                  Twine(n.rank(x)) + " dims");
  if (n.shape(x)[1] > largestPlaces / size)
    return n.fail("size " + Twine(size) + " around each of " +
                  Twine(n.shape(x)[1]) + " channels is more than " +
                  Twine(largestPlaces) + " places");
  Value wide = a.wide(x), squares = a.mul(wide, wide);
  SmallVector<int64_t> low(n.rank(x), 0), high(n.rank(x), 0);
  low[1] = (size - 1) / 2;
  high[1] = size - 1 - low[1];
  int64_t channels = n.shape(x)[1];
  std::vector<int64_t> places;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = 0; k < size; ++k)
      places.push_back(c + k);
  SmallVector<int64_t> split(n.shape(x));
  split.insert(split.begin() + 2, size);
  Value around = n.reshape(
      n.gather(n.pad(squares, low, high, 0), n.ints(places), 1), split);
  Value sum = n.reduce(ReductionKind::sum, around, {2}, false);
  Value base = a.add(a.mul(sum, alpha / static_cast<double>(size)), bias);
  Value scale = n.pointwise<PowOp>({base, a.number(base, beta)});
  n.set(0, a.narrow(a.div(wide, scale), x));
}
