//===- Types.h - PTX's fundamental types on the host ------------*- C++ -*-===//
//
// A register is an array of 32 lanes of a host type. Arithmetic is written once
// per operation over these types: f16 and bf16 compute in float and round at
// the end; `.ftz` is a type of its own that flushes subnormals on its way in
// and out.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_PTX_TYPES_H
#define DSHARD_EMULATOR_PTX_TYPES_H

#include "dshard/Support/Half.h"

#include <cmath>
#include <cstdint>
#include <string_view>

namespace dshard::emulator {

enum class Type : uint8_t {
  none,
  u8,
  s8,
  b8,
  u16,
  s16,
  b16,
  f16,
  bf16,
  u32,
  s32,
  b32,
  f32,
  f16x2,
  bf16x2,
  u64,
  s64,
  b64,
  f32x2,
  f64,
  b128,
  pred
};

/// `u32` for "u32"; none for anything else.
inline Type parseType(std::string_view text) {
  constexpr std::string_view names[] = {
      "",     "u8",  "s8",    "b8",  "u16",  "s16",   "b16",    "f16",
      "bf16", "u32", "s32",   "b32", "f32",  "f16x2", "bf16x2", "u64",
      "s64",  "b64", "f32x2", "f64", "b128", "pred"};
  for (unsigned i = 1; i < sizeof(names) / sizeof(names[0]); ++i)
    if (names[i] == text)
      return static_cast<Type>(i);
  return Type::none;
}

/// Bytes per lane; a predicate is a bit of a mask (0 here).
inline unsigned sizeOf(Type type) {
  if (type == Type::none || type == Type::pred)
    return 0;
  if (type <= Type::b8)
    return 1;
  if (type <= Type::bf16)
    return 2;
  if (type <= Type::bf16x2)
    return 4;
  return type <= Type::f64 ? 8 : 16;
}

inline bool isSigned(Type type) {
  return type == Type::s8 || type == Type::s16 || type == Type::s32 ||
         type == Type::s64;
}
inline bool isFloat(Type type) {
  return type == Type::f16 || type == Type::bf16 || type == Type::f32 ||
         type == Type::f64 || type == Type::f16x2 || type == Type::bf16x2 ||
         type == Type::f32x2;
}

struct F16 {
  uint16_t bits;
  F16() = default;
  F16(float value) : bits(halfFromFloat(value)) {}
  operator float() const { return floatFromHalf(bits); }
};
struct BF16 {
  uint16_t bits;
  BF16() = default;
  BF16(float value) : bits(bfloat16FromFloat(value)) {}
  operator float() const { return floatFromBFloat16(bits); }
};
/// f32 under `.ftz`: subnormals become zeros of their sign.
struct Flushed {
  float value;
  Flushed() = default;
  Flushed(float v) : value(flush(v)) {}
  operator float() const { return flush(value); }
  static float flush(float v) {
    return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v;
  }
};
/// Two 16-bit numbers in one register; the first is the low half.
template <typename T> struct Two { T low, high; };
struct Bits128 {
  uint64_t low, high;
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_PTX_TYPES_H
