//===- DShardToPlan.h - From plan IR to a file ------------------*- C++ -*-===//
//
// `emitPlan` writes a module of the plan dialect to a file; it decides nothing.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_CONVERSION_DSHARDTOPLAN_DSHARDTOPLAN_H
#define DSHARD_CONVERSION_DSHARDTOPLAN_DSHARDTOPLAN_H

#include "mlir/IR/BuiltinOps.h"

#include <string>

namespace mlir::dshard {

/// What the plan records about where it comes from.
struct EmitOptions {
  std::string model; ///< path of the model; its folder is where weights lie
  std::string commandLine; ///< how the compiler was called
};

/// Writes `module` (the plan dialect) to `path` and proves the result with the
/// plan's own reader and verifier. Errors are diagnostics.
LogicalResult emitPlan(ModuleOp module, llvm::StringRef path,
                       const EmitOptions &options);

/// The ONNX node that `loc` names, as the importer wrote it; empty if none.
std::string nodeOf(Location loc);

} // namespace mlir::dshard

#endif // DSHARD_CONVERSION_DSHARDTOPLAN_DSHARDTOPLAN_H
