//===- RearrangeOps.cpp - ONNX ops that deal out or choose elements -------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Checks [N,C,H,W] and the block size, which must divide `dims` or the
/// channels.
static bool expectBlocks(NodeImporter &n, Value x, int64_t &block) {
  block = n.intAttr("blocksize", 0);
  if (n.failed())
    return false;
  if (n.rank(x) != 4)
    n.fail("the input has " + Twine(n.rank(x)) + " dims; 4 are needed");
  else if (block < 1 || block > (int64_t(1) << 20))
    n.fail("blocksize is " + Twine(block));
  return !n.failed();
}

/// Whether the depth of a block varies slower than channels.
static bool isDepthFirst(NodeImporter &n) {
  std::string mode = n.stringAttr("mode", "DCR");
  if (!n.failed() && mode != "DCR" && mode != "CRD")
    n.fail("mode is " + quote(mode) + "; DCR or CRD is needed");
  return mode == "DCR";
}

void onnx::importDepthToSpace(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t block;
  bool depthFirst = isDepthFirst(n);
  if (!expectBlocks(n, x, block))
    return;
  ArrayRef<int64_t> s = n.shape(x);
  if (s[1] % (block * block))
    return n.fail(Twine(s[1]) + " channels are not divisible by blocks of " +
                  Twine(block * block));
  int64_t channels = s[1] / (block * block), batch = s[0], h = s[2], w = s[3];
  Value split, moved;
  if (depthFirst) {
    split = n.reshape(x, {batch, block, block, channels, h, w});
    moved = n.transpose(split, {0, 3, 4, 1, 5, 2});
  } else {
    split = n.reshape(x, {batch, channels, block, block, h, w});
    moved = n.transpose(split, {0, 1, 4, 2, 5, 3});
  }
  n.set(0, n.reshape(moved, {batch, channels, h * block, w * block}));
}

void onnx::importSpaceToDepth(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t block;
  bool depthFirst = isDepthFirst(n);
  if (!expectBlocks(n, x, block))
    return;
  ArrayRef<int64_t> s = n.shape(x);
  if (s[2] % block || s[3] % block)
    return n.fail("height " + Twine(s[2]) + " and width " + Twine(s[3]) +
                  " are not divisible by blocks of " + Twine(block));
  int64_t batch = s[0], channels = s[1], h = s[2] / block, w = s[3] / block;
  Value split = n.reshape(x, {batch, channels, h, block, w, block});
  Value moved = depthFirst ? n.transpose(split, {0, 3, 5, 1, 2, 4})
                           : n.transpose(split, {0, 1, 3, 5, 2, 4});
  n.set(0, n.reshape(moved, {batch, channels * block * block, h, w}));
}

/// Crops what is too long and pads with zeros what is too short, both evenly;
/// what is odd at the end.
void onnx::importCenterCropPad(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> wanted = n.staticInts(1, "shape"), axes;
  if (auto given = n.intsAttr("axes"))
    axes = *given;
  else
    for (int64_t i = 0; i < n.rank(x); ++i)
      axes.push_back(i);
  if (n.failed())
    return;
  if (axes.size() != wanted.size())
    return n.fail("has " + Twine(wanted.size()) + " sizes for " +
                  Twine(axes.size()) + " axes");
  (void)n.axes(axes, n.rank(x)); // refuses a repeated one
  SmallVector<int64_t> starts(n.rank(x), 0), sizes(n.shape(x)),
      strides(n.rank(x), 1), low(n.rank(x), 0), high(n.rank(x), 0),
      padded(n.shape(x));
  for (size_t i = 0; i < axes.size() && !n.failed(); ++i) {
    int64_t dim = n.axis(axes[i], n.rank(x)),
            size = n.failed() ? 0 : sizes[dim];
    if (n.failed())
      return;
    if (wanted[i] < 0)
      return n.fail("dim " + Twine(dim) + " cannot have size " +
                    Twine(wanted[i]));
    padded[dim] = wanted[i];
    if (wanted[i] < size) {
      starts[dim] = (size - wanted[i]) / 2;
      sizes[dim] = wanted[i];
    } else {
      low[dim] = (wanted[i] - size) / 2;
      high[dim] = wanted[i] - size - low[dim];
    }
  }
  if (n.failed())
    return;
  n.set(0, n.pad(n.slice(x, starts, sizes, strides), low, high, 0));
}

/// Keeps the places where the condition, which must be known, is true.
void onnx::importCompress(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> condition = n.staticInts(1, "condition"), kept;
  bool flat = !n.find("axis");
  int64_t dim = flat ? 0 : n.axis(n.intAttr("axis", 0), n.rank(x));
  if (n.failed())
    return;
  if (flat)
    x = n.reshape(x, {n.typeOf(x).getNumElements()});
  if (static_cast<int64_t>(condition.size()) > n.shape(x)[dim])
    return n.fail("the condition has " + Twine(condition.size()) +
                  " elements, dim " + Twine(dim) + " has " +
                  Twine(n.shape(x)[dim]));
  for (auto [i, keep] : llvm::enumerate(condition))
    if (keep)
      kept.push_back(i);
  n.set(0, n.gather(x, n.ints(kept), dim));
}

