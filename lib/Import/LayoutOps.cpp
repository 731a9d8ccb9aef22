//===- LayoutOps.cpp - ONNX ops that make shapes and move elements --------===//

#include "NodeImporter.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

//===----------------------------------------------------------------------===//
// Constants and shapes
//===----------------------------------------------------------------------===//

void onnx::importConstant(NodeImporter &n) {
  if (!n.expectInputs(0, 0))
    return;
  const pb::NodeProto &node = n.proto();
  if (node.attribute_size() != 1)
    return n.fail("has " + Twine(node.attribute_size()) +
                  " attributes; one value is needed");
  const pb::AttributeProto &attribute = node.attribute(0);
  StringRef name = attribute.name();
  OpBuilder &builder = n.graph.builder();
  Type f32 = builder.getF32Type(), i64 = builder.getI64Type();
  auto vector = [&](auto values, Type element) {
    auto type =
        RankedTensorType::get({static_cast<int64_t>(values.size())}, element);
    return n.constant(DenseElementsAttr::get(type, ArrayRef(values)));
  };
  if (name == "value" && attribute.has_t() && n.find(name))
    return n.set(0, n.graph.addTensor(attribute.t(), node.output(0)));
  if (name == "value_float")
    return n.set(0, n.scalar(f32, n.floatAttr(name, 0)));
  if (name == "value_floats" && n.find(name))
    return n.set(0, vector(std::vector<float>(attribute.floats().begin(),
                                              attribute.floats().end()),
                           f32));
  if (name == "value_int")
    return n.set(0, n.constant(DenseElementsAttr::get(
                        RankedTensorType::get({}, i64), n.intAttr(name, 0))));
  if (name == "value_ints" && n.find(name))
    return n.set(0, vector(std::vector<int64_t>(attribute.ints().begin(),
                                                attribute.ints().end()),
                           i64));
  n.fail("attribute " + quote(name) +
         " is not supported; value, value_int(s) or value_float(s) is needed");
}

void onnx::importConstantOfShape(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  std::vector<int64_t> shape = n.staticInts(0, "shape");
  if (n.failed())
    return;
  const pb::AttributeProto *value = n.find("value");
  if (!value)
    return n.set(0, n.splat(n.type(shape, n.graph.builder().getF32Type()), 0));
  Value element = n.graph.addTensor(value->t(), "value");
  if (!element)
    return;
  if (n.typeOf(element).getNumElements() != 1)
    return n.fail("value has " + Twine(n.typeOf(element).getNumElements()) +
                  " elements; one is needed");
  auto type = n.type(shape, n.elementOf(element));
  if (type)
    n.set(0, n.constant(cast<DenseElementsAttr>(
                            element.getDefiningOp<ConstantOp>().getValue())
                            .resizeSplat(type)));
}

void onnx::importShape(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t rank = n.rank(x);
  auto clamp = [&](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? i + rank : i, 0, rank);
  };
  int64_t start = clamp(n.intAttr("start", 0)),
          end = clamp(n.intAttr("end", rank));
  if (!n.failed())
    n.set(0,
          n.ints(n.shape(x).slice(start, std::max<int64_t>(end - start, 0))));
}

void onnx::importSize(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  if (x)
    n.set(0, n.constant(DenseElementsAttr::get(
                 RankedTensorType::get({}, n.graph.builder().getI64Type()),
                 n.typeOf(x).getNumElements())));
}

