//===- KernelsAvx512.cpp - AVX-512 kernels --------------------------------===//
//
// Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl and used only where
// the CPU has them: products, their epilogue, the rows of attention. The rest
// of the table is AVX2's, which is bound by memory.
//
// A register tile is 8 rows x two panels. Sixteen accumulators keep the
// multipliers busy; more rows would fit and be slower where they lie a multiple
// of 4 KiB apart (95 of 118 GFLOP/s for 13 rows of 3072, 114 for 8): the first
// level has eight places for such addresses. Accumulators are named variables:
// g++ keeps arrays of vectors in memory. The test `Runtime-no-spills` looks for
// vector spills in this object.
//
//===----------------------------------------------------------------------===//

#include "Kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

using namespace dshard::cpu;

namespace {

struct Pair {
  __m512 first, second;
};

/// Sixteen weights of one k from each of two panels. Those of bf16 panels,
/// which are interleaved, come as columns 0 to 7 of both and columns 8 to 15 of
/// both.
template <Storage storage>
__attribute__((always_inline)) inline Pair load32(const char *b, int64_t step) {
  if constexpr (storage == Storage::f32)
    return {_mm512_loadu_ps(b), _mm512_loadu_ps(b + step)};
  __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(b));
  __m256i high =
      _mm256_loadu_si256(reinterpret_cast<const __m256i *>(b + step));
  if constexpr (storage == Storage::f16)
    return {_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)};
  __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
          _mm512_castsi512_ps(
              _mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000u))))};
}

/// Sums of what load32 gives to the two panels of c.
template <Storage storage>
__attribute__((always_inline)) inline void
storePair(__m512 x, __m512 y, float *first, float *second, bool accumulate) {
  if constexpr (storage == Storage::bf16) {
    __m512 exchanged = _mm512_shuffle_f32x4(x, y, 0x44);
    y = _mm512_shuffle_f32x4(x, y, 0xee);
    x = exchanged;
    if (accumulate) {
      x = _mm512_add_ps(x, _mm512_loadu_ps(first));
      y = _mm512_add_ps(y, _mm512_loadu_ps(second));
    }
  }
  _mm512_storeu_ps(first, x);
  _mm512_storeu_ps(second, y);
}

#define DSHARD_EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

constexpr int tileHeight = 8;

/// `rows` x two panels; c of the second panel is cStep floats further.
template <Storage storage, int rows>
__attribute__((noinline)) void
tileOf(const float *a, int64_t lda, const char *b, int64_t bStep, int64_t k,
       float *c, int64_t ldc, int64_t cStep, bool accumulate,
       const char *prefetch, const char *prefetchEnd) {
#define DECLARE(I) __m512 c##I##0 = _mm512_setzero_ps(), c##I##1 = c##I##0;
  DSHARD_EACH_ROW(DECLARE)
#undef DECLARE
  // Of bf16 panels, sums are added at the end: exchanging them here would take
  // more registers than there are.
  if (accumulate && storage != Storage::bf16) {
#define LOAD(I)                                                                \
  if constexpr (rows > I) {                                                    \
    c##I##0 = _mm512_loadu_ps(c + I * ldc);                                    \
    c##I##1 = _mm512_loadu_ps(c + I * ldc + cStep);                            \
  }
    DSHARD_EACH_ROW(LOAD)
#undef LOAD
  }
  constexpr int64_t step = storage == Storage::f32 ? 64 : 32;
  // Four rows from each base: lda and 3 lda are all the indices it takes.
  const float *a0 = a;
  const float *a4 = a + (rows > 4 ? 4 * lda : 0);
#define STEP(I)                                                                \
  if constexpr (rows > I) {                                                    \
    const float *base = I < 4 ? a0 : a4;                                       \
    __m512 x = _mm512_set1_ps(base[(I % 4) * lda + K]);                        \
    c##I##0 = _mm512_fmadd_ps(x, y.first, c##I##0);                            \
    c##I##1 = _mm512_fmadd_ps(x, y.second, c##I##1);                           \
  }
#define ALL_STEPS                                                              \
  {                                                                            \
    Pair y = load32<storage>(b + K * step, bStep);                             \
    DSHARD_EACH_ROW(STEP)                                                      \
  }
  int64_t i = 0;
  for (; i + 4 <= k; i += 4) {
    if (prefetch < prefetchEnd) {
      _mm_prefetch(prefetch, _MM_HINT_T1);
      _mm_prefetch(prefetch + bStep, _MM_HINT_T1);
      prefetch += 64;
    }
#pragma GCC unroll 4
    for (int K = 0; K < 4; ++K)
      ALL_STEPS
    a0 += 4;
    a4 += 4;
    b += 4 * step;
  }
  for (; i < k; ++i) {
    constexpr int K = 0;
    ALL_STEPS
    ++a0;
    ++a4;
    b += step;
  }
#undef ALL_STEPS
#undef STEP
#define STORE(I)                                                               \
  if constexpr (rows > I)                                                      \
    storePair<storage>(c##I##0, c##I##1, c + I * ldc, c + I * ldc + cStep,     \
                       accumulate);
  DSHARD_EACH_ROW(STORE)
#undef STORE
}

