//===- KernelsAvx2.cpp - AVX2, FMA and F16C kernels -----------------------===//
//
// Compiled with -mavx2 -mfma -mf16c and used only where the CPU has them.
// Accumulators are named variables: g++ keeps arrays of vectors in memory. The
// test `Runtime-no-spills` looks for vector spills in this object.
//
//===----------------------------------------------------------------------===//

#include "Kernels.h"
#include "QuantizedKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

using namespace dshard::cpu;

namespace {

struct Pair {
  __m256 low, high;
};

/// A memory operand: in a register it would be the seventeenth.
alignas(32) const uint32_t highHalves[8] = {
    0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u,
    0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u};

template <Storage storage>
__attribute__((always_inline)) inline Pair load16(const void *b, int64_t k) {
  if constexpr (storage == Storage::f32) {
    const float *row = static_cast<const float *>(b) + k * 16;
    return {_mm256_loadu_ps(row), _mm256_loadu_ps(row + 8)};
  } else {
    const uint16_t *row = static_cast<const uint16_t *>(b) + k * 16;
    const __m128i *halves = reinterpret_cast<const __m128i *>(row);
    if constexpr (storage == Storage::bf16) {
      __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row));
      __m256i high;
      asm("vpand %2, %1, %0" : "=x"(high) : "x"(x), "m"(highHalves));
      return {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
              _mm256_castsi256_ps(high)};
    } else {
      return {_mm256_cvtph_ps(_mm_loadu_si128(halves)),
              _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
    }
  }
}

#define DSHARD_EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

template <Storage storage, int rows>
__attribute__((always_inline)) inline void
tileRows(const float *a, int64_t lda, const void *b, int64_t k, float *c,
         int64_t ldc, bool accumulate, const char *prefetch,
         const char *prefetchEnd) {
#define DECLARE(I) __m256 c##I##0 = _mm256_setzero_ps(), c##I##1 = c##I##0;
  DSHARD_EACH_ROW(DECLARE)
#undef DECLARE
  if (accumulate) {
#define LOAD(I)                                                                \
  if constexpr (rows > I) {                                                    \
    c##I##0 = _mm256_loadu_ps(c + I * ldc);                                    \
    c##I##1 = _mm256_loadu_ps(c + I * ldc + 8);                                \
  }
    DSHARD_EACH_ROW(LOAD)
#undef LOAD
  }
  const float *a3 = a + (rows > 3 ? 3 * lda : 0);
  const char *panel = static_cast<const char *>(b);
  constexpr int64_t rowBytes = storage == Storage::f32 ? 64 : 32;
#define STEP(I, BASE)                                                          \
  if constexpr (rows > I) {                                                    \
    /* Expanding takes the last register: no load may move up. */              \
    if constexpr (storage != Storage::f32)                                     \
      asm volatile("" ::: "memory");                                           \
    __m256 x = _mm256_broadcast_ss(BASE + (I % 3) * lda + (K));                \
    c##I##0 = _mm256_fmadd_ps(x, y.low, c##I##0);                              \
    c##I##1 = _mm256_fmadd_ps(x, y.high, c##I##1);                             \
  }
#define ALL_STEPS                                                              \
  {                                                                            \
    Pair y = load16<storage>(panel, K);                                        \
    STEP(0, a) STEP(1, a) STEP(2, a) STEP(3, a3) STEP(4, a3) STEP(5, a3)       \
  }
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    if (prefetch < prefetchEnd) {
      _mm_prefetch(prefetch, _MM_HINT_T1);
      prefetch += 64;
    }
#pragma GCC unroll 4
    for (int K = 0; K < 8; ++K)
      ALL_STEPS
    a += 8;
    a3 += 8;
    panel += 8 * rowBytes;
  }
  for (; i < k; ++i) {
    constexpr int K = 0;
    ALL_STEPS
    ++a;
    ++a3;
    panel += rowBytes;
  }
