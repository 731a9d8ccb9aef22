//===- Passes.h - Passes of Transforms/Train --------------------*- C++ -*-===//
//
// What each pass means, needs and refuses is said in Passes.td.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_TRAIN_PASSES_H
#define DSHARD_TRANSFORMS_TRAIN_PASSES_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::dshard {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "dshard/Transforms/Train/Passes.h.inc"

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_TRAIN_PASSES_H
