//===- Reduce.cpp - Element-wise reduction in member order ----------------===//

#include "Reduce.h"
#include "dshard/Support/Half.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

using namespace dshard;
using plan::DataType;
using plan::ReductionKind;

namespace {

struct Bf16 {
  uint16_t bits;
  float wide() const { return floatFromBFloat16(bits); }
  static Bf16 from(float x) { return {bfloat16FromFloat(x)}; }
};
struct F16 {
  uint16_t bits;
  float wide() const { return floatFromHalf(bits); }
  static F16 from(float x) { return {halfFromFloat(x)}; }
};
struct Bool {
  uint8_t value;
  uint8_t wide() const { return value != 0; }
  static Bool from(uint8_t x) { return {static_cast<uint8_t>(x != 0)}; }
};

/// The type that sums are kept in: unsigned for integers, so that overflow
/// wraps.
template <typename T> struct Accumulator { using type = T; };
template <> struct Accumulator<Bf16> { using type = float; };
template <> struct Accumulator<F16> { using type = float; };
template <> struct Accumulator<Bool> { using type = uint8_t; };

template <typename T> typename Accumulator<T>::type widen(T x) {
  if constexpr (std::is_arithmetic_v<T>)
    return x;
  else
    return x.wide();
}
template <typename T> T narrow(typename Accumulator<T>::type x) {
  if constexpr (std::is_arithmetic_v<T>)
    return x;
  else
    return T::from(x);
}

/// A NaN on either side wins, as in ONNX and numpy.
template <typename A> A larger(A x, A y) {
  if constexpr (std::is_floating_point_v<A>)
    if (x != x)
      return x;
  return y > x || y != y ? y : x;
}
template <typename A> A smaller(A x, A y) {
  if constexpr (std::is_floating_point_v<A>)
    if (x != x)
      return x;
  return y < x || y != y ? y : x;
}
template <typename A> A add(A x, A y) {
  if constexpr (std::is_integral_v<A>)
    return static_cast<A>(static_cast<std::make_unsigned_t<A>>(x) +
                          static_cast<std::make_unsigned_t<A>>(y));
  else
    return x + y;
}
template <typename A> A multiply(A x, A y) {
  if constexpr (std::is_integral_v<A>)
    return static_cast<A>(uint64_t(x) * uint64_t(y));
  else
    return x * y;
}

template <typename T, typename Op>
void reduce(const std::vector<const void *> &in, T *out, int64_t count, Op op,
            bool mean) {
  using A = typename Accumulator<T>::type;
  constexpr int64_t block = 512;
  A sum[block];
  for (int64_t begin = 0; begin < count; begin += block) {
    int64_t now = std::min(block, count - begin);
    const T *first = static_cast<const T *>(in[0]) + begin;
    for (int64_t i = 0; i < now; ++i)
      sum[i] = widen(first[i]);
    for (size_t member = 1; member < in.size(); ++member) {
      const T *next = static_cast<const T *>(in[member]) + begin;
      for (int64_t i = 0; i < now; ++i)
        sum[i] = op(sum[i], widen(next[i]));
    }
    if constexpr (std::is_floating_point_v<A>)
      if (mean)
        for (int64_t i = 0; i < now; ++i)
          sum[i] /= static_cast<A>(in.size());
    for (int64_t i = 0; i < now; ++i)
      out[begin + i] = narrow<T>(sum[i]);
  }
}

template <typename T>
void reduceTyped(ReductionKind kind, const std::vector<const void *> &in,
                 void *out, int64_t count) {
  using A = typename Accumulator<T>::type;
  T *result = static_cast<T *>(out);
  constexpr bool logical = std::is_same_v<T, Bool>;
  switch (kind) {
  case ReductionKind::sum:
  case ReductionKind::mean:
    if constexpr (logical)
      return reduce<T>(in, result, count, larger<A>, false);
    else
      return reduce<T>(in, result, count, add<A>, kind == ReductionKind::mean);
  case ReductionKind::max:
    return reduce<T>(in, result, count, larger<A>, false);
  case ReductionKind::min:
    return reduce<T>(in, result, count, smaller<A>, false);
  case ReductionKind::product:
    return reduce<T>(in, result, count, multiply<A>, false);
  }
}

} // namespace

bool dshard::isReduction(DataType type, ReductionKind kind) {
  return type != DataType::none &&
         (kind != ReductionKind::mean || plan::isFloat(type));
}

void dshard::reduceInOrder(DataType type, ReductionKind kind,
                           const std::vector<const void *> &in, void *out,
                           int64_t count) {
  switch (type) {
  case DataType::boolean:
    return reduceTyped<Bool>(kind, in, out, count);
  case DataType::i8:
    return reduceTyped<int8_t>(kind, in, out, count);
  case DataType::u8:
    return reduceTyped<uint8_t>(kind, in, out, count);
  case DataType::i16:
    return reduceTyped<int16_t>(kind, in, out, count);
  case DataType::u16:
    return reduceTyped<uint16_t>(kind, in, out, count);
  case DataType::i32:
    return reduceTyped<int32_t>(kind, in, out, count);
  case DataType::u32:
    return reduceTyped<uint32_t>(kind, in, out, count);
  case DataType::i64:
    return reduceTyped<int64_t>(kind, in, out, count);
  case DataType::u64:
    return reduceTyped<uint64_t>(kind, in, out, count);
  case DataType::f16:
    return reduceTyped<F16>(kind, in, out, count);
  case DataType::bf16:
    return reduceTyped<Bf16>(kind, in, out, count);
  case DataType::f32:
    return reduceTyped<float>(kind, in, out, count);
  case DataType::f64:
    return reduceTyped<double>(kind, in, out, count);
  default:
    return;
  }
}