/// Rows in tiles as even as can be: 30 = 2 x 8 + 2 x 7.
template <Storage storage> void tile(const TileArguments &t) {
  using Function =
      void (*)(const float *, int64_t, const char *, int64_t, int64_t, float *,
               int64_t, int64_t, bool, const char *, const char *);
  static const Function heights[tileHeight + 1] = {nullptr,
                                                   tileOf<storage, 1>,
                                                   tileOf<storage, 2>,
                                                   tileOf<storage, 3>,
                                                   tileOf<storage, 4>,
                                                   tileOf<storage, 5>,
                                                   tileOf<storage, 6>,
                                                   tileOf<storage, 7>,
                                                   tileOf<storage, 8>};
  int64_t tiles = (t.rows + tileHeight - 1) / tileHeight;
  int64_t panel = 0;
  for (; panel + 2 <= t.panels; panel += 2) {
    const char *b = static_cast<const char *>(t.b) + panel * t.bStep;
    float *c = t.c + panel * t.cStep;
    const char *prefetch = t.prefetch ? t.prefetch + panel * t.bStep : nullptr;
    const char *end = prefetch ? prefetch + t.prefetchBytes : nullptr;
    for (int64_t i = 0, row = 0; i < tiles; ++i) {
      int64_t now = t.rows / tiles + (i < t.rows % tiles);
      heights[now](t.a + row * t.lda, t.lda, b, t.bStep, t.k, c + row * t.ldc,
                   t.ldc, t.cStep, t.accumulate, prefetch, end);
      if (prefetch)
        prefetch += t.k / 4 * 64;
      row += now;
    }
  }
  if (panel == t.panels)
    return;
  // A panel alone is as well served by the narrower tile.
  TileArguments last = t;
  last.b = static_cast<const char *>(t.b) + panel * t.bStep;
  last.c = t.c + panel * t.cStep;
  last.panels = t.panels - panel;
  last.prefetch = nullptr;
  avx2Kernels.tile[static_cast<int>(storage)](last);
}

//===----------------------------------------------------------------------===//
// Functions of a vector: KernelsAvx2.cpp says what they are
//===----------------------------------------------------------------------===//

inline __m512 exp2Vector(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
  x = _mm512_min_ps(_mm512_set1_ps(127.0f), x);
  const __m512 magic = _mm512_set1_ps(12582912.0f); // 1.5 * 2^23
  __m512 t = _mm512_add_ps(x, magic);
  __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(t, magic));
  __m512 p = _mm512_set1_ps(0.00015345812f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0013399931f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.009618489f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.055503286f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24022646f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6931472f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
  return _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(p), exponent));
}

inline __m512 negative(__m512 x) {
  return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f));
}

inline __m512 expVector(__m512 x) {
  return exp2Vector(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)));
}

inline __m512 tanhVector(__m512 x) {
  __m512 e = expVector(_mm512_add_ps(x, x));
  __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_sub_ps(
      one, _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one)));
}

inline __m512 erfVector(__m512 x) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  __m512 z = _mm512_andnot_ps(sign, x);
  __m512 one = _mm512_set1_ps(1.0f);
  __m512 t =
      _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  p = _mm512_mul_ps(p, t);
  __m512 e = expVector(negative(_mm512_mul_ps(z, z)));
  __m512 r = _mm512_fnmadd_ps(p, e, one);
  return _mm512_or_ps(r, _mm512_and_ps(sign, x));
}

