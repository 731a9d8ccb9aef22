//===- QuantizedAvx2.cpp - Block-quantised products in AVX2 ---------------===//
//
// Compiled as KernelsAvx2.cpp is. Kernels.h says what each function computes.
//
//===----------------------------------------------------------------------===//

#include "QuantizedTiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

using namespace dshard::cpu;

namespace {

/// The first n of `lanes` lanes, a mask of words.
inline __m256i firstLanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? static_cast<int>(n) : 8),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// vpmaddubsw adds pairs of products in 16 bits. Here one factor is below 16:
/// eight such sums fit.
struct Avx2 {
  using Float = __m256;
  using Int = __m256i;
  using Sum = __m256i; // of 16-bit lanes
  static constexpr int64_t width = 32, across = 1, columns = 1, height = 3;
  static Float zero() { return _mm256_setzero_ps(); }
  static Int zeroInt() { return _mm256_setzero_si256(); }
  static Float load(const float *p) { return _mm256_loadu_ps(p); }
  static Int loadInt(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
  }
  static Float loadSome(const float *p, int64_t n) {
    return _mm256_maskload_ps(p, firstLanes(n));
  }
  static void store(float *p, Float x) { _mm256_storeu_ps(p, x); }
  static void store(void *p, Int x) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), x);
  }
  static Float broadcast(float x) { return _mm256_set1_ps(x); }
  static Int broadcastInt(const char *p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
  }
  static Float fma(Float x, Float y, Float z) {
    return _mm256_fmadd_ps(x, y, z);
  }
  static Float mul(Float x, Float y) { return _mm256_mul_ps(x, y); }
  static Float toFloat(Int x) { return _mm256_cvtepi32_ps(x); }
  static Float spread(const float *p, int64_t n, const int32_t *which) {
    return _mm256_permutevar8x32_ps(loadSome(p, n), loadInt(which));
  }
  static Int nibbles() { return _mm256_set1_epi8(15); }
  static Int low(Int q, Int nibbles) { return _mm256_and_si256(q, nibbles); }
  static Int high(Int q, Int nibbles) {
    return _mm256_and_si256(_mm256_srli_epi16(q, 4), nibbles);
  }
  static Int pairs(Int x) { return _mm256_madd_epi16(x, _mm256_set1_epi16(1)); }
  static Int dotPair(Int sum, Int low, const char *x, Int high, const char *y) {
    return _mm256_add_epi32(
        sum, pairs(_mm256_add_epi16(_mm256_maddubs_epi16(low, loadInt(x)),
                                    _mm256_maddubs_epi16(high, loadInt(y)))));
  }
  static Int fromBytes(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(
        _mm_load_si128(reinterpret_cast<const __m128i *>(p)));
  }
  static Int fromNibbles(const uint8_t *p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm256_and_si256(
        _mm256_srlv_epi32(_mm256_set1_epi32(word),
                          _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)),
        _mm256_set1_epi32(15));
  }
  static Int shift(Int x) { return _mm256_slli_epi32(x, 8); }
  static Int times(Int x, const int32_t *y) {
    return _mm256_mullo_epi32(x, loadInt(y));
  }
  static constexpr bool startsWithZeros = false;
  static Int add(Int x, Int y) { return _mm256_add_epi32(x, y); }
  static Sum step(Sum sum, Int q, Int x) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(q, x));
    // g++ would compute all the products first, and spill them.
    asm("" : "+x"(sum));
    return sum;
  }
  static Int total(Sum sum) { return pairs(sum); }
  static void sumUp(Float a, Float, Float, Float, float *out) {
    __m128 sums =
        _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
    *out = _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)));
  }
};

} // namespace

void avx2::digitDot(const DigitDot &d) {
  DotRoom room;
  if (d.first.bits == 8)
    digitDotPlain(d);
  else if (d.form.digits == 3)
    dotColumns<Avx2, 4, 3>(d, room);
  else
    dotColumns<Avx2, 4, 1>(d, room);
}

void avx2::splitNibbles(const float *dwords, int64_t piece,
                        QuantizedPanel &out) {
  splitNibblesOf<Avx2>(dwords, piece, out);
}

void avx2::digitTile(const DigitTile &t) { digitTileOf<Avx2>(t); }

#endif // __x86_64__
