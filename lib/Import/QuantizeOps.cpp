//===- QuantizeOps.cpp - ONNX linear quantisation -------------------------===//

#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

namespace {
struct Limits {
  double low, high;
};
} // namespace

/// What an 8- or 16-bit integer holds; nothing for other types.
static std::optional<Limits> rangeOf(Type element) {
  auto integer = dyn_cast_or_null<IntegerType>(element);
  if (!integer || (integer.getWidth() != 8 && integer.getWidth() != 16))
    return std::nullopt;
  double size = std::ldexp(1.0, integer.getWidth());
  return integer.isUnsigned() ? Limits{0, size - 1}
                              : Limits{-size / 2, size / 2 - 1};
}

/// A scale or a zero point beside x: for all of it, for each place of a dim, or
/// for each block of places.
static Value spread(NodeImporter &n, Value value, Value x, int64_t axis,
                    int64_t block, int i) {
  if (n.failed())
    return {};
  if (n.typeOf(value).getNumElements() == 1)
    return n.reshape(value, {});
  axis = n.axis(axis, n.rank(x));
  if (n.failed())
    return {};
  int64_t size = n.shape(x)[axis];
  if (n.rank(value) == 1 && n.rank(x) >= 1 && !block) {
    if (n.shape(value)[0] != size) {
      n.fail("input " + Twine(i) + " has " + Twine(n.shape(value)[0]) +
             " elements, dim " + Twine(axis) + " has " + Twine(size));
      return {};
    }
    SmallVector<int64_t> shape(n.rank(x), 1);
    shape[axis] = size;
    return n.reshape(value, shape);
  }
  SmallVector<int64_t> needed(n.shape(x));
  if (block > 0)
    needed[axis] = (size + block - 1) / block;
  if (block <= 0 || n.shape(value) != ArrayRef<int64_t>(needed)) {
    n.fail("input " + Twine(i) +
           " has a shape that suits neither one scale, "
           "nor one for each place of dim " +
           Twine(axis) + ", nor blocks of " + Twine(block));
    return {};
  }
  SmallVector<int64_t> split(needed), repeated, whole(needed);
  split.insert(split.begin() + axis + 1, 1);
  repeated = split;
  repeated[axis + 1] = block;
  whole[axis] = needed[axis] * block;
  value = n.reshape(n.broadcastTo(n.reshape(value, split), repeated), whole);
  return n.part(value, axis, 0, size);
}

/// saturate(round(x / scale) + zero).
static Value quantize(NodeImporter &n, Value x, Value scale, Value zero,
                      Type target) {
  Arithmetic a(n);
  auto range = rangeOf(target);
  if (n.failed() || !range)
    return {};
  Value whole = n.pointwise<RoundOp>(a.div(x, scale));
  // Sums of a rounded float and a small integer are exact far beyond the range.
  Type f32 = n.graph.builder().getF32Type();
  whole = n.cast(whole, n.elementOf(x).isF64() ? n.elementOf(x) : Type(f32));
  if (zero)
    whole = a.add(whole, n.cast(zero, n.elementOf(whole)));
  return n.cast(a.min(a.max(whole, range->low), range->high), target);
}

void onnx::importQuantizeLinear(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value x = n.input(0), scale = n.input(1), zero = n.input(2);
  int64_t axis = n.intAttr("axis", 1), block = n.intAttr("block_size", 0);
  int to = static_cast<int>(n.intAttr("output_dtype", 0)),
      precision = static_cast<int>(n.intAttr("precision", 0));
  (void)n.intAttr("saturate", 1); // of 8-bit floats
  if (n.failed())
    return;
  MLIRContext *context = x.getContext();
  Type target = to     ? elementType(context, to)
                : zero ? n.elementOf(zero)
                       : elementType(context, pb::TensorProto::UINT8);
  if (!rangeOf(target))
    return n.fail("quantises to " +
                  (to ? dataTypeName(to) : std::string("a type")) +
                  ", which is not supported; 8- and 16-bit integers are");
  if (zero && n.elementOf(zero) != target)
    return n.fail("the zero point has another element type than output_dtype");
  Type work = precision ? elementType(context, precision) : n.elementOf(scale);
  if (!work || !isa<FloatType>(work))
    return n.fail("precision " + dataTypeName(precision) + " is not supported");
  // A half type divides in f32 and rounds, as it would by itself.
  Value quotient = n.cast(x, work);
  scale = n.cast(spread(n, scale, x, axis, block, 1), work);
  if (zero)
    zero = spread(n, zero, x, axis, block, 2);
  n.set(0, quantize(n, quotient, scale, zero, target));
}

void onnx::importDequantizeLinear(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value x = n.input(0), scale = n.input(1), zero = n.input(2);
  int64_t axis = n.intAttr("axis", 1), block = n.intAttr("block_size", 0);
  int to = static_cast<int>(n.intAttr("output_dtype", 0));
  if (n.failed())
    return;
  Type target = to ? elementType(x.getContext(), to) : n.elementOf(scale);
  if (!target || !isa<FloatType>(target))
    return n.fail("dequantises to " + dataTypeName(to) +
                  ", which is not supported");
  auto source = dyn_cast<IntegerType>(n.elementOf(x));
  if (!source || source.getWidth() > 32 || source.getWidth() == 1)
    return n.fail("the input must hold integers of 8, 16 or 32 bits");
  if (zero && n.elementOf(zero) != source)
    return n.fail("the zero point has another element type than the input");
  Arithmetic a(n);
  // 32-bit differences are exact in f64 alone.
  Type work = n.graph.builder().getF32Type();
  if (source.getWidth() == 32 || target.isF64())
    work = n.graph.builder().getF64Type();
  Value difference = n.cast(x, work);
  if (zero)
    difference =
        a.sub(difference, n.cast(spread(n, zero, x, axis, block, 2), work));
  scale = n.cast(spread(n, scale, x, axis, block, 1), work);
  n.set(0, n.cast(a.mul(difference, scale), target));
}

