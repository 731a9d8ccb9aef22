//===- AttentionOps.h - Attention written out in single ops -----*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_ATTENTIONOPS_H
#define DSHARD_LIB_IMPORT_ATTENTIONOPS_H

#include "NodeImporter.h"

namespace mlir::dshard::onnx {

/// [B,S,H*D] -> [B,H,S,D]; `what` names x in errors.
Value splitHeads(NodeImporter &n, Value x, int64_t heads, StringRef what);
/// [B,H,S,D] -> [B,S,H*D].
Value mergeHeads(NodeImporter &n, Value x);

/// softmax(scale q k^T, capped, masked) v; a row that attends nothing is zero.
/// q [B,H,S,D], k and v [B,Hkv,T,..] with Hkv dividing H; `mask` (may be null)
/// is true where attended, or is added to the scores, and broadcasts to them.
/// `sinks` (may be null) [H]: a score of every head that takes its part of the
/// softmax and gives nothing.
/// The graph phase raises it to dshard.attention where it can prove the mask.
Value decomposedAttention(NodeImporter &n, Value q, Value k, Value v,
                          Value mask, bool causal, double scale, double softcap,
                          Value sinks = {});

/// x [B,H,S,D] rotated by tables [max, R/2] at `positions` [B or 1, S]; only
/// the first R entries of D.
Value rotateByTable(NodeImporter &n, Value x, Value cos, Value sin,
                    Value positions, bool interleaved);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_ATTENTIONOPS_H
