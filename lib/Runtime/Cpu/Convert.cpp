//===- Convert.cpp - Casts and strided copies -----------------------------===//

#include "dshard/Runtime/Cpu/Convert.h"
#include "Kernels.h"
#include "dshard/Support/Half.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

using namespace dshard;
using namespace dshard::cpu;
using plan::DataType;

namespace {

/// How an element type is stored and computed with.
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
struct Bool {
  uint8_t value;
};

template <typename T> auto widen(T x) {
  if constexpr (std::is_same_v<T, Bf16>)
    return floatFromBFloat16(x.bits);
  else if constexpr (std::is_same_v<T, F16>)
    return floatFromHalf(x.bits);
  else if constexpr (std::is_same_v<T, Bool>)
    return static_cast<uint8_t>(x.value != 0);
  else
    return x;
}

/// Floating to integer: towards zero, saturating, NaN is 0.
template <typename To, typename From> To toInteger(From x) {
  if constexpr (std::is_floating_point_v<From>) {
    if (x != x)
      return 0;
    constexpr From low = static_cast<From>(std::numeric_limits<To>::min());
    constexpr From high = static_cast<From>(std::numeric_limits<To>::max());
    if (x <= low)
      return std::numeric_limits<To>::min();
    if (x >= high)
      return std::numeric_limits<To>::max();
  }
  return static_cast<To>(x);
}

template <typename To, typename From> To convert(From from) {
  auto x = widen(from);
  if constexpr (std::is_same_v<To, From>)
    return from;
  else if constexpr (std::is_same_v<To, Bf16>)
    return Bf16{bfloat16FromFloat(static_cast<float>(x))};
  else if constexpr (std::is_same_v<To, F16>)
    return F16{halfFromFloat(static_cast<float>(x))};
  else if constexpr (std::is_same_v<To, Bool>)
    return Bool{static_cast<uint8_t>(x != 0)};
  else if constexpr (std::is_floating_point_v<To>)
    return static_cast<To>(x);
  else
    return toInteger<To>(x);
}

template <typename Body> void dispatch(DataType type, Body &&body) {
  switch (type) {
  case DataType::boolean:
    return body(Bool{});
  case DataType::i8:
    return body(int8_t{});
  case DataType::u8:
    return body(uint8_t{});
  case DataType::i16:
    return body(int16_t{});
  case DataType::u16:
    return body(uint16_t{});
  case DataType::i32:
    return body(int32_t{});
  case DataType::u32:
    return body(uint32_t{});
  case DataType::i64:
    return body(int64_t{});
  case DataType::u64:
    return body(uint64_t{});
  case DataType::f16:
    return body(F16{});
  case DataType::bf16:
    return body(Bf16{});
  case DataType::f32:
    return body(float{});
  case DataType::f64:
    return body(double{});
  default:
    return;
  }
}

/// A copy of at most two dims; row is the outer one.
struct Plane {
  int64_t rows, cols;
  int64_t inRow, inCol, outRow, outCol;
};

template <typename From, typename To>
void copyPlane(const Plane &p, const From *in, To *out) {
  if constexpr (std::is_same_v<From, To>) {
    if (p.inCol == 1 && p.outCol == 1) {
      for (int64_t i = 0; i < p.rows; ++i)
        std::memcpy(out + i * p.outRow, in + i * p.inRow,
                    p.cols * sizeof(From));
      return;
    }
  }
  if (p.outCol == 1 && p.inCol == 1) {
    for (int64_t i = 0; i < p.rows; ++i)
      for (int64_t j = 0; j < p.cols; ++j)
        out[i * p.outRow + j] = convert<To>(in[i * p.inRow + j]);
    return;
  }
  // Squares of 16 keep both sides within a few cache lines.
  constexpr int64_t side = 16;
  for (int64_t i0 = 0; i0 < p.rows; i0 += side)
    for (int64_t j0 = 0; j0 < p.cols; j0 += side) {
      int64_t i1 = std::min(p.rows, i0 + side);
      int64_t j1 = std::min(p.cols, j0 + side);
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t j = j0; j < j1; ++j)
          out[i * p.outRow + j * p.outCol] =
              convert<To>(in[i * p.inRow + j * p.inCol]);
    }
}

} // namespace

