//===- Lanes.h - Operations written once per lane type ----------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_OPCODES_LANES_H
#define DSHARD_EMULATOR_OPCODES_LANES_H

#include "Execution/Launch.h"
#include "Ptx/Decode.h"

#include <type_traits>

namespace dshard::emulator {

/// Before a loop over lanes whose registers are the same or do not overlap.
#if defined(__clang__)
#define INDEPENDENT_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT_LANES _Pragma("GCC ivdep")
#endif

/// Calls `f(lane)` for every lane of `mask`.
template <typename F> inline void forLanes(uint32_t mask, F f) {
  if (mask == 0xffffffffu) {
    for (unsigned lane = 0; lane < 32; ++lane)
      f(lane);
    return;
  }
  for (; mask; mask &= mask - 1)
    f(static_cast<unsigned>(__builtin_ctz(mask)));
}

/// d = F(a), d = F(a, b), d = F(a, b, c) over host types.
template <typename D, typename A, typename F>
void unary(Warp &warp, const Instruction &i, uint32_t mask) {
  D *d = warp.lanes<D>(i.operand[0]);
  const A *a = warp.lanes<A>(i.operand[1]);
  if (mask == 0xffffffffu) {
    INDEPENDENT_LANES
    for (unsigned l = 0; l < 32; ++l)
      d[l] = F::run(a[l]);
    return;
  }
  for (; mask; mask &= mask - 1) {
    unsigned l = static_cast<unsigned>(__builtin_ctz(mask));
    d[l] = F::run(a[l]);
  }
}
template <typename D, typename A, typename B, typename F>
void binary(Warp &warp, const Instruction &i, uint32_t mask) {
  D *d = warp.lanes<D>(i.operand[0]);
  const A *a = warp.lanes<A>(i.operand[1]);
  const B *b = warp.lanes<B>(i.operand[2]);
  if (mask == 0xffffffffu) {
    INDEPENDENT_LANES
    for (unsigned l = 0; l < 32; ++l)
      d[l] = F::run(a[l], b[l]);
    return;
  }
  for (; mask; mask &= mask - 1) {
    unsigned l = static_cast<unsigned>(__builtin_ctz(mask));
    d[l] = F::run(a[l], b[l]);
  }
}
template <typename D, typename A, typename B, typename C, typename F>
void ternary(Warp &warp, const Instruction &i, uint32_t mask) {
  D *d = warp.lanes<D>(i.operand[0]);
  const A *a = warp.lanes<A>(i.operand[1]);
  const B *b = warp.lanes<B>(i.operand[2]);
  const C *c = warp.lanes<C>(i.operand[3]);
  if (mask == 0xffffffffu) {
    INDEPENDENT_LANES
    for (unsigned l = 0; l < 32; ++l)
      d[l] = F::run(a[l], b[l], c[l]);
    return;
  }
  for (; mask; mask &= mask - 1) {
    unsigned l = static_cast<unsigned>(__builtin_ctz(mask));
    d[l] = F::run(a[l], b[l], c[l]);
  }
}

/// An operation on one number, applied to both halves of a pair.
template <typename F> struct OnPairs {
  template <typename T> static Two<T> run(Two<T> a) {
    return {F::run(a.low), F::run(a.high)};
  }
  template <typename T> static Two<T> run(Two<T> a, Two<T> b) {
    return {F::run(a.low, b.low), F::run(a.high, b.high)};
  }
  template <typename T> static Two<T> run(Two<T> a, Two<T> b, Two<T> c) {
    return {F::run(a.low, b.low, c.low), F::run(a.high, b.high, c.high)};
  }
};

/// What `T` computes in: float for 16-bit floats and `.ftz`, unsigned of at
/// least 32 bits for integers that wrap.
template <typename T>
using Wide = std::conditional_t<
    std::is_integral_v<T>,
    std::conditional_t<(sizeof(T) > 4), uint64_t, uint32_t>,
    std::conditional_t<std::is_same_v<T, double>, double, float>>;

template <typename F, template <typename, typename> class Apply>
Handler pickFloat(Type type, bool ftz) {
  switch (type) {
  case Type::f32:
    return ftz ? Apply<Flushed, F>::run : Apply<float, F>::run;
  case Type::f64:
    return Apply<double, F>::run;
  case Type::f16:
    return Apply<F16, F>::run;
  case Type::bf16:
    return Apply<BF16, F>::run;
  case Type::f16x2:
    return Apply<Two<F16>, OnPairs<F>>::run;
  case Type::bf16x2:
    return Apply<Two<BF16>, OnPairs<F>>::run;
  case Type::f32x2:
    return ftz ? Apply<Two<Flushed>, OnPairs<F>>::run
               : Apply<Two<float>, OnPairs<F>>::run;
  default:
    return nullptr;
  }
}
template <typename F, template <typename, typename> class Apply>
Handler pickInteger(Type type) {
  switch (type) {
  case Type::u16:
  case Type::b16:
    return Apply<uint16_t, F>::run;
  case Type::s16:
    return Apply<int16_t, F>::run;
  case Type::u32:
  case Type::b32:
    return Apply<uint32_t, F>::run;
  case Type::s32:
    return Apply<int32_t, F>::run;
  case Type::u64:
  case Type::b64:
    return Apply<uint64_t, F>::run;
  case Type::s64:
    return Apply<int64_t, F>::run;
  default:
    return nullptr;
  }
}
template <typename T, typename F> struct Apply1 {
  static void run(Warp &w, const Instruction &i, uint32_t m) {
    unary<T, T, F>(w, i, m);
  }
};
template <typename T, typename F> struct Apply2 {
  static void run(Warp &w, const Instruction &i, uint32_t m) {
    binary<T, T, T, F>(w, i, m);
  }
};
template <typename T, typename F> struct Apply3 {
  static void run(Warp &w, const Instruction &i, uint32_t m) {
    ternary<T, T, T, T, F>(w, i, m);
  }
};

/// Destination and `sources` operands, all of `type`; the count must fit.
inline bool sameTypeOperands(Decoding &d, Type type, unsigned sources) {
  if (d.operands.size() != sources + 1)
    return d.fail("expects " + std::to_string(sources + 1) + " operands");
  if (!d.destination(0, d.instruction.operand[0], sizeOf(type)))
    return false;
  for (unsigned i = 1; i <= sources; ++i)
    if (!d.source(i, d.instruction.operand[i], type))
      return false;
  return true;
}
inline bool setHandler(Decoding &d, Handler handler) {
  d.instruction.handler = handler;
  return handler || d.fail("this type is not known here");
}

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_OPCODES_LANES_H
