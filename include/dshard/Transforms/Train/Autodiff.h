//===- Autodiff.h - Reverse-mode differentiation ----------------*- C++ -*-===//
#ifndef DSHARD_TRANSFORMS_TRAIN_AUTODIFF_H
#define DSHARD_TRANSFORMS_TRAIN_AUTODIFF_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// Appends, at the builder's insertion point, the backward of the ops of
/// `forward` that lead from `wrt` to `outputs`, in reverse program order: ops
/// with part = backward and the path of the op that they come from.
/// `outputGradients` are the gradients of `outputs`. `gradients` gets one value
/// per value of `wrt`, of its type, several uses summed by dshard.add; null
/// where no gradient flows. Fails, at the op, where one has no gradient.
LogicalResult buildBackward(OpBuilder &builder, Block &forward,
                            ArrayRef<Value> outputs,
                            ArrayRef<Value> outputGradients,
                            ArrayRef<Value> wrt,
                            SmallVectorImpl<Value> &gradients);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_TRAIN_AUTODIFF_H