void cpu::copyStrided(const StridedCopy &copy, const void *in, DataType inType,
                      void *out, DataType outType) {
  // Drop dims of size 1, merge neighbours that are contiguous on both sides.
  StridedCopy c;
  for (int i = 0; i < copy.dims; ++i) {
    if (copy.sizes[i] == 0)
      return;
    if (copy.sizes[i] == 1)
      continue;
    if (c.dims) {
      int last = c.dims - 1;
      if (c.inStrides[last] == copy.inStrides[i] * copy.sizes[i] &&
          c.outStrides[last] == copy.outStrides[i] * copy.sizes[i]) {
        c.sizes[last] *= copy.sizes[i];
        c.inStrides[last] = copy.inStrides[i];
        c.outStrides[last] = copy.outStrides[i];
        continue;
      }
    }
    c.sizes[c.dims] = copy.sizes[i];
    c.inStrides[c.dims] = copy.inStrides[i];
    c.outStrides[c.dims] = copy.outStrides[i];
    ++c.dims;
  }
  auto swapDims = [&](int a, int b) {
    std::swap(c.sizes[a], c.sizes[b]);
    std::swap(c.inStrides[a], c.inStrides[b]);
    std::swap(c.outStrides[a], c.outStrides[b]);
  };
  // Innermost: the dim that is densest in the result; beside it, the one that
  // is densest in the operand.
  auto densest = [&](const int64_t *strides, int count) {
    int best = count - 1;
    for (int i = count - 1; i >= 0; --i)
      if (std::abs(strides[i]) < std::abs(strides[best]))
        best = i;
    return best;
  };
  if (c.dims >= 2) {
    swapDims(densest(c.outStrides, c.dims), c.dims - 1);
    swapDims(densest(c.inStrides, c.dims - 1), c.dims - 2);
  }
  Plane plane = {1, 1, 0, 0, 0, 0};
  if (c.dims >= 1) {
    plane.cols = c.sizes[c.dims - 1];
    plane.inCol = c.inStrides[c.dims - 1];
    plane.outCol = c.outStrides[c.dims - 1];
  }
  if (c.dims >= 2) {
    plane.rows = c.sizes[c.dims - 2];
    plane.inRow = c.inStrides[c.dims - 2];
    plane.outRow = c.outStrides[c.dims - 2];
  }
  int outer = std::max(0, c.dims - 2);
  dispatch(inType, [&](auto from) {
    dispatch(outType, [&](auto to) {
      const auto *source = static_cast<const decltype(from) *>(in);
      auto *target = static_cast<decltype(to) *>(out);
      int64_t index[maxDims] = {};
      while (true) {
        copyPlane(plane, source, target);
        int d = outer - 1;
        for (; d >= 0; --d) {
          source += c.inStrides[d];
          target += c.outStrides[d];
          if (++index[d] < c.sizes[d])
            break;
          source -= c.inStrides[d] * c.sizes[d];
          target -= c.outStrides[d] * c.sizes[d];
          index[d] = 0;
        }
        if (d < 0)
          return;
      }
    });
  });
}

double cpu::elementAsDouble(const void *data, DataType type, int64_t index) {
  double result = 0;
  dispatch(type, [&](auto kind) {
    result = static_cast<double>(
        widen(static_cast<const decltype(kind) *>(data)[index]));
  });
  return result;
}

bool cpu::findOutside(const void *data, DataType type, int64_t count,
                      int64_t low, int64_t high, const int64_t *extra,
                      int64_t &index, int64_t &value) {
  bool found = false;
  dispatch(type, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (std::is_integral_v<T>)
      for (index = 0; index < count && !found; ++index) {
        T x = static_cast<const T *>(data)[index];
        value = static_cast<int64_t>(x);
        if (std::is_same_v<T, uint64_t> && value < 0)
          value = INT64_MAX; // as much as can be said
        found = (value < low || value > high) && !(extra && value == *extra);
      }
  });
  --index;
  return found;
}

void cpu::storeDouble(void *data, DataType type, int64_t index, double value) {
  dispatch(type, [&](auto kind) {
    static_cast<decltype(kind) *>(data)[index] = convert<decltype(kind)>(value);
  });
}
