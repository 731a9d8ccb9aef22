//===- ResizeOps.cpp - ONNX Resize and Upsample ---------------------------===//
//
// Sizes and scales are known at import, so that a resize is, one dim after the
// other, a weighted sum of a few gathers: tap t of result i reads element
// place[t][i] with weight[t][i].
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

namespace {

/// How one dim is resized.
struct Axis {
  int64_t dim, size, result;
  double scale;
  double begin = 0, end = 1; ///< region of interest, of the size
};

struct Method {
  std::string mode, coordinates, rounding;
  double cubicA, extrapolation;
  bool antialias, excludeOutside;
};

/// Taps of one dim: rows of places and weights, and where the result is
/// outside of the region.
struct Taps {
  std::vector<std::vector<int64_t>> places;
  std::vector<std::vector<double>> weights;
  std::vector<bool> outside;
};

} // namespace

/// The place of result i in the input, as a real number.
static double sourceOf(const Method &m, const Axis &a, int64_t i) {
  // The result's size before it is rounded down, as the reference has it.
  double x = static_cast<double>(i), size = static_cast<double>(a.size),
         result = a.scale * size;
  if (m.coordinates == "half_pixel")
    return (x + 0.5) / a.scale - 0.5;
  if (m.coordinates == "half_pixel_symmetric") {
    double adjustment = static_cast<double>(a.result) / result;
    double center = size / 2, offset = center * (1 - adjustment);
    return offset + (x + 0.5) / a.scale - 0.5;
  }
  if (m.coordinates == "pytorch_half_pixel")
    return result == 1 ? -0.5 : (x + 0.5) / a.scale - 0.5;
  if (m.coordinates == "align_corners")
    return result == 1 ? 0.0 : x * (size - 1) / (result - 1);
  if (m.coordinates == "tf_crop_and_resize")
    return result == 1 ? 0.5 * (a.begin + a.end) * (size - 1)
                       : a.begin * (size - 1) +
                             x * (a.end - a.begin) * (size - 1) / (result - 1);
  if (m.coordinates == "tf_half_pixel_for_nn")
    return (x + 0.5) / a.scale;
  return x / a.scale; // asymmetric
}

static double roundPlace(const Method &m, double x) {
  if (m.rounding == "round_prefer_floor")
    return std::ceil(x - 0.5);
  if (m.rounding == "round_prefer_ceil")
    return std::floor(x + 0.5);
  return m.rounding == "floor" ? std::floor(x) : std::ceil(x);
}

/// Keys' cubic and the triangle, stretched to the width of the input's pixels
/// when antialiasing.
static double kernelAt(const Method &m, double x) {
  x = std::fabs(x);
  if (m.mode == "linear")
    return std::max(0.0, 1.0 - x);
  double a = m.cubicA;
  if (x <= 1)
    return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0.0;
}

static Taps makeTaps(const Method &m, const Axis &a) {
  std::vector<std::vector<std::pair<int64_t, double>>> rows(a.result);
  Taps taps;
  taps.outside.resize(a.result);
  double stretch = m.antialias ? std::min(1.0, a.scale) : 1.0;
  size_t longest = 1;
  for (int64_t i = 0; i < a.result; ++i) {
    double source = sourceOf(m, a, i);
    taps.outside[i] = m.coordinates == "tf_crop_and_resize" &&
                      (source < 0 || source > static_cast<double>(a.size - 1));
    auto clamp = [&](double place) {
      return static_cast<int64_t>(
          std::clamp(place, 0.0, static_cast<double>(a.size - 1)));
    };
    if (m.mode == "nearest") {
      rows[i].push_back({clamp(roundPlace(m, source)), 1.0});
      continue;
    }
    double reach = (m.mode == "linear" ? 1.0 : 2.0) / stretch, sum = 0;
    for (double place = std::ceil(source - reach);
         place <= std::floor(source + reach); ++place) {
      double weight = kernelAt(m, (place - source) * stretch);
      bool inside = place >= 0 && place <= static_cast<double>(a.size - 1);
      if (weight == 0 || (!inside && m.excludeOutside))
        continue;
      sum += weight;
      int64_t at = clamp(place);
      auto same =
          llvm::find_if(rows[i], [&](auto &p) { return p.first == at; });
      if (same != rows[i].end())
        same->second += weight;
      else
        rows[i].push_back({at, weight});
    }
    if (sum != 0 && (m.excludeOutside || m.antialias))
      for (auto &tap : rows[i])
        tap.second /= sum;
    longest = std::max(longest, rows[i].size());
  }
  for (size_t t = 0; t < longest; ++t) {
    taps.places.emplace_back();
    taps.weights.emplace_back();
    for (auto &row : rows) {
      bool there = t < row.size();
      taps.places.back().push_back(there ? row[t].first : 0);
      taps.weights.back().push_back(there ? row[t].second : 0.0);
    }
  }
  return taps;
}

