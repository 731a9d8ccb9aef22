//===- Growth.h - What grows with a padded parameter ------------*- C++ -*-===//
//
// A parameter whose dim does not divide is padded, for its vocabulary
// (`dshard-pad`) or its storage (`dshard-fully-shard`). In a training step its
// gradient, its moments and what is computed from them grow with it.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_PROPAGATE_GROWTH_H
#define DSHARD_TRANSFORMS_PROPAGATE_GROWTH_H

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

namespace mlir::dshard {

/// The name that gradients and optimizer states know a parameter by; "" if it
/// has none.
llvm::StringRef getStateName(func::FuncOp function, unsigned argument);

/// `type` with another size of `dim`.
RankedTensorType growType(Type type, int64_t dim, int64_t size);

/// `value` with zeros behind it along `dim`, up to `size`.
Value padWithZeros(DShardBuilder &make, Value value, int64_t dim, int64_t size);

/// `value`, zero behind `size`, grew along `dim`: updates and what is computed
/// from it elementwise, keeping the zeros, grow with it, sums do not mind them,
/// states are stored as they are, and everything else gets it cropped. Of a
/// parameter `onlyOptimizer` uses are meant.
void growUsers(Value value, int64_t dim, int64_t size,
               bool onlyOptimizer = false);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_PROPAGATE_GROWTH_H