#undef ALL_STEPS
#undef STEP
#define STORE(I)                                                               \
  if constexpr (rows > I) {                                                    \
    _mm256_storeu_ps(c + I * ldc, c##I##0);                                    \
    _mm256_storeu_ps(c + I * ldc + 8, c##I##1);                                \
  }
  DSHARD_EACH_ROW(STORE)
#undef STORE
}

template <Storage storage, int rows>
__attribute__((noinline)) void
tileOf(const float *a, int64_t lda, const void *b, int64_t k, float *c,
       int64_t ldc, bool accumulate, const char *prefetch,
       const char *prefetchEnd) {
  tileRows<storage, rows>(a, lda, b, k, c, ldc, accumulate, prefetch,
                          prefetchEnd);
}

/// Rows in sixes; a remainder of 1, 2 or 4 rows less than two tiles is split
/// evenly enough (8 = 4 + 4, 7 = 4 + 3).
template <Storage storage>
void tilePanel(const float *a, int64_t lda, const void *b, int64_t k, float *c,
               int64_t ldc, int64_t rows, bool accumulate, const char *prefetch,
               int64_t prefetchBytes) {
  const char *end = prefetch ? prefetch + prefetchBytes : nullptr;
  int64_t row = 0;
  while (row < rows) {
    int64_t left = rows - row;
    int64_t now = left >= 12 ? 6 : left > 8 ? 6 : left > 6 ? 4 : left;
    const float *x = a + row * lda;
    float *y = c + row * ldc;
    switch (now) {
    case 6:
      tileOf<storage, 6>(x, lda, b, k, y, ldc, accumulate, prefetch, end);
      break;
    case 5:
      tileOf<storage, 5>(x, lda, b, k, y, ldc, accumulate, prefetch, end);
      break;
    case 4:
      tileOf<storage, 4>(x, lda, b, k, y, ldc, accumulate, prefetch, end);
      break;
    case 3:
      tileOf<storage, 3>(x, lda, b, k, y, ldc, accumulate, prefetch, end);
      break;
    case 2:
      tileOf<storage, 2>(x, lda, b, k, y, ldc, accumulate, prefetch, end);
      break;
    default:
      tileOf<storage, 1>(x, lda, b, k, y, ldc, accumulate, prefetch, end);
      break;
    }
    if (prefetch)
      prefetch += k / 8 * 64;
    row += now;
  }
}

template <Storage storage> void tile(const TileArguments &t) {
  for (int64_t p = 0; p < t.panels; ++p)
    tilePanel<storage>(t.a, t.lda, static_cast<const char *>(t.b) + p * t.bStep,
                       t.k, t.c + p * t.cStep, t.ldc, t.rows, t.accumulate,
                       t.prefetch ? t.prefetch + p * t.bStep : nullptr,
                       t.prefetchBytes);
}

//===----------------------------------------------------------------------===//
// Conversions
//===----------------------------------------------------------------------===//

inline __m256 load8(const void *in, Storage storage, int64_t at) {
  if (storage == Storage::f32)
    return _mm256_loadu_ps(static_cast<const float *>(in) + at);
  __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(
      static_cast<const uint16_t *>(in) + at));
  if (storage == Storage::f16)
    return _mm256_cvtph_ps(x);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

inline __m128i toBf16(__m256 x) {
  __m256i bits = _mm256_castps_si256(x);
  // Round to nearest even; a NaN stays one.
  __m256i bias = _mm256_add_epi32(
      _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1)),
      _mm256_set1_epi32(0x7fff));
  __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  __m256i quiet =
      _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  rounded = _mm256_blendv_epi8(rounded, quiet, nan);
  __m256i packed = _mm256_packus_epi32(rounded, rounded);
  packed = _mm256_permute4x64_epi64(packed, 0x08);
  return _mm256_castsi256_si128(packed);
}

inline void store8(void *out, Storage storage, int64_t at, __m256 x) {
  if (storage == Storage::f32) {
    _mm256_storeu_ps(static_cast<float *>(out) + at, x);
    return;
  }
  __m128i half =
      storage == Storage::f16
          ? _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
          : toBf16(x);
  _mm_storeu_si128(
      reinterpret_cast<__m128i *>(static_cast<uint16_t *>(out) + at), half);
}

