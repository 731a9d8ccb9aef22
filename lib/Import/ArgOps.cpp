//===- ArgOps.cpp - ONNX ops that count along a dim -----------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Positions along `dim`, of a rank that broadcasts to x.
static Value positions(NodeImporter &n, Value x, int64_t dim) {
  SmallVector<int64_t> shape(n.rank(x), 1);
  shape[dim] = n.shape(x)[dim];
  return n.iota(shape, n.graph.builder().getI64Type(), dim);
}

/// Where along `dim` the largest (smallest) element is, dim kept: the first
/// such, or the last.
static Value findExtreme(NodeImporter &n, Value x, int64_t dim,
                         ReductionKind kind, bool last) {
  Arithmetic a(n);
  Value extreme = n.reduce(kind, x, dim, true);
  Value at = positions(n, x, dim);
  Value found = a.equal(x, extreme);
  if (x && isa<FloatType>(n.elementOf(x))) // a NaN is the extreme
    found = n.pointwise<OrOp>(
        {found, n.pointwise<IsNanOp>(x, n.graph.builder().getI1Type())});
  Value none = a.number(at, last ? -1.0 : double(n.shape(x)[dim]));
  Value where = n.pointwise<SelectOp>({found, at, none}, n.elementOf(at));
  return n.reduce(last ? ReductionKind::max : ReductionKind::min, where, dim,
                  true);
}

static void importArg(NodeImporter &n, ReductionKind kind) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t dim = n.axis(n.intAttr("axis", 0), n.rank(x));
  bool keepDims = n.intAttr("keepdims", 1) != 0,
       last = n.intAttr("select_last_index", 0) != 0;
  if (n.failed())
    return;
  if (n.shape(x)[dim] == 0)
    return n.fail("dim " + Twine(dim) + " has no elements to choose from");
  Value at = findExtreme(n, x, dim, kind, last);
  if (!keepDims) {
    SmallVector<int64_t> shape(n.shape(x));
    shape.erase(shape.begin() + dim);
    at = n.reshape(at, shape);
  }
  n.set(0, at);
}
void onnx::importArgMax(NodeImporter &n) { importArg(n, ReductionKind::max); }
void onnx::importArgMin(NodeImporter &n) { importArg(n, ReductionKind::min); }

/// 1 at the first largest element, else 0.
void onnx::importHardmax(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  bool flattens = n.opset() < 13;
  int64_t dim = n.axis(n.intAttr("axis", flattens ? 1 : -1), n.rank(x));
  if (n.failed())
    return;
  SmallVector<int64_t> shape(n.shape(x));
  if (flattens) {
    x = n.flatten(x, dim);
    dim = 1;
  }
  Value at = findExtreme(n, x, dim, ReductionKind::max, false);
  Arithmetic a(n);
  Value one = a.equal(positions(n, x, dim), at);
  n.set(0, n.reshape(n.cast(one, n.elementOf(x)), shape));
}

void onnx::importOneHot(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value indices = n.input(0), values = n.input(2);
  auto depth = n.knownScalar(n.input(1));
  if (n.failed())
    return;
  if (!depth)
    return n.fail("input 1 (depth) " + quote(n.proto().input(1)) +
                  " is not known at compile time");
  if (!(*depth >= 1 && *depth < 1e15))
    return n.fail("depth is " + std::to_string(*depth));
  if (n.rank(values) != 1 || n.shape(values)[0] != 2)
    return n.fail("input 2 (values) must have one dim of 2 elements");
  auto size = static_cast<int64_t>(*depth);
  int64_t dim = n.axis(n.intAttr("axis", -1), n.rank(indices) + 1);
  if (n.failed())
    return;
  Type i64 = n.graph.builder().getI64Type();
  SmallVector<int64_t> shape(n.shape(indices)), count(shape.size() + 1, 1);
  shape.insert(shape.begin() + dim, 1);
  count[dim] = size;
  Arithmetic a(n);
  Value at = n.cast(n.reshape(indices, shape), i64);
  at = a.select(a.less(at, 0.0), a.add(at, double(size)), at);
  Value hot = a.equal(at, n.iota(count, i64, dim));
  auto entry = [&](int64_t i) {
    return n.reshape(n.part(values, 0, i, 1), {});
  };
  n.set(0,
        n.pointwise<SelectOp>({hot, entry(1), entry(0)}, n.elementOf(values)));
}

void onnx::importEyeLike(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t k = n.intAttr("k", 0);
  int to = static_cast<int>(n.intAttr("dtype", 0));
  if (n.failed())
    return;
  if (n.rank(x) != 2)
    return n.fail("the input has " + Twine(n.rank(x)) + " dims; 2 are needed");
  if (std::abs(k) > (int64_t(1) << 46))
    return n.fail("k is " + Twine(k));
  Type element = to ? elementType(x.getContext(), to) : n.elementOf(x);
  if (!element)
    return n.fail("makes element type " + dataTypeName(to) +
                  ", which is not supported");
  Type i64 = n.graph.builder().getI64Type();
  Value row = n.iota({n.shape(x)[0], 1}, i64, 0, double(k)),
        column = n.iota({1, n.shape(x)[1]}, i64, 1);
  n.set(0, n.cast(n.compare(ComparePredicate::eq, row, column), element));
}

//===----------------------------------------------------------------------===//
// Running sums and products
//===----------------------------------------------------------------------===//

