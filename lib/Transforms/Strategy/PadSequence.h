//===- PadSequence.h - Sequences that tp does not divide --------*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_STRATEGY_PADSEQUENCE_H
#define DSHARD_LIB_TRANSFORMS_STRATEGY_PADSEQUENCE_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// Pads dim `dim` of each of `values` (results in one block, of one size there)
/// with zeros to `size`, and what follows by ops that treat every row alike
/// (sums, norms) with it; whatever else reads one of these values gets the rows
/// that it had. Gives the padded ones of `values`, in their order. The program
/// means the same.
SmallVector<Value> padSequence(ArrayRef<Value> values, int64_t dim,
                               int64_t size);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_STRATEGY_PADSEQUENCE_H