inline __m512 activate(__m512 x, uint8_t activation) {
  switch (activation) {
  case 1:
    return _mm512_max_ps(_mm512_setzero_ps(), x);
  case 2: {
    __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    __m512 erf = erfVector(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678f)));
    return _mm512_fmadd_ps(half, erf, half);
  }
  case 3: {
    __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    __m512 square = _mm512_mul_ps(x, x);
    __m512 inner =
        _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.79788456f)),
                      _mm512_fmadd_ps(square, _mm512_set1_ps(0.044715f),
                                      _mm512_set1_ps(1.0f)));
    return _mm512_fmadd_ps(half, tanhVector(inner), half);
  }
  case 4:
    return _mm512_div_ps(
        x, _mm512_add_ps(expVector(negative(x)), _mm512_set1_ps(1.0f)));
  default:
    return x;
  }
}

inline __mmask16 firstLanes(int64_t n) {
  return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1);
}

/// Round to nearest even; a NaN stays one. (The instruction of AVX512_BF16
/// flushes denormals.)
inline __m256i toBf16(__m512 x) {
  __m512i bits = _mm512_castps_si512(x);
  __m512i bias = _mm512_add_epi32(
      _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1)),
      _mm512_set1_epi32(0x7fff));
  __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
  __m512i quiet =
      _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  rounded = _mm512_mask_mov_epi32(
      rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
  return _mm512_cvtepi32_epi16(rounded);
}