/// Beyond it a running sum is taken in blocks: the work is size times block.
static constexpr int64_t maxBlock = 512;

namespace {
struct Running {
  ReductionKind kind;
  bool exclusive, reverse;
};
} // namespace

/// The sum (product) up to each place along `dim`: over a copy of the dim, of
/// which everything behind the place is left out.
static Value accumulate(NodeImporter &n, Value x, int64_t dim,
                        Running running) {
  if (n.failed())
    return {};
  int64_t size = n.shape(x)[dim], rank = n.rank(x);
  Arithmetic a(n);
  double nothing = running.kind == ReductionKind::product ? 1 : 0;
  if (size > maxBlock) {
    // Blocks, and the running sum of whole blocks in front of each.
    int64_t blocks = llvm::divideCeil(size, maxBlock);
    SmallVector<int64_t> low(rank, 0), high(rank, 0), shape(n.shape(x));
    // Padding stands where nothing is counted any more.
    (running.reverse ? low : high)[dim] = blocks * maxBlock - size;
    shape[dim] = blocks * maxBlock;
    Value padded = n.build<PadOp>(
        n.type(shape, n.elementOf(x)), x,
        {n.attr("low", low), n.attr("high", high), n.attr("value", nothing)});
    SmallVector<int64_t> split(shape);
    split[dim] = maxBlock;
    split.insert(split.begin() + dim, blocks);
    Value parts = n.reshape(padded, split);
    Value inside = accumulate(n, parts, dim + 1, running);
    Value sums = n.reduce(running.kind, parts, dim + 1, false);
    Value before =
        accumulate(n, sums, dim, {running.kind, true, running.reverse});
    if (n.failed())
      return {};
    SmallVector<int64_t> kept(n.shape(before));
    kept.insert(kept.begin() + dim + 1, 1);
    before = n.reshape(before, kept);
    Value both = running.kind == ReductionKind::product ? a.mul(inside, before)
                                                        : a.add(inside, before);
    return n.part(n.reshape(both, shape), dim, low[dim], size);
  }
  SmallVector<int64_t> wide(n.shape(x)), result(rank + 1, 1),
      source(rank + 1, 1);
  wide.insert(wide.begin() + dim, 1);
  result[dim] = size;
  source[dim + 1] = size;
  Type i64 = n.graph.builder().getI64Type();
  Value to = n.iota(result, i64, dim), from = n.iota(source, i64, dim + 1);
  if (running.reverse)
    std::swap(to, from);
  Value counts =
      n.compare(running.exclusive ? ComparePredicate::lt : ComparePredicate::le,
                from, to);
  Value spread = n.reshape(x, wide);
  Value kept = n.pointwise<SelectOp>({counts, spread, a.number(x, nothing)},
                                     n.elementOf(x));
  return n.reduce(running.kind, kept, dim + 1, false);
}

static void importRunning(NodeImporter &n, ReductionKind kind) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> axis = n.staticInts(1, "axis");
  bool exclusive = n.intAttr("exclusive", 0) != 0,
       reverse = n.intAttr("reverse", 0) != 0;
  if (n.failed())
    return;
  if (axis.size() != 1)
    return n.fail("input 1 (axis) must hold one number");
  int64_t dim = n.axis(axis[0], n.rank(x));
  if (n.failed())
    return;
  Arithmetic a(n);
  Value result =
      a.narrow(accumulate(n, a.wide(x), dim, {kind, exclusive, reverse}), x);
  if (result && n.rank(x) == 1 && kind == ReductionKind::sum && !exclusive &&
      !reverse)
    n.graph.runningSums[result] = x;
  n.set(0, result);
}
void onnx::importCumSum(NodeImporter &n) {
  importRunning(n, ReductionKind::sum);
}
void onnx::importCumProd(NodeImporter &n) {
  importRunning(n, ReductionKind::product);
}

/// The first lengths[b] steps of batch b backwards.
void onnx::importReverseSequence(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), lengths = n.input(1);
  int64_t time = n.intAttr("time_axis", 0), batch = n.intAttr("batch_axis", 1);
  if (n.failed())
    return;
  if (n.rank(x) < 2 || time + batch != 1 || (time != 0 && time != 1))
    return n.fail("time_axis and batch_axis must be 0 and 1, of at least 2 "
                  "dims");
  int64_t steps = n.shape(x)[time], batches = n.shape(x)[batch];
  if (n.rank(lengths) != 1 || n.shape(lengths)[0] != batches)
    return n.fail("input 1 (sequence_lens) must have one dim of " +
                  Twine(batches) + " elements");
  Type i64 = n.graph.builder().getI64Type();
  Arithmetic a(n);
  Value length = n.cast(n.reshape(lengths, {batches, 1}), i64),
        step = n.iota({1, steps}, i64, 1);
  Value at =
      a.select(a.less(step, length), a.sub(a.sub(length, 1.0), step), step);
  auto swap = llvm::to_vector(llvm::seq<int64_t>(0, n.rank(x)));
  std::swap(swap[0], swap[batch]);
  Value rows = batch == 0 ? x : n.transpose(x, swap);
  if (n.failed())
    return;
  rows = n.build<GatherNdOp>(n.typeOf(rows),
                             {rows, n.reshape(at, {batches, steps, 1})},
                             n.attr("batch_dims", int64_t(1)));
  n.set(0, batch == 0 ? rows : n.transpose(rows, swap));
}
