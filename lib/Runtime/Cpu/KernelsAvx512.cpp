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

#include "Avx512.h"
#include "QuantizedKernels.h"

#if defined(__x86_64__)

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
    if (row.bias) {
      // The lowest number stays finite: it hides keys only while others are
      // seen.
      __m512 bias = _mm512_loadu_ps(row.bias + j);
      __m512 scaled =
          _mm512_max_ps(_mm512_set1_ps(-__FLT_MAX__),
                        _mm512_mul_ps(bias, _mm512_set1_ps(1.44269504f)));
      x = _mm512_add_ps(
          x, _mm512_mask_mov_ps(
                 scaled, _mm512_cmp_ps_mask(bias, minusInfinity, _CMP_EQ_OQ),
                 bias));
    }
    x = _mm512_mask_mov_ps(minusInfinity, keep, x);
    if (keep != 0xffff || row.bias || row.softcap > 0)
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
  if (__builtin_cpu_supports("avx512vnni"))
    useVnniQuantized(table);
}

#endif // __x86_64__
