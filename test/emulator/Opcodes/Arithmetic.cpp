//===- Arithmetic.cpp - add, mul, fma, min, max and their like ------------===//
//
// FP contraction is off for this file's folder: PTX says where it fuses.
//
//===----------------------------------------------------------------------===//
#include "Opcodes/Lanes.h"

namespace dshard::emulator {
namespace {

struct Add {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(static_cast<Wide<T>>(a) + static_cast<Wide<T>>(b));
  }
};
struct Sub {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(static_cast<Wide<T>>(a) - static_cast<Wide<T>>(b));
  }
};
struct Mul {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b));
  }
};
/// fma of the floats: one rounding; f16 and bf16 through double, whose rounding
/// to float first cannot be seen but in rare ties.
struct Fma {
  template <typename T> static T run(T a, T b, T c) {
    if constexpr (std::is_same_v<T, double>)
      return std::fma(a, b, c);
    else
      return T(std::fma(float(a), float(b), float(c)));
  }
};
/// a * b + c with the low half of the product.
struct MadLow {
  template <typename T> static T run(T a, T b, T c) {
    return static_cast<T>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b) +
                          static_cast<Wide<T>>(c));
  }
};
/// fma.rn.f32 where the host has the instruction; the library's fmaf is slow.
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void fmaF32(Warp &w, const Instruction &i,
                                                uint32_t mask) {
  float *d = w.lanes<float>(i.operand[0]);
  const float *a = w.lanes<float>(i.operand[1]);
  const float *b = w.lanes<float>(i.operand[2]);
  const float *c = w.lanes<float>(i.operand[3]);
  if (mask == 0xffffffffu) {
    INDEPENDENT_LANES
    for (unsigned l = 0; l < 32; ++l)
      d[l] = __builtin_fmaf(a[l], b[l], c[l]);
    return;
  }
  for (; mask; mask &= mask - 1) {
    unsigned l = static_cast<unsigned>(__builtin_ctz(mask));
    d[l] = __builtin_fmaf(a[l], b[l], c[l]);
  }
}
Handler fastFma() {
  return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2")
             ? fmaF32
             : nullptr;
}
#else
Handler fastFma() { return nullptr; }
#endif

struct FmaRelu {
  template <typename T> static T run(T a, T b, T c) {
    T value = Fma::run(a, b, c);
    return float(value) > 0 ? value : T(0.0f);
  }
};

template <typename T> T saturate(T value) {
  // NaN becomes 0, as PTX says.
  return value > T(0) ? (value < T(1) ? value : T(1)) : T(0);
}
template <typename F> struct Saturated {
  template <typename... T> static float run(T... v) {
    return saturate<float>(F::run(v...));
  }
};

template <typename T> struct Next;
template <> struct Next<int16_t> { using type = int32_t; };
template <> struct Next<uint16_t> { using type = uint32_t; };
template <> struct Next<int32_t> { using type = int64_t; };
template <> struct Next<uint32_t> { using type = uint64_t; };
template <> struct Next<int64_t> { using type = __int128; };
template <> struct Next<uint64_t> { using type = unsigned __int128; };

