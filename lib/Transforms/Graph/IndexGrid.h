//===- IndexGrid.h - Values that count ---------------------------*- C++
//-*-===//
#ifndef DSHARD_LIB_TRANSFORMS_GRAPH_INDEXGRID_H
#define DSHARD_LIB_TRANSFORMS_GRAPH_INDEXGRID_H

#include "mlir/IR/Value.h"
#include "mlir/Support/LLVM.h"
#include "llvm/ADT/SmallVector.h"
#include <optional>

namespace mlir::dshard {

/// A value whose element at [i0, i1, ...] is offset + sum of step[d] * i_d. The
/// step of a dim of size 1 is 0.
struct IndexGrid {
  int64_t offset = 0;
  llvm::SmallVector<int64_t> steps;
};

/// Follows iotas, constants, casts, reshapes that only add or drop dims of size
/// 1, broadcasts, transposes, sums and products with scalars. Nothing for a
/// value that is no such grid.
std::optional<IndexGrid> findIndexGrid(Value value);

/// True if `indices` [..., n] is the tuple (i_d0, i_d1, ...) of its own
/// position for `dims` = d0, d1, ... (a dim of size 1 counts 0).
bool isOwnIndex(Value indices, ArrayRef<int64_t> dims);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_GRAPH_INDEXGRID_H
