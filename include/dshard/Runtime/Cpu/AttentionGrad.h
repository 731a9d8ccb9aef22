//===- AttentionGrad.h - Gradients of attention, tiled ----------*- C++ -*-===//
//
// With the forward's x(i, j), visible keys and lse (Attention.h), and dout the
// gradient of out, for every batch, query head h and its KV head
//
//   p(i, j)  = exp(x(i, j) - lse(i)), 0 where key j is not visible to row i
//   ds(i, j) = p(i, j) (<dout(i), v(j)> - <dout(i), out(i)>)
//   dv(j)    = sum_i p(i, j) dout(i)
//   dq(i)    = scale sum_j ds(i, j) k(j),  dk(j) = scale sum_i ds(i, j) q(i)
//
// where a softcap multiplies ds by its derivative, and the sums of dk and dv
// run over all query heads of the KV head. A row without a visible key
// (lse = -inf) gives nothing (fullyMasked 0), or dout(i) / t to every value
// (fullyMasked 1).
//
// The scores are formed again in tiles of 128 keys x 128 rows per thread, so
// the scratch depends on the head sizes alone. Every sum has one order (tiles
// ascending), so the results are bitwise the same whatever the number of
// threads. Where a thread has a whole (batch, KV head) to itself, one pass
// gives all three gradients; else a pass over blocks of keys gives dk and dv
// and one over blocks of rows dq, which costs seven products instead of five.
//
// Source: Dao, FlashAttention-2, arXiv 2307.08691, algorithm 2.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_ATTENTIONGRAD_H
#define DSHARD_RUNTIME_CPU_ATTENTIONGRAD_H

#include "dshard/Runtime/Operations.h"
#include "dshard/Support/Status.h"

#include <cstdint>

namespace dshard::cpu {

class ThreadPool;

/// Rows and keys of a tile.
constexpr int64_t attentionGradRows = 128;
constexpr int64_t attentionGradKeys = 128;

/// Bytes of scratch that every worker thread of a rank needs; d and dv are the
/// head sizes of q, k and of v.
constexpr uint64_t attentionGradScratchBytes(int64_t d, int64_t dv) {
  uint64_t padded = static_cast<uint64_t>((d + 15) / 16 * 16);
  uint64_t dvPadded = static_cast<uint64_t>((dv + 15) / 16 * 16);
  uint64_t larger = static_cast<uint64_t>(d > dv ? d : dv);
  return 4 * (2 * attentionGradKeys * attentionGradRows + // p, ds
              attentionGradRows *
                  (static_cast<uint64_t>(d) + static_cast<uint64_t>(dv) +
                   2 * padded + dvPadded) + // q, dout, dq
              attentionGradKeys *
                  (static_cast<uint64_t>(d) + static_cast<uint64_t>(dv) +
                   2 * padded + dvPadded) + // k, v, dk, dv
              16 * larger +
              dvPadded + 2 * attentionGradRows) + // one at a time
         64;
}

using ::dshard::AttentionGradArguments;

/// Says why this cannot be computed here, or nothing: types and head counts.
Status checkAttentionGrad(const AttentionGradArguments &arguments);

/// Computes it. `scratch` has pool.size() pieces of
/// attentionGradScratchBytes(d, dv), `scratchStride` bytes apart, 64-byte
/// aligned.
void attentionGrad(const AttentionGradArguments &arguments, ThreadPool &pool,
                   void *scratch, uint64_t scratchStride);

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_ATTENTIONGRAD_H
