//===- GridOps.cpp - ONNX GridSample and AffineGrid -----------------------===//
//
// A sample is a weighted sum of neighbours: nearest has one along each dim,
// linear 2, cubic 4. Each neighbour is a look-up of whole rows of channels by
// its index tuple, so batches and channels stay sharded.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

namespace {

/// Neighbours along one dim: how far each is from the one below, and its
/// weight.
struct Tap {
  Value index, weight, inside;
};

class Sampler {
public:
  Sampler(NodeImporter &n) : n(n), a(n) {}
  void run();

private:
  Value denormalize(Value x, int64_t size);
  Value reflect(Value x, int64_t size);
  SmallVector<Tap> tapsOf(Value x, int64_t size);
  Value cubicWeight(Value distance, int tap);

  NodeImporter &n;
  Arithmetic a;
  std::string mode, padding;
  bool corners = false;
};

/// -1 to 1 as positions: between the centres of the outer elements, or their
/// edges.
Value Sampler::denormalize(Value x, int64_t size) {
  Value up = a.add(x, 1.0);
  return corners ? a.mul(a.div(up, 2.0), double(size - 1))
                 : a.div(a.sub(a.mul(up, double(size)), 1.0), 2.0);
}

/// Back and forth between the borders.
Value Sampler::reflect(Value x, int64_t size) {
  double low = corners ? 0 : -0.5, range = corners ? size - 1 : size;
  if (range == 0)
    return a.mul(x, 0.0);
  Value far = a.abs(a.sub(x, low));
  Value turn = n.pointwise<ModOp>({far, a.number(far, 2 * range)});
  Value back = a.sub(a.number(far, 2 * range), turn);
  return a.add(a.min(turn, back), low);
}

/// Keys' cubic convolution with a = -0.75, for taps at -1, 0, 1, 2.
Value Sampler::cubicWeight(Value distance, int tap) {
  constexpr double c = -0.75;
  auto inner = [&](Value x) { // |x| <= 1
    Value y = a.sub(a.mul(x, c + 2), c + 3);
    return a.add(a.mul(a.mul(y, x), x), 1.0);
  };
  auto outer = [&](Value x) { // 1 <= |x| <= 2
    Value y = a.add(a.mul(a.sub(a.mul(x, c), 5 * c), x), 8 * c);
    return a.sub(a.mul(y, x), 4 * c);
  };
  switch (tap) {
  case 0:
    return outer(a.add(distance, 1.0));
  case 1:
    return inner(distance);
  case 2:
    return inner(a.sub(a.number(distance, 1.0), distance));
  default:
    return outer(a.sub(a.number(distance, 2.0), distance));
  }
}

SmallVector<Tap> Sampler::tapsOf(Value x, int64_t size) {
  Type i64 = n.graph.builder().getI64Type();
  // What lies outside comes back inside first.
  if (mode == "nearest")
    x = n.pointwise<RoundOp>(x);
  if (padding == "border")
    x = a.min(a.max(x, 0.0), double(size - 1));
  else if (padding == "reflection")
    x = reflect(x, size);
  SmallVector<Tap> taps;
  auto add = [&](Value place, Value weight) {
    Tap tap;
    // Neighbours of what is inside may be outside again.
    if (padding == "reflection" && mode != "nearest")
      place = reflect(place, size);
    Value index = n.cast(place, i64);
    if (padding == "zeros")
      tap.inside = n.pointwise<AndOp>(
          {n.compare(ComparePredicate::ge, index, a.number(index, 0.0)),
           a.less(index, double(size))});
    tap.index = a.min(a.max(index, 0.0), double(size - 1));
    tap.weight = weight;
    taps.push_back(tap);
  };
  if (mode == "nearest") {
    add(x, Value());
    return taps;
  }
  Value below = n.pointwise<FloorOp>(x), distance = a.sub(x, below);
  if (mode == "linear") {
    add(below, a.sub(a.number(distance, 1.0), distance));
    add(a.add(below, 1.0), distance);
    return taps;
  }
  for (int tap = 0; tap < 4; ++tap)
    add(a.add(below, double(tap - 1)), cubicWeight(distance, tap));
  return taps;
}

void Sampler::run() {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), grid = n.input(1);
  mode = n.stringAttr("mode", "linear");
  padding = n.stringAttr("padding_mode", "zeros");
  corners = n.intAttr("align_corners", 0) != 0;
  if (mode == "bilinear") // before opset 20
    mode = "linear";
  if (mode == "bicubic")
    mode = "cubic";
  if (n.failed())
    return;
  if (mode != "linear" && mode != "nearest" && mode != "cubic")
    return n.fail("mode is " + quote(mode) +
                  "; linear, nearest or cubic is needed");
  if (padding != "zeros" && padding != "border" && padding != "reflection")
    return n.fail("padding_mode is " + quote(padding) +
                  "; zeros, border or reflection is needed");
  int64_t dims = n.rank(x) - 2;
  if (dims < 1 || dims > 3 || n.rank(grid) != dims + 2 ||
      n.shape(grid)[0] != n.shape(x)[0] || n.shape(grid).back() != dims)
    return n.fail("the input must be [N,C,...] with 1 to 3 more dims, the grid "
                  "[N,...] of as many coordinates");
  if (!isa<FloatType>(n.elementOf(x)) || !isa<FloatType>(n.elementOf(grid)))
    return n.fail("both inputs must hold floating-point numbers");
  if (n.typeOf(x).getNumElements() == 0)
    return n.fail("the input has no elements to sample");
  int64_t batch = n.shape(x)[0], channels = n.shape(x)[1];
  SmallVector<int64_t> places(n.shape(grid).drop_back());
  Value wide = a.wide(grid);
  // Coordinates stand in the opposite order of dims.
  std::vector<SmallVector<Tap>> taps;
  for (int64_t d = 0; d < dims; ++d) {
    Value x01 = n.reshape(n.part(wide, dims + 1, dims - 1 - d, 1), places);
    taps.push_back(
        tapsOf(denormalize(x01, n.shape(x)[2 + d]), n.shape(x)[2 + d]));
  }
  if (n.failed())
    return;
  // [N,H,W,C], so that a tuple finds all channels.
  SmallVector<int64_t> last = {0};
  for (int64_t d = 0; d < dims; ++d)
    last.push_back(2 + d);
  last.push_back(1);
  Value rows = a.wide(n.transpose(x, last)), sum;
  SmallVector<int64_t> gathered(places), one(places);
  gathered.push_back(channels);
  one.push_back(1);
  (void)batch;
  size_t count = 1;
  for (auto &each : taps)
    count *= each.size();
  for (size_t number = 0; number < count && !n.failed(); ++number) {
    SmallVector<Value> indices;
    Value weight, inside;
    size_t rest = number;
    for (auto &each : taps) {
      const Tap &tap = each[rest % each.size()];
      rest /= each.size();
      indices.push_back(n.reshape(tap.index, one));
      if (tap.weight)
        weight = weight ? a.mul(weight, tap.weight) : tap.weight;
      if (tap.inside)
        inside = inside ? n.pointwise<AndOp>({inside, tap.inside}) : tap.inside;
    }
    Value tuples = n.concat(indices, dims + 1);
    Value term =
        n.build<GatherNdOp>(n.type(gathered, n.elementOf(rows)), {rows, tuples},
                            n.attr("batch_dims", int64_t(1)));
    if (inside)
      term = a.select(n.reshape(inside, one), term, a.number(term, 0.0));
    if (weight)
      term = a.mul(term, n.cast(n.reshape(weight, one), n.elementOf(term)));
    sum = sum ? a.add(sum, term) : term;
  }
  SmallVector<int64_t> back = {0, dims + 1};
  for (int64_t d = 0; d < dims; ++d)
    back.push_back(1 + d);
  n.set(0, n.failed() ? Value() : n.transpose(a.narrow(sum, x), back));
}
} // namespace

