//===- DecomposeReshards.cpp - One collective per reshard -----------------===//

#include "dshard/Cost/Resharding.h"
#include "dshard/Transforms/Partition/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_DECOMPOSERESHARDSPASS
#include "dshard/Transforms/Partition/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static LogicalResult decompose(ReshardOp op, MeshAttr mesh) {
  ShardingAttr source =
      op.getInput().getDefiningOp<ReshardOp>()
          ? op.getInput().getDefiningOp<ReshardOp>().getSharding()
          : getSharding(op.getInput());
  if (!source)
    return op.emitOpError()
           << "its operand has no sharding; run dshard-propagate first";
  Layout from = readLayout(source, mesh);
  Layout to = readLayout(op.getSharding(), mesh);
  FailureOr<ReshardPlan> plan = planReshard(from, to);
  if (failed(plan))
    return op.emitOpError()
           << "cannot go from " << describe(from, mesh) << " to "
           << describe(to, mesh) << ": no collective makes a value partial";
  if (plan->steps.empty()) {
    op.getResult().replaceAllUsesWith(op.getInput());
    op.erase();
    return success();
  }
  if (plan->gathersAndSlices)
    op.emitRemark() << "no collective goes from " << describe(from, mesh)
                    << " to " << describe(to, mesh)
                    << " alone: it is gathered and sliced (" << op.getWhy()
                    << ")";
  OpBuilder builder(op);
  Value value = op.getInput();
  for (const ReshardStep &step : plan->steps)
    value = ReshardOp::create(builder, op.getLoc(), value.getType(), value,
                              writeSharding(step.result, mesh), op.getWhyAttr(),
                              op.getRegatherAttr(), op.getPathAttr(),
                              op.getPartAttr());
  op.getResult().replaceAllUsesWith(value);
  op.erase();
  return success();
}

namespace {
struct DecomposeReshardsPass
    : mlir::dshard::impl::DecomposeReshardsPassBase<DecomposeReshardsPass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    llvm::SmallVector<ReshardOp> reshards;
    getOperation().walk([&](ReshardOp op) { reshards.push_back(op); });
    if (reshards.empty())
      return;
    if (!mesh) {
      getOperation().emitError()
          << "module has no " << meshAttrName << "; give it one with --mesh";
      return signalPassFailure();
    }
    for (ReshardOp op : reshards)
      if (failed(decompose(op, mesh)))
        return signalPassFailure();
  }
};
} // namespace
