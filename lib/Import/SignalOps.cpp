//===- SignalOps.cpp - ONNX windows and Fourier transforms ----------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

static constexpr double pi = 3.14159265358979323846;

/// first + second cos(2 pi i / N) + third cos(4 pi i / N), computed in f64.
static void importWindow(NodeImporter &n, double first, double second,
                         double third) {
  if (!n.expectInputs(1, 1))
    return;
  std::vector<int64_t> size = n.staticInts(0, "size");
  bool periodic = n.intAttr("periodic", 1) != 0;
  int to =
      static_cast<int>(n.intAttr("output_datatype", pb::TensorProto::FLOAT));
  if (n.failed())
    return;
  if (size.size() != 1 || size[0] < 0)
    return n.fail("input 0 (size) must hold one size");
  OpBuilder &builder = n.graph.builder();
  Type element = elementType(builder.getContext(), to);
  if (!element)
    return n.fail("makes element type " + dataTypeName(to) +
                  ", which is not supported");
  int64_t steps = periodic ? size[0] : size[0] - 1;
  Arithmetic a(n);
  Value i = n.iota({size[0]}, builder.getF64Type(), 0);
  auto wave = [&](double turns, double factor) {
    Value angle = a.mul(i, 2 * pi * turns / std::max<int64_t>(steps, 1));
    return a.mul(n.pointwise<CosOp>(angle), factor);
  };
  Value sum = a.add(wave(1, second), first);
  if (third != 0)
    sum = a.add(sum, wave(2, third));
  n.set(0, n.cast(sum, element));
}
void onnx::importHannWindow(NodeImporter &n) { importWindow(n, 0.5, -0.5, 0); }
void onnx::importHammingWindow(NodeImporter &n) {
  importWindow(n, 25.0 / 46, -21.0 / 46, 0);
}
void onnx::importBlackmanWindow(NodeImporter &n) {
  importWindow(n, 0.42, -0.5, 0.08);
}

namespace {
/// Real and imaginary parts; the imaginary one may be left out.
struct Complex {
  Value real, imaginary;
};
} // namespace

/// x [..., n] times the matrix exp(-+ 2 pi i k n / length), in f64: what
/// cancels comes out as zero to the last bits of f32.
static Complex transform(NodeImporter &n, Complex x, int64_t outputs,
                         bool inverse) {
  if (n.failed())
    return {};
  Arithmetic a(n);
  OpBuilder &builder = n.graph.builder();
  Type i64 = builder.getI64Type(), f64 = builder.getF64Type();
  int64_t length = n.shape(x.real).back();
  // The angle is reduced in integers.
  Value turns =
      a.mul(n.iota({length, 1}, i64, 0), n.iota({1, outputs}, i64, 1));
  turns = n.pointwise<ModOp>({turns, a.number(turns, double(length))});
  Value angle = a.mul(n.cast(turns, f64), 2 * pi / double(length));
  Value cosine = n.pointwise<CosOp>(angle), sine = n.pointwise<SinOp>(angle);
  if (!inverse)
    sine = a.neg(sine);
  auto times = [&](Value part, Value matrix) {
    return n.matmul(part, matrix, false, false);
  };
  Complex result;
  result.real = times(x.real, cosine);
  result.imaginary = times(x.real, sine);
  if (x.imaginary) {
    result.real = a.sub(result.real, times(x.imaginary, sine));
    result.imaginary = a.add(result.imaginary, times(x.imaginary, cosine));
  }
  if (inverse) {
    result.real = a.div(result.real, double(length));
    result.imaginary = a.div(result.imaginary, double(length));
  }
  return result;
}

/// The parts of x [..., 1 or 2] in f64, without the last dim.
static Complex partsOf(NodeImporter &n, Value x) {
  if (n.failed())
    return {};
  int64_t last = n.rank(x) - 1, count = n.shape(x)[last];
  Value wide = n.cast(x, n.graph.builder().getF64Type());
  SmallVector<int64_t> shape(n.shape(x).drop_back());
  auto part = [&](int64_t i) {
    return n.reshape(n.part(wide, last, i, 1), shape);
  };
  return {part(0), count == 2 ? part(1) : Value()};
}

/// [..., 2], or [..., 1] of the real parts alone.
static Value joinParts(NodeImporter &n, Complex x, bool real, Type element) {
  if (n.failed())
    return {};
  SmallVector<int64_t> shape(n.shape(x.real));
  shape.push_back(1);
  int64_t last = shape.size() - 1;
  Value result = n.reshape(x.real, shape);
  if (!real)
    result = n.concat({result, n.reshape(x.imaginary, shape)}, last);
  return n.cast(result, element);
}

/// Crops or pads the last dim with zeros.
static Value fitLast(NodeImporter &n, Value x, int64_t size) {
  if (!x || n.failed() || n.shape(x).back() == size)
    return x;
  int64_t dim = n.rank(x) - 1;
  if (n.shape(x).back() > size)
    return n.part(x, dim, 0, size);
  SmallVector<int64_t> low(n.rank(x), 0), high(n.rank(x), 0);
  high[dim] = size - n.shape(x).back();
  return n.pad(x, low, high, 0);
}

