//===- Decompose.h - A program in its simplest ops --------------*- C++ -*-===//
//
// Half of the check that an op's decomposition means what its reference value
// says: `dshard-interpret --decompose` compares the two.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_REFERENCE_DECOMPOSE_H
#define DSHARD_REFERENCE_DECOMPOSE_H

#include "mlir/IR/Operation.h"

namespace mlir::dshard {

/// Replaces every op below `root` that has a decomposition by it, again and
/// again, and gives the number of ops replaced. The results keep their types.
unsigned decomposeAll(Operation *root);

} // namespace mlir::dshard

#endif // DSHARD_REFERENCE_DECOMPOSE_H