inline __m512 loadLanes(const void *in, Storage storage, int64_t at,
                        __mmask16 lanes) {
  if (storage == Storage::f32)
    return _mm512_maskz_loadu_ps(lanes, static_cast<const float *>(in) + at);
  __m256i half =
      _mm256_maskz_loadu_epi16(lanes, static_cast<const uint16_t *>(in) + at);
  if (storage == Storage::f16)
    return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void storeLanes(void *out, Storage storage, int64_t at, __m512 x,
                       __mmask16 lanes) {
  if (storage == Storage::f32) {
    _mm512_mask_storeu_ps(static_cast<float *>(out) + at, lanes, x);
    return;
  }
  __m256i half =
      storage == Storage::f16
          ? _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
          : toBf16(x);
  _mm256_mask_storeu_epi16(static_cast<uint16_t *>(out) + at, lanes, half);
}

template <int activation> void epilogueOf(const EpilogueArguments &e) {
  __mmask16 lanes = firstLanes(e.cols);
  __m512 bias =
      e.bias ? _mm512_maskz_loadu_ps(lanes, e.bias) : _mm512_setzero_ps();
  for (int64_t i = 0; i < e.rows; ++i) {
    __m512 x = activate(_mm512_add_ps(_mm512_loadu_ps(e.c + i * 16), bias),
                        activation);
    if (e.residual)
      x = _mm512_add_ps(
          x, loadLanes(e.residual, e.residualStorage, i * e.ldr, lanes));
    if (e.streams)
      _mm512_stream_ps(static_cast<float *>(e.out) + i * e.ldc, x);
    else
      storeLanes(e.out, e.outStorage, i * e.ldc, x, lanes);
  }
  if (e.streams)
    _mm_sfence();
}

void epilogue(const EpilogueArguments &e) {
  switch (e.activation) {
  case 1:
    return epilogueOf<1>(e);
  case 2:
    return epilogueOf<2>(e);
  case 3:
    return epilogueOf<3>(e);
  case 4:
    return epilogueOf<4>(e);
  default:
    return epilogueOf<0>(e);
  }
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// Lanes [low, high) of the sixteen from `at` on.
inline __mmask16 laneMask(int64_t at, int64_t low, int64_t high) {
  __mmask16 below = high <= at ? 0 : firstLanes(high - at);
  __mmask16 under = low <= at ? 0 : firstLanes(low - at);
  return below & static_cast<__mmask16>(~under);
}

float softmaxRow(const SoftmaxRow &row) {
  const __m512 minusInfinity = _mm512_set1_ps(-__builtin_inff());
  int64_t n = row.n; // a multiple of 16: the tile is padded
  __m512 best = minusInfinity;
  __mmask16 nan = 0;
  for (int64_t j = 0; j < n; j += 16) {
    __mmask16 keep = laneMask(j, row.low, row.high);
    if (row.visible)
      keep &= _mm512_test_epi32_mask(_mm512_loadu_si512(row.visible + j),
                                     _mm512_set1_epi32(-1));
    __m512 x = _mm512_loadu_ps(row.p + j);
    if (row.softcap > 0) {
      __m512 cap = _mm512_set1_ps(row.softcap);
      x = _mm512_mul_ps(tanhVector(_mm512_div_ps(x, cap)),
                        _mm512_mul_ps(cap, _mm512_set1_ps(1.44269504f)));
    }
    x = _mm512_mask_mov_ps(minusInfinity, keep, x);
    if (keep != 0xffff || row.softcap > 0)
      _mm512_storeu_ps(row.p + j, x);
    best = _mm512_max_ps(best, x);
    nan |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  }
  if (nan) {
    // The whole row is NaN; the maximum would lose it.
    for (int64_t j = 0; j < n; j += 16)
      _mm512_storeu_ps(row.p + j, _mm512_setzero_ps());
    *row.sum = __builtin_nanf("");
    return 1.0f;
  }
  float tileMaximum = _mm512_reduce_max_ps(best);
  if (tileMaximum == -__builtin_inff()) {
    for (int64_t j = 0; j < n; j += 16)
      _mm512_storeu_ps(row.p + j, _mm512_setzero_ps());
    return 1.0f;
  }
  float oldMaximum = *row.maximum;
  float newMaximum = tileMaximum > oldMaximum ? tileMaximum : oldMaximum;
  __m512 shift = _mm512_set1_ps(newMaximum);
  __m512 floor = _mm512_set1_ps(-126.0f);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < n; j += 16) {
    __m512 x = _mm512_sub_ps(_mm512_loadu_ps(row.p + j), shift);
    // Exactly zero below the clamp, so a masked key adds nothing.
    __mmask16 keep = _mm512_cmp_ps_mask(x, floor, _CMP_NLT_UQ);
    __m512 e = _mm512_maskz_mov_ps(keep, exp2Vector(x));
    _mm512_storeu_ps(row.p + j, e);
    sum = _mm512_add_ps(sum, e);
  }
  float alpha = 1.0f;
  if (newMaximum != oldMaximum) {
    float difference = oldMaximum - newMaximum;
    alpha = difference < -126.0f
                ? 0.0f
                : _mm512_cvtss_f32(exp2Vector(_mm512_set1_ps(difference)));
    *row.maximum = newMaximum;
  }
  *row.sum = *row.sum * alpha + _mm512_reduce_add_ps(sum);
  return alpha;
}

//===----------------------------------------------------------------------===//
// Block-quantised operands
//===----------------------------------------------------------------------===//

inline float zeroOf(const QuantizedColumn &c, int64_t block) {
  if (!c.zeros)
    return c.bits == 4 ? 8.0f : 128.0f;
  if (c.bits == 8)
    return c.zeros[block];
  return static_cast<float>(c.zeros[block / 2] >> (block % 2 * 4) & 15);
}

/// Bytes that a stream of weights is fetched ahead: what memory delivers in its
/// own latency, and more.
constexpr int64_t ahead = 4096;

inline __m512 bytesToFloat(__m128i bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

void dequantize(const QuantizedColumn &c, int64_t k, int64_t n, float *out) {
  int64_t block = k / c.block, end = block * c.block - k;
  __m512 scale = _mm512_setzero_ps(), zero = scale;
  const __m128i mask = _mm_set1_epi8(15);
  // The columns of a panel are read in turns, too short for the hardware to
  // see where that goes.
  const uint8_t *next = c.data + (k + 2 * n) * c.bits / 8;
  for (int64_t byte = 0; byte < n * c.bits / 8; byte += 64)
    _mm_prefetch(reinterpret_cast<const char *>(next + byte), _MM_HINT_T0);
  for (int64_t i = 0; i < n; i += 16) {
    if (i >= end) {
      scale = _mm512_set1_ps(c.scales[block]);
      zero = _mm512_set1_ps(zeroOf(c, block));
      ++block;
      end += c.block;
    }
    __m128i q;
    if (c.bits == 8) {
      q = _mm_loadu_si128(reinterpret_cast<const __m128i *>(c.data + k + i));
    } else {
      __m128i half = _mm_loadl_epi64(
          reinterpret_cast<const __m128i *>(c.data + (k + i) / 2));
      q = _mm_unpacklo_epi8(_mm_and_si128(half, mask),
                            _mm_and_si128(_mm_srli_epi16(half, 4), mask));
    }
    _mm512_storeu_ps(
        out + i, _mm512_mul_ps(_mm512_sub_ps(bytesToFloat(q), zero), scale));
  }
}

/// What the zeros take away from a column: the scaled sums of the blocks.
inline float zeroPart(QuantizedColumn c, int64_t zeroStep, int64_t blocks,
                      int64_t column, const float *sums) {
  c.scales += column * blocks;
  if (c.zeros) {
    c.zeros += column * zeroStep;
    float sum = 0;
    for (int64_t b = 0; b < blocks; ++b)
      sum += c.scales[b] * zeroOf(c, b) * sums[b];
    return sum;
  }
  __m512 away = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks; b += 16)
    away = _mm512_fmadd_ps(
        _mm512_maskz_loadu_ps(firstLanes(blocks - b), c.scales + b),
        _mm512_loadu_ps(sums + b), away);
  return (c.bits == 4 ? 8.0f : 128.0f) * _mm512_reduce_add_ps(away);
}

#define DSHARD_EACH_DOT(DO) DO(0) DO(1) DO(2) DO(3)

/// Two columns at a time, so that additions need not wait for each other.
template <int rows>
__attribute__((noinline)) void dotNibbles(const QuantizedDot &d) {
  int64_t block = d.first.block, k = d.blocks * block;
  // Scales of the four 32s of a group, or of fewer, larger blocks.
  int shift = __builtin_ctzll(static_cast<unsigned long long>(block));
  int64_t perGroup = block < 128 ? 128 >> shift : 1;
  __m512i which =
      _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  if (block > 32)
    which = block == 64 ? _mm512_srli_epi32(which, 1) : _mm512_setzero_si512();
  for (int64_t column = 0; column < d.columns; column += 2) {
    bool both = column + 1 < d.columns;
    const uint8_t *data0 = d.first.data + column * d.dataStep;
    const uint8_t *data1 = data0 + (both ? d.dataStep : 0);
    const float *scales0 = d.first.scales + column * d.blocks;
    const float *scales1 = scales0 + (both ? d.blocks : 0);
#define DECLARE(I) __m512 c##I##0 = _mm512_setzero_ps(), c##I##1 = c##I##0;
    DSHARD_EACH_DOT(DECLARE)
#undef DECLARE
    for (int64_t at = 0; at < k; at += 128) {
      _mm_prefetch(reinterpret_cast<const char *>(data0 + at / 2 + ahead),
                   _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char *>(data1 + at / 2 + ahead),
                   _MM_HINT_T0);
      int64_t left = k - at;
      __mmask16 words = left >= 128 ? 0xffff : firstLanes(left / 8);
      __m512i q0 = _mm512_maskz_loadu_epi32(words, data0 + at / 2);
      __m512i q1 = _mm512_maskz_loadu_epi32(words, data1 + at / 2);
#define DECLARE(I) __m512 p##I##0 = _mm512_setzero_ps(), p##I##1 = p##I##0;
      DSHARD_EACH_DOT(DECLARE)
#undef DECLARE
#define STEP(I)                                                                \
  if constexpr (rows > I) {                                                    \
    __m512 x = _mm512_loadu_ps(d.x + I * d.xStep + at + 16 * j);               \
    p##I##0 = _mm512_fmadd_ps(y0, x, p##I##0);                                 \
    p##I##1 = _mm512_fmadd_ps(y1, x, p##I##1);                                 \
  }
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        __m512i mask = _mm512_set1_epi32(15 << (4 * (j % 7)));
        __m512 y0 = _mm512_cvtepi32_ps(j < 7 ? _mm512_and_si512(q0, mask)
                                             : _mm512_srli_epi32(q0, 28));
        __m512 y1 = _mm512_cvtepi32_ps(j < 7 ? _mm512_and_si512(q1, mask)
                                             : _mm512_srli_epi32(q1, 28));
        DSHARD_EACH_DOT(STEP)
      }
#undef STEP
      int64_t first = at >> shift;
      int64_t some = d.blocks - first < perGroup ? d.blocks - first : perGroup;
      __mmask16 lanes = firstLanes(some);
      __m512 scale0 = _mm512_permutexvar_ps(
          which, _mm512_maskz_loadu_ps(lanes, scales0 + first));
      __m512 scale1 = _mm512_permutexvar_ps(
          which, _mm512_maskz_loadu_ps(lanes, scales1 + first));
#define ADD(I)                                                                 \
  if constexpr (rows > I) {                                                    \
    c##I##0 = _mm512_fmadd_ps(p##I##0, scale0, c##I##0);                       \
    c##I##1 = _mm512_fmadd_ps(p##I##1, scale1, c##I##1);                       \
  }
      DSHARD_EACH_DOT(ADD)
    }
#define FINISH(I)                                                              \
  if constexpr (rows > I) {                                                    \
    const float *sums = d.x + I * d.xStep + arrangedSums(d.blocks, block);     \
    float *out = d.out + I * d.ldc + column;                                   \
    out[0] = _mm512_reduce_add_ps(c##I##0) -                                   \
             zeroPart(d.first, d.zeroStep, d.blocks, column, sums);            \
    if (both)                                                                  \
      out[1] = _mm512_reduce_add_ps(c##I##1) -                                 \
               zeroPart(d.first, d.zeroStep, d.blocks, column + 1, sums);      \
  }
    DSHARD_EACH_DOT(FINISH)
  }
}

/// The sums of four vectors.
inline __m128 reduceFour(__m512 a, __m512 b, __m512 c, __m512 d) {
  __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all),
                              _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half),
                    _mm256_extractf128_ps(half, 1));
}