inline int64_t elementBytes(Storage storage) {
  return storage == Storage::f32 ? 4 : 2;
}

inline void copyBytes(void *to, const void *from, int64_t bytes) {
  __builtin_memcpy(to, from, static_cast<unsigned long>(bytes));
}

void toFloat(const void *in, Storage storage, float *out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i, load8(in, storage, i));
  if (i < n) {
    alignas(32) uint32_t tail[8] = {};
    alignas(32) float wide[8];
    copyBytes(tail, static_cast<const char *>(in) + i * elementBytes(storage),
              (n - i) * elementBytes(storage));
    _mm256_store_ps(wide, load8(tail, storage, 0));
    copyBytes(out + i, wide, (n - i) * 4);
  }
}

void fromFloat(const float *in, Storage storage, void *out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    store8(out, storage, i, _mm256_loadu_ps(in + i));
  if (i < n) {
    alignas(32) float wide[8] = {};
    alignas(32) uint32_t tail[8];
    copyBytes(wide, in + i, (n - i) * 4);
    store8(tail, storage, 0, _mm256_load_ps(wide));
    copyBytes(static_cast<char *>(out) + i * elementBytes(storage), tail,
              (n - i) * elementBytes(storage));
  }
}

//===----------------------------------------------------------------------===//
// Functions of a vector
//===----------------------------------------------------------------------===//

/// 2^x, below 1 ulp on [-126, 127]; clamped outside.
inline __m256 exp2Vector(__m256 x) {
  // The operand order keeps a NaN.
  x = _mm256_max_ps(_mm256_set1_ps(-126.0f), x);
  x = _mm256_min_ps(_mm256_set1_ps(127.0f), x);
  const __m256 magic = _mm256_set1_ps(12582912.0f); // 1.5 * 2^23
  __m256 t = _mm256_add_ps(x, magic);
  __m256 r = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
  __m256 p = _mm256_set1_ps(0.00015345812f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0013399931f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.009618489f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.055503286f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.24022646f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.6931472f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

inline __m256 expVector(__m256 x) {
  return exp2Vector(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)));
}

/// tanh by 1 - 2 / (e^2x + 1); absolute error about 1e-7.
inline __m256 tanhVector(__m256 x) {
  __m256 e = expVector(_mm256_add_ps(x, x));
  __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_sub_ps(
      one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
}

/// Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
inline __m256 erfVector(__m256 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 z = _mm256_andnot_ps(sign, x);
  __m256 one = _mm256_set1_ps(1.0f);
  __m256 t =
      _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.3275911f), one));
  __m256 p = _mm256_set1_ps(1.061405429f);
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-1.453152027f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.421413741f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.284496736f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.254829592f));
  p = _mm256_mul_ps(p, t);
  __m256 e = expVector(_mm256_xor_ps(_mm256_mul_ps(z, z), sign));
  __m256 r = _mm256_fnmadd_ps(p, e, one);
  return _mm256_or_ps(r, _mm256_and_ps(sign, x));
}

inline __m256 activate(__m256 x, uint8_t activation) {
  switch (activation) {
  case 1:
    // The operand order keeps a NaN.
    return _mm256_max_ps(_mm256_setzero_ps(), x);
  case 2: {
    __m256 half = _mm256_mul_ps(x, _mm256_set1_ps(0.5f));
    __m256 erf = erfVector(_mm256_mul_ps(x, _mm256_set1_ps(0.70710678f)));
    return _mm256_fmadd_ps(half, erf, half);
  }
  case 3: {
    __m256 half = _mm256_mul_ps(x, _mm256_set1_ps(0.5f));
    __m256 square = _mm256_mul_ps(x, x);
    __m256 inner =
        _mm256_mul_ps(_mm256_mul_ps(x, _mm256_set1_ps(0.79788456f)),
                      _mm256_fmadd_ps(square, _mm256_set1_ps(0.044715f),
                                      _mm256_set1_ps(1.0f)));
    return _mm256_fmadd_ps(half, tanhVector(inner), half);
  }
  case 4: {
    __m256 e = expVector(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(e, _mm256_set1_ps(1.0f)));
  }
  default:
    return x;
  }
}

