//===- LaneMath.cpp - Arithmetic on one or several lanes ------------------===//

#include "dshard/Codegen/LaneMath.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <cmath>
#include <limits>
#include <utility>

using namespace mlir;
using namespace mlir::dshard;

namespace {
bool isFloat(Value x) { return isa<FloatType>(getElementTypeOrSelf(x)); }
} // namespace

Type LaneMath::computeType(Type element) const {
  if (element.isF64())
    return element;
  if (isa<FloatType>(element))
    return b.getF32Type();
  return b.getIntegerType(element.getIntOrFloatBitWidth());
}

Type LaneMath::storageType(Type element) const {
  if (element.isBF16())
    return b.getI16Type();
  if (isa<FloatType>(element))
    return element;
  unsigned bits = element.getIntOrFloatBitWidth();
  return b.getIntegerType(bits < 8 ? 8 : bits);
}

int64_t LaneMath::lanes(Value value) {
  auto type = dyn_cast<VectorType>(value.getType());
  return type ? type.getNumElements() : 0;
}

Value LaneMath::splat(Value scalar, int64_t count) {
  if (!count || lanes(scalar))
    return scalar;
  return vector::BroadcastOp::create(
      b, loc, VectorType::get({count}, scalar.getType()), scalar);
}

Value LaneMath::constant(Type type, double value) {
  if (auto floatType = dyn_cast<FloatType>(type))
    return arith::ConstantOp::create(b, loc, b.getFloatAttr(floatType, value));
  return integer(type, static_cast<int64_t>(value));
}

Value LaneMath::integer(Type type, int64_t value) {
  return arith::ConstantOp::create(b, loc, b.getIntegerAttr(type, value));
}

Type LaneMath::sameShape(Value like, Type scalar) {
  if (int64_t count = lanes(like))
    return VectorType::get({count}, scalar);
  return scalar;
}

Value LaneMath::like(Value x, double value) {
  Type type = x.getType();
  auto element = mlir::cast<FloatType>(getElementTypeOrSelf(type));
  TypedAttr attr = b.getFloatAttr(element, value);
  if (auto vector = dyn_cast<VectorType>(type))
    attr = DenseElementsAttr::get(vector, attr);
  return arith::ConstantOp::create(b, loc, attr);
}

Value LaneMath::likeInt(Value x, int64_t value) {
  Type type = x.getType();
  TypedAttr attr = b.getIntegerAttr(getElementTypeOrSelf(type), value);
  if (auto vector = dyn_cast<VectorType>(type))
    attr = DenseElementsAttr::get(vector, attr);
  return arith::ConstantOp::create(b, loc, attr);
}

void LaneMath::match(Value &x, Value &y) {
  int64_t count = std::max(lanes(x), lanes(y));
  x = splat(x, count);
  y = splat(y, count);
}

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

Value LaneMath::fromStorage(Value stored, Type element) {
  if (element.isBF16()) {
    Type i32 = sameShape(stored, b.getI32Type());
    Value wide = arith::ExtUIOp::create(b, loc, i32, stored);
    wide = arith::ShLIOp::create(b, loc, wide, likeInt(wide, 16));
    return arith::BitcastOp::create(b, loc, sameShape(stored, b.getF32Type()),
                                    wide);
  }
  if (element.isF16())
    return arith::ExtFOp::create(b, loc, sameShape(stored, b.getF32Type()),
                                 stored);
  if (element.isInteger(1))
    return compareInt(arith::CmpIPredicate::ne, stored, likeInt(stored, 0));
  return stored;
}

Value LaneMath::toStorage(Value value, Type element) {
  if (element.isBF16()) {
    Value bits = arith::BitcastOp::create(
        b, loc, sameShape(value, b.getI32Type()), value);
    bits = arith::ShRUIOp::create(b, loc, bits, likeInt(bits, 16));
    return arith::TruncIOp::create(b, loc, sameShape(value, b.getI16Type()),
                                   bits);
  }
  if (element.isF16())
    return arith::TruncFOp::create(b, loc, sameShape(value, element), value);
  if (element.isInteger(1))
    return arith::ExtUIOp::create(b, loc, sameShape(value, b.getI8Type()),
                                  value);
  return value;
}

