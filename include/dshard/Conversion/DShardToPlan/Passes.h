//===- Passes.h - The pass of Conversion/DShardToPlan -----------*- C++ -*-===//
#ifndef DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_H
#define DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_H

#include "dshard/Dialect/Plan/IR/PlanOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::dshard {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "dshard/Conversion/DShardToPlan/Passes.h.inc"

} // namespace mlir::dshard

#endif // DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_H