void onnx::importGridSample(NodeImporter &n) { Sampler(n).run(); }

/// theta times the homogeneous positions of a regular grid.
void onnx::importAffineGrid(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value theta = n.input(0);
  std::vector<int64_t> size = n.staticInts(1, "size");
  bool corners = n.intAttr("align_corners", 0) != 0;
  if (n.failed())
    return;
  int64_t dims = static_cast<int64_t>(size.size()) - 2;
  if ((dims != 2 && dims != 3) || n.rank(theta) != 3 ||
      n.shape(theta)[1] != dims || n.shape(theta)[2] != dims + 1 ||
      n.shape(theta)[0] != size[0])
    return n.fail("needs theta [N,2,3] and a size of 4 numbers, or [N,3,4] and "
                  "5");
  SmallVector<int64_t> extent(ArrayRef<int64_t>(size).drop_front(2));
  if (llvm::any_of(extent, [](int64_t s) { return s < 1; }))
    return n.fail("size has a dim without elements");
  Arithmetic a(n);
  Type work = n.elementOf(a.wide(theta));
  int64_t count = 1;
  SmallVector<int64_t> column(extent);
  for (int64_t s : extent)
    count *= s;
  column.push_back(1);
  SmallVector<Value> coordinates; // the last dim first, then ones
  for (int64_t d = dims - 1; d >= 0; --d) {
    SmallVector<int64_t> line(dims, 1);
    line[d] = extent[d];
    double steps = corners ? extent[d] - 1 : extent[d],
           step = steps > 0 ? 2 / steps : 0;
    Value at = n.iota(line, n.graph.builder().getF64Type(), d,
                      corners ? -1 : -1 + step / 2, step);
    coordinates.push_back(
        n.reshape(n.broadcastTo(n.cast(at, work), extent), {count, 1}));
  }
  coordinates.push_back(n.splat(n.type({count, 1}, work), 1));
  Value grid = n.matmul(n.concat(coordinates, 1), a.wide(theta), false, true);
  SmallVector<int64_t> result = {size[0]};
  llvm::append_range(result, extent);
  result.push_back(dims);
  n.set(0, a.narrow(n.reshape(grid, result), theta));
}