void onnx::importReshape(NodeImporter &n) {
  auto given = n.intsAttr("shape"); // before opset 5
  if (!n.expectInputs(given ? 1 : 2, given ? 1 : 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> shape = given ? *given : n.staticInts(1, "shape");
  bool allowZero = n.intAttr("allowzero", 0) != 0;
  if (n.failed())
    return;
  int64_t unknown = -1, rest = 1;
  for (auto [i, size] : llvm::enumerate(shape)) {
    if (size == 0 && !allowZero) {
      if (static_cast<int64_t>(i) >= n.rank(x))
        return n.fail("shape copies dim " + Twine(i) + " of an input with " +
                      Twine(n.rank(x)) + " dims");
      size = n.shape(x)[i];
    }
    if (size == -1) {
      if (unknown >= 0)
        return n.fail("shape has more than one -1");
      unknown = i;
      continue;
    }
    if (size < 0)
      return n.fail("shape has the negative size " + Twine(size));
    if (__builtin_mul_overflow(rest, size, &rest))
      return n.fail("shape has too many elements");
  }
  int64_t count = n.typeOf(x).getNumElements();
  if (unknown >= 0) {
    if (rest == 0 || count % rest != 0)
      return n.fail("cannot find the -1: " + Twine(count) +
                    " elements are not divisible by " + Twine(rest));
    shape[unknown] = count / rest;
  }
  n.set(0, n.reshape(x, shape));
}

void onnx::importFlatten(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  int64_t axis = n.intAttr("axis", 1);
  if (n.failed())
    return;
  if (axis != n.rank(x))
    axis = n.axis(axis, n.rank(x));
  if (!n.failed())
    n.set(0, n.flatten(x, axis));
}

void onnx::importSqueeze(NodeImporter &n) {
  if (!n.expectInputs(1, 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> axes;
  auto given = n.intsAttr("axes"); // before opset 13
  if (given || n.hasInput(1))
    axes = n.axes(given ? *given : n.staticInts(1, "axes"), n.rank(x));
  else
    for (int64_t i : llvm::seq<int64_t>(0, n.rank(x)))
      if (n.shape(x)[i] == 1)
        axes.push_back(i);
  SmallVector<int64_t> shape;
  for (auto [i, size] : llvm::enumerate(n.shape(x))) {
    if (!llvm::is_contained(axes, static_cast<int64_t>(i)))
      shape.push_back(size);
    else if (size != 1)
      return n.fail("dim " + Twine(i) + " has size " + Twine(size) +
                    "; only size 1 can be squeezed");
  }
  n.set(0, n.reshape(x, shape));
}

void onnx::importUnsqueeze(NodeImporter &n) {
  auto given = n.intsAttr("axes"); // before opset 13
  if (!n.expectInputs(given ? 1 : 2, given ? 1 : 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> axes = given ? *given : n.staticInts(1, "axes");
  int64_t rank = n.rank(x) + axes.size();
  axes = n.axes(axes, rank);
  if (n.failed())
    return;
  SmallVector<int64_t> shape(n.shape(x));
  for (int64_t axis : axes)
    shape.insert(shape.begin() + axis, 1);
  n.set(0, n.reshape(x, shape));
}

//===----------------------------------------------------------------------===//
// Moving elements
//===----------------------------------------------------------------------===//

void onnx::importTranspose(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  std::vector<int64_t> permutation;
  for (int64_t i : llvm::seq<int64_t>(0, n.rank(x)))
    permutation.insert(permutation.begin(), i);
  if (auto given = n.intsAttr("perm"))
    permutation = *given;
  if (n.failed())
    return;
  std::vector<int64_t> sorted = permutation;
  llvm::sort(sorted);
  if (!llvm::equal(sorted, llvm::seq<int64_t>(0, n.rank(x))))
    return n.fail("perm is no permutation of the " + Twine(n.rank(x)) +
                  " dims");
  n.set(0, n.transpose(x, permutation));
}

/// Numpy broadcasting in both directions.
void onnx::importExpand(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> shape = n.staticInts(1, "shape");
  if (n.failed())
    return;
  if (static_cast<int64_t>(shape.size()) < n.rank(x))
    shape.insert(shape.begin(), n.rank(x) - shape.size(), 1);
  size_t lead = shape.size() - n.rank(x);
  for (auto [i, size] : llvm::enumerate(n.shape(x))) {
    int64_t &wanted = shape[lead + i];
    if (wanted == 1)
      wanted = size;
    if (size != 1 && wanted != size)
      return n.fail("dim " + Twine(i) + " of size " + Twine(size) +
                    " cannot become " + Twine(wanted));
  }
  n.set(0, n.broadcastTo(x, shape));
}

void onnx::importConcat(NodeImporter &n) {
  if (!n.expectInputs(1, INT32_MAX))
    return;
  SmallVector<Value> values;
  for (int i = 0; i < n.numInputs(); ++i)
    values.push_back(n.input(i));
  // The first versions had a default.
  int64_t axis =
      n.axis(n.opset() < 4 ? n.intAttr("axis", 1) : n.intAttr("axis"),
             n.rank(values.front()));
  if (n.failed())
    return;
  ArrayRef<int64_t> first = n.shape(values.front());
  for (auto [i, value] : llvm::enumerate(values)) {
    if (n.rank(value) != static_cast<int64_t>(first.size()) ||
        n.elementOf(value) != n.elementOf(values.front()))
      return n.fail(
          "input " + Twine(i) +
          " differs from input 0 in its number of dims or its element type");
    for (auto [dim, size] : llvm::enumerate(n.shape(value)))
      if (static_cast<int64_t>(dim) != axis && size != first[dim])
        return n.fail("dim " + Twine(dim) + " of input " + Twine(i) + " is " +
                      Twine(size) + ", of input 0 it is " + Twine(first[dim]));
  }
  n.set(0, n.concat(values, axis));
}

void onnx::importSlice(NodeImporter &n) {
  bool old = n.opset() < 10; // attributes
  if (!n.expectInputs(old ? 1 : 3, old ? 1 : 5))
    return;
  Value x = n.input(0);
  std::vector<int64_t> begins, ends, axes, steps;
  auto attribute = [&](StringRef name) {
    return n.intsAttr(name).value_or(std::vector<int64_t>());
  };
  begins = old ? attribute("starts") : n.staticInts(1, "starts");
  ends = old ? attribute("ends") : n.staticInts(2, "ends");
  if (old && n.find("axes"))
    axes = attribute("axes");
  else if (n.hasInput(3))
    axes = n.staticInts(3, "axes");
  else
    for (size_t i = 0; i < begins.size(); ++i)
      axes.push_back(i);
  if (n.hasInput(4))
    steps = n.staticInts(4, "steps");
  else
    steps.assign(begins.size(), 1);
  if (n.failed())
    return;
  if (begins.size() != ends.size() || begins.size() != axes.size() ||
      begins.size() != steps.size())
    return n.fail("starts, ends, axes and steps have " + Twine(begins.size()) +
                  ", " + Twine(ends.size()) + ", " + Twine(axes.size()) +
                  " and " + Twine(steps.size()) +
                  " entries; the same number is needed");
  (void)n.axes(axes, n.rank(x)); // refuses a repeated one
  SmallVector<int64_t> starts(n.rank(x), 0), strides(n.rank(x), 1),
      sizes(n.shape(x));
  for (size_t i = 0; i < begins.size() && !n.failed(); ++i) {
    int64_t dim = n.axis(axes[i], n.rank(x));
    if (n.failed())
      return;
    int64_t size = n.shape(x)[dim], step = steps[i];
    if (step == 0)
      return n.fail("step 0 along dim " + Twine(dim));
    // INT64_MIN and INT64_MAX mean as far as it goes.
    auto fromEnd = [&](int64_t at) {
      return at < 0 ? (at < -size ? -1 : at + size) : std::min(at, size);
    };
    int64_t begin = fromEnd(begins[i]), end = fromEnd(ends[i]), count;
    if (step > 0) {
      begin = std::max<int64_t>(begin, 0);
      end = std::max<int64_t>(end, 0);
      count = end > begin ? (end - begin - 1) / step + 1 : 0;
    } else {
      begin = std::min(begin, size - 1);
      // A step of INT64_MIN has no negation.
      step = std::max(step, -size - 1);
      count = begin > end ? (begin - end - 1) / -step + 1 : 0;
    }
    starts[dim] = count ? begin : 0;
    strides[dim] = count > 1 ? step : 1;
    sizes[dim] = count;
  }
  n.set(0, n.slice(x, starts, sizes, strides));
}

void onnx::importSplit(NodeImporter &n) {
  if (!n.expectInputs(1, 2))
    return;
  Value x = n.input(0);
  int64_t axis = n.axis(n.intAttr("axis", 0), n.rank(x));
  if (n.failed())
    return;
  int64_t size = n.shape(x)[axis], count = n.numOutputs();
  std::vector<int64_t> sizes;
  auto given = n.intsAttr("split"); // before opset 13
  if (given || n.hasInput(1)) {
    sizes = given ? *given : n.staticInts(1, "split");
  } else {
    // The last part takes what is left.
    int64_t parts = n.intAttr("num_outputs", count);
    if (parts < 1)
      return n.fail("num_outputs is " + Twine(parts));
    if (parts != count)
      return n.fail("splits into " + Twine(parts) + " parts but has " +
                    Twine(count) + " outputs");
    for (int64_t i = 0, part = (size + parts - 1) / parts; i < parts; ++i)
      sizes.push_back(std::clamp<int64_t>(size - i * part, 0, part));
  }
  if (n.failed())
    return;
  if (static_cast<int64_t>(sizes.size()) != count)
    return n.fail("splits into " + Twine(sizes.size()) + " parts but has " +
                  Twine(count) + " outputs");
  int64_t sum = 0;
  for (int64_t part : sizes)
    if (part < 0 || __builtin_add_overflow(sum, part, &sum))
      return n.fail("has a part of size " + Twine(part));
  if (sum != size)
    return n.fail("parts sum up to " + Twine(sum) + ", dim " + Twine(axis) +
                  " has size " + Twine(size));
  int64_t start = 0;
  for (auto [i, part] : llvm::enumerate(sizes)) {
    n.set(i, n.part(x, axis, start, part));
    start += part;
  }
}

/// [a, b] repeated [r, s] times: [1, a, 1, b] broadcast to [r, a, s, b].
void onnx::importTile(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0);
  std::vector<int64_t> repeats = n.staticInts(1, "repeats");
  if (n.failed())
    return;
  if (static_cast<int64_t>(repeats.size()) != n.rank(x))
    return n.fail("has " + Twine(repeats.size()) + " repeats for " +
                  Twine(n.rank(x)) + " dims");
  SmallVector<int64_t> split, wide, result;
  for (auto [size, times] : llvm::zip(n.shape(x), repeats)) {
    int64_t product;
    if (times < 0 || __builtin_mul_overflow(size, times, &product))
      return n.fail("cannot repeat " + Twine(times) + " times");
    if (times != 1) {
      split.push_back(1);
      wide.push_back(times);
    }
    split.push_back(size);
    wide.push_back(size);
    result.push_back(product);
  }
  n.set(0, n.reshape(n.broadcastTo(n.reshape(x, split), wide), result));
}

void onnx::importPad(NodeImporter &n) {
  bool old = n.opset() < 11;
  if (!n.expectInputs(old ? 1 : 2, old ? 1 : 4))
    return;
  Value x = n.input(0);
  std::string mode = n.stringAttr("mode", "constant");
  if (!n.failed() && mode != "constant" && mode != "edge" && mode != "wrap" &&
      mode != "reflect")
    return n.fail("mode is " + quote(mode) +
                  "; constant, edge, wrap or reflect is needed");
  // An attribute before opset 11.
  std::vector<int64_t> pads = n.opset() < 11 ? n.intsAttr("pads").value_or(
                                                   std::vector<int64_t>())
                                             : n.staticInts(1, "pads"),
                       axes;
  if (n.hasInput(3))
    axes = n.staticInts(3, "axes");
  else
    for (int64_t i : llvm::seq<int64_t>(0, n.rank(x)))
      axes.push_back(i);
  double value = n.floatAttr("value", 0);
  if (n.hasInput(2)) {
    auto known = n.knownScalar(n.input(2));
    if (!known && !n.failed())
      return n.fail("input 2 (constant_value) must be a constant scalar");
    value = known.value_or(0);
  }
  if (n.failed())
    return;
  if (pads.size() != 2 * axes.size())
    return n.fail("has " + Twine(pads.size()) + " pads for " +
                  Twine(axes.size()) + " axes");
  SmallVector<int64_t> low(n.rank(x), 0), high(n.rank(x), 0),
      padded(n.shape(x)), starts(n.rank(x), 0), strides(n.rank(x), 1),
      cropped(n.shape(x));
  for (size_t i = 0; i < axes.size(); ++i) {
    int64_t dim = n.axis(axes[i], n.rank(x));
    if (n.failed())
      return;
    constexpr int64_t limit = int64_t(1) << 46;
    int64_t before = pads[i], after = pads[i + axes.size()];
    if (std::abs(before) > limit || std::abs(after) > limit)
      return n.fail("pads of dim " + Twine(dim) + " are too large");
    // Negative pads crop.
    starts[dim] = std::max<int64_t>(-before, 0);
    cropped[dim] -= starts[dim] + std::max<int64_t>(-after, 0);
    if (cropped[dim] < 0)
      return n.fail("pads crop more than the size " + Twine(n.shape(x)[dim]) +
                    " of dim " + Twine(dim));
    low[dim] = std::max<int64_t>(before, 0);
    high[dim] = std::max<int64_t>(after, 0);
    padded[dim] = cropped[dim] + low[dim] + high[dim];
  }
  x = n.slice(x, starts, cropped, strides);
  n.set(0, mode == "constant" ? n.pad(x, low, high, value)
                              : padWithItself(n, x, mode, low, high));
}

/// Keeps the triangle by comparing row and column numbers.
void onnx::importTrilu(NodeImporter &n) {
  if (!n.expectInputs(1, 2))
    return;
  Value x = n.input(0);
  int64_t diagonal = 0;
  if (n.hasInput(1)) {
    auto k = n.staticInts(1, "k");
    if (n.failed())
      return;
    diagonal = k.empty() ? 0 : k[0];
  }
  bool upper = n.intAttr("upper", 1) != 0;
  if (n.failed())
    return;
  if (n.rank(x) < 2)
    return n.fail("needs at least 2 dims, has " + Twine(n.rank(x)));
  Type i64 = n.graph.builder().getI64Type();
  int64_t rows = n.shape(x)[n.rank(x) - 2], columns = n.shape(x).back();
  diagonal = std::clamp<int64_t>(diagonal, -rows - 1, columns + 1);
  Value row = n.iota({rows, 1}, i64, 0, static_cast<double>(diagonal));
  Value column = n.iota({1, columns}, i64, 1);
  Value keep = n.compare(upper ? ComparePredicate::ge : ComparePredicate::le,
                         column, row);
  n.set(0, n.pointwise<SelectOp>({keep, x, n.scalar(n.elementOf(x), 0)},
                                 n.elementOf(x)));
}