void onnx::importDft(NodeImporter &n) {
  if (!n.expectInputs(1, 3))
    return;
  Value x = n.input(0);
  bool inverse = n.intAttr("inverse", 0) != 0,
       onesided = n.intAttr("onesided", 0) != 0;
  int64_t axis = n.opset() < 20 ? n.intAttr("axis", 1) : -2;
  std::vector<int64_t> length;
  if (n.hasInput(1))
    length = n.staticInts(1, "dft_length");
  if (n.hasInput(2)) {
    std::vector<int64_t> given = n.staticInts(2, "axis");
    axis = given.size() == 1 ? given[0] : 0;
  }
  axis = n.axis(axis, n.rank(x));
  if (n.failed())
    return;
  if (!isa<FloatType>(n.elementOf(x)) || n.rank(x) < 2 ||
      (n.shape(x).back() != 1 && n.shape(x).back() != 2))
    return n.fail("the input must hold floating-point numbers, real or complex "
                  "in its last dim");
  if (axis == n.rank(x) - 1)
    return n.fail("the last dim holds real and imaginary parts; another axis "
                  "is needed");
  int64_t size = length.size() == 1 ? length[0] : n.shape(x)[axis];
  bool fromHalf = inverse && onesided;
  // The length is that of the real signal.
  if (fromHalf && length.size() != 1)
    size = 2 * (n.shape(x)[axis] - 1);
  if (size < 1 || size > (1 << 20))
    return n.fail("the length " + Twine(size) + " is not supported");
  Complex parts = partsOf(n, x);
  int64_t rank = n.rank(x) - 1;
  auto swap = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  std::swap(swap[axis], swap[rank - 1]);
  auto prepare = [&](Value part) -> Value {
    if (!part)
      return part;
    part = n.transpose(part, swap);
    if (!fromHalf)
      return fitLast(n, part, size);
    return fitLast(n, part, size / 2 + 1);
  };
  parts.real = prepare(parts.real);
  parts.imaginary = prepare(parts.imaginary);
  if (n.failed())
    return;
  if (fromHalf && size > 1) {
    // The other half mirrors the first, with the opposite imaginary part.
    int64_t dim = rank - 1, mirrored = size - size / 2 - 1;
    auto mirror = [&](Value part, bool negate) -> Value {
      if (!part || mirrored < 1)
        return part;
      SmallVector<int64_t> starts(rank, 0), strides(rank, 1),
          sizes(n.shape(part));
      starts[dim] = mirrored;
      strides[dim] = mirrored > 1 ? -1 : 1;
      sizes[dim] = mirrored;
      Value tail = n.slice(part, starts, sizes, strides);
      return n.concat({part, negate ? n.pointwise<NegOp>(tail) : tail}, dim);
    };
    parts.real = mirror(parts.real, false);
    parts.imaginary = mirror(parts.imaginary, true);
  }
  bool half = onesided && !inverse;
  Complex result = transform(n, parts, half ? size / 2 + 1 : size, inverse);
  result.real = n.transpose(result.real, swap);
  result.imaginary = n.transpose(result.imaginary, swap);
  n.set(0, joinParts(n, result, fromHalf, n.elementOf(x)));
}

/// Frames of the signal, times the window, transformed.
void onnx::importStft(NodeImporter &n) {
  if (!n.expectInputs(2, 4))
    return;
  Value signal = n.input(0), window = n.input(2);
  std::vector<int64_t> step = n.staticInts(1, "frame_step"), length;
  if (n.hasInput(3))
    length = n.staticInts(3, "frame_length");
  bool onesided = n.intAttr("onesided", 1) != 0;
  if (n.failed())
    return;
  if (n.rank(signal) == 2) // real, without a last dim
    signal = n.reshape(signal, {n.shape(signal)[0], n.shape(signal)[1], 1});
  if (n.rank(signal) != 3 || !isa<FloatType>(n.elementOf(signal)) ||
      (n.shape(signal)[2] != 1 && n.shape(signal)[2] != 2))
    return n.fail("the signal must have 3 dims: batch, time, and real or "
                  "complex parts");
  if (window &&
      (n.rank(window) != 1 || n.elementOf(window) != n.elementOf(signal)))
    return n.fail("the window must have one dim and the signal's type");
  int64_t size = length.size() == 1 ? length[0]
                 : window           ? n.shape(window)[0]
                                    : 0;
  if (size < 1 || size > (1 << 20) || size > n.shape(signal)[1])
    return n.fail("frames of " + Twine(size) + " do not suit a signal of " +
                  Twine(n.shape(signal)[1]));
  if (window && n.shape(window)[0] != size)
    return n.fail("the window has " + Twine(n.shape(window)[0]) +
                  " elements, a frame " + Twine(size));
  if (step.size() != 1 || step[0] < 1)
    return n.fail("input 1 (frame_step) must hold one positive number");
  int64_t frames = (n.shape(signal)[1] - size) / step[0] + 1;
  Type i64 = n.graph.builder().getI64Type();
  Arithmetic a(n);
  Value places = a.add(n.iota({frames, 1}, i64, 0, 0, double(step[0])),
                       n.iota({1, size}, i64, 1));
  Complex parts = partsOf(n, n.gather(signal, places, 1)); // [batch, f, size]
  if (window) {
    Value wide = n.cast(window, n.graph.builder().getF64Type());
    parts.real = a.mul(parts.real, wide);
    if (parts.imaginary)
      parts.imaginary = a.mul(parts.imaginary, wide);
  }
  Complex result = transform(n, parts, onesided ? size / 2 + 1 : size, false);
  n.set(0, joinParts(n, result, false, n.elementOf(signal)));
}
