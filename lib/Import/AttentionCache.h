//===- AttentionCache.h - Attention with a cache ----------------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_ATTENTIONCACHE_H
#define DSHARD_LIB_IMPORT_ATTENTIONCACHE_H

#include "NodeImporter.h"

namespace mlir::dshard::onnx {

/// What ONNX's Attention has beyond query, key, value and mask.
struct AttentionForm {
  bool causal = false;
  double scale = 1, softcap = 0;
  /// How far a query sees before and behind its own position; -1: all.
  int64_t left = -1, right = -1;
  /// Keys before the first query: static, or one number per batch (`lengths`
  /// less the number of queries).
  int64_t past = 0;
  /// How many keys of each batch [B] count; may be null.
  Value lengths;
  /// What output 3 shows: 0 the scores, 1 capped, 2 masked, 3 the weights.
  int64_t shown = 0;

  bool isPlain() const { return left < 0 && right < 0 && !past && !lengths; }
};

/// The mask of booleans or summands for all that `form` says, and `mask`
/// (padded to the keys; may be null): broadcasts to the scores. `causal` is
/// left to the caller where nothing else is asked for.
Value combineMasks(NodeImporter &n, AttentionForm &form, Value mask,
                   int64_t queries, int64_t keys);

/// Attention and output 3 of q [B,H,S,D], k and v [B,H,T,..] with `mask` from
/// combineMasks.
std::pair<Value, Value> showAttention(NodeImporter &n,
                                      const AttentionForm &form, Value q,
                                      Value k, Value v, Value mask);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_ATTENTIONCACHE_H
