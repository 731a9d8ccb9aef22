//===- VerifyGraph.cpp - The gate of the graph phase ----------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYGRAPHPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static LogicalResult verifyOp(Operation *op) {
  // graph_c1
  if (isa<ModuleOp, func::FuncOp, func::ReturnOp>(op))
    return success();
  if (!isa_and_nonnull<DShardDialect>(op->getDialect()))
    return op->emitOpError() << "is left in the graph; it belongs to no op "
                                "family of dshard";
  if (isa<ReshardOp, AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp,
          BroadcastOp, PermuteOp, SendOp, RecvOp, LocalSliceOp, RankIndexOp,
          FusedOp>(op))
    return op->emitOpError() << "belongs to a later phase";
  if (isa<ConstantOp, YieldOp>(op))
    return success();
  // graph_c2
  for (StringRef name : {"path", "part"})
    if (!op->getInherentAttr(name).value_or(Attribute()))
      return op->emitOpError()
             << "has no '" << name
             << "'; every op carries its module path and its part of a step";
  // graph_c4
  if (!isa<RepeatOp, IfOp>(op) && failed(getShardingRuleOf(op)))
    return failure();
  return success();
}

/// graph_c3
static LogicalResult verifyTypes(func::FuncOp function) {
  auto verify = [&](TypeRange types, StringRef what) -> LogicalResult {
    for (auto [i, type] : llvm::enumerate(types)) {
      auto tensor = dyn_cast<RankedTensorType>(type);
      if (!tensor || !tensor.hasStaticShape())
        return function.emitOpError()
               << what << " " << i << " is " << type
               << ", expected a tensor with static dims; bind them with --dim "
                  "NAME=SIZE";
    }
    return success();
  };
  if (failed(verify(function.getArgumentTypes(), "argument")))
    return failure();
  return verify(function.getResultTypes(), "result");
}

namespace {
struct VerifyGraphPass
    : mlir::dshard::impl::VerifyGraphPassBase<VerifyGraphPass> {
  void runOnOperation() override {
    WalkResult result = getOperation().walk([&](Operation *op) {
      auto function = dyn_cast<func::FuncOp>(op);
      bool fails =
          failed(verifyOp(op)) || (function && failed(verifyTypes(function)));
      return fails ? WalkResult::interrupt() : WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};
} // namespace
