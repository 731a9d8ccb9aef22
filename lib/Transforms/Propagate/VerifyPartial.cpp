//===- VerifyPartial.cpp - Check where partial values go ------------------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Gates.h"
#include "dshard/Transforms/Propagate/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYPARTIALPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static Layout layoutOf(Value value, MeshAttr mesh) {
  ShardingAttr sharding = getValueSharding(value);
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return sharding ? readLayout(sharding, mesh)
                  : getReplicatedLayout(type ? type.getRank() : 0);
}

/// partial_c1..c3: may the op take its operands as they are? `passed` gets the
/// axes that go through it.
static LogicalResult verifyOperands(Operation *op, const ShardingRule &rule,
                                    MeshAttr mesh, Layout &passed) {
  llvm::SmallVector<Layout> layouts;
  llvm::SmallVector<size_t> partial;
  for (auto [index, value] : llvm::enumerate(op->getOperands())) {
    layouts.push_back(layoutOf(value, mesh));
    if (!layouts.back().partial.empty())
      partial.push_back(index);
  }
  if (partial.empty())
    return success();
  const Layout &first = layouts[partial.front()];
  auto explain = [&](InFlightDiagnostic &diagnostic) -> LogicalResult {
    for (size_t index : partial)
      noteOrigin(diagnostic, op->getOperand(index),
                 "partial over " + describe(layouts[index].partial, mesh));
    return diagnostic;
  };
  if (rule.jointlyLinear) {
    for (const Layout &layout : layouts)
      if (layout.partial != first.partial) {
        InFlightDiagnostic diagnostic = op->emitOpError()
                                        << "takes one operand partial over "
                                        << describe(first.partial, mesh)
                                        << " and one over "
                                        << describe(layout.partial, mesh)
                                        << ": the whole one would be added "
                                           "once per rank; reshard one first";
        return explain(diagnostic);
      }
  } else {
    if (partial.size() > 1) {
      InFlightDiagnostic diagnostic =
          op->emitOpError() << "combines " << partial.size()
                            << " partial values: a product of sums is not the "
                               "sum of products; reshard one first";
      return explain(diagnostic);
    }
    if (!rule.linear[partial.front()]) {
      InFlightDiagnostic diagnostic =
          op->emitOpError()
          << "is not linear in operand " << partial.front()
          << ", which is partial over " << describe(first.partial, mesh)
          << "; reshard it first";
      return explain(diagnostic);
    }
  }
  // partial_c5
  for (size_t index : partial)
    if (layouts[index].kind != ReductionKind::sum) {
      InFlightDiagnostic diagnostic =
          op->emitOpError() << "takes operand " << index << " with a pending "
                            << stringifyReductionKind(layouts[index].kind)
                            << "; only a pending sum passes through an op";
      return explain(diagnostic);
    }
  passed = first;
  return success();
}

static LogicalResult verifyOp(Operation *op, MeshAttr mesh) {
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  Layout passed;
  if (failed(verifyOperands(op, *rule, mesh, passed)))
    return failure();
  FactorAxes axes(rule->factors.size());
  for (auto [value, factors] : llvm::zip(op->getOperands(), rule->operands)) {
    FactorAxes own(rule->factors.size());
    projectTensor(layoutOf(value, mesh), factors, *rule, own);
    for (auto [all, pieces] : llvm::zip(axes, own))
      if (all.empty())
        all = pieces;
  }
  // partial_c4
  for (auto [index, result] : llvm::enumerate(op->getResults())) {
    Layout layout = layoutOf(result, mesh), expected;
    expected.partial = passed.partial;
    expected.kind = passed.kind;
    if (failed(addNaturalPartial(*rule, index, axes, expected)))
      return op->emitOpError() << "mixes pending reductions of two kinds";
    // Zeros are the sum of zeros over any axes.
    if (isZeroConstant(result) && layout.kind == ReductionKind::sum)
      continue;
    if (layout.partial != expected.partial)
      return op->emitOpError()
             << "has a result partial over " << describe(layout.partial, mesh)
             << ", but its operands make it partial over "
             << describe(expected.partial, mesh)
             << "; only a dshard.reshard reduces a value";
    if (!layout.partial.empty() && layout.kind != expected.kind)
      return op->emitOpError()
             << "has a result with a pending "
             << stringifyReductionKind(layout.kind) << ", but its operands "
             << "give a pending " << stringifyReductionKind(expected.kind);
  }
  return success();
}

static LogicalResult verifyReturn(func::ReturnOp op, func::FuncOp function,
                                  MeshAttr mesh) {
  for (auto [index, value] : llvm::enumerate(op.getOperands())) {
    auto declared =
        function.getResultAttrOfType<ShardingAttr>(index, shardingAttrName);
    Layout layout = layoutOf(value, mesh);
    if (!layout.partial.empty() && !(declared && declared.isPartial()))
      return op.emitOpError()
             << "gives result " << index << " partial over "
             << describe(layout.partial, mesh)
             << ", which it does not declare; reshard it first";
  }
  return success();
}

/// partial_c7
static LogicalResult verifyHandovers(Operation *op, MeshAttr mesh) {
  for (Handover handover : getHandovers(op)) {
    Layout from = layoutOf(handover.operand->get(), mesh);
    Layout to = layoutOf(handover.target, mesh);
    if (from.partial == to.partial && from.kind == to.kind)
      continue;
    return op->emitOpError()
           << "hands on operand " << handover.operand->getOperandNumber()
           << " partial over " << describe(from.partial, mesh)
           << " as a value partial over " << describe(to.partial, mesh)
           << "; reshard it first";
  }
  auto branch = dyn_cast<IfOp>(op);
  if (branch && !layoutOf(branch.getCondition(), mesh).partial.empty())
    return op->emitOpError()
           << "has a condition that is partial; reshard it first";
  return success();
}

/// partial_c4 for a reshard.
static LogicalResult verifyReshard(ReshardOp op, MeshAttr mesh) {
  Layout from = layoutOf(op.getInput(), mesh);
  Layout to = readLayout(op.getSharding(), mesh);
  if (succeeded(planReshard(from, to)))
    return success();
  return op.emitOpError() << "makes a value that is partial over "
                          << describe(from.partial, mesh) << " partial over "
                          << describe(to.partial, mesh)
                          << "; no collective does that";
}

namespace {
struct VerifyPartialPass
    : mlir::dshard::impl::VerifyPartialPassBase<VerifyPartialPass> {
  void runOnOperation() override {
    FailureOr<MeshAttr> mesh = getMeshOrEmitError(getOperation());
    if (failed(mesh))
      return signalPassFailure();
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      WalkResult walked = function.getBody().walk([&](Operation *op) {
        LogicalResult result = success();
        if (auto returnOp = dyn_cast<func::ReturnOp>(op))
          result = verifyReturn(returnOp, function, *mesh);
        else if (auto reshard = dyn_cast<ReshardOp>(op))
          result = verifyReshard(reshard, *mesh);
        else if (isa<RepeatOp, IfOp, YieldOp>(op))
          result = verifyHandovers(op, *mesh);
        else
          result = verifyOp(op, *mesh);
        return failed(result) ? WalkResult::interrupt() : WalkResult::advance();
      });
      if (walked.wasInterrupted())
        return signalPassFailure();
    }
  }
};
} // namespace