struct MulHigh {
  template <typename T> static T run(T a, T b) {
    using N = typename Next<T>::type;
    return static_cast<T>((static_cast<N>(a) * static_cast<N>(b)) >>
                          (8 * sizeof(T)));
  }
};
struct MadHigh {
  template <typename T> static T run(T a, T b, T c) {
    return Add::run(MulHigh::run(a, b), c);
  }
};
template <typename T> void mulWide(Warp &w, const Instruction &i, uint32_t m) {
  using N = typename Next<T>::type;
  struct Op {
    static N run(T a, T b) { return static_cast<N>(a) * static_cast<N>(b); }
  };
  binary<N, T, T, Op>(w, i, m);
}
template <typename T> void madWide(Warp &w, const Instruction &i, uint32_t m) {
  using N = typename Next<T>::type;
  struct Op {
    static N run(T a, T b, N c) {
      using U = std::make_unsigned_t<N>;
      return static_cast<N>(
          static_cast<U>(static_cast<N>(a) * static_cast<N>(b)) +
          static_cast<U>(c));
    }
  };
  ternary<N, T, T, N, Op>(w, i, m);
}
Handler pickWide(Type type, bool mad) {
  switch (type) {
  case Type::u16:
    return mad ? madWide<uint16_t> : mulWide<uint16_t>;
  case Type::s16:
    return mad ? madWide<int16_t> : mulWide<int16_t>;
  case Type::u32:
    return mad ? madWide<uint32_t> : mulWide<uint32_t>;
  case Type::s32:
    return mad ? madWide<int32_t> : mulWide<int32_t>;
  default:
    return nullptr;
  }
}
Type doubled(Type type) {
  switch (type) {
  case Type::u16:
    return Type::u32;
  case Type::s16:
    return Type::s32;
  case Type::u32:
    return Type::u64;
  case Type::s32:
    return Type::s64;
  default:
    return Type::none;
  }
}

/// Division by zero is no fault on the GPU: all bits set.
struct Div {
  template <typename T> static T run(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0)
        return static_cast<T>(~T(0));
      if (std::is_signed_v<T> && b == T(-1))
        return Sub::run(T(0), a);
      return static_cast<T>(a / b);
    } else {
      return T(static_cast<Wide<T>>(a) / static_cast<Wide<T>>(b));
    }
  }
};
struct Rem {
  template <typename T> static T run(T a, T b) {
    if (b == 0)
      return a;
    if (std::is_signed_v<T> && b == T(-1))
      return 0;
    return static_cast<T>(a % b);
  }
};
/// PTX: one NaN loses against a number, -0 is less than +0.
struct Max {
  template <typename T> static T run(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return a > b ? a : b;
    } else {
      Wide<T> x = a, y = b;
      if (x == y)
        return std::signbit(x) ? b : a;
      return x != x ? (y != y ? T(Wide<T>(NAN)) : b) : y != y || x > y ? a : b;
    }
  }
};
struct Min {
  template <typename T> static T run(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return a < b ? a : b;
    } else {
      Wide<T> x = a, y = b;
      if (x == y)
        return std::signbit(x) ? a : b;
      return x != x ? (y != y ? T(Wide<T>(NAN)) : b) : y != y || x < y ? a : b;
    }
  }
};
/// `.NaN`: a NaN wins.
template <typename F> struct Propagating {
  template <typename T> static T run(T a, T b) {
    Wide<T> x = a, y = b;
    return x != x || y != y ? T(Wide<T>(NAN)) : F::run(a, b);
  }
};
struct Abs {
  template <typename T> static T run(T a) {
    if constexpr (std::is_integral_v<T>)
      return a < 0 ? Sub::run(T(0), a) : a;
    else
      return T(std::fabs(static_cast<Wide<T>>(a)));
  }
};
struct Neg {
  template <typename T> static T run(T a) {
    if constexpr (std::is_integral_v<T>)
      return Sub::run(T(0), a);
    else
      return T(-static_cast<Wide<T>>(a));
  }
};
struct CopySign { // the sign is the first operand's
  template <typename T> static T run(T a, T b) {
    return T(std::copysign(static_cast<Wide<T>>(b), static_cast<Wide<T>>(a)));
  }
};
struct Sad {
  template <typename T> static T run(T a, T b, T c) {
    return Add::run(a < b ? Sub::run(b, a) : Sub::run(a, b), c);
  }
};

