//===- Functions.cpp - ex2, rsqrt, sin and their like ---------------------===//
//
// The host's functions, correct to half an ulp or so; the GPU's approximations
// differ in the last bits, so nobody may compare bitwise with hardware.
//
//===----------------------------------------------------------------------===//
#include "Opcodes/Lanes.h"

namespace dshard::emulator {
namespace {

#define FUNCTION(name, expression)                                             \
  struct name {                                                                \
    template <typename T> static T run(T a) {                                  \
      Wide<T> x = a;                                                           \
      return T(expression);                                                    \
    }                                                                          \
  };
FUNCTION(Cos, std::cos(x))
FUNCTION(Sin, std::sin(x))
FUNCTION(Ex2, std::exp2(x))
FUNCTION(Lg2, std::log2(x))
FUNCTION(Rcp, Wide<T>(1) / x)
FUNCTION(Rsqrt, Wide<T>(1) / std::sqrt(x))
FUNCTION(Sqrt, std::sqrt(x))
FUNCTION(Tanh, std::tanh(x))
#undef FUNCTION

template <typename F> bool decodeFunction(Decoding &d) {
  Type type = d.takeType();
  if (!isFloat(type))
    return d.fail("a float type is expected");
  d.takeOneOf({"approx", "rn"});
  bool ftz = d.take("ftz");
  return sameTypeOperands(d, type, 1) &&
         setHandler(d, pickFloat<F, Apply1>(type, ftz));
}

template <int kind> void test(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t &d = w.predicate(i.operand[0]);
  const float *a = w.lanes<float>(i.operand[1]);
  uint32_t result = 0;
  for (unsigned l = 0; l < 32; ++l) {
    bool is = kind == 0   ? std::isfinite(a[l])
              : kind == 1 ? std::isinf(a[l])
              : kind == 2 ? !std::isnan(a[l])
              : kind == 3 ? std::isnan(a[l])
              : kind == 4 ? std::isnormal(a[l])
                          : std::fpclassify(a[l]) == FP_SUBNORMAL;
    result |= uint32_t(is) << l;
  }
  d = (d & ~mask) | (result & mask);
}

} // namespace

bool decode_cos(Decoding &d) { return decodeFunction<Cos>(d); }
bool decode_sin(Decoding &d) { return decodeFunction<Sin>(d); }
bool decode_ex2(Decoding &d) { return decodeFunction<Ex2>(d); }
bool decode_lg2(Decoding &d) { return decodeFunction<Lg2>(d); }
bool decode_rcp(Decoding &d) { return decodeFunction<Rcp>(d); }
bool decode_rsqrt(Decoding &d) { return decodeFunction<Rsqrt>(d); }
bool decode_sqrt(Decoding &d) { return decodeFunction<Sqrt>(d); }
bool decode_tanh(Decoding &d) { return decodeFunction<Tanh>(d); }

bool decode_testp(Decoding &d) {
  static const Handler handlers[] = {test<0>, test<1>, test<2>,
                                     test<3>, test<4>, test<5>};
  int which = d.takeOneOf(
      {"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (which < 0 || d.takeType() != Type::f32)
    return d.fail("only .f32 is known");
  return d.destination(0, d.instruction.operand[0], 0) &&
         d.source(1, d.instruction.operand[1], Type::f32) &&
         setHandler(d, handlers[which]);
}

} // namespace dshard::emulator
