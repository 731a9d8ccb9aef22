//===- ScatterOps.cpp - ONNX look-ups and updates element by element ------===//
//
// An update is said from the result's side, so that every element is computed
// once and any dim but the updated one can be sharded: element a takes the last
// update k with index[k] == a, or combines all such updates.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

namespace {
enum class Update { replace, add, multiply, max, min };
} // namespace

static bool expectIndices(NodeImporter &n, Value indices) {
  if (!n.failed() && !isa<IntegerType>(n.elementOf(indices)))
    n.fail("indices must be integers");
  return !n.failed();
}

/// Every index is compared with every place: fine for experts and tokens, not
/// for whole images.
static bool expectComparisons(NodeImporter &n, int64_t indices,
                              int64_t places) {
  static constexpr int64_t limit = int64_t(1) << 30;
  if (!n.failed() && places > 0 && indices > limit / places)
    n.fail(Twine(indices) + " indices times " + Twine(places) +
           " places are more comparisons than the " + Twine(limit) +
           " that are supported");
  return !n.failed();
}

static std::optional<Update> readUpdate(NodeImporter &n) {
  std::string name = n.stringAttr("reduction", "none");
  if (name == "none")
    return Update::replace;
  if (name == "add")
    return Update::add;
  if (name == "mul")
    return Update::multiply;
  if (name == "max")
    return Update::max;
  if (name == "min")
    return Update::min;
  n.fail("reduction " + quote(name) + " is not supported");
  return std::nullopt;
}

/// The permutation that swaps `dim` with the last of `rank` dims.
static SmallVector<int64_t> swapLast(int64_t rank, int64_t dim) {
  SmallVector<int64_t> order(llvm::to_vector(llvm::seq<int64_t>(0, rank)));
  std::swap(order[dim], order[rank - 1]);
  return order;
}

/// x [L..., A] at indices [L..., K] of its last dim.
static Value takeAlongLast(NodeImporter &n, Value x, Value indices) {
  if (n.failed())
    return {};
  SmallVector<int64_t> shape(n.shape(indices)), tuples = shape;
  tuples.push_back(1);
  return n.build<GatherNdOp>(n.type(shape, n.elementOf(x)),
                             {x, n.reshape(indices, tuples)},
                             n.attr("batch_dims", n.rank(x) - 1));
}

/// 0, 1, 2, ... along `dim` of a rank, of i64; the other dims have size 1.
static Value count(NodeImporter &n, int64_t rank, int64_t dim, int64_t size) {
  SmallVector<int64_t> shape(rank, 1);
  shape[dim] = size;
  return n.iota(shape, n.graph.builder().getI64Type(), dim);
}

/// Indices as i64, counted from the front.
static Value fromFront(NodeImporter &n, Value indices, int64_t size) {
  Arithmetic a(n);
  indices = n.cast(indices, n.graph.builder().getI64Type());
  return a.select(a.less(indices, 0), a.add(indices, double(size)), indices);
}

static Value reshapeTo(NodeImporter &n, Value value, SmallVector<int64_t> shape,
                       size_t oneAt) {
  shape.insert(shape.begin() + oneAt, 1);
  return n.reshape(value, shape);
}

/// Combines data with all updates that `hits` says: `hits` and `updates`
/// broadcast to data with a dim `dim` of updates before the dims `dim`...; data
/// `wide` has size 1 there.
static Value combine(NodeImporter &n, Update update, Value data, Value wide,
                     Value hits, Value updates, int64_t dim) {
  Arithmetic a(n);
  auto reduced = [&](ReductionKind kind, Value none) {
    return n.reduce(kind, a.select(hits, updates, none), dim, false);
  };
  switch (update) {
  case Update::add:
    return a.add(data, reduced(ReductionKind::sum, a.number(data, 0)));
  case Update::multiply:
    return a.mul(data, reduced(ReductionKind::product, a.number(data, 1)));
  case Update::max:
    return a.max(data, reduced(ReductionKind::max, wide));
  case Update::min:
    return a.min(data, reduced(ReductionKind::min, wide));
  case Update::replace:
    break;
  }
  return {};
}

void onnx::importGatherElements(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), indices = n.input(1);
  int64_t axis = n.axis(n.intAttr("axis", 0), n.rank(x));
  if (!expectIndices(n, indices))
    return;
  if (n.rank(indices) != n.rank(x))
    return n.fail("input and indices have " + Twine(n.rank(x)) + " and " +
                  Twine(n.rank(indices)) + " dims; the same number is needed");
  for (int64_t i : llvm::seq<int64_t>(0, n.rank(x))) {
    int64_t size = n.shape(indices)[i];
    if (i == axis || n.failed())
      continue;
    if (size > n.shape(x)[i])
      return n.fail("dim " + Twine(i) + " of the indices is " + Twine(size) +
                    ", of the input it is " + Twine(n.shape(x)[i]));
    x = n.part(x, i, 0, size);
  }
  if (n.failed())
    return;
  SmallVector<int64_t> order = swapLast(n.rank(x), axis);
  Value result =
      takeAlongLast(n, n.transpose(x, order), n.transpose(indices, order));
  n.set(0, n.transpose(result, order));
}

