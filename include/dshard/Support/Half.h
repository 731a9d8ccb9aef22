//===- Half.h - 16-bit floating point ---------------------------*- C++ -*-===//
//
// IEEE binary16 (f16) and bfloat16 as bits. Conversions from f32 round to
// nearest, ties to even, as numpy and the hardware do; a NaN stays a NaN with
// its sign and upper payload bits; f16 overflows to infinity and keeps
// subnormals. There is no double rounding: f64 goes through f32 in the callers
// that say so.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_HALF_H
#define DSHARD_SUPPORT_HALF_H

#include <cstdint>
#include <cstring>

namespace dshard {

inline uint32_t bitsOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float floatOfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float floatFromBFloat16(uint16_t bits) {
  return floatOfBits(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t bfloat16FromFloat(float value) {
  uint32_t bits = bitsOfFloat(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) // rounding could make it infinite
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float floatFromHalf(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  uint32_t exponent = (half >> 10) & 0x1fu;
  uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1f)
    return floatOfBits(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) // zero and subnormals: mantissa * 2^-24, exact
    return floatOfBits(sign |
                       bitsOfFloat(static_cast<float>(mantissa) * 0x1p-24f));
  return floatOfBits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

inline uint16_t halfFromFloat(float value) {
  uint32_t bits = bitsOfFloat(value);
  uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) // 65520 and more round to infinity
    return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Below 2^-14: let the addition of 0.5 round at 2^-24.
    float shifted = floatOfBits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bitsOfFloat(shifted) - 0x3f000000u));
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u) >> 13));
}

} // namespace dshard

#endif // DSHARD_SUPPORT_HALF_H