/// uint8 over the range of x and zero.
void onnx::importDynamicQuantizeLinear(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  if (n.failed())
    return;
  if (!n.elementOf(x).isF32())
    return n.fail("the input must hold f32");
  SmallVector<int64_t> all;
  for (int64_t i = 0; i < n.rank(x); ++i)
    all.push_back(i);
  Arithmetic a(n);
  Value high = a.max(n.reduce(ReductionKind::max, x, all, false), 0.0),
        low = a.min(n.reduce(ReductionKind::min, x, all, false), 0.0);
  Value scale = a.div(a.sub(high, low), 255.0);
  Value none = a.equal(scale, 0.0);
  // Where all of x is 0 any scale will do.
  scale = a.select(none, a.number(scale, 1.0), scale);
  Value zero =
      n.pointwise<RoundOp>(a.min(a.max(a.div(a.neg(low), scale), 0.0), 255.0));
  Type byte = elementType(x.getContext(), pb::TensorProto::UINT8);
  zero = n.cast(zero, byte);
  n.set(0, quantize(n, x, scale, zero, byte));
  n.set(1, scale);
  n.set(2, zero);
}

//===----------------------------------------------------------------------===//
// Products of integers
//===----------------------------------------------------------------------===//

/// x less its zero point in f32: such integers and the products of two are
/// exact there, sums of up to 2^8 products as well. Longer sums are taken in
/// f64.
static Value centred(NodeImporter &n, Value x, Value zero, int64_t dim,
                     Type work, int i) {
  if (n.failed())
    return {};
  if (!rangeOf(n.elementOf(x)) || n.elementOf(x).getIntOrFloatBitWidth() != 8) {
    n.fail("input " + Twine(i) + " must hold 8-bit integers");
    return {};
  }
  Value wide = n.cast(x, work);
  if (!zero)
    return wide;
  Value shift = n.cast(zero, work);
  if (n.typeOf(shift).getNumElements() == 1) {
    shift = n.reshape(shift, {});
  } else if (n.rank(shift) == 1) { // one for each row or column
    SmallVector<int64_t> shape(n.rank(x), 1);
    shape[dim] = n.shape(shift)[0];
    if (shape[dim] != n.shape(x)[dim]) {
      n.fail("a zero point has " + Twine(shape[dim]) + " elements, dim " +
             Twine(dim) + " has " + Twine(n.shape(x)[dim]));
      return {};
    }
    shift = n.reshape(shift, shape);
  }
  Arithmetic a(n);
  Value result = a.sub(wide, shift);
  if (result && n.shape(result) != n.shape(x)) {
    n.fail("a zero point does not broadcast to input " + Twine(i));
    return {};
  }
  return result;
}

/// The product of a and b less their zero points, exact, in f32 or f64.
static Value integerProduct(NodeImporter &n, Value lhs, Value lhsZero,
                            Value rhs, Value rhsZero, int rhsInput) {
  if (n.failed())
    return {};
  if (n.rank(lhs) < 2 || n.rank(rhs) < 2) {
    n.fail("operands have " + Twine(n.rank(lhs)) + " and " +
           Twine(n.rank(rhs)) + " dims; both need at least 2");
    return {};
  }
  OpBuilder &builder = n.graph.builder();
  bool exact = n.shape(lhs).back() <= 256;
  Type work = exact ? Type(builder.getF32Type()) : builder.getF64Type();
  Value a = centred(n, lhs, lhsZero, n.rank(lhs) - 2, work, 0),
        b = centred(n, rhs, rhsZero, n.rank(rhs) - 1, work, rhsInput);
  return n.matmul(a, b, false, false);
}

void onnx::importMatMulInteger(NodeImporter &n) {
  if (!n.expectInputs(2, 4))
    return;
  Value product =
      integerProduct(n, n.input(0), n.input(2), n.input(1), n.input(3), 1);
  n.set(0, n.cast(product, n.graph.builder().getI32Type()));
}

void onnx::importQLinearMatMul(NodeImporter &n) {
  if (!n.expectInputs(8, 8))
    return;
  Value a = n.input(0), b = n.input(3), target = n.input(7);
  Value product = integerProduct(n, a, n.input(2), b, n.input(5), 3);
  if (n.failed())
    return;
  for (int i : {1, 4, 6}) {
    Value scale = n.input(i);
    if (n.failed())
      return;
    if (n.typeOf(scale).getNumElements() != 1)
      return n.fail("input " + Twine(i) +
                    " has several scales; only one is supported");
  }
  if (n.typeOf(target).getNumElements() != 1)
    return n.fail("input 7 has several zero points; only one is supported");
  Arithmetic m(n);
  auto scale = [&](int i) {
    return n.cast(n.reshape(n.input(i), {}), n.elementOf(product));
  };
  Value factor = m.div(m.mul(scale(1), scale(4)), scale(6));
  Value one = m.number(factor, 1.0);
  if (!rangeOf(n.elementOf(target)))
    return n.fail("the result must be of 8- or 16-bit integers");
  n.set(0, quantize(n, m.mul(product, factor), one, n.reshape(target, {}),
                    n.elementOf(target)));
}
