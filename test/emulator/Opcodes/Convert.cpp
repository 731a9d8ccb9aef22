//===- Convert.cpp - cvt --------------------------------------------------===//
//
// Three steps over all lanes: widen the source to int64, uint64 or double (all
// exact), round, narrow to the destination.
//
//===----------------------------------------------------------------------===//
#include "Opcodes/Lanes.h"

#include <algorithm>
#include <cstring>

namespace dshard::emulator {
namespace {

/// `instruction.immediate`: source type, rounding, flags.
enum Mode : uint8_t { none, nearest, zero, down, up };
struct Form {
  Type source;
  uint8_t sourceBytes;
  Mode integral; // .rni, .rzi, .rmi, .rpi
  Mode rounding; // .rn, .rz, .rm, .rp
  bool ftz, sat, relu, pad;
};
static_assert(sizeof(Form) == 8, "packed into the immediate");

double roundIntegral(double v, Mode mode) {
  switch (mode) {
  case nearest:
    return std::nearbyint(v);
  case zero:
    return std::trunc(v);
  case down:
    return std::floor(v);
  case up:
    return std::ceil(v);
  default:
    return v;
  }
}

template <typename R, typename W>
void widen(const void *registers, W *out, uint32_t) {
  const R *a = static_cast<const R *>(registers);
  for (unsigned l = 0; l < 32; ++l)
    out[l] = static_cast<W>(a[l]);
}
/// A narrow type in a wider register: the low bits count.
template <typename T, typename W>
void widenLow(const void *registers, unsigned stride, W *out) {
  const uint8_t *a = static_cast<const uint8_t *>(registers);
  for (unsigned l = 0; l < 32; ++l) {
    T value;
    std::memcpy(&value, a + l * stride, sizeof(T));
    out[l] = static_cast<W>(value);
  }
}

void readIntegers(Type type, const void *a, unsigned stride, int64_t *out) {
  switch (type) {
  case Type::u8:
  case Type::b8:
    return widenLow<uint8_t>(a, stride, out);
  case Type::s8:
    return widenLow<int8_t>(a, stride, out);
  case Type::u16:
  case Type::b16:
    return widenLow<uint16_t>(a, stride, out);
  case Type::s16:
    return widenLow<int16_t>(a, stride, out);
  case Type::u32:
  case Type::b32:
    return widenLow<uint32_t>(a, stride, out);
  case Type::s32:
    return widenLow<int32_t>(a, stride, out);
  default:
    return widenLow<int64_t>(a, stride, out);
  }
}
void readFloats(Type type, const void *a, bool ftz, double *out) {
  switch (type) {
  case Type::f16:
    return widen<F16>(a, out, 0);
  case Type::bf16:
    return widen<BF16>(a, out, 0);
  case Type::f32:
    return ftz ? widen<Flushed>(a, out, 0) : widen<float>(a, out, 0);
  default:
    return widen<double>(a, out, 0);
  }
}

template <typename T, typename W>
void store(Warp &w, const Instruction &i, uint32_t mask, const W *v) {
  T *d = w.lanes<T>(i.operand[0]);
  forLanes(mask, [&](unsigned l) { d[l] = static_cast<T>(v[l]); });
}
template <typename T>
void storeLow(uint8_t *d, unsigned stride, uint32_t mask, const int64_t *v,
              bool sign) {
  forLanes(mask, [&](unsigned l) {
    int64_t wide =
        sign ? static_cast<int64_t>(static_cast<std::make_signed_t<T>>(v[l]))
             : static_cast<int64_t>(static_cast<T>(v[l]));
    std::memcpy(d + l * stride, &wide, stride);
  });
}
void storeIntegers(Warp &w, const Instruction &i, uint32_t mask,
                   const int64_t *v) {
  uint8_t *d = w.lanes<uint8_t>(i.operand[0]);
  unsigned stride = i.registerBytes;
  bool sign = isSigned(i.type);
  switch (sizeOf(i.type)) {
  case 1:
    return storeLow<uint8_t>(d, stride, mask, v, sign);
  case 2:
    return storeLow<uint16_t>(d, stride, mask, v, sign);
  case 4:
    return storeLow<uint32_t>(d, stride, mask, v, sign);
  default:
    return storeLow<uint64_t>(d, stride, mask, v, sign);
  }
}
void limits(Type type, int64_t &low, int64_t &high) {
  unsigned bits = 8 * sizeOf(type);
  if (isSigned(type)) {
    high = static_cast<int64_t>((1ull << (bits - 1)) - 1);
    low = -high - 1;
  } else {
    low = 0;
    high = bits == 64 ? INT64_MAX : static_cast<int64_t>((1ull << bits) - 1);
  }
}

float directed(double v, Mode mode) {
  float f = static_cast<float>(v);
  if (mode == zero && std::fabs(double(f)) > std::fabs(v))
    return std::nextafterf(f, 0.0f);
  if (mode == down && f > v)
    return std::nextafterf(f, -INFINITY);
  if (mode == up && f < v)
    return std::nextafterf(f, INFINITY);
  return f;
}

void storeFloats(Warp &w, const Instruction &i, uint32_t mask, double *v,
                 const Form &form) {
  for (unsigned l = 0; l < 32; ++l) {
    if (form.sat)
      v[l] = v[l] > 0 ? std::min(v[l], 1.0) : 0;
    if (form.relu)
      v[l] = v[l] > 0 ? v[l] : 0;
  }
  switch (i.type) {
  case Type::f32: {
    float *d = w.lanes<float>(i.operand[0]);
    forLanes(mask, [&](unsigned l) {
      float f = directed(v[l], form.rounding);
      d[l] = form.ftz ? Flushed::flush(f) : f;
    });
    return;
  }
  case Type::f64:
    return store<double>(w, i, mask, v);
  case Type::f16:
  case Type::bf16: {
    // Through float: exact unless the source is f64.
    uint16_t *d = w.lanes<uint16_t>(i.operand[0]);
    bool half = i.type == Type::f16;
    forLanes(mask, [&](unsigned l) {
      float f = static_cast<float>(v[l]);
      d[l] = half ? halfFromFloat(f) : bfloat16FromFloat(f);
    });
    return;
  }
  default:
    return;
  }
}

Form formOf(const Instruction &i) {
  Form form;
  std::memcpy(&form, &i.immediate, sizeof(form));
  return form;
}

void fromInteger(Warp &w, const Instruction &i, uint32_t mask) {
  Form form = formOf(i);
  int64_t v[32];
  readIntegers(form.source, w.lanes<uint8_t>(i.operand[1]), form.sourceBytes,
               v);
  bool big = form.source == Type::u64 || form.source == Type::b64;
  if (!isFloat(i.type)) {
    if (form.sat) {
      int64_t low, high;
      limits(i.type, low, high);
      for (int64_t &value : v)
        value = big && value < 0 ? high : std::max(low, std::min(high, value));
    }
    return storeIntegers(w, i, mask, v);
  }
  if (i.type == Type::f32 && form.rounding <= nearest) {
    // Directly: int64 through double would round twice.
    float *d = w.lanes<float>(i.operand[0]);
    forLanes(mask, [&](unsigned l) {
      d[l] = big ? static_cast<float>(static_cast<uint64_t>(v[l]))
                 : static_cast<float>(v[l]);
    });
    return;
  }
  double wide[32];
  for (unsigned l = 0; l < 32; ++l)
    wide[l] = big ? static_cast<double>(static_cast<uint64_t>(v[l]))
                  : static_cast<double>(v[l]);
  storeFloats(w, i, mask, wide, form);
}

void fromFloat(Warp &w, const Instruction &i, uint32_t mask) {
  Form form = formOf(i);
  double v[32];
  readFloats(form.source, w.lanes<uint8_t>(i.operand[1]), form.ftz, v);
  if (form.integral != none)
    for (double &value : v)
      value = roundIntegral(value, form.integral);
  if (isFloat(i.type))
    return storeFloats(w, i, mask, v, form);
  // Out of range goes to the nearest end, NaN to 0.
  int64_t out[32], low, high;
  limits(i.type, low, high);
  bool big = sizeOf(i.type) == 8;
  for (unsigned l = 0; l < 32; ++l) {
    double x = v[l];
    if (x != x)
      out[l] = big ? INT64_MIN : 0;
    else if (big && !isSigned(i.type))
      out[l] = x <= 0        ? 0
               : x >= 0x1p64 ? -1
                             : static_cast<int64_t>(static_cast<uint64_t>(x));
    else
      out[l] = x >= static_cast<double>(high)  ? high
               : x <= static_cast<double>(low) ? low
                                               : static_cast<int64_t>(x);
  }
  storeIntegers(w, i, mask, out);
}

/// cvt.rn.bf16x2.f32 d, a, b: a becomes the high half.
template <typename T, bool relu>
void packPair(Warp &w, const Instruction &i, uint32_t mask) {
  struct Op {
    static Two<T> run(float a, float b) {
      if (relu)
        a = a > 0 ? a : 0, b = b > 0 ? b : 0;
      return {T(b), T(a)};
    }
  };
  binary<Two<T>, float, float, Op>(w, i, mask);
}

} // namespace

bool decode_cvt(Decoding &d) {
  Instruction &i = d.instruction;
  Form form = {};
  static const Mode modes[] = {nearest, zero, down, up};
  int integral = d.takeOneOf({"rni", "rzi", "rmi", "rpi"});
  form.integral = integral < 0 ? none : modes[integral];
  int rounding = d.takeOneOf({"rn", "rz", "rm", "rp"});
  form.rounding = rounding < 0 ? none : modes[rounding];
  form.ftz = d.take("ftz");
  form.sat = d.take("sat");
  form.relu = d.take("relu");
  i.type = d.takeFirstType();
  form.source = d.takeType();
  if (i.type == Type::none || form.source == Type::none ||
      i.type == Type::f32x2 || form.source == Type::f32x2)
    return d.fail("a type is missing or not known");
  if (i.type == Type::bf16x2 || i.type == Type::f16x2) {
    if (form.source != Type::f32 || form.rounding != nearest ||
        d.operands.size() != 3)
      return d.fail("not known in this form");
    bool half = i.type == Type::f16x2;
    return d.destination(0, i.operand[0], 4) &&
           d.source(1, i.operand[1], Type::f32) &&
           d.source(2, i.operand[2], Type::f32) &&
           setHandler(
               d, form.relu
                      ? (half ? packPair<F16, true> : packPair<BF16, true>)
                      : (half ? packPair<F16, false> : packPair<BF16, false>));
  }
  if (d.operands.size() != 2)
    return d.fail("expects 2 operands");
  // Registers may be wider than integer types.
  i.registerBytes = static_cast<uint8_t>(d.registerBytes(d.operands[0]));
  form.sourceBytes = static_cast<uint8_t>(d.registerBytes(d.operands[1]));
  if (d.operands[1].kind != ParsedOperand::name)
    form.sourceBytes = static_cast<uint8_t>(std::max(2u, sizeOf(form.source)));
  auto typeOf = [](unsigned bytes) {
    return bytes == 2 ? Type::b16 : bytes == 4 ? Type::b32 : Type::b64;
  };
  if (i.registerBytes < sizeOf(i.type) || i.registerBytes < 2 ||
      form.sourceBytes < sizeOf(form.source) || form.sourceBytes < 2)
    return d.fail("a register is too narrow");
  if ((isFloat(i.type) && i.registerBytes != sizeOf(i.type)) ||
      (isFloat(form.source) && form.sourceBytes != sizeOf(form.source)))
    return d.fail("a register of another width");
  if (isFloat(form.source) && !isFloat(i.type) && form.integral == none)
    return d.fail("an integer rounding is missing");
  std::memcpy(&i.immediate, &form, sizeof(form));
  return d.destination(0, i.operand[0], i.registerBytes) &&
         d.source(1, i.operand[1],
                  isFloat(form.source) ? form.source
                                       : typeOf(form.sourceBytes)) &&
         setHandler(d, isFloat(form.source) ? fromFloat : fromInteger);
}

} // namespace dshard::emulator
