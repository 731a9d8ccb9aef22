//===- VerifyAnnotated.cpp - Check what the strategies wrote --------------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Gates.h"
#include "dshard/Transforms/Propagate/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYANNOTATEDPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

FailureOr<MeshAttr> mlir::dshard::getMeshOrEmitError(ModuleOp module) {
  if (MeshAttr mesh = getMesh(module))
    return mesh;
  return module.emitError()
         << "module has no " << meshAttrName << "; give it one with --mesh";
}

LogicalResult mlir::dshard::verifyPathAndPart(Operation *op) {
  if (!isa_and_nonnull<DShardDialect>(op->getDialect()) ||
      isa<ConstantOp, YieldOp>(op))
    return success();
  for (llvm::StringRef name : {"path", "part"})
    if (!op->getAttr(name))
      return op->emitOpError()
             << "has no '" << name
             << "'; every op carries its module path and its part of a step";
  return success();
}

void mlir::dshard::noteOrigin(InFlightDiagnostic &diagnostic, Value value,
                              llvm::StringRef says) {
  OriginAttr origin;
  if (Operation *op = value.getDefiningOp()) {
    origin = op->getAttrOfType<OriginAttr>(originAttrName);
  } else if (auto arg = dyn_cast<BlockArgument>(value)) {
    if (auto function = dyn_cast<func::FuncOp>(arg.getOwner()->getParentOp()))
      origin = function.getArgAttrOfType<OriginAttr>(arg.getArgNumber(),
                                                     originAttrName);
  }
  Diagnostic &note = diagnostic.attachNote(value.getLoc());
  note << describeValue(value) << " is " << says;
  if (origin)
    note << " (" << origin.getText().getValue() << ")";
}

/// annotated_c2, annotated_c3.
static LogicalResult verifyValue(Value value, MeshAttr mesh) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type)
    return success();
  auto emit = [&] { return emitError(value.getLoc()); };
  if (!type.hasStaticShape())
    return emit() << describeValue(value) << " has a dynamic dim in " << type
                  << "; bind it with --dim NAME=SIZE";
  ShardingAttr sharding = getValueSharding(value);
  if (!sharding)
    return success();
  if (isa<BlockArgument>(value) && isParameterValue(value))
    return verifyShardingBeforePadding(sharding, type, mesh,
                                       describeValue(value), emit);
  return sharding.verifyFor(type, mesh, describeValue(value), emit);
}

namespace {
struct VerifyAnnotatedPass
    : mlir::dshard::impl::VerifyAnnotatedPassBase<VerifyAnnotatedPass> {
  void runOnOperation() override {
    FailureOr<MeshAttr> mesh = getMeshOrEmitError(getOperation());
    if (failed(mesh))
      return signalPassFailure();
    WalkResult result =
        getOperation().walk<WalkOrder::PreOrder>([&](Operation *op) {
          bool fails = failed(verifyPathAndPart(op));
          if (auto function = dyn_cast<func::FuncOp>(op))
            for (BlockArgument arg : function.getArguments())
              fails |= failed(verifyValue(arg, *mesh));
          else if (!isa<ModuleOp, func::ReturnOp, ReshardOp, RepeatOp, IfOp,
                        YieldOp>(op))
            fails |= failed(getShardingRuleOf(op));
          for (Value value : op->getResults())
            fails |= failed(verifyValue(value, *mesh));
          return fails ? WalkResult::interrupt() : WalkResult::advance();
        });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};
} // namespace