/// Of known elements: what masks and shapes are made of.
void onnx::importNonZero(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  std::vector<int64_t> elements, places;
  if (!n.failed() && isa<FloatType>(n.elementOf(x)))
    for (double element : n.staticFloats(0, "X"))
      elements.push_back(element != 0); // NaN is not zero
  else
    elements = n.staticInts(0, "X");
  if (n.failed())
    return;
  SmallVector<int64_t> strides(n.rank(x), 1);
  for (int64_t i = n.rank(x) - 2; i >= 0; --i)
    strides[i] = strides[i + 1] * n.shape(x)[i + 1];
  int64_t count = 0;
  for (int64_t element : elements)
    count += element != 0;
  for (int64_t dim = 0; dim < n.rank(x); ++dim)
    for (auto [i, element] : llvm::enumerate(elements))
      if (element)
        places.push_back(static_cast<int64_t>(i) / strides[dim] %
                         n.shape(x)[dim]);
  auto type = n.type({n.rank(x), count}, n.graph.builder().getI64Type());
  if (type)
    n.set(0, n.constant(DenseElementsAttr::get(type, ArrayRef(places))));
}

/// The number of results depends on what the elements are.
void onnx::importUnique(NodeImporter &n) {
  n.fail("the size of its result depends on the elements, which are not known "
         "at compile time");
}

/// The update's places lie in the cache from write_indices[b] on; each place
/// of the result finds out which of the two it comes from.
void onnx::importTensorScatter(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value cache = n.input(0), update = n.input(1), first = n.input(2);
  std::string mode = n.stringAttr("mode", "linear");
  int64_t axis = n.axis(n.intAttr("axis", -2), n.rank(cache));
  if (n.failed())
    return;
  if (mode != "linear" && mode != "circular")
    return n.fail("mode is " + quote(mode) + "; linear or circular is needed");
  if (axis == 0)
    return n.fail("axis 0 counts batches; another is needed");
  SmallVector<int64_t> expected(n.shape(cache));
  int64_t size = expected[axis], batch = expected[0];
  expected[axis] = n.rank(update) == n.rank(cache) ? n.shape(update)[axis] : 0;
  if (n.shape(update) != ArrayRef<int64_t>(expected) ||
      n.elementOf(update) != n.elementOf(cache) || expected[axis] < 1 ||
      expected[axis] > size)
    return n.fail("the update does not suit the cache along axis " +
                  Twine(axis));
  int64_t count = expected[axis];
  if (first && (n.rank(first) != 1 || n.shape(first)[0] != batch))
    return n.fail(
        "input 2 (write_indices) must have one number for each batch");
  Arithmetic a(n);
  Type i64 = n.graph.builder().getI64Type();
  Value start = first ? n.cast(n.reshape(first, {batch, 1}), i64)
                      : n.splat(n.type({batch, 1}, i64), 0);
  Value from = a.sub(n.iota({1, size}, i64, 1), start); // [B,size]
  if (mode == "circular")
    from = n.pointwise<ModOp>({from, a.number(from, double(size))});
  Value isNew = n.pointwise<AndOp>(
      {n.compare(ComparePredicate::ge, from, a.number(from, 0.0)),
       a.less(from, double(count))});
  Value place = a.min(a.max(from, 0.0), double(count - 1));
  auto swap = llvm::to_vector(llvm::seq<int64_t>(0, n.rank(cache)));
  std::swap(swap[1], swap[axis]);
  Value rows = n.transpose(update, swap);
  if (n.failed())
    return;
  SmallVector<int64_t> gathered(n.shape(rows)), flags(n.rank(cache), 1);
  gathered[1] = size;
  flags[0] = batch;
  flags[axis] = size;
  rows = n.build<GatherNdOp>(n.type(gathered, n.elementOf(rows)),
                             {rows, n.reshape(place, {batch, size, 1})},
                             n.attr("batch_dims", int64_t(1)));
  n.set(0, a.select(n.reshape(isNew, flags), n.transpose(rows, swap), cache));
}

//===----------------------------------------------------------------------===//
// Padding with the tensor's own elements
//===----------------------------------------------------------------------===//

/// Which place of a dim of `size` stands at `at`, counted from its start.
static int64_t padSource(StringRef mode, int64_t at, int64_t size) {
  if (mode == "edge")
    return std::clamp<int64_t>(at, 0, size - 1);
  if (mode == "wrap")
    return ((at % size) + size) % size;
  if (size == 1)
    return 0;
  // Back and forth; the ends stand once.
  int64_t period = 2 * (size - 1), place = ((at % period) + period) % period;
  return std::min(place, period - place);
}

Value onnx::padWithItself(NodeImporter &n, Value x, StringRef mode,
                          ArrayRef<int64_t> low, ArrayRef<int64_t> high) {
  for (int64_t dim = 0; dim < n.rank(x) && !n.failed(); ++dim) {
    int64_t size = n.shape(x)[dim], before = low[dim], after = high[dim];
    if (!before && !after)
      continue;
    if (size == 0) {
      n.fail("mode " + quote(mode) + " has no elements to pad dim " +
             Twine(dim) + " with");
      return {};
    }
    constexpr int64_t limit = 1 << 20;
    if (before + after > limit) {
      n.fail("pads of dim " + Twine(dim) + " are too large for mode " +
             quote(mode));
      return {};
    }
    std::vector<int64_t> sources;
    for (int64_t at = -before; at < size + after; ++at)
      sources.push_back(padSource(mode, at, size));
    x = n.gather(x, n.ints(sources), dim);
  }
  return x;
}
