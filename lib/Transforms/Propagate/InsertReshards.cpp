//===- InsertReshards.cpp - Make every change of sharding an op -----------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "llvm/Support/FormatVariadic.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_INSERTRESHARDSPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct Inserter {
  func::FuncOp function;
  MeshAttr mesh;
  /// A value resharded once serves all later uses.
  llvm::DenseMap<std::pair<Value, ShardingAttr>, Value> cache;

  LogicalResult run();
  LogicalResult visit(Operation *op);
  LogicalResult visitReturn(func::ReturnOp op);
  Value reshard(Operation *user, Value value, const Layout &to,
                llvm::StringRef why);
};
} // namespace

/// Bytes from which a gather is worth a remark.
static constexpr double largeBytes = 1 << 20;

/// The user's words for a reshard of an operand.
static std::string explainOperand(Operation *user, Value value,
                                  const ReshardPlan &plan) {
  std::string verb = "slice";
  for (const ReshardStep &step : plan.steps) {
    if (step.kind == ReshardKind::all_gather)
      verb = "gather";
    else if (step.kind == ReshardKind::all_to_all)
      verb = "exchange shards of";
    else if (step.kind == ReshardKind::all_reduce ||
             step.kind == ReshardKind::reduce_scatter)
      verb = "reduce";
  }
  return verb + " " + describeValue(value) + " for " + describeOp(user);
}

/// The user's words for what follows an op whose own result is not the wanted
/// one.
static std::string explainResult(Operation *op, const Layout &from,
                                 const ReshardPlan &plan) {
  if (!from.partial.empty()) {
    if (isa<MatMulOp>(op))
      return "row-parallel output of " + describeOp(op);
    if (isa<GatherOp>(op))
      return "vocabulary-parallel output of " + describeOp(op);
    return "partial output of " + describeOp(op);
  }
  bool gathers = llvm::any_of(plan.steps, [](const ReshardStep &step) {
    return step.kind == ReshardKind::all_gather;
  });
  return (gathers ? "gather output of " : "layout of output of ") +
         describeOp(op);
}

Value Inserter::reshard(Operation *user, Value value, const Layout &to,
                        llvm::StringRef why) {
  ShardingAttr target = writeSharding(to, mesh);
  Value &cached = cache[{value, target}];
  if (cached)
    return cached;
  // A result's reshard stands behind its op, an operand's before its first
  // user.
  OpBuilder builder(user);
  if (value.getDefiningOp() == user)
    builder.setInsertionPointAfter(user);
  Operation *origin = isa<func::ReturnOp>(user) && value.getDefiningOp()
                          ? value.getDefiningOp()
                          : user;
  auto path = origin->getAttrOfType<StringAttr>("path");
  auto part = origin->getAttrOfType<PartAttr>("part");
  cached = ReshardOp::create(
      builder, origin->getLoc(), value.getType(), value, target,
      builder.getStringAttr(why), /*regather=*/UnitAttr(),
      path ? path : builder.getStringAttr(""),
      part ? part : PartAttr::get(builder.getContext(), Part::forward));
  return cached;
}

