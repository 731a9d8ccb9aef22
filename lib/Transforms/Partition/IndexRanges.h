//===- IndexRanges.h - What indices may be ----------------------*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_PARTITION_INDEXRANGES_H
#define DSHARD_LIB_TRANSFORMS_PARTITION_INDEXRANGES_H

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::dshard {

/// Writes `dshard.range` = [min, max] on every integer argument of a global
/// function that looks something up and has none: once tables are shards, a
/// local program no longer says how large the whole is.
void annotateIndexRanges(func::FuncOp function);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_PARTITION_INDEXRANGES_H