/// dotNibbles of one row, which waits for memory: four columns at a time.
__attribute__((noinline)) void dotNibblesOfRow(const QuantizedDot &d) {
  int64_t block = d.first.block, k = d.blocks * block;
  int shift = __builtin_ctzll(static_cast<unsigned long long>(block));
  int64_t perGroup = block < 128 ? 128 >> shift : 1;
  __m512i which =
      _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  if (block > 32)
    which = block == 64 ? _mm512_srli_epi32(which, 1) : _mm512_setzero_si512();
  const float *sums = d.x + arrangedSums(d.blocks, block);
#define DSHARD_EACH_COLUMN(DO) DO(0) DO(1) DO(2) DO(3)
  for (int64_t column = 0; column < d.columns; column += 4) {
    int64_t last = d.columns - 1;
#define START(I)                                                               \
  int64_t column##I = column + I < last ? column + I : last;                   \
  const uint8_t *data##I = d.first.data + column##I * d.dataStep;              \
  const float *scales##I = d.first.scales + column##I * d.blocks;              \
  __m512 c##I = _mm512_setzero_ps();
    DSHARD_EACH_COLUMN(START)
#undef START
    for (int64_t at = 0; at < k; at += 128) {
      int64_t left = k - at;
      __mmask16 words = left >= 128 ? 0xffff : firstLanes(left / 8);
      int64_t first = at >> shift;
      int64_t some = d.blocks - first < perGroup ? d.blocks - first : perGroup;
      __mmask16 lanes = firstLanes(some);
#define START(I)                                                               \
  _mm_prefetch(reinterpret_cast<const char *>(data##I + at / 2 + ahead),       \
               _MM_HINT_T0);                                                   \
  __m512i q##I = _mm512_maskz_loadu_epi32(words, data##I + at / 2);            \
  __m512 p##I = _mm512_setzero_ps();
      DSHARD_EACH_COLUMN(START)
#undef START
#define MULTIPLY(I)                                                            \
  p##I =                                                                       \
      _mm512_fmadd_ps(_mm512_cvtepi32_ps(j < 7 ? _mm512_and_si512(q##I, mask)  \
                                               : _mm512_srli_epi32(q##I, 28)), \
                      x, p##I);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        __m512i mask = _mm512_set1_epi32(15 << (4 * (j % 7)));
        __m512 x = _mm512_loadu_ps(d.x + at + 16 * j);
        DSHARD_EACH_COLUMN(MULTIPLY)
      }
#undef MULTIPLY
#define SUM(I)                                                                 \
  c##I = _mm512_fmadd_ps(                                                      \
      p##I,                                                                    \
      _mm512_permutexvar_ps(which,                                             \
                            _mm512_maskz_loadu_ps(lanes, scales##I + first)),  \
      c##I);
      DSHARD_EACH_COLUMN(SUM)
#undef SUM
    }
    if (!d.first.zeros)
      for (int64_t b = 0; b < d.blocks; b += 16) {
        __mmask16 lanes = firstLanes(d.blocks - b);
        __m512 away =
            _mm512_mul_ps(_mm512_loadu_ps(sums + b), _mm512_set1_ps(-8.0f));
#define SUM(I)                                                                 \
  c##I = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, scales##I + b), away,    \
                         c##I);
        DSHARD_EACH_COLUMN(SUM)
#undef SUM
      }
    int64_t left = d.columns - column;
    _mm_mask_storeu_ps(d.out + column,
                       static_cast<__mmask8>(firstLanes(left < 4 ? left : 4)),
                       reduceFour(c0, c1, c2, c3));
    for (int64_t i = 0; d.first.zeros && i < left && i < 4; ++i)
      d.out[column + i] -=
          zeroPart(d.first, d.zeroStep, d.blocks, column + i, sums);
  }
#undef DSHARD_EACH_COLUMN
}

template <int rows>
__attribute__((noinline)) void dotBytes(const QuantizedDot &d) {
  int64_t block = d.first.block;
  for (int64_t column = 0; column < d.columns; column += 2) {
    bool both = column + 1 < d.columns;
    const uint8_t *data0 = d.first.data + column * d.dataStep;
    const uint8_t *data1 = data0 + (both ? d.dataStep : 0);
    const float *scales0 = d.first.scales + column * d.blocks;
    const float *scales1 = scales0 + (both ? d.blocks : 0);
#define DECLARE(I) __m512 c##I##0 = _mm512_setzero_ps(), c##I##1 = c##I##0;
    DSHARD_EACH_DOT(DECLARE)
#undef DECLARE
    for (int64_t b = 0, k = 0; b < d.blocks; ++b) {
      _mm_prefetch(reinterpret_cast<const char *>(data0 + k + ahead),
                   _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char *>(data1 + k + ahead),
                   _MM_HINT_T0);
#define DECLARE(I) __m512 p##I##0 = _mm512_setzero_ps(), p##I##1 = p##I##0;
      DSHARD_EACH_DOT(DECLARE)
#undef DECLARE
      for (int64_t end = k + block; k < end; k += 16) {
        __m512 y0 = bytesToFloat(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(data0 + k)));
        __m512 y1 = bytesToFloat(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(data1 + k)));
#define STEP(I)                                                                \
  if constexpr (rows > I) {                                                    \
    __m512 x = _mm512_loadu_ps(d.x + I * d.xStep + k);                         \
    p##I##0 = _mm512_fmadd_ps(y0, x, p##I##0);                                 \
    p##I##1 = _mm512_fmadd_ps(y1, x, p##I##1);                                 \
  }
        DSHARD_EACH_DOT(STEP)
#undef STEP
      }
      __m512 scale0 = _mm512_set1_ps(scales0[b]);
      __m512 scale1 = _mm512_set1_ps(scales1[b]);
      DSHARD_EACH_DOT(ADD)
    }
    DSHARD_EACH_DOT(FINISH)
  }
}
#undef ADD
#undef FINISH
#undef DSHARD_EACH_DOT

void quantizedDot(const QuantizedDot &d) {
  using Function = void (*)(const QuantizedDot &);
  static const Function functions[2][4] = {
      {dotNibblesOfRow, dotNibbles<2>, dotNibbles<3>, dotNibbles<4>},
      {dotBytes<1>, dotBytes<2>, dotBytes<3>, dotBytes<4>}};
  functions[d.first.bits == 8][d.rows - 1](d);
}

void quantizeRow(const float *x, int64_t blocks, char *row) {
  Int8Row form(blocks);
  float *scales = reinterpret_cast<float *>(row + form.scales());
  float *sums = reinterpret_cast<float *>(row + form.sums());
  // Even bytes first.
  const __m128i order =
      _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  for (int64_t b = 0; b < blocks; ++b, x += 32) {
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    float top = _mm512_reduce_max_ps(
        _mm512_max_ps(_mm512_abs_ps(x0), _mm512_abs_ps(x1)));
    float scale = top * (1.0f / 127.0f);
    __m512 by = _mm512_set1_ps(scale > 1e-30f ? scale : 1e-30f);
    __m512i q0 = _mm512_cvtps_epi32(_mm512_div_ps(x0, by));
    __m512i q1 = _mm512_cvtps_epi32(_mm512_div_ps(x1, by));
    __m128i first = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q0), order);
    __m128i second = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q1), order);
    char *to = row + b / 4 * 128 + b % 4 * 16;
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to),
                     _mm_unpacklo_epi64(first, second));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + 64),
                     _mm_unpackhi_epi64(first, second));
    _mm_storeu_ps(scales + b * 4, _mm_set1_ps(scale));
    sums[b] = scale * static_cast<float>(
                          _mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1)));
  }
}

