//===- QuantizedAvx512.cpp - Block-quantised products in AVX-512 ----------===//
//
// Compiled as KernelsAvx512.cpp is and with -mavx512vnni; used only where the
// CPU has that, too. Kernels.h says what each function computes.
//
//===----------------------------------------------------------------------===//

#include "Avx512.h"
#include "QuantizedTiles.h"

#if defined(__x86_64__)

using namespace dshard::cpu;

namespace {

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

struct Vnni {
  using Float = __m512;
  using Int = __m512i;
  using Sum = __m512i;
  static constexpr int64_t width = 64, across = 2, columns = 4, height = 5;
  static Float zero() { return _mm512_setzero_ps(); }
  static Int zeroInt() { return _mm512_setzero_si512(); }
  static Float load(const float *p) { return _mm512_loadu_ps(p); }
  static Int loadInt(const void *p) { return _mm512_loadu_si512(p); }
  static Float loadSome(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps(firstLanes(n), p);
  }
  static void store(float *p, Float x) { _mm512_storeu_ps(p, x); }
  static void store(void *p, Int x) { _mm512_storeu_si512(p, x); }
  static Float broadcast(float x) { return _mm512_set1_ps(x); }
  static Int broadcastInt(const char *p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
  }
  static Float fma(Float x, Float y, Float z) {
    return _mm512_fmadd_ps(x, y, z);
  }
  static Float mul(Float x, Float y) { return _mm512_mul_ps(x, y); }
  static Float toFloat(Int x) { return _mm512_cvtepi32_ps(x); }
  static Float spread(const float *p, int64_t n, const int32_t *which) {
    return _mm512_permutexvar_ps(_mm512_load_si512(which), loadSome(p, n));
  }
  static Int nibbles() { return _mm512_set1_epi8(15); }
  static Int low(Int q, Int nibbles) { return _mm512_and_si512(q, nibbles); }
  static Int high(Int q, Int nibbles) {
    return _mm512_and_si512(_mm512_srli_epi16(q, 4), nibbles);
  }
  static Int dot(Int sum, Int q, const char *x) {
    return _mm512_dpbusd_epi32(sum, q, loadInt(x));
  }
  static Int dotPair(Int sum, Int low, const char *x, Int high, const char *y) {
    return dot(dot(sum, low, x), high, y);
  }
  static Int fromBytes(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(
        _mm_load_si128(reinterpret_cast<const __m128i *>(p)));
  }
  static Int fromNibbles(const uint8_t *p) {
    __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
    const __m128i nibbles = _mm_set1_epi8(15);
    return _mm512_cvtepu8_epi32(
        _mm_unpacklo_epi8(_mm_and_si128(x, nibbles),
                          _mm_and_si128(_mm_srli_epi16(x, 4), nibbles)));
  }
  static Int shift(Int x) { return _mm512_slli_epi32(x, 8); }
  static Int times(Int x, const int32_t *y) {
    return _mm512_mullo_epi32(x, loadInt(y));
  }
  static constexpr bool startsWithZeros = true;
  static Sum step(Sum sum, Int q, Int x) {
    return _mm512_dpbusd_epi32(sum, q, x);
  }
  static Int total(Sum sum) { return sum; }
  static void sumUp(Float a, Float b, Float c, Float d, float *out) {
    _mm_store_ps(out, reduceFour(a, b, c, d));
  }
};

void quantizePieces(const float *x, const DigitRow &form, int64_t first,
                    int64_t count, char *row) {
  const __m128i order =
      form.evenFirst
          ? _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)
          : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const float largest = largestInteger(form.digits);
  for (int64_t piece = first; piece < first + count; ++piece, x += 32) {
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    float top = _mm512_reduce_max_ps(
        _mm512_max_ps(_mm512_abs_ps(x0), _mm512_abs_ps(x1)));
    constexpr int notFinite = 0x99;
    bool odd = _mm512_fpclass_ps_mask(x0, notFinite) |
               _mm512_fpclass_ps_mask(x1, notFinite);
    if (odd)
      x0 = x1 = _mm512_setzero_ps();
    float scale = top * (1.0f / largest);
    scale = scale > smallestScale ? scale : smallestScale;
    __m512 by = _mm512_set1_ps(scale);
    __m512i q0 = _mm512_cvtps_epi32(_mm512_div_ps(x0, by));
    __m512i q1 = _mm512_cvtps_epi32(_mm512_div_ps(x1, by));
    int32_t total = _mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1));
    alignas(16) int8_t digits[3][32];
    for (int digit = 0; digit < form.digits; ++digit) {
      __m128i low = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q0), order);
      __m128i high = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q1), order);
      __m128i *to = reinterpret_cast<__m128i *>(digits[digit]);
      _mm_store_si128(to, form.evenFirst ? _mm_unpacklo_epi64(low, high) : low);
      _mm_store_si128(to + 1,
                      form.evenFirst ? _mm_unpackhi_epi64(low, high) : high);
      const __m512i half = _mm512_set1_epi32(128);
      q0 = _mm512_srai_epi32(_mm512_add_epi32(q0, half), 8);
      q1 = _mm512_srai_epi32(_mm512_add_epi32(q1, half), 8);
    }
    placePiece(form, piece, digits, odd ? __builtin_nanf("") : scale, total,
               row);
  }
}

void digitDot(const DigitDot &d) {
  DotRoom room;
  if (d.first.bits == 8)
    dotColumns<Vnni, 8, 3>(d, room);
  else if (d.form.digits == 3)
    dotColumns<Vnni, 4, 3>(d, room);
  else
    dotColumns<Vnni, 4, 1>(d, room);
}

} // namespace

void dshard::cpu::useVnniQuantized(Kernels &table) {
  table.quantizePieces = quantizePieces;
  table.digitDot = digitDot;
  table.splitNibbles = splitNibblesOf<Vnni>;
  table.digitTile = digitTileOf<Vnni>;
  table.dotRows = 16;
}

#endif // __x86_64__
