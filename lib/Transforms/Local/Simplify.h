//===- Simplify.h - Ops in forms that calls and kernels know ----*- C++ -*-===//
//
// What kernel formation does before it groups ops. Internal to Local.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_TRANSFORMS_LOCAL_SIMPLIFY_H
#define DSHARD_LIB_TRANSFORMS_LOCAL_SIMPLIFY_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// Replaces an op by its decomposition; an error if it has none.
LogicalResult decompose(Operation *op);

/// Reorders, gradients of weights, losses, and attention of types without a
/// library call, in simpler ops; folds of much to one number in two steps; one
/// layout of an attention's result. Errors are diagnostics.
LogicalResult simplifyForKernels(Block &block);

/// Constants become part of the kernels that use them, in regions of the
/// block's repeats and branches too.
void sinkConstants(Block &block);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_LOCAL_SIMPLIFY_H