void epilogue(const EpilogueArguments &e) {
  __m256 bias0 = _mm256_setzero_ps(), bias1 = bias0;
  if (e.bias) {
    bias0 = _mm256_loadu_ps(e.bias);
    bias1 = _mm256_loadu_ps(e.bias + 8);
  }
  for (int64_t i = 0; i < e.rows; ++i) {
    __m256 x = _mm256_add_ps(_mm256_loadu_ps(e.c + i * 16), bias0);
    __m256 y = _mm256_add_ps(_mm256_loadu_ps(e.c + i * 16 + 8), bias1);
    if (e.activation) {
      x = activate(x, e.activation);
      y = activate(y, e.activation);
    }
    if (e.cols == 16) {
      if (e.residual) {
        x = _mm256_add_ps(x, load8(e.residual, e.residualStorage, i * e.ldr));
        y = _mm256_add_ps(y,
                          load8(e.residual, e.residualStorage, i * e.ldr + 8));
      }
      store8(e.out, e.outStorage, i * e.ldc, x);
      store8(e.out, e.outStorage, i * e.ldc + 8, y);
      continue;
    }
    alignas(32) float row[16];
    alignas(32) float other[16];
    _mm256_store_ps(row, x);
    _mm256_store_ps(row + 8, y);
    if (e.residual) {
      toFloat(static_cast<const char *>(e.residual) +
                  i * e.ldr * elementBytes(e.residualStorage),
              e.residualStorage, other, e.cols);
      for (int64_t j = 0; j < e.cols; ++j)
        row[j] += other[j];
    }
    fromFloat(row, e.outStorage,
              static_cast<char *>(e.out) +
                  i * e.ldc * elementBytes(e.outStorage),
              e.cols);
  }
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

inline __m256 laneMask(int64_t at, int64_t low, int64_t high) {
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  auto clamp = [](int64_t x) {
    return static_cast<int>(x < -16 ? -16 : x > 16 ? 16 : x);
  };
  __m256i above =
      _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(clamp(low - at) - 1));
  __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(clamp(high - at)), lane);
  return _mm256_castsi256_ps(_mm256_and_si256(above, below));
}

