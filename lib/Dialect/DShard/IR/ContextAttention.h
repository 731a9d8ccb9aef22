//===- ContextAttention.h - Attention over a sharded sequence ---*- C++ -*-===//
#ifndef DSHARD_LIB_DIALECT_DSHARD_IR_CONTEXTATTENTION_H
#define DSHARD_LIB_DIALECT_DSHARD_IR_CONTEXTATTENTION_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// The local form of an attention with parts > 1, whose queries and keys are
/// one sequence that lies in the op's layout. Operands are local: query
/// [B,H,S/n,D], key, value and padding likewise, n the ranks over which the
/// sequence is sharded (1: it is whole). `dshard.cp_method` says how keys meet
/// queries:
///
///   ring        keys and values travel around the ring, n - 1 permutes; what
///               each part gives is merged by its log-sum-exp
///   all_gather  every rank gathers all keys and values
///   all_to_all  ranks exchange the sequence for heads, and back
///   hierarchical  all_to_all among as many neighbours as divide the heads, and
///               a ring over these groups
///
/// Source: spec/context-parallel.md, C.4. What does not fit is an error that
/// names the numbers and a way out.
LogicalResult partitionContextAttention(AttentionOp op, OpBuilder &builder,
                                        ValueRange operands,
                                        const PartitionContext &context,
                                        SmallVectorImpl<Value> &results);

} // namespace mlir::dshard

#endif // DSHARD_LIB_DIALECT_DSHARD_IR_CONTEXTATTENTION_H