LogicalResult Inserter::visit(Operation *op) {
  FailureOr<ShardingRule> found = getShardingRuleOf(op);
  if (failed(found))
    return failure();
  const ShardingRule &rule = *found;

  llvm::SmallVector<TensorState> operands, results;
  for (auto [values, states, what] :
       {std::tuple(ValueRange(op->getOperands()), &operands, "operand"),
        std::tuple(ValueRange(op->getResults()), &results, "result")})
    for (auto [index, value] : llvm::enumerate(values)) {
      ShardingAttr sharding = getValueSharding(value);
      if (!sharding || sharding.hasOpenDim())
        return op->emitOpError()
               << what << " " << index
               << " has no closed sharding; run dshard-propagate first";
      states->push_back({cast<RankedTensorType>(value.getType()),
                         readLayout(sharding, mesh), false,
                         isParameterValue(value)});
    }
  // What every result is wanted to be partial over may pass through from
  // operands that the op is linear in; everything else is reduced before it is
  // used.
  Layout passed;
  auto isWantedPartial = [&](const Layout &layout) {
    return layout.kind == ReductionKind::sum &&
           llvm::all_of(results, [&](const TensorState &state) {
             return state.layout.kind == layout.kind &&
                    overlaps(state.layout.partial, layout.partial);
           });
  };
  llvm::SmallVector<size_t> partialOperands;
  for (auto [index, state] : llvm::enumerate(operands))
    if (!state.layout.partial.empty())
      partialOperands.push_back(index);
  bool passes = false;
  if (!partialOperands.empty()) {
    const Layout &first = operands[partialOperands.front()].layout;
    bool agree = llvm::all_of(operands, [&](const TensorState &state) {
      return state.layout.partial == first.partial &&
             state.layout.kind == first.kind;
    });
    passes = isWantedPartial(first) &&
             (rule.jointlyLinear ? agree
                                 : partialOperands.size() == 1 &&
                                       rule.linear[partialOperands.front()]);
    if (passes) {
      passed.partial = first.partial;
      passed.kind = first.kind;
    }
  }

  // An axis over which a value stays partial shards nothing else in the op.
  llvm::SmallVector<TensorState> priced(operands);
  for (TensorState &state : priced)
    for (AxisPieces &pieces : state.layout.dims)
      while (passes && overlaps(pieces, passed.partial))
        pieces.pop_back();
  FactorChoice choice = chooseFactors(rule, priced, results, mesh);
  // What a strategy says of an op is no choice.
  if (choice.hadConflict && !choice.loser.empty() &&
      choice.winner != choice.loser && !op->hasAttr(originAttrName))
    op->emitRemark() << "the operands of " << describeOp(op) << " ("
                     << op->getName().stripDialect()
                     << ") are sharded differently: chose " << choice.winner
                     << " (" << llvm::formatv("{0:F0}", choice.bytes).str()
                     << " wire bytes per rank), not " << choice.loser << " ("
                     << llvm::formatv("{0:F0}", choice.loserBytes).str() << ")";

  for (auto [index, state] : llvm::enumerate(operands)) {
    FailureOr<Layout> needed =
        getLayout(rule.operands[index], rule, choice.axes);
    if (failed(needed))
      return op->emitOpError() << "has no sharding of operand " << index
                               << " that its rule can say";
    if (passes && !state.layout.partial.empty()) {
      needed->partial = passed.partial;
      needed->kind = passed.kind;
    }
    if (*needed == state.layout)
      continue;
    Value value = op->getOperand(index);
    FailureOr<ReshardPlan> plan = planReshard(state.layout, *needed);
    if (failed(plan))
      return op->emitOpError() << "operand " << index << " cannot go from "
                               << describe(state.layout, mesh) << " to "
                               << describe(*needed, mesh);
    double bytes = getTensorBytes(state.type);
    if (bytes >= largeBytes &&
        llvm::any_of(plan->steps, [](const ReshardStep &step) {
          return step.kind == ReshardKind::all_gather;
        }))
      op->emitRemark() << describeValue(value) << " of "
                       << llvm::formatv("{0:F0}", bytes).str()
                       << " bytes is gathered from "
                       << describe(state.layout, mesh) << " to "
                       << describe(*needed, mesh) << " for " << describeOp(op)
                       << " (" << op->getName().stripDialect() << ")";
    Value changed =
        reshard(op, value, *needed, explainOperand(op, value, *plan));
    op->setOperand(index, changed);
  }

  for (auto [index, state] : llvm::enumerate(results)) {
    FailureOr<Layout> natural =
        getLayout(rule.results[index], rule, choice.axes);
    if (failed(natural) ||
        failed(getNaturalPartial(rule, choice.axes, *natural)))
      return op->emitOpError() << "has no sharding of result " << index
                               << " that its rule can say";
    if (passes) {
      if (!natural->partial.empty() && natural->kind != passed.kind)
        return op->emitOpError() << "mixes pending reductions of two kinds";
      natural->kind = passed.kind;
      natural->partial.append(passed.partial);
      sortPieces(natural->partial);
    }
    Value value = op->getResult(index);
    Layout wanted = state.layout;
    setSharding(value, writeSharding(*natural, mesh));
    if (*natural == wanted || value.use_empty())
      continue;
    FailureOr<ReshardPlan> plan = planReshard(*natural, wanted);
    if (failed(plan))
      return op->emitOpError()
             << "result " << index << " is to be " << describe(wanted, mesh)
             << ", but the op gives " << describe(*natural, mesh)
             << "; no collective makes a value partial";
    Value changed =
        reshard(op, value, wanted, explainResult(op, *natural, *plan));
    value.replaceAllUsesExcept(changed, changed.getDefiningOp());
  }
  return success();
}

LogicalResult Inserter::visitReturn(func::ReturnOp op) {
  for (auto [index, value] : llvm::enumerate(op.getOperands())) {
    auto declared =
        function.getResultAttrOfType<ShardingAttr>(index, shardingAttrName);
    ShardingAttr sharding = getValueSharding(value);
    if (!declared || !sharding)
      continue;
    Layout from = readLayout(sharding, mesh), to = readLayout(declared, mesh);
    if (from == to)
      continue;
    auto name = function.getResultAttrOfType<StringAttr>(index, nameAttrName);
    std::string what =
        name ? name.getValue().str() : ("result " + llvm::Twine(index)).str();
    if (failed(planReshard(from, to)))
      return op.emitOpError() << what << " is declared " << describe(to, mesh)
                              << ", but the value is " << describe(from, mesh)
                              << "; no collective makes a value partial";
    Value changed =
        reshard(op, value, to, "declared sharding of output " + what);
    op->setOperand(index, changed);
  }
  return success();
}

LogicalResult Inserter::run() {
  for (Operation &op : llvm::make_early_inc_range(function.getBody().front())) {
    if (auto returnOp = dyn_cast<func::ReturnOp>(op)) {
      if (failed(visitReturn(returnOp)))
        return failure();
    } else if (!isa<ReshardOp>(op) && failed(visit(&op))) {
      return failure();
    }
  }
  return success();
}

namespace {
struct InsertReshardsPass
    : mlir::dshard::impl::InsertReshardsPassBase<InsertReshardsPass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    if (!mesh) {
      getOperation().emitError()
          << "module has no " << meshAttrName << "; give it one with --mesh";
      return signalPassFailure();
    }
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      Inserter inserter;
      inserter.function = function;
      inserter.mesh = mesh;
      if (!function.isExternal() && failed(inserter.run()))
        return signalPassFailure();
    }
  }
};
} // namespace