float softmaxRow(const SoftmaxRow &row) {
  const __m256 minusInfinity = _mm256_set1_ps(-__builtin_inff());
  int64_t n = row.n; // a multiple of 16: the tile is padded
  __m256 best = minusInfinity;
  __m256 nan = _mm256_setzero_ps();
  for (int64_t j = 0; j < n; j += 8) {
    if (j + 8 <= row.low || j >= row.high) {
      _mm256_storeu_ps(row.p + j, minusInfinity);
      continue;
    }
    __m256 x = _mm256_loadu_ps(row.p + j);
    if (row.softcap > 0) {
      __m256 cap = _mm256_set1_ps(row.softcap);
      x = _mm256_mul_ps(tanhVector(_mm256_div_ps(x, cap)),
                        _mm256_mul_ps(cap, _mm256_set1_ps(1.44269504f)));
    }
    if (row.bias) {
      // The lowest number stays finite: it hides keys only while others are
      // seen.
      __m256 bias = _mm256_loadu_ps(row.bias + j);
      __m256 scaled =
          _mm256_max_ps(_mm256_set1_ps(-__FLT_MAX__),
                        _mm256_mul_ps(bias, _mm256_set1_ps(1.44269504f)));
      x = _mm256_add_ps(
          x, _mm256_blendv_ps(scaled, bias,
                              _mm256_cmp_ps(bias, minusInfinity, _CMP_EQ_OQ)));
    }
    bool whole = j >= row.low && j + 8 <= row.high;
    if (!whole || row.visible) {
      __m256 keep = whole ? _mm256_castsi256_ps(_mm256_set1_epi32(-1))
                          : laneMask(j, row.low, row.high);
      if (row.visible)
        keep = _mm256_and_ps(
            keep,
            _mm256_loadu_ps(reinterpret_cast<const float *>(row.visible + j)));
      x = _mm256_blendv_ps(minusInfinity, x, keep);
    }
    if (!whole || row.visible || row.bias || row.softcap > 0)
      _mm256_storeu_ps(row.p + j, x);
    best = _mm256_max_ps(best, x);
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  if (_mm256_movemask_ps(nan)) {
    // The whole row is NaN; the maximum would lose it.
    for (int64_t j = 0; j < n; j += 8)
      _mm256_storeu_ps(row.p + j, _mm256_setzero_ps());
    *row.sum = __builtin_nanf("");
    return 1.0f;
  }
  __m128 four =
      _mm_max_ps(_mm256_castps256_ps128(best), _mm256_extractf128_ps(best, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  four = _mm_max_ss(four, _mm_shuffle_ps(four, four, 1));
  float tileMaximum = _mm_cvtss_f32(four);
  if (tileMaximum == -__builtin_inff()) {
    for (int64_t j = 0; j < n; j += 8)
      _mm256_storeu_ps(row.p + j, _mm256_setzero_ps());
    return 1.0f;
  }
  float oldMaximum = *row.maximum;
  float newMaximum = tileMaximum > oldMaximum ? tileMaximum : oldMaximum;
  __m256 shift = _mm256_set1_ps(newMaximum);
  __m256 floor = _mm256_set1_ps(-126.0f);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t j = 0; j < n; j += 8) {
    __m256 x = _mm256_sub_ps(_mm256_loadu_ps(row.p + j), shift);
    __m256 e = exp2Vector(x);
    // Exactly zero below the clamp, so a masked key adds nothing.
    e = _mm256_and_ps(e, _mm256_cmp_ps(x, floor, _CMP_NLT_UQ));
    _mm256_storeu_ps(row.p + j, e);
    sum = _mm256_add_ps(sum, e);
  }
  __m128 part =
      _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
  part = _mm_add_ps(part, _mm_movehl_ps(part, part));
  part = _mm_add_ss(part, _mm_shuffle_ps(part, part, 1));
  float alpha = 1.0f;
  if (newMaximum != oldMaximum) {
    float difference = oldMaximum - newMaximum;
    alpha = difference < -126.0f
                ? 0.0f
                : _mm256_cvtss_f32(exp2Vector(_mm256_set1_ps(difference)));
    *row.maximum = newMaximum;
  }
  *row.sum = *row.sum * alpha + _mm_cvtss_f32(part);
  return alpha;
}

void gradientRow(const GradientRow &row) {
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t j = 0; j < row.n; j += 8) {
    if (j + 8 <= row.low || j >= row.high) {
      _mm256_storeu_ps(row.p + j, _mm256_setzero_ps());
      _mm256_storeu_ps(row.ds + j, _mm256_setzero_ps());
      continue;
    }
    __m256 x = _mm256_loadu_ps(row.p + j);
    __m256 derivative = one;
    if (row.softcap > 0) {
      __m256 cap = _mm256_set1_ps(row.softcap);
      __m256 t = tanhVector(_mm256_div_ps(x, cap));
      x = _mm256_mul_ps(t, _mm256_mul_ps(cap, _mm256_set1_ps(1.44269504f)));
      derivative = _mm256_fnmadd_ps(t, t, one);
    }
    x = _mm256_sub_ps(x, _mm256_loadu_ps(row.lse + j));
    __m256 keep = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ);
    if (j < row.low || j + 8 > row.high)
      keep = _mm256_and_ps(keep, laneMask(j, row.low, row.high));
    __m256 p = _mm256_and_ps(exp2Vector(x), keep);
    __m256 ds = _mm256_sub_ps(_mm256_loadu_ps(row.ds + j),
                              _mm256_loadu_ps(row.delta + j));
    ds = _mm256_mul_ps(_mm256_mul_ps(p, ds), derivative);
    _mm256_storeu_ps(row.p + j, p);
    _mm256_storeu_ps(row.ds + j, _mm256_and_ps(ds, keep));
  }
}

