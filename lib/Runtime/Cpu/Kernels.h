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

/// Products of up to four rows with `columns` quantised columns, the operand of
/// column j being dataStep, blocks and zeroStep further than that of column
/// j - 1. blocks covers all of k; a block is a multiple of 32. x is arranged as
/// arrangeRow does it; row i of it is xStep floats further, row i of the result
/// `out` ldc.
struct QuantizedDot {
  QuantizedColumn first;
  int64_t dataStep, zeroStep, blocks, columns;
  const float *x;
  int64_t xStep;
  int64_t rows;
  float *out;
  int64_t ldc;
};
/// An arranged row, then the sum of each block at arrangedSums. 8 bits: its
/// elements in order. 4 bits: sixteen 32-bit words of a column hold 128
/// elements, word l those from 8 l on, low nibble first. Of every 128 elements
/// come first those that meet nibble 0 of each word, then nibble 1, ... Nibble
/// j is not shifted down before it is converted, so its elements are multiplied
/// by 16^-j, those of the last, which would be the sign, apart.
inline int64_t arrangedSums(int64_t blocks, int64_t block) {
  return (blocks * block + 127) / 128 * 128;
}
inline int64_t arrangedFloats(int64_t blocks, int64_t block) {
  return arrangedSums(blocks, block) + (blocks + 15) / 16 * 16;
}

/// A row of activations in s8: each block of 32 is its largest magnitude / 127
/// times integers. Four blocks side by side: their even elements, 16 bytes
/// each, then their odd ones. Behind the bytes: of each block its scale four
/// times, then of each block the sum of its elements (as floats, in whole
/// sixteens).
struct Int8Row {
  explicit Int8Row(int64_t blocks) : quads((blocks + 3) / 4) {}
  int64_t quads;
  int64_t scales() const { return quads * 128; }
  int64_t sums() const { return scales() + quads * 64; }
  int64_t bytes() const { return sums() + (quads + 3) / 4 * 64; }
};

/// QuantizedDot in integers: blocks of 32 of 4 bits, x of rows as Int8Row,
/// xStep bytes apart.
struct Int8Dot {
  QuantizedColumn first;
  int64_t dataStep, zeroStep, blocks, columns;
  const char *x;
  int64_t xStep;
  int64_t rows;
  float *out;
  int64_t ldc;
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
  void (*quantizedDot)(const QuantizedDot &);
  /// `row`, zeros before, gets `blocks` blocks of x.
  void (*quantizeRow)(const float *x, int64_t blocks, char *row);
  void (*int8Dot)(const Int8Dot &);
  /// Up to how many rows quantizedDot beats unpacking panels for the tile.
  int64_t dotRows;
};

extern const Kernels portableKernels;
#if defined(__x86_64__)
extern const Kernels avx2Kernels;
/// Puts the AVX-512 kernels into a table of AVX2 ones.
void useAvx512(Kernels &table);
#endif

/// The table for this CPU.
const Kernels &kernels();

} // namespace dshard::cpu

#endif // DSHARD_LIB_RUNTIME_CPU_KERNELS_H
