//===- Attention.h - Scaled dot-product attention, tiled --------*- C++ -*-===//
//
// For every batch b, query head h (KV head h / (heads / kvHeads)) and query row
// i
//
//   x(j)   = scale * <q(b,h,i), k(b,h',j)>, then softcap * tanh(x / softcap),
//            or + bias(b,h,i,j)
//   out(i) = sum_j softmax_j(x(j)) v(j)   over the visible keys j
//   lse(i) = ln(sum_j exp(x(j)))          over the visible keys j
//
// Key j is visible to row i when the mask (boolean [batch, t], true = attend)
// says so, when not causal or j <= i + offset, and when window < 0 or
// j > i + offset - window. A row without a visible key has lse = -inf and gives
// zeros (fullyMasked 0) or, as a model does that adds a finite number to masked
// scores, the mean of v over all t keys (fullyMasked 1).
//
// f32, bf16 or f16 in and out, fp32 inside. The scores exist only as one tile
// of 256 rows x 256 keys per thread: K and V are packed tile by tile, so that
// the scratch depends on the head sizes alone, never on s or t. The rows of a
// tile are the query heads of one KV head side by side, so GQA packs K and V
// once for all of them.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_ATTENTION_H
#define DSHARD_RUNTIME_CPU_ATTENTION_H

#include "dshard/Runtime/Operations.h"
#include "dshard/Support/Status.h"

#include <cstdint>

namespace dshard::cpu {

class ThreadPool;

/// Rows and keys of a tile.
constexpr int64_t attentionRows = 256;
constexpr int64_t attentionKeys = 256;

/// Bytes of scratch that every worker thread of a rank needs; d and dv are the
/// head sizes of q, k and of v.
constexpr uint64_t attentionScratchBytes(int64_t d, int64_t dv) {
  return 4 * static_cast<uint64_t>(
                 attentionRows * d +                     // q
                 attentionRows * attentionKeys +         // scores
                 attentionRows * ((dv + 15) / 16 * 16) + // out
                 attentionKeys * d +                     // k, transposed
                 attentionKeys * ((dv + 15) / 16 * 16) + // v
                 16 * (d > dv ? d : dv) + 16 * 16 +      // k and v rows
                 2 * attentionRows +
                 2 * attentionKeys) + // max, sum, mask, bias
         64;
}

using ::dshard::AttentionArguments;

/// Says why this cannot be computed here, or nothing: types and head counts.
Status checkAttention(const AttentionArguments &arguments);

/// Computes it. `scratch` has pool.size() pieces of attentionScratchBytes(d,
/// dv), `scratchStride` bytes apart, 64-byte aligned.
void attention(const AttentionArguments &arguments, ThreadPool &pool,
               void *scratch, uint64_t scratchStride);

/// What the bias adds to the scores of one row and keys [key, key + count),
/// times log2(e); zeros up to `padded`.
void loadBias(const AttentionArguments &a, int64_t b, int64_t head, int64_t row,
              int64_t key, int64_t count, float *to, int64_t padded);

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_ATTENTION_H