void scale(float *x, int64_t n, float factor) {
  __m256 y = _mm256_set1_ps(factor);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), y));
  for (; i < n; ++i)
    x[i] *= factor;
}

__attribute__((always_inline)) inline void
transpose8(const float *in, int64_t ldIn, float *out, int64_t ldOut) {
  __m256 r0 = _mm256_loadu_ps(in), r1 = _mm256_loadu_ps(in + ldIn);
  __m256 r2 = _mm256_loadu_ps(in + 2 * ldIn);
  __m256 r3 = _mm256_loadu_ps(in + 3 * ldIn);
  __m256 r4 = _mm256_loadu_ps(in + 4 * ldIn);
  __m256 r5 = _mm256_loadu_ps(in + 5 * ldIn);
  __m256 r6 = _mm256_loadu_ps(in + 6 * ldIn);
  __m256 r7 = _mm256_loadu_ps(in + 7 * ldIn);
  __m256 t0 = _mm256_unpacklo_ps(r0, r1), t1 = _mm256_unpackhi_ps(r0, r1);
  __m256 t2 = _mm256_unpacklo_ps(r2, r3), t3 = _mm256_unpackhi_ps(r2, r3);
  __m256 t4 = _mm256_unpacklo_ps(r4, r5), t5 = _mm256_unpackhi_ps(r4, r5);
  __m256 t6 = _mm256_unpacklo_ps(r6, r7), t7 = _mm256_unpackhi_ps(r6, r7);
  r0 = _mm256_shuffle_ps(t0, t2, 0x44);
  r1 = _mm256_shuffle_ps(t0, t2, 0xee);
  r2 = _mm256_shuffle_ps(t1, t3, 0x44);
  r3 = _mm256_shuffle_ps(t1, t3, 0xee);
  r4 = _mm256_shuffle_ps(t4, t6, 0x44);
  r5 = _mm256_shuffle_ps(t4, t6, 0xee);
  r6 = _mm256_shuffle_ps(t5, t7, 0x44);
  r7 = _mm256_shuffle_ps(t5, t7, 0xee);
  _mm256_storeu_ps(out, _mm256_permute2f128_ps(r0, r4, 0x20));
  _mm256_storeu_ps(out + ldOut, _mm256_permute2f128_ps(r1, r5, 0x20));
  _mm256_storeu_ps(out + 2 * ldOut, _mm256_permute2f128_ps(r2, r6, 0x20));
  _mm256_storeu_ps(out + 3 * ldOut, _mm256_permute2f128_ps(r3, r7, 0x20));
  _mm256_storeu_ps(out + 4 * ldOut, _mm256_permute2f128_ps(r0, r4, 0x31));
  _mm256_storeu_ps(out + 5 * ldOut, _mm256_permute2f128_ps(r1, r5, 0x31));
  _mm256_storeu_ps(out + 6 * ldOut, _mm256_permute2f128_ps(r2, r6, 0x31));
  _mm256_storeu_ps(out + 7 * ldOut, _mm256_permute2f128_ps(r3, r7, 0x31));
}

void transpose16(const float *in, int64_t ldIn, float *out, int64_t ldOut) {
  transpose8(in, ldIn, out, ldOut);
  transpose8(in + 8, ldIn, out + 8 * ldOut, ldOut);
  transpose8(in + 8 * ldIn, ldIn, out + 8, ldOut);
  transpose8(in + 8 * ldIn + 8, ldIn, out + 8 * ldOut + 8, ldOut);
}

} // namespace

const Kernels dshard::cpu::avx2Kernels = {
    "avx2",
    1,
    {tile<Storage::f32>, tile<Storage::bf16>, tile<Storage::f16>},
    epilogue,
    toFloat,
    fromFloat,
    softmaxRow,
    scale,
    transpose16,
    gradientRow,
    dequantizePlain,
    quantizePiecesPlain,
    avx2::digitDot,
    avx2::splitNibbles,
    avx2::digitTile,
    4};

#endif // __x86_64__