/// Rounding other than to nearest is not modelled but for fma.rm and add.rz
/// ... which libdevice uses to find integers: f32 through double, exactly.
enum class Rounding { nearest, zero, down, up };
Rounding takeRounding(Decoding &d) {
  int which = d.takeOneOf({"rn", "rz", "rm", "rp"});
  return which <= 0 ? Rounding::nearest : static_cast<Rounding>(which);
}
template <int direction> float roundTo(double exact) {
  float value = static_cast<float>(exact);
  double back = value;
  if (direction == 1) // towards zero
    return std::fabs(back) > std::fabs(exact) ? std::nextafterf(value, 0.0f)
                                              : value;
  if (direction == 2)
    return back > exact ? std::nextafterf(value, -INFINITY) : value;
  return back < exact ? std::nextafterf(value, INFINITY) : value;
}
template <typename Op, int direction> struct Directed {
  static float run(float a, float b) {
    return roundTo<direction>(Op::run(double(a), double(b)));
  }
  static float run(float a, float b, float c) {
    // The product is exact in double; the sum is off by at most half an ulp of
    // double, which no float boundary of our uses meets.
    return roundTo<direction>(double(a) * double(b) + double(c));
  }
};
template <typename Op, template <typename, typename> class Apply>
Handler directed(Rounding rounding) {
  switch (rounding) {
  case Rounding::zero:
    return Apply<float, Directed<Op, 1>>::run;
  case Rounding::down:
    return Apply<float, Directed<Op, 2>>::run;
  case Rounding::up:
    return Apply<float, Directed<Op, 3>>::run;
  default:
    return nullptr;
  }
}

template <typename Op> bool decodeSum(Decoding &d) {
  Type type = d.takeType();
  if (isFloat(type)) {
    Rounding rounding = takeRounding(d);
    bool ftz = d.take("ftz"), sat = d.take("sat");
    Handler handler = pickFloat<Op, Apply2>(type, ftz);
    if (sat)
      handler = type == Type::f32 ? Apply2<float, Saturated<Op>>::run : nullptr;
    if (rounding != Rounding::nearest)
      handler =
          type == Type::f32 && !sat ? directed<Op, Apply2>(rounding) : nullptr;
    return sameTypeOperands(d, type, 2) && setHandler(d, handler);
  }
  return sameTypeOperands(d, type, 2) &&
         setHandler(d, pickInteger<Op, Apply2>(type));
}

template <typename Op> bool decodeExtreme(Decoding &d) {
  Type type = d.takeType();
  if (isFloat(type)) {
    bool ftz = d.take("ftz"), nan = d.take("NaN");
    Handler handler = nan ? pickFloat<Propagating<Op>, Apply2>(type, ftz)
                          : pickFloat<Op, Apply2>(type, ftz);
    return sameTypeOperands(d, type, 2) && setHandler(d, handler);
  }
  return sameTypeOperands(d, type, 2) &&
         setHandler(d, pickInteger<Op, Apply2>(type));
}

} // namespace

bool decodeCarry(Decoding &d); // Integer.cpp: the forms with .cc

bool decode_add(Decoding &d) {
  if (d.take("cc"))
    return decodeCarry(d);
  return decodeSum<Add>(d);
}
bool decode_sub(Decoding &d) {
  if (d.take("cc"))
    return decodeCarry(d);
  return decodeSum<Sub>(d);
}

bool decode_mul(Decoding &d) {
  Type type = d.takeType();
  if (isFloat(type)) {
    Rounding rounding = takeRounding(d);
    bool ftz = d.take("ftz"), sat = d.take("sat");
    Handler handler = pickFloat<Mul, Apply2>(type, ftz);
    if (sat)
      handler =
          type == Type::f32 ? Apply2<float, Saturated<Mul>>::run : nullptr;
    if (rounding != Rounding::nearest)
      handler =
          type == Type::f32 && !sat ? directed<Mul, Apply2>(rounding) : nullptr;
    return sameTypeOperands(d, type, 2) && setHandler(d, handler);
  }
  if (d.take("wide"))
    return d.destination(0, d.instruction.operand[0], 2 * sizeOf(type)) &&
           d.source(1, d.instruction.operand[1], type) &&
           d.source(2, d.instruction.operand[2], type) &&
           setHandler(d, pickWide(type, false));
  Handler handler = d.take("hi")   ? pickInteger<MulHigh, Apply2>(type)
                    : d.take("lo") ? pickInteger<Mul, Apply2>(type)
                                   : nullptr;
  return sameTypeOperands(d, type, 2) && setHandler(d, handler);
}

