//===- Gemm.h - Matrix products on one CPU rank -----------------*- C++ -*-===//
//
// out[b] = activation(lhs[b] * rhs[b] + bias) + residual
//
// lhs, rhs, bias, residual and out are f32, bf16 or f16, each on its own;
// products are accumulated in fp32 and rounded once. Every element is summed
// over k in the same order whatever the number of threads, so results do not
// depend on it.
//
// The packed operand. A rhs of k rows and n columns in panels of 16 columns:
// `[ceil(n / 16)][k][16]`, columns past n are zero. f32 and f16 panels keep
// their columns in order. In a bf16 panel the sixteen 16-bit values of one k
// are interleaved: 32-bit lane j holds column j in its low half and column
// j + 8 in its high half, so that one load, one shift and one mask expand them.
//
// Method: a register tile of 6 x 16 (AVX2, 12 accumulators) or 14 x 32
// (AVX-512, 28) over k chunks of 384 with the next chunk of the panel
// prefetched into L2; the tile is finished (bias, activation, residual,
// rounding) from a small scratch. Measurements: spec cpu-kernels, section 2. An
// operand that is not packed, transposed or of another type is brought into
// that form chunk by chunk, once for 128 rows x 128 columns; a rhs short enough
// (k up to 3072) once for all rows.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_GEMM_H
#define DSHARD_RUNTIME_CPU_GEMM_H

#include "dshard/Runtime/Operations.h"
#include "dshard/Support/Status.h"

#include <cstddef>
#include <cstdint>

namespace dshard::cpu {

class ThreadPool;

/// Columns of a panel, rows of a register tile, k of a chunk, rows of a block,
/// panels that share one converted block of the lhs.
constexpr int64_t gemmPanel = 16;
constexpr int64_t gemmTileRows = 6;
constexpr int64_t gemmChunk = 384;
constexpr int64_t gemmBlockRows = 128;
constexpr int64_t gemmPanelGroup = 8;

/// Element sizes and types that the products accept.
constexpr bool isGemmType(plan::DataType type) {
  return type == plan::DataType::f32 || type == plan::DataType::bf16 ||
         type == plan::DataType::f16;
}

/// Bytes of the packed form of a [k, n] operand.
constexpr uint64_t packedBytes(int64_t k, int64_t n, plan::DataType type) {
  return static_cast<uint64_t>((n + gemmPanel - 1) / gemmPanel * gemmPanel) *
         static_cast<uint64_t>(k) * (type == plan::DataType::f32 ? 4 : 2);
}

/// Bytes of scratch that every worker thread of a rank needs for any product:
/// a block of the result, a converted block of the lhs (rows rounded up to
/// whole 16 x 16 transpositions), a packed chunk of a group of panels of the
/// rhs. It depends on none of the extents.
constexpr uint64_t gemmScratchBytes() {
  return 4 * (gemmPanelGroup * gemmBlockRows * gemmPanel +
              (gemmBlockRows + 15) / 16 * 16 * gemmChunk +
              gemmPanelGroup * gemmChunk * gemmPanel) +
         64;
}

using GemmArguments = MatmulArguments;

/// Says why a product cannot be computed here, or nothing: the types only.
Status checkGemm(const GemmArguments &arguments);

/// Computes the product. `scratch` has pool.size() pieces of
/// gemmScratchBytes(), `scratchStride` bytes apart, 64-byte aligned.
void gemm(const GemmArguments &arguments, ThreadPool &pool, void *scratch,
          uint64_t scratchStride);

/// Writes columns [column, column + n) of a packed operand from a row-major
/// [k, n] buffer with row stride `ld` elements. `column` is a multiple of 16; a
/// last panel that is not full is padded with zeros. Types: in and out f32,
/// bf16 or f16.
void packRhs(const void *in, plan::DataType inType, int64_t ld, int64_t k,
             int64_t n, int64_t column, void *packed, plan::DataType packedType,
             ThreadPool &pool);

/// "avx512", "avx2" or "portable": the kernels that this CPU gets;
/// DSHARD_KERNELS names a lesser one.
const char *kernelName();

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_GEMM_H