/// As dotNibbles. A byte product of 4 bits and 8 never overflows.
template <int rows>
__attribute__((noinline, target("avx512vnni"))) void
int8Columns(const Int8Dot &d) {
  Int8Row form(d.blocks);
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i four =
      _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  for (int64_t column = 0; column < d.columns; column += 2) {
    bool both = column + 1 < d.columns;
    const uint8_t *data0 = d.first.data + column * d.dataStep;
    const uint8_t *data1 = data0 + (both ? d.dataStep : 0);
    const float *scales0 = d.first.scales + column * d.blocks;
    const float *scales1 = scales0 + (both ? d.blocks : 0);
#define DSHARD_EACH_DOT(DO) DO(0) DO(1) DO(2) DO(3)
#define DECLARE(I) __m512 c##I##0 = _mm512_setzero_ps(), c##I##1 = c##I##0;
    DSHARD_EACH_DOT(DECLARE)
#undef DECLARE
    for (int64_t quad = 0; quad < form.quads; ++quad) {
      int64_t left = d.blocks - quad * 4;
      __mmask64 bytes =
          left >= 4 ? ~__mmask64{0} : (__mmask64{1} << (left * 16)) - 1;
      __mmask16 lanes = firstLanes(left < 4 ? left : 4);
      _mm_prefetch(reinterpret_cast<const char *>(data0 + quad * 64 + ahead),
                   _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char *>(data1 + quad * 64 + ahead),
                   _MM_HINT_T0);
      __m512i q0 = _mm512_maskz_loadu_epi8(bytes, data0 + quad * 64);
      __m512i q1 = _mm512_maskz_loadu_epi8(bytes, data1 + quad * 64);
      __m512i low0 = _mm512_and_si512(q0, nibble);
      __m512i low1 = _mm512_and_si512(q1, nibble);
      __m512i high0 = _mm512_and_si512(_mm512_srli_epi16(q0, 4), nibble);
      __m512i high1 = _mm512_and_si512(_mm512_srli_epi16(q1, 4), nibble);
      __m512 scale0 = _mm512_permutexvar_ps(
          four, _mm512_maskz_loadu_ps(lanes, scales0 + quad * 4));
      __m512 scale1 = _mm512_permutexvar_ps(
          four, _mm512_maskz_loadu_ps(lanes, scales1 + quad * 4));
#define STEP(I)                                                                \
  if constexpr (rows > I) {                                                    \
    const char *row = d.x + I * d.xStep;                                       \
    __m512i even = _mm512_loadu_si512(row + quad * 128);                       \
    __m512i odd = _mm512_loadu_si512(row + quad * 128 + 64);                   \
    __m512 scale = _mm512_loadu_ps(row + form.scales() + quad * 64);           \
    __m512i s0 = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low0, even);      \
    __m512i s1 = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low1, even);      \
    s0 = _mm512_dpbusd_epi32(s0, high0, odd);                                  \
    s1 = _mm512_dpbusd_epi32(s1, high1, odd);                                  \
    c##I##0 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s0),                          \
                              _mm512_mul_ps(scale, scale0), c##I##0);          \
    c##I##1 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s1),                          \
                              _mm512_mul_ps(scale, scale1), c##I##1);          \
  }
      DSHARD_EACH_DOT(STEP)
#undef STEP
    }