bool decode_mad(Decoding &d) {
  if (d.take("cc"))
    return decodeCarry(d);
  Type type = d.takeType();
  if (isFloat(type)) {
    takeRounding(d);
    return sameTypeOperands(d, type, 3) &&
           setHandler(d, pickFloat<Fma, Apply3>(type, d.take("ftz")));
  }
  if (d.take("wide"))
    return d.destination(0, d.instruction.operand[0], 2 * sizeOf(type)) &&
           d.source(1, d.instruction.operand[1], type) &&
           d.source(2, d.instruction.operand[2], type) &&
           d.source(3, d.instruction.operand[3], doubled(type)) &&
           setHandler(d, pickWide(type, true));
  Handler handler = d.take("hi")   ? pickInteger<MadHigh, Apply3>(type)
                    : d.take("lo") ? pickInteger<MadLow, Apply3>(type)
                                   : nullptr;
  return sameTypeOperands(d, type, 3) && setHandler(d, handler);
}

bool decode_fma(Decoding &d) {
  Type type = d.takeType();
  Rounding rounding = takeRounding(d);
  bool ftz = d.take("ftz"), sat = d.take("sat"), relu = d.take("relu");
  Handler handler = pickFloat<Fma, Apply3>(type, ftz);
  if (type == Type::f32 && !ftz && fastFma())
    handler = fastFma();
  if (relu)
    handler = type == Type::f32 || type == Type::f64
                  ? nullptr
                  : pickFloat<FmaRelu, Apply3>(type, ftz);
  if (sat)
    handler = type == Type::f32 ? Apply3<float, Saturated<Fma>>::run : nullptr;
  if (rounding != Rounding::nearest)
    handler =
        type == Type::f32 && !sat ? directed<Fma, Apply3>(rounding) : nullptr;
  return sameTypeOperands(d, type, 3) && setHandler(d, handler);
}

bool decode_div(Decoding &d) {
  Type type = d.takeType();
  if (isFloat(type)) {
    if (d.takeOneOf({"rn", "full", "approx"}) < 0)
      return d.fail("this rounding is not known");
    bool ftz = d.take("ftz");
    return sameTypeOperands(d, type, 2) &&
           setHandler(d, pickFloat<Div, Apply2>(type, ftz));
  }
  return sameTypeOperands(d, type, 2) &&
         setHandler(d, pickInteger<Div, Apply2>(type));
}
bool decode_rem(Decoding &d) {
  Type type = d.takeType();
  return sameTypeOperands(d, type, 2) &&
         setHandler(d, pickInteger<Rem, Apply2>(type));
}
bool decode_max(Decoding &d) { return decodeExtreme<Max>(d); }
bool decode_min(Decoding &d) { return decodeExtreme<Min>(d); }

bool decode_abs(Decoding &d) {
  Type type = d.takeType();
  bool ftz = d.take("ftz");
  return sameTypeOperands(d, type, 1) &&
         setHandler(d, isFloat(type) ? pickFloat<Abs, Apply1>(type, ftz)
                                     : pickInteger<Abs, Apply1>(type));
}
bool decode_neg(Decoding &d) {
  Type type = d.takeType();
  bool ftz = d.take("ftz");
  return sameTypeOperands(d, type, 1) &&
         setHandler(d, isFloat(type) ? pickFloat<Neg, Apply1>(type, ftz)
                                     : pickInteger<Neg, Apply1>(type));
}
bool decode_copysign(Decoding &d) {
  Type type = d.takeType();
  return sameTypeOperands(d, type, 2) &&
         setHandler(d, pickFloat<CopySign, Apply2>(type, false));
}
bool decode_sad(Decoding &d) {
  Type type = d.takeType();
  return sameTypeOperands(d, type, 3) &&
         setHandler(d, pickInteger<Sad, Apply3>(type));
}

} // namespace dshard::emulator