Value LaneMath::round(Value value, Type element) {
  if (element.isF16()) {
    Value half =
        arith::TruncFOp::create(b, loc, sameShape(value, element), value);
    return arith::ExtFOp::create(b, loc, value.getType(), half);
  }
  if (!element.isBF16())
    return value;
  // To nearest even on the bits; a NaN keeps its sign and becomes quiet.
  Type i32 = sameShape(value, b.getI32Type());
  Value bits = arith::BitcastOp::create(b, loc, i32, value);
  Value odd = arith::ShRUIOp::create(b, loc, bits, likeInt(bits, 16));
  odd = arith::AndIOp::create(b, loc, odd, likeInt(bits, 1));
  Value sum = arith::AddIOp::create(b, loc, bits, likeInt(bits, 0x7fff));
  sum = arith::AddIOp::create(b, loc, sum, odd);
  Value quiet = arith::OrIOp::create(b, loc, bits, likeInt(bits, 0x400000));
  Value isNan = compareFloat(arith::CmpFPredicate::UNO, value, value);
  bits = select(isNan, quiet, sum);
  bits = arith::AndIOp::create(b, loc, bits,
                               likeInt(bits, static_cast<int32_t>(0xffff0000)));
  return arith::BitcastOp::create(b, loc, value.getType(), bits);
}

Value LaneMath::cast(Value value, Type from, Type to) {
  Type target = computeType(to), source = getElementTypeOrSelf(value);
  Type shaped = sameShape(value, target);
  if (to.isInteger(1))
    return source.isInteger(1) ? value : isNonZero(value);
  if (isa<FloatType>(target)) {
    if (source == target)
      return round(value, to);
    if (isa<FloatType>(source)) {
      if (source.isF64())
        value = arith::TruncFOp::create(b, loc, shaped, value);
      else
        value = arith::ExtFOp::create(b, loc, shaped, value);
    } else if (from.isInteger(1) || from.isUnsignedInteger()) {
      value = arith::UIToFPOp::create(b, loc, shaped, value);
    } else {
      value = arith::SIToFPOp::create(b, loc, shaped, value);
    }
    return round(value, to);
  }
  if (isa<FloatType>(source)) {
    // An unrepresentable value gives some value, and never undefined behaviour.
    unsigned bits = target.getIntOrFloatBitWidth();
    double low = to.isUnsignedInteger() ? 0.0 : -std::ldexp(1.0, bits - 1);
    double high = std::ldexp(1.0, to.isUnsignedInteger() ? bits : bits - 1);
    Value inside = logicalAnd(
        compareFloat(arith::CmpFPredicate::OGT, value, like(value, low - 1)),
        compareFloat(arith::CmpFPredicate::OLT, value, like(value, high)));
    if (bits >= 32) // low - 1 is not representable beside low
      inside = logicalAnd(
          compareFloat(arith::CmpFPredicate::OGE, value, like(value, low)),
          compareFloat(arith::CmpFPredicate::OLT, value, like(value, high)));
    value = select(inside, value, like(value, 0.0));
    if (to.isUnsignedInteger())
      return arith::FPToUIOp::create(b, loc, shaped, value);
    return arith::FPToSIOp::create(b, loc, shaped, value);
  }
  unsigned sourceBits = source.getIntOrFloatBitWidth(),
           targetBits = target.getIntOrFloatBitWidth();
  if (sourceBits > targetBits)
    return arith::TruncIOp::create(b, loc, shaped, value);
  if (sourceBits == targetBits)
    return value;
  if (from.isInteger(1) || from.isUnsignedInteger())
    return arith::ExtUIOp::create(b, loc, shaped, value);
  return arith::ExtSIOp::create(b, loc, shaped, value);
}