/// A vector along `dim` of a tensor of `rank` dims.
static Value lineOf(NodeImporter &n, ArrayRef<double> values, Type element,
                    int64_t dim, int64_t rank) {
  SmallVector<int64_t> shape(rank - dim, 1);
  shape[0] = values.size();
  return n.reshape(n.floats(values, element), shape);
}

/// The attributes that say how.
static Method readMethod(NodeImporter &n) {
  Method m;
  m.mode = n.stringAttr("mode", "nearest");
  m.coordinates = n.stringAttr("coordinate_transformation_mode",
                               n.opset() < 11 ? "asymmetric" : "half_pixel");
  m.rounding = n.stringAttr("nearest_mode",
                            n.opset() < 11 ? "floor" : "round_prefer_floor");
  m.cubicA = n.floatAttr("cubic_coeff_a", -0.75);
  m.extrapolation = n.floatAttr("extrapolation_value", 0.0);
  m.antialias = n.intAttr("antialias", 0) != 0;
  m.excludeOutside = n.intAttr("exclude_outside", 0) != 0;
  auto known = [&](StringRef name, const std::string &value,
                   ArrayRef<StringRef> values) {
    if (!n.failed() && !llvm::is_contained(values, value))
      n.fail(name + " is " + quote(value) + "; it must be one of " +
             llvm::join(values, ", "));
  };
  known("mode", m.mode, {"nearest", "linear", "cubic"});
  known("coordinate_transformation_mode", m.coordinates,
        {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",
         "align_corners", "asymmetric", "tf_crop_and_resize",
         "tf_half_pixel_for_nn"});
  known("nearest_mode", m.rounding,
        {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  return m;
}

/// Whether input i is there and not empty.
static bool hasElements(NodeImporter &n, int i) {
  return n.hasInput(i) && n.typeOf(n.input(i)) &&
         n.typeOf(n.input(i)).getNumElements() > 0;
}

/// The dims to resize, with sizes and scales.
static SmallVector<Axis> readAxes(NodeImporter &n, Value x, int scalesInput,
                                  int sizesInput, const Method &m) {
  std::vector<int64_t> dims;
  if (auto given = n.intsAttr("axes"))
    for (int64_t dim : *given)
      dims.push_back(n.axis(dim, n.rank(x)));
  else
    for (int64_t i = 0; i < n.rank(x); ++i)
      dims.push_back(i);
  std::string policy = n.stringAttr("keep_aspect_ratio_policy", "stretch");
  bool bySizes = sizesInput >= 0 && hasElements(n, sizesInput);
  std::vector<int64_t> sizes;
  std::vector<double> scales;
  if (n.failed())
    return {};
  (void)n.axes(dims, n.rank(x)); // refuses a repeated one
  if (bySizes)
    sizes = n.staticInts(sizesInput, "sizes");
  else if (scalesInput >= 0)
    scales = n.staticFloats(scalesInput, "scales");
  else if (auto *given = n.find("scales"))
    scales.assign(given->floats().begin(), given->floats().end());
  if (n.failed())
    return {};
  if ((bySizes ? sizes.size() : scales.size()) != dims.size()) {
    n.fail("has " + Twine(bySizes ? sizes.size() : scales.size()) +
           (bySizes ? " sizes for " : " scales for ") + Twine(dims.size()) +
           " axes");
    return {};
  }
  bool fit = policy != "stretch", larger = policy == "not_smaller";
  if (fit && !larger && policy != "not_larger") {
    n.fail("keep_aspect_ratio_policy is " + quote(policy) +
           "; stretch, not_larger or not_smaller is needed");
    return {};
  }
  SmallVector<Axis> axes;
  for (auto [i, dim] : llvm::enumerate(dims)) {
    Axis a{dim, n.shape(x)[dim], 0, 1.0};
    if (a.size == 0) {
      n.fail("dim " + Twine(dim) + " has no elements");
      return {};
    }
    a.scale = bySizes
                  ? static_cast<double>(sizes[i]) / static_cast<double>(a.size)
                  : scales[i];
    double result = bySizes ? static_cast<double>(sizes[i])
                            : std::floor(static_cast<double>(a.size) * a.scale);
    if (!(a.scale > 0) || !(result >= 1) || result > 1e9) {
      n.fail("dim " + Twine(dim) + " of size " + Twine(a.size) +
             " cannot be resized to no or too many elements");
      return {};
    }
    a.result = static_cast<int64_t>(result);
    axes.push_back(a);
  }
  if (bySizes && fit && !axes.empty()) {
    double scale = axes.front().scale;
    for (const Axis &a : axes)
      scale = larger ? std::max(scale, a.scale) : std::min(scale, a.scale);
    for (Axis &a : axes) {
      a.scale = scale;
      a.result = static_cast<int64_t>(
          std::floor(scale * static_cast<double>(a.size) + 0.5));
    }
  }
  if (m.coordinates == "tf_crop_and_resize") {
    auto region =
        hasElements(n, 1) ? n.staticFloats(1, "roi") : std::vector<double>();
    if (!n.failed() && region.size() != 2 * axes.size())
      n.fail("roi has " + Twine(region.size()) + " numbers for " +
             Twine(axes.size()) + " axes");
    if (n.failed())
      return {};
    for (auto [i, a] : llvm::enumerate(axes)) {
      a.begin = region[i];
      a.end = region[axes.size() + i];
    }
  }
  return axes;
}

static Value resize(NodeImporter &n, Value x, ArrayRef<Axis> axes,
                    const Method &m) {
  Arithmetic a(n);
  Type element = n.elementOf(x);
  bool nearest = m.mode == "nearest";
  if (!nearest && !isa<FloatType>(element))
    x = n.cast(x, n.graph.builder().getF32Type());
  else if (!nearest)
    x = a.wide(x);
  for (const Axis &axis : axes) {
    bool cropped = m.coordinates == "tf_crop_and_resize";
    if (axis.result == axis.size && axis.scale == 1.0 && !cropped)
      continue;
    constexpr int64_t limit = 1 << 20;
    if (axis.result > limit) {
      n.fail("a dim of size " + Twine(axis.size) + " becomes " +
             Twine(axis.result) + "; at most " + Twine(limit) +
             " are supported");
      return {};
    }
    Taps taps = makeTaps(m, axis);
    Value sum;
    for (auto [places, weights] : llvm::zip(taps.places, taps.weights)) {
      Value part = n.gather(x, n.ints(places), axis.dim);
      if (!nearest)
        part = a.mul(part,
                     lineOf(n, weights, n.elementOf(x), axis.dim, n.rank(x)));
      sum = sum ? a.add(sum, part) : part;
    }
    if (llvm::is_contained(taps.outside, true)) {
      SmallVector<double> flags(taps.outside.begin(), taps.outside.end());
      Value outside = a.greater(
          lineOf(n, flags, n.graph.builder().getF32Type(), axis.dim, n.rank(x)),
          0.5);
      sum = a.select(outside, a.number(sum, m.extrapolation), sum);
    }
    x = sum;
  }
  if (x && n.elementOf(x) != element && !isa<FloatType>(element)) {
    // A cubic overshoots: what the type cannot hold becomes its end.
    auto integer = cast<IntegerType>(element);
    unsigned width = integer.getWidth();
    double span = std::ldexp(1.0, width),
           low = integer.isUnsigned() ? 0 : -span / 2;
    x = n.pointwise<RoundOp>(x);
    if (width <= 16)
      x = a.min(a.max(x, low), low + span - 1);
  }
  return x ? n.cast(x, element) : x;
}

void onnx::importResize(NodeImporter &n) {
  bool old = n.opset() < 11; // [x, scales]
  if (!n.expectInputs(1, old ? 2 : 4))
    return;
  Value x = n.input(0);
  Method m = readMethod(n);
  if (n.failed())
    return;
  auto axes = old ? readAxes(n, x, 1, -1, m) : readAxes(n, x, 2, 3, m);
  if (!n.failed())
    n.set(0, resize(n, x, axes, m));
}

/// Resize as it was before opset 10.
void onnx::importUpsample(NodeImporter &n) {
  bool old = n.opset() < 9; // scales are an attribute
  if (!n.expectInputs(old ? 1 : 2, old ? 1 : 2))
    return;
  Value x = n.input(0);
  Method m{n.stringAttr("mode", "nearest"),
           "asymmetric",
           "floor",
           0,
           0,
           false,
           false};
  if (!n.failed() && m.mode == "bilinear") // the name in opset 7
    m.mode = "linear";
  if (!n.failed() && m.mode != "nearest" && m.mode != "linear")
    return n.fail("mode is " + quote(m.mode) + "; nearest or linear is needed");
  if (n.failed())
    return;
  auto axes = readAxes(n, x, old ? -1 : 1, -1, m);
  if (!n.failed())
    n.set(0, resize(n, x, axes, m));
}
