//===- Gates.h - Checks that several gates share ----------------*- C++ -*-===//
#ifndef DSHARD_TRANSFORMS_PROPAGATE_GATES_H
#define DSHARD_TRANSFORMS_PROPAGATE_GATES_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// The module's mesh; an error without one.
FailureOr<MeshAttr> getMeshOrEmitError(ModuleOp module);
/// Every dshard op but a constant and a yield says where it comes from.
LogicalResult verifyPathAndPart(Operation *op);
/// Adds to `diagnostic` who decided the sharding of `value`: its dshard.origin,
/// or the value itself.
void noteOrigin(InFlightDiagnostic &diagnostic, Value value,
                llvm::StringRef says);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_PROPAGATE_GATES_H