Value LaneMath::toDouble(Value x) {
  if (getElementTypeOrSelf(x).isF64())
    return x;
  return arith::ExtFOp::create(b, loc, sameShape(x, b.getF64Type()), x);
}

Value LaneMath::fromDouble(Value x, Type scalar) {
  if (scalar.isF64())
    return x;
  return arith::TruncFOp::create(b, loc, sameShape(x, scalar), x);
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

#define DSHARD_BINARY(NAME, FLOAT, INT)                                        \
  Value LaneMath::NAME(Value x, Value y) {                                     \
    match(x, y);                                                               \
    if (isFloat(x))                                                            \
      return arith::FLOAT::create(b, loc, x, y);                               \
    return arith::INT::create(b, loc, x, y);                                   \
  }
DSHARD_BINARY(add, AddFOp, AddIOp)
DSHARD_BINARY(sub, SubFOp, SubIOp)
DSHARD_BINARY(mul, MulFOp, MulIOp)
#undef DSHARD_BINARY

Value LaneMath::div(Value x, Value y, bool isUnsigned) {
  match(x, y);
  if (isFloat(x))
    return arith::DivFOp::create(b, loc, x, y);
  // Hardware traps on a zero divisor and on min / -1.
  Value zero = likeInt(y, 0), one = likeInt(y, 1), minus = likeInt(y, -1);
  Value isZero = compareInt(arith::CmpIPredicate::eq, y, zero);
  if (isUnsigned)
    return arith::DivUIOp::create(b, loc, x, select(isZero, one, y));
  Value isMinus = compareInt(arith::CmpIPredicate::eq, y, minus);
  Value safe = select(logicalOr(isZero, isMinus), one, y);
  Value quotient = arith::DivSIOp::create(b, loc, x, safe);
  return select(isMinus, neg(x), quotient);
}

Value LaneMath::max(Value x, Value y, bool isUnsigned) {
  match(x, y);
  if (isFloat(x))
    return arith::MaximumFOp::create(b, loc, x, y);
  if (isUnsigned || getElementTypeOrSelf(x).isInteger(1))
    return arith::MaxUIOp::create(b, loc, x, y);
  return arith::MaxSIOp::create(b, loc, x, y);
}

Value LaneMath::min(Value x, Value y, bool isUnsigned) {
  match(x, y);
  if (isFloat(x))
    return arith::MinimumFOp::create(b, loc, x, y);
  if (isUnsigned || getElementTypeOrSelf(x).isInteger(1))
    return arith::MinUIOp::create(b, loc, x, y);
  return arith::MinSIOp::create(b, loc, x, y);
}

Value LaneMath::neg(Value x) {
  if (isFloat(x))
    return arith::NegFOp::create(b, loc, x);
  return arith::SubIOp::create(b, loc, likeInt(x, 0), x);
}

Value LaneMath::abs(Value x) {
  if (isFloat(x))
    return math::AbsFOp::create(b, loc, x);
  return select(compareInt(arith::CmpIPredicate::slt, x, likeInt(x, 0)), neg(x),
                x);
}

Value LaneMath::select(Value condition, Value x, Value y) {
  int64_t count = std::max({lanes(condition), lanes(x), lanes(y)});
  return arith::SelectOp::create(b, loc, splat(condition, count),
                                 splat(x, count), splat(y, count));
}

Value LaneMath::compareFloat(arith::CmpFPredicate predicate, Value x, Value y) {
  match(x, y);
  return arith::CmpFOp::create(b, loc, predicate, x, y);
}

Value LaneMath::compareInt(arith::CmpIPredicate predicate, Value x, Value y) {
  match(x, y);
  return arith::CmpIOp::create(b, loc, predicate, x, y);
}

Value LaneMath::isNonZero(Value x) {
  if (isFloat(x))
    return compareFloat(arith::CmpFPredicate::UNE, x, like(x, 0.0));
  if (getElementTypeOrSelf(x).isInteger(1))
    return x;
  return compareInt(arith::CmpIPredicate::ne, x, likeInt(x, 0));
}

Value LaneMath::logicalAnd(Value x, Value y) {
  match(x, y);
  return arith::AndIOp::create(b, loc, x, y);
}
Value LaneMath::logicalOr(Value x, Value y) {
  match(x, y);
  return arith::OrIOp::create(b, loc, x, y);
}
Value LaneMath::logicalXor(Value x, Value y) {
  match(x, y);
  return arith::XOrIOp::create(b, loc, x, y);
}

Value LaneMath::fma(Value x, Value y, Value z) {
  int64_t count = std::max({lanes(x), lanes(y), lanes(z)});
  return math::FmaOp::create(b, loc, splat(x, count), splat(y, count),
                             splat(z, count));
}

Value LaneMath::sqrt(Value x) { return math::SqrtOp::create(b, loc, x); }
Value LaneMath::floor(Value x) { return math::FloorOp::create(b, loc, x); }
Value LaneMath::ceil(Value x) { return math::CeilOp::create(b, loc, x); }
Value LaneMath::trunc(Value x) { return math::TruncOp::create(b, loc, x); }
Value LaneMath::roundEven(Value x) {
  return math::RoundEvenOp::create(b, loc, x);
}

//===----------------------------------------------------------------------===//
// Transcendental functions
//===----------------------------------------------------------------------===//

Value LaneMath::horner(Value x, ArrayRef<double> highToLow) {
  Value result = like(x, highToLow.front());
  for (double coefficient : highToLow.drop_front())
    result = math::FmaOp::create(b, loc, result, x, like(x, coefficient));
  return result;
}

/// Highest power first: 1/n!, ..., 1/1!, 1/0!.
static SmallVector<double> inverseFactorials(int highest, int step = 1,
                                             bool alternate = false) {
  SmallVector<double> result;
  for (int n = highest; n >= 0; n -= step) {
    double factorial = std::tgamma(n + 1.0);
    bool negative = alternate && (n / step) % 2;
    result.push_back((negative ? -1.0 : 1.0) / factorial);
  }
  return result;
}

Value LaneMath::exp(Value x) {
  if (!getElementTypeOrSelf(x).isF64())
    return math::ExpOp::create(b, loc, x); // upstream's approximation
  // exp(x) = 2^n exp(r), |r| <= ln2 / 2, in two factors so that subnormal
  // results come out. The clamp keeps n an i32; NaN passes through.
  Value clamped = select(
      compareFloat(arith::CmpFPredicate::OGT, x, like(x, 720)), like(x, 720),
      select(compareFloat(arith::CmpFPredicate::OLT, x, like(x, -760)),
             like(x, -760), x));
  Value isNan = compareFloat(arith::CmpFPredicate::UNO, x, x);
  clamped = select(isNan, like(x, 0.0), clamped);
  Value n = roundEven(mul(clamped, like(x, 1.4426950408889634)));
  Value r = fma(n, like(x, -6.93147180369123816490e-01), clamped);
  r = fma(n, like(x, -1.90821492927058770002e-10), r);
  Value p = horner(r, inverseFactorials(14));
  Value whole =
      arith::FPToSIOp::create(b, loc, sameShape(x, b.getI32Type()), n);
  Value half = arith::ShRSIOp::create(b, loc, whole, likeInt(whole, 1));
  Value rest = arith::SubIOp::create(b, loc, whole, half);
  auto power = [&](Value exponent) {
    Value bits = arith::ExtSIOp::create(
        b, loc, sameShape(x, b.getI64Type()),
        arith::AddIOp::create(b, loc, exponent, likeInt(exponent, 1023)));
    bits = arith::ShLIOp::create(b, loc, bits, likeInt(bits, 52));
    return arith::BitcastOp::create(b, loc, x.getType(), bits).getResult();
  };
  Value result = mul(mul(p, power(half)), power(rest));
  return select(isNan, x, result);
}

Value LaneMath::log(Value x) {
  if (!getElementTypeOrSelf(x).isF64())
    return math::LogOp::create(b, loc, x);
  // log(m 2^e) = e ln2 + 2 atanh((m - 1) / (m + 1)), sqrt(1/2) <= m < sqrt(2).
  Type i64 = sameShape(x, b.getI64Type());
  double tiny = std::numeric_limits<double>::min();
  Value subnormal = compareFloat(arith::CmpFPredicate::OLT, x, like(x, tiny));
  Value scaled = select(subnormal, mul(x, like(x, 0x1p54)), x);
  Value bits = arith::BitcastOp::create(b, loc, i64, scaled);
  Value offset = arith::SubIOp::create(
      b, loc, bits, likeInt(bits, 0x3fe6a09e667f3bcd)); // bits of sqrt(1/2)
  Value exponent = arith::ShRSIOp::create(b, loc, offset, likeInt(bits, 52));
  Value mantissaBits = arith::SubIOp::create(
      b, loc, bits, arith::ShLIOp::create(b, loc, exponent, likeInt(bits, 52)));
  Value m = arith::BitcastOp::create(b, loc, x.getType(), mantissaBits);
  Value e = arith::SIToFPOp::create(
      b, loc, x.getType(),
      arith::TruncIOp::create(b, loc, sameShape(x, b.getI32Type()), exponent));
  e = select(subnormal, sub(e, like(x, 54)), e);
  Value s = div(sub(m, like(x, 1)), add(m, like(x, 1)));
  SmallVector<double> series;
  for (int n = 23; n >= 1; n -= 2)
    series.push_back(2.0 / n);
  Value result = mul(s, horner(mul(s, s), series));
  result = fma(e, like(x, 1.90821492927058770002e-10), result);
  result = fma(e, like(x, 6.93147180369123816490e-01), result);
  double inf = std::numeric_limits<double>::infinity();
  double nan = std::numeric_limits<double>::quiet_NaN();
  result = select(compareFloat(arith::CmpFPredicate::OEQ, x, like(x, inf)), x,
                  result);
  result = select(compareFloat(arith::CmpFPredicate::OEQ, x, like(x, 0)),
                  like(x, -inf), result);
  result = select(compareFloat(arith::CmpFPredicate::OLT, x, like(x, 0)),
                  like(x, nan), result);
  return select(compareFloat(arith::CmpFPredicate::UNO, x, x), x, result);
}

Value LaneMath::sinOrCos(Value x, bool cosine) {
  // In f64 for both types: the quadrant of a rotary angle in the thousands
  // costs f32 its accuracy.
  Type scalar = getElementTypeOrSelf(x);
  Value y = toDouble(x);
  Value n = roundEven(mul(y, like(y, 0.63661977236758134308)));
  Value r = fma(n, like(y, -1.57079632679489655800e+00), y);
  r = fma(n, like(y, -6.12323399573676603587e-17), r);
  Value r2 = mul(r, r);
  SmallVector<double> sine, cosineSeries = inverseFactorials(16, 2, true);
  for (int k = 17; k >= 1; k -= 2)
    sine.push_back((k / 2 % 2 ? -1.0 : 1.0) / std::tgamma(k + 1.0));
  Value s = mul(r, horner(r2, sine)), c = horner(r2, cosineSeries);
  Value inRange =
      compareFloat(arith::CmpFPredicate::OLT, abs(n), like(y, 2147483000.0));
  Value quadrant = arith::FPToSIOp::create(b, loc, sameShape(x, b.getI32Type()),
                                           select(inRange, n, like(y, 0.0)));
  if (cosine)
    quadrant = add(quadrant, likeInt(quadrant, 1));
  Value swap =
      compareInt(arith::CmpIPredicate::ne,
                 arith::AndIOp::create(b, loc, quadrant, likeInt(quadrant, 1)),
                 likeInt(quadrant, 0));
  Value minus =
      compareInt(arith::CmpIPredicate::ne,
                 arith::AndIOp::create(b, loc, quadrant, likeInt(quadrant, 2)),
                 likeInt(quadrant, 0));
  Value result = select(swap, c, s);
  result = select(minus, neg(result), result);
  // Infinity and NaN give NaN.
  result = select(inRange, result, sub(y, y));
  return fromDouble(result, scalar);
}

Value LaneMath::atan(Value x) {
  // Of a = |x|: above tan(3 pi/8), pi/2 + atan(-1 / a); above tan(pi/8), pi/4 +
  // atan((a - 1) / (a + 1)); so |z| <= tan(pi/8), and one division is enough.
  bool wide = getElementTypeOrSelf(x).isF64();
  Value a = abs(x), one = like(x, 1), zero = like(x, 0);
  Value isMiddle =
      compareFloat(arith::CmpFPredicate::OGT, a, like(x, 0.41421356237309503));
  Value isLarge =
      compareFloat(arith::CmpFPredicate::OGT, a, like(x, 2.4142135623730949));
  auto pick = [&](Value large, Value middle, Value small) {
    return select(isLarge, large, select(isMiddle, middle, small));
  };
  Value z = div(pick(like(x, -1), sub(a, one), a), pick(a, add(a, one), one));
  // (atan(z) / z - 1) / z^2 in powers of z^2. f64: the series, whose first term
  // left out is below 1e-17. f32: minimax, relative error of atan 7e-10.
  SmallVector<double> series;
  if (wide)
    for (int n = 21; n >= 1; --n)
      series.push_back((n % 2 ? -1.0 : 1.0) / (2 * n + 1));
  else
    series = {-0.06078221629534933, 0.10593813822983279, -0.1424353335829472,
              0.19998471516265226, -0.33333315188627016};
  Value z2 = mul(z, z);
  Value tail = mul(mul(z, z2), horner(z2, series));
  // pi/2 and pi/4, each with what its type rounds off.
  double high = wide ? 1.5707963267948966 : 1.57079637050628662109375;
  double low = wide ? 6.123233995736766e-17 : -4.3711388286737929e-08;
  tail = add(tail, pick(like(x, low), like(x, low / 2), zero));
  Value result =
      add(pick(like(x, high), like(x, high / 2), zero), add(z, tail));
  // atan is odd, down to the sign of zero.
  Type bits = sameShape(x, b.getIntegerType(wide ? 64 : 32));
  Value sign = arith::BitcastOp::create(b, loc, bits, x);
  sign = arith::AndIOp::create(
      b, loc, sign,
      likeInt(sign, wide ? INT64_MIN : static_cast<int64_t>(INT32_MIN)));
  result = arith::OrIOp::create(b, loc, sign,
                                arith::BitcastOp::create(b, loc, bits, result));
  return arith::BitcastOp::create(b, loc, x.getType(), result);
}

Value LaneMath::tanh(Value x) {
  if (!getElementTypeOrSelf(x).isF64())
    return math::TanhOp::create(b, loc, x);
  // Small: sinh / cosh by their series; else (1 - t) / (1 + t), t = exp(-2|x|).
  Value a = abs(x), x2 = mul(x, x);
  SmallVector<double> sinh;
  for (int k = 15; k >= 1; k -= 2)
    sinh.push_back(1.0 / std::tgamma(k + 1.0));
  Value small =
      div(mul(x, horner(x2, sinh)), horner(x2, inverseFactorials(16, 2)));
  Value t = exp(mul(a, like(x, -2)));
  Value large = div(sub(like(x, 1), t), add(like(x, 1), t));
  large = select(compareFloat(arith::CmpFPredicate::OLT, x, like(x, 0)),
                 neg(large), large);
  return select(compareFloat(arith::CmpFPredicate::OLT, a, like(x, 0.5)), small,
                large);
}

Value LaneMath::erf(Value x) {
  if (!getElementTypeOrSelf(x).isF64())
    return math::ErfOp::create(b, loc, x);
  // erf(x) = 2/sqrt(pi) exp(-x^2) x sum_n (2 x^2)^n / (2n+1)!!: all terms are
  // positive, so nothing cancels. Beyond 6 the result is 1 in f64.
  SmallVector<double> series;
  double doubleFactorial = 1;
  for (int n = 0; n <= 130; ++n) {
    doubleFactorial *= 2 * n + 1;
    double term = std::ldexp(1.0, n) / doubleFactorial;
    if (!(term > 1e-290))
      break;
    series.insert(series.begin(), term);
  }
  Value isLarge = compareFloat(arith::CmpFPredicate::OGE, abs(x), like(x, 6.0));
  Value y = select(isLarge, like(x, 0.0), x);
  Value y2 = mul(y, y);
  Value result = mul(mul(exp(neg(y2)), mul(y, horner(y2, series))),
                     like(x, 1.1283791670955125739));
  Value one = select(compareFloat(arith::CmpFPredicate::OLT, x, like(x, 0)),
                     like(x, -1), like(x, 1));
  return select(isLarge, one, result);
}

Value LaneMath::sigmoid(Value x) {
  return div(like(x, 1), add(like(x, 1), exp(neg(x))));
}

Value LaneMath::pow(Value x, Value y) {
  // In f64 for both types: y log(x) loses as many digits as the result's
  // exponent has.
  Type scalar = getElementTypeOrSelf(x);
  match(x, y);
  Value base = toDouble(x), e = toDouble(y);
  double inf = std::numeric_limits<double>::infinity();
  Value whole = compareFloat(arith::CmpFPredicate::OEQ, e, floor(e));
  Value halved = mul(e, like(e, 0.5));
  Value odd = logicalAnd(
      whole, compareFloat(arith::CmpFPredicate::ONE, halved, floor(halved)));
  Value size = abs(base);
  Value result = exp(mul(e, log(size)));
  // The logarithm's infinities times an exponent of zero.
  Value negative = compareFloat(
      arith::CmpFPredicate::OLT,
      arith::SelectOp::create(
          b, loc, compareFloat(arith::CmpFPredicate::OEQ, base, like(base, 0)),
          div(like(base, 1), base), base),
      like(base, 0));
  result = select(logicalAnd(negative, odd), neg(result), result);
  Value finiteNegative = logicalAnd(
      compareFloat(arith::CmpFPredicate::OLT, base, like(base, 0)),
      compareFloat(arith::CmpFPredicate::OGT, base, like(base, -inf)));
  Value notWhole = compareFloat(arith::CmpFPredicate::ONE, e, floor(e));
  result = select(logicalAnd(finiteNegative, notWhole),
                  like(base, std::numeric_limits<double>::quiet_NaN()), result);
  Value one =
      logicalOr(compareFloat(arith::CmpFPredicate::OEQ, e, like(e, 0)),
                compareFloat(arith::CmpFPredicate::OEQ, base, like(base, 1)));
  Value minusOne =
      logicalAnd(compareFloat(arith::CmpFPredicate::OEQ, base, like(base, -1)),
                 compareFloat(arith::CmpFPredicate::OEQ, abs(e), like(e, inf)));
  result = select(logicalOr(one, minusOne), like(base, 1), result);
  return fromDouble(result, scalar);
}

Value LaneMath::shift(Value x, Value by, bool left, bool isUnsigned) {
  match(x, by);
  int64_t width = getElementTypeOrSelf(x).getIntOrFloatBitWidth();
  // As unsigned numbers: a negative one is huge.
  Value inside = compareInt(arith::CmpIPredicate::ult, by, likeInt(by, width));
  bool keepsSign = !left && !isUnsigned;
  Value safe = select(inside, by, likeInt(by, keepsSign ? width - 1 : 0));
  if (keepsSign)
    return arith::ShRSIOp::create(b, loc, x, safe);
  Value moved = left ? arith::ShLIOp::create(b, loc, x, safe).getResult()
                     : arith::ShRUIOp::create(b, loc, x, safe).getResult();
  return select(inside, moved, likeInt(x, 0));
}

Value LaneMath::bitCast(Value value, Type from, Type to) {
  // f16 and bf16 are held as f32.
  unsigned width = from.getIntOrFloatBitWidth();
  if (isa<FloatType>(from)) {
    Value stored = toStorage(value, from);
    Type bits = sameShape(stored, b.getIntegerType(width));
    value = stored.getType() == bits
                ? stored
                : arith::BitcastOp::create(b, loc, bits, stored).getResult();
  }
  if (!isa<FloatType>(to))
    return value;
  Type storage = sameShape(value, storageType(to));
  Value stored =
      storage == value.getType()
          ? value
          : arith::BitcastOp::create(b, loc, storage, value).getResult();
  return fromStorage(stored, to);
}

Value LaneMath::mod(Value x, Value y, bool truncated, bool isUnsigned) {
  match(x, y);
  if (!isFloat(x)) {
    Value quotient = div(x, y, isUnsigned);
    Value zero = likeInt(x, 0);
    Value r = select(compareInt(arith::CmpIPredicate::eq, y, zero), zero,
                     sub(x, mul(quotient, y)));
    if (truncated || isUnsigned)
      return r;
    Value differ =
        compareInt(arith::CmpIPredicate::slt, logicalXor(r, y), zero);
    Value some = compareInt(arith::CmpIPredicate::ne, r, zero);
    return select(logicalAnd(differ, some), add(r, y), r);
  }
  Type scalar = getElementTypeOrSelf(x);
  Value a = toDouble(x), d = toDouble(y);
  Value quotient = div(a, d);
  quotient = truncated ? trunc(quotient) : floor(quotient);
  Value r = fma(neg(quotient), d, a);
  // Of what is finite, an infinite divisor leaves everything, once turned to
  // its own sign.
  Value endless =
      compareFloat(arith::CmpFPredicate::OEQ, abs(d),
                   like(d, std::numeric_limits<double>::infinity()));
  Value whole = a;
  if (!truncated) {
    Value zero = like(a, 0);
    Value differ = logicalXor(compareFloat(arith::CmpFPredicate::OLT, a, zero),
                              compareFloat(arith::CmpFPredicate::OLT, d, zero));
    differ =
        logicalAnd(differ, compareFloat(arith::CmpFPredicate::ONE, a, zero));
    whole = select(differ, d, a);
  }
  // Nothing is left of an infinity, whatever divides it.
  whole = add(whole, sub(a, a));
  r = select(endless, whole, r);
  if (truncated) {
    // The quotient may have been rounded over a whole number.
    Value size = abs(d);
    Value sign = select(compareFloat(arith::CmpFPredicate::OLT, a, like(a, 0)),
                        like(a, -1), like(a, 1));
    Value positive = mul(r, sign);
    positive =
        select(compareFloat(arith::CmpFPredicate::OLT, positive, like(a, 0)),
               add(positive, size), positive);
    positive = select(compareFloat(arith::CmpFPredicate::OGE, positive, size),
                      sub(positive, size), positive);
    r = mul(positive, sign);
  }
  return fromDouble(r, scalar);
}

Value LaneMath::reduceLanes(Value vector,
                            function_ref<Value(Value, Value)> combine) {
  for (int64_t count = lanes(vector); count > 1; count /= 2) {
    SmallVector<int64_t> low, high;
    for (int64_t i = 0; i < count / 2; ++i) {
      low.push_back(i);
      high.push_back(i + count / 2);
    }
    vector = combine(vector::ShuffleOp::create(b, loc, vector, vector, low),
                     vector::ShuffleOp::create(b, loc, vector, vector, high));
  }
  return vector::ExtractOp::create(b, loc, vector, ArrayRef<int64_t>{0});
}
