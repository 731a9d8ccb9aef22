//===- Kernels.h - The vector code behind Gemm and Attention ----*- C++ -*-===//
//
// One struct of functions per instruction set. Each table's code has a source
// file of its own, compiled for that instruction set, which includes nothing
// that the linker could share with code for older CPUs (no standard library).
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CPU_KERNELS_H
#define DSHARD_LIB_RUNTIME_CPU_KERNELS_H

#include <stdint.h>

namespace dshard::cpu {

/// Storage of the elements that the kernels read and write.
enum class Storage : uint8_t { f32, bf16, f16 };

/// Rows x (panels * 16) product over one k chunk, for each panel p
///   c[p * cStep + i * ldc ...][16] (+)= a[i * lda ...][k] * b[p * bStep ...]
/// `b` is a chunk [k][16] of the first panel, bStep counts bytes, the other
/// strides floats. `prefetch` is what the first panel will read next, of which
/// `prefetchBytes` are there (null: none); the other panels' is bStep further.
struct TileArguments {
  const float *a;
  int64_t lda;
  const void *b;
  int64_t bStep;
  int64_t panels;
  int64_t k;
  float *c;
  int64_t ldc, cStep;
  int64_t rows;
  bool accumulate;
  const char *prefetch = nullptr;
  int64_t prefetchBytes = 0;
};
using TileFunction = void (*)(const TileArguments &);

/// Finishes rows x cols (cols <= 16) of a tile with row stride 16.
struct EpilogueArguments {
  const float *c;
  int64_t rows, cols;
  const float *bias; // 16 floats or null
  uint8_t activation;
  const void *residual; // or null
  int64_t ldr;
  Storage residualStorage;
  void *out;
  int64_t ldc;
  Storage outStorage;
  bool streams = false; // out is f32, whole and aligned, and larger than caches
};

/// One row of a tile of attention scores, n of them, of which [low, high) are
/// visible. In: scores of a query scaled by scale * log2(e) (by scale alone
/// when softcap > 0). Out: p[0, n) = exp2(score - new maximum), zero where not
/// visible. Updates the running maximum and sum; returns the factor that the
/// earlier sum was multiplied with (1 when nothing changed).
struct SoftmaxRow {
  float *p;
  int64_t n, low, high;
  const uint32_t *visible; // all ones or zero per key, n of them, or null
  const float *bias;       // added, times log2(e): n of them, or null
  float softcap;           // 0: none
  float *maximum;
  float *sum;
};

/// One line of a tile of attention scores, transposed: what one key is to n
/// rows (a multiple of 16), of which [low, high) see it. In: p the scores as
/// for SoftmaxRow, ds = <dout, v>. Out: p = exp2(score - lse) and ds = p (ds -
/// delta), times the softcap's derivative; zero where not visible.
struct GradientRow {
  float *p;
  float *ds;
  int64_t n, low, high;
  const float *lse; // of each row, * log2(e); +inf: nothing is attended
  const float *delta;
  float softcap; // 0: none
};

/// One column of a block-quantised operand: element k is scales[k / block] *
/// (q[k] - zero), q of 4 bits (low nibble first) or 8, block a multiple of 16.
/// The zero of block i is nibble or byte i of `zeros`; null: 8 or 128.
struct QuantizedColumn {
  const uint8_t *data;
  const float *scales;
  const uint8_t *zeros;
  int64_t block;
  int bits;
};

/// A row of activations as integers. Each 32 elements (a piece) are a scale
/// times integers, which are one digit of base 256 (the largest magnitude is
/// 127) or three (8355000: no coarser than the fp32 format next to that
/// largest). Digits are s8, the lowest first. Form of the row: the digits, of
/// each piece `lanes` times its scale, of each piece the sum of its integers
/// (s32), then as many floats, which are the caller's.
///
/// For products with whole columns, in steps of the 64 bytes of a column that
/// hold `group` pieces: all of a step's first digits, then all second ones, ...
/// Of 4 bits, the even elements of a step come before the odd ones, as they
/// leave the low and the high nibbles. For tiles: of a piece all first digits,
/// even elements before odd ones, then all second ones.
struct DigitRow {
  DigitRow(int bits, int digits, bool forTile, int64_t pieces)
      : pieces(pieces), digits(digits), evenFirst(bits == 4),
        group(forTile ? 1 : 16 / bits), unit(bits == 4 ? 16 : 32),
        half(bits == 4 && !forTile ? 64 : 16), lanes(forTile ? 1 : 16 / group) {
  }
  int64_t pieces;
  int digits;
  bool evenFirst;
  int64_t group, unit, half, lanes;
  /// Where a piece's digit begins; its second sixteen are `half` further.
  int64_t place(int64_t piece, int digit) const {
    return (piece / group * digits + digit) * 32 * group + piece % group * unit;
  }
  int64_t steps() const { return (pieces + group - 1) / group; }
  int64_t scales() const { return whole(steps() * group * 32 * digits); }
  int64_t totals() const {
    return scales() + whole(steps() * group * lanes * 4);
  }
  int64_t sums() const { return totals() + whole(pieces * 4); }
  int64_t bytes() const { return sums() + whole(pieces * 4); }

private:
  static int64_t whole(int64_t bytes) { return (bytes + 63) / 64 * 64; }
};

/// Products of a row of digits with `columns` quantised columns, the operand of
/// column j being dataStep, blocks and zeroStep further than that of column
/// j - 1. blocks covers all of k; a block is 32 times a power of two. The row
/// is zero past k; at form.sums() is of each block the sum of its elements.
struct DigitDot {
  QuantizedColumn first;
  int64_t dataStep, zeroStep, blocks, columns;
  DigitRow form;
  const char *x;
  float *out;
};

/// Up to 16 pieces of 16 columns of 4 bits, a byte each: sixteen columns'
/// dwords of 4 even elements, of the 4 odd ones between them, and so on. Of
/// each piece, the scales and, where there are any, the zeros of all columns.
struct alignas(64) QuantizedPanel {
  static constexpr int64_t pieces = 16;
  uint8_t bytes[pieces][8][64];
  float scales[pieces][16];
  int32_t zeros[pieces][16];
  bool hasZeros;
};

/// Rows times panels of 16 columns, a chunk of k:
///   c[p * cStep + i * 16 ...][16] (+)= x[i * xStep ...] * panel p
/// x is the chunk's first piece in rows for tiles, its scales and its starts
/// (the totals, times -8 without zeros, else times -1) being apart. `panels`
/// are quantised panels one behind the other.
struct DigitTile {
  const QuantizedPanel *panel;
  int64_t panels, pieces;
  const char *x;
  const char *scales, *starts;
  int64_t xStep;
  int64_t rows;
  float *c;
  int64_t cStep;
  bool accumulate;
};
struct Kernels {
  const char *name;
  int64_t panels;       // that one register tile covers
  TileFunction tile[3]; // by storage of b; bf16 panels interleaved
  void (*epilogue)(const EpilogueArguments &);
  void (*toFloat)(const void *in, Storage storage, float *out, int64_t n);
  void (*fromFloat)(const float *in, Storage storage, void *out, int64_t n);
  float (*softmaxRow)(const SoftmaxRow &);
  /// x[0, n) *= factor
  void (*scale)(float *x, int64_t n, float factor);
  /// out[j][i] = in[i][j] for a 16 x 16 piece: rows with stride ldIn, ldOut.
  void (*transpose16)(const float *in, int64_t ldIn, float *out, int64_t ldOut);
  void (*gradientRow)(const GradientRow &);
  /// out[0, n) = elements [k, k + n) of a column, both multiples of 16.
  void (*dequantize)(const QuantizedColumn &, int64_t k, int64_t n, float *out);
  /// Pieces [first, first + count) of a row, x being those.
  void (*quantizePieces)(const float *x, const DigitRow &form, int64_t first,
                         int64_t count, char *row);
  void (*digitDot)(const DigitDot &);
  /// 16 columns' 64 bytes (of 4 bits, dwords transposed by transpose16) from a
  /// piece on, a multiple of 4.
  void (*splitNibbles)(const float *dwords, int64_t piece, QuantizedPanel &out);
  void (*digitTile)(const DigitTile &);
  /// Up to how many rows digitDot of three digits beats unpacking panels.
  int64_t dotRows;
};

extern const Kernels portableKernels;
#if defined(__x86_64__)
extern const Kernels avx2Kernels;
namespace avx2 { // QuantizedAvx2.cpp
void digitDot(const DigitDot &);
void splitNibbles(const float *dwords, int64_t piece, QuantizedPanel &out);
void digitTile(const DigitTile &);
} // namespace avx2
/// Puts the AVX-512 kernels into a table of AVX2 ones.
void useAvx512(Kernels &table);
#endif

/// The table for this CPU.
const Kernels &kernels();

} // namespace dshard::cpu

#endif // DSHARD_LIB_RUNTIME_CPU_KERNELS_H
