//===- QuantizedAvx512.cpp - Block-quantised products in AVX-512 ----------===//
//
// Compiled as KernelsAvx512.cpp is; where the CPU has VNNI, too, products with
// activations of 8 bits use it. Kernels.h says what each function computes.
//
//===----------------------------------------------------------------------===//

#include "Avx512.h"
#include "QuantizedKernels.h"

#if defined(__x86_64__)

using namespace dshard::cpu;

namespace {

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

void dshard::cpu::useAvx512Quantized(Kernels &table) {
  table.dequantize = dequantize;
  table.quantizedDot = quantizedDot;
  table.dotRows = 16;
  table.quantizeRow = quantizeRow;
  if (__builtin_cpu_supports("avx512vnni"))
    table.int8Dot = int8Dot;
}

#endif // __x86_64__
