//===- VerifySchedule.cpp - The gate of phase `schedule` ------------------===//

#include "dshard/Transforms/Local/Calls.h"
#include "dshard/Transforms/Local/Kernels.h"
#include "dshard/Transforms/Local/Passes.h"
#include "dshard/Transforms/Local/RankValues.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYSCHEDULEPASS
#include "dshard/Transforms/Local/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static LogicalResult verifyCall(FusedOp fused, StringRef call) {
  if (call == "matmul") {
    for (auto op : fused.getBody().getOps<MatMulOp>())
      return succeeded(matchMatMul(op)) ? success() : failure();
  } else if (call == "grouped_matmul" || call == "grouped_weight_grad") {
    Operation &op = fused.getBody().front().front();
    return success(isGroupedCall(&op) && op.getName().stripDialect() == call);
  } else if (call == "attention") {
    for (auto op : fused.getBody().getOps<AttentionOp>())
      return succeeded(matchAttention(op)) ? success() : failure();
  } else if (call == "attention_grad") {
    for (auto op : fused.getBody().getOps<AttentionGradOp>())
      return succeeded(matchAttentionGrad(op)) ? success() : failure();
  }
  return failure();
}

LogicalResult mlir::dshard::verifyScheduled(Operation &op) {
  if (auto fused = dyn_cast<FusedOp>(op)) {
    if (auto call = fused->getAttrOfType<StringAttr>(callAttrName)) {
      if (failed(verifyCall(fused, call.getValue())))
        return fused.emitOpError("[verify_schedule_c2] is no library call '")
               << call.getValue() << "'";
      return success();
    }
    for (Operation &inner : fused.getBody().front().without_terminator())
      // Attention is a kernel on GPUs.
      if (!isKernelOp(&inner) && !isa<AttentionOp, AttentionGradOp>(inner))
        return inner.emitOpError(
            "[verify_schedule_c3] cannot be generated inside a kernel");
    return success();
  }
  if (isa<ReshapeOp, AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp,
          BroadcastOp, PermuteOp, SendOp, RecvOp, LocalSliceOp, RankIndexOp>(
          op) ||
      op.hasTrait<OpTrait::IsTerminator>() || isRankValue(&op))
    return success();
  if (isa<RepeatOp, IfOp>(op)) {
    for (Region &region : op.getRegions())
      for (Operation &inner : region.front())
        if (failed(verifyScheduled(inner)))
          return failure();
    return success();
  }
  return op.emitOpError("[verify_schedule_c1] is in no kernel, library call, "
                        "collective or control op");
}

namespace {
struct VerifySchedule
    : mlir::dshard::impl::VerifySchedulePassBase<VerifySchedule> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>())
      for (Block &block : function.getBody())
        for (Operation &op : block)
          if (failed(verifyScheduled(op)))
            return signalPassFailure();
  }
};
} // namespace