void onnx::importScatterElements(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value data = n.input(0), indices = n.input(1), updates = n.input(2);
  int64_t axis = n.axis(n.intAttr("axis", 0), n.rank(data));
  std::optional<Update> update = readUpdate(n);
  if (!expectIndices(n, indices))
    return;
  if (n.rank(indices) != n.rank(data) || n.shape(indices) != n.shape(updates))
    return n.fail("indices and updates need one shape, with as many dims as "
                  "the data");
  if (n.elementOf(updates) != n.elementOf(data))
    return n.fail("element types of data and updates differ");
  if (n.typeOf(indices).getNumElements() == 0)
    return n.set(0, data);
  int64_t size = n.shape(data)[axis], rank = n.rank(data);
  indices = fromFront(n, indices, size);
  // What the indices do not reach gets updates that hit nothing.
  SmallVector<int64_t> low(rank, 0), high(rank, 0);
  for (int64_t i : llvm::seq<int64_t>(0, rank)) {
    high[i] = i == axis ? 0 : n.shape(data)[i] - n.shape(indices)[i];
    if (high[i] < 0)
      return n.fail("dim " + Twine(i) +
                    " of the indices is larger than that "
                    "of the data");
  }
  if (llvm::any_of(high, [](int64_t pad) { return pad > 0; })) {
    indices = n.pad(indices, low, high, double(size));
    updates = n.pad(updates, low, high, 0);
  }
  if (n.failed())
    return;
  SmallVector<int64_t> order = swapLast(rank, axis);
  data = n.transpose(data, order);
  indices = n.transpose(indices, order);
  updates = n.transpose(updates, order);
  if (n.failed())
    return;
  if (!expectComparisons(n, n.typeOf(indices).getNumElements(), size))
    return;
  // Hits [L..., A, K].
  Arithmetic a(n);
  SmallVector<int64_t> shape(n.shape(data)), few(n.shape(indices));
  int64_t updatesCount = few.back();
  Value hits = a.equal(reshapeTo(n, indices, few, rank - 1),
                       count(n, rank + 1, rank - 1, size));
  Value result;
  if (*update == Update::replace) {
    Value which = count(n, rank + 1, rank, updatesCount);
    Value last =
        n.reduce(ReductionKind::max, a.select(hits, which, a.number(which, -1)),
                 rank, false);
    Value taken = takeAlongLast(n, updates, a.max(last, 0.0));
    result = a.select(a.less(last, 0), data, taken);
  } else {
    result = combine(n, *update, data, reshapeTo(n, data, shape, rank), hits,
                     reshapeTo(n, updates, few, rank - 1), rank);
  }
  result = n.transpose(result, order);
  if (!n.failed() && rank == 1 && *update == Update::add &&
      isAll(n, n.input(0), 0) && isAll(n, n.input(2), 1))
    n.graph.histograms[result] = n.input(1);
  n.set(0, result);
}

void onnx::importScatterNd(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value data = n.input(0), indices = n.input(1), updates = n.input(2);
  std::optional<Update> update = readUpdate(n);
  if (!expectIndices(n, indices))
    return;
  if (n.rank(indices) == 0 || n.rank(data) == 0)
    return n.fail("data and indices need dims");
  int64_t depth = n.shape(indices).back(), rank = n.rank(data);
  if (depth < 1 || depth > rank)
    return n.fail("index tuples of " + Twine(depth) +
                  " numbers do not suit data with " + Twine(rank) + " dims");
  SmallVector<int64_t> expected(n.shape(indices).drop_back());
  llvm::append_range(expected, n.shape(data).drop_front(depth));
  if (n.shape(updates) != ArrayRef(expected) ||
      n.elementOf(updates) != n.elementOf(data))
    return n.fail("updates do not have the shape and type that data and "
                  "indices ask for");
  if (n.typeOf(updates).getNumElements() == 0)
    return n.set(0, data);
  if (*update == Update::replace && rank == 1 &&
      n.typeOf(indices).getNumElements() == n.shape(data)[0])
    if (Value places = findPlaces(n, indices, updates))
      return n.set(0, places);
  // All elements, each at its own place (what a slice assignment that covers
  // everything is traced to): nothing of the data is left.
  if (*update == Update::replace && depth == rank &&
      n.typeOf(indices).getNumElements() ==
          rank * n.typeOf(data).getNumElements())
    if (auto known = n.knownInts(indices)) {
      bool isOwn = true;
      for (size_t t = 0; isOwn && t < known->size(); t += rank) {
        int64_t row = 0;
        for (int64_t i : llvm::seq<int64_t>(0, rank))
          row = row * n.shape(data)[i] + (*known)[t + i];
        isOwn = row == int64_t(t) / rank;
      }
      if (isOwn)
        return n.set(0, n.reshape(updates, n.shape(data)));
    }
  // As rows: data [D,I], tuples [M] as row numbers, updates [M,I].
  SmallVector<int64_t> shape(n.shape(data));
  int64_t D = 1, I = 1, M = n.typeOf(indices).getNumElements() / depth;
  for (int64_t i : llvm::seq<int64_t>(0, rank))
    (i < depth ? D : I) *= shape[i];
  Arithmetic a(n);
  Value tuples = n.reshape(indices, {M, depth}), row;
  for (int64_t i : llvm::seq<int64_t>(0, depth)) {
    Value own = n.reshape(n.part(tuples, 1, i, 1), {M});
    own = fromFront(n, own, shape[i]);
    row = row ? a.add(a.mul(row, double(shape[i])), own) : own;
  }
  if (!expectComparisons(n, M, D))
    return;
  data = n.reshape(data, {D, I});
  updates = n.reshape(updates, {M, I});
  if (n.failed())
    return;
  Value hits = a.equal(n.reshape(row, {1, M}), count(n, 2, 0, D)); // [D,M]
  Value result;
  if (*update == Update::replace) {
    Value which = count(n, 2, 1, M);
    Value last = n.reduce(ReductionKind::max,
                          a.select(hits, which, a.number(which, -1)), 1, false);
    Value taken = n.gather(updates, a.max(last, 0.0), 0);
    Value isKept = a.less(n.reshape(last, {D, 1}), 0);
    result = a.select(isKept, data, taken);
  } else {
    result =
        combine(n, *update, data, n.reshape(data, {D, 1, I}),
                n.reshape(hits, {D, M, 1}), n.reshape(updates, {1, M, I}), 1);
  }
  n.set(0, n.reshape(result, shape));
}