#define FINISH(I)                                                              \
  if constexpr (rows > I) {                                                    \
    const float *sums =                                                        \
        reinterpret_cast<const float *>(d.x + I * d.xStep + form.sums());      \
    float *out = d.out + I * d.ldc + column;                                   \
    out[0] = _mm512_reduce_add_ps(c##I##0) -                                   \
             zeroPart(d.first, d.zeroStep, d.blocks, column, sums);            \
    if (both)                                                                  \
      out[1] = _mm512_reduce_add_ps(c##I##1) -                                 \
               zeroPart(d.first, d.zeroStep, d.blocks, column + 1, sums);      \
  }
    DSHARD_EACH_DOT(FINISH)
#undef FINISH
#undef DSHARD_EACH_DOT
  }
}

void int8Dot(const Int8Dot &d) {
  using Function = void (*)(const Int8Dot &);
  static const Function functions[4] = {int8Columns<1>, int8Columns<2>,
                                        int8Columns<3>, int8Columns<4>};
  functions[d.rows - 1](d);
}

} // namespace

void dshard::cpu::useAvx512(Kernels &table) {
  table.name = "avx512";
  table.panels = 2;
  table.tile[0] = tile<Storage::f32>;
  table.tile[1] = tile<Storage::bf16>;
  table.tile[2] = tile<Storage::f16>;
  table.epilogue = epilogue;
  table.softmaxRow = softmaxRow;
  table.dequantize = dequantize;
  table.quantizedDot = quantizedDot;
  table.dotRows = 16;
  table.quantizeRow = quantizeRow;
  if (__builtin_cpu_supports("avx512vnni"))
    table.int8Dot = int8Dot;
}

#endif // __x86_64__