/// The rank of every element counts those that come before it; place p takes
/// the element of rank p. Of equals the first comes first.
void onnx::importTopK(NodeImporter &n) {
  bool old = n.opset() < 10; // an attribute
  if (!n.expectInputs(old ? 1 : 2, old ? 1 : 2))
    return;
  Value x = n.input(0);
  int64_t axis = n.axis(n.intAttr("axis", -1), n.rank(x));
  std::vector<int64_t> k =
      old ? std::vector<int64_t>{n.intAttr("k", 0)} : n.staticInts(1, "k");
  bool largest = n.intAttr("largest", 1) != 0;
  n.intAttr("sorted", 1); // sorted is one of the orders that 0 allows
  if (n.failed())
    return;
  int64_t rank = n.rank(x), size = n.shape(x)[axis];
  if (k.size() != 1 || k[0] < 0 || k[0] > size)
    return n.fail("k = " + Twine(k.empty() ? 0 : k[0]) + " does not suit dim " +
                  Twine(axis) + " of size " + Twine(size));
  SmallVector<int64_t> order = swapLast(rank, axis);
  x = n.transpose(x, order);
  if (n.failed())
    return;
  Arithmetic a(n);
  Type i64 = n.graph.builder().getI64Type();
  SmallVector<int64_t> shape(n.shape(x));
  if (!expectComparisons(n, n.typeOf(x).getNumElements(), size))
    return;
  // [L..., i, j]: whether j comes before i.
  Value own = reshapeTo(n, x, shape, rank),
        other = reshapeTo(n, x, shape, rank - 1);
  Value better = n.compare(
      largest ? ComparePredicate::gt : ComparePredicate::lt, other, own);
  Value earlier = a.less(count(n, rank + 1, rank, size),
                         count(n, rank + 1, rank - 1, size));
  Value same = a.equal(other, own);
  if (isa<FloatType>(n.elementOf(x))) {
    // A NaN is larger than all numbers, so that every element has a place.
    Type i1 = n.graph.builder().getI1Type();
    Value ownNan = n.pointwise<IsNanOp>(own, i1),
          otherNan = n.pointwise<IsNanOp>(other, i1);
    Value more = largest ? otherNan : ownNan,
          less = largest ? ownNan : otherNan;
    better = n.pointwise<OrOp>(
        {better, n.pointwise<AndOp>({more, n.pointwise<NotOp>(less)})});
    same = n.pointwise<OrOp>({same, n.pointwise<AndOp>({ownNan, otherNan})});
  }
  Value tie = n.pointwise<AndOp>({same, earlier});
  Value before = n.cast(n.pointwise<OrOp>({better, tie}), i64);
  Value place = n.reduce(ReductionKind::sum, before, rank, false); // [L..., n]
  // [L..., p, i]
  Value isHere = a.equal(reshapeTo(n, place, shape, rank - 1),
                         count(n, rank + 1, rank - 1, k[0]));
  Value index = count(n, rank + 1, rank, size);
  Value taken =
      n.reduce(ReductionKind::sum, a.select(isHere, index, a.number(index, 0)),
               rank, false);
  Value sorted = n.transpose(takeAlongLast(n, x, taken), order);
  if (!n.failed() && rank == 1 && k[0] == size && !largest)
    n.graph.rowOrders.push_back({sorted, taken, place});
  n.set(0, sorted);
  n.set(1, n.transpose(taken, order));
}
