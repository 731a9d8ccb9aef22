//===- Propagate.cpp - Give every value one closed sharding ---------------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_PROPAGATEPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// What is known of a value: its layout so far, and the dims that may still get
/// axes.
struct ValueState {
  Layout layout;
  llvm::SmallVector<bool> isOpen;
};

/// Propagation over one function.
struct Propagator {
  func::FuncOp function;
  MeshAttr mesh;
  llvm::DenseMap<Value, ValueState> states;
  std::vector<std::pair<Operation *, ShardingRule>> ops;
  /// Ops whose conflict was settled: their factors no longer depend on tensors.
  llvm::DenseMap<Operation *, FactorAxes> settled;

  LogicalResult initialise();
  void addValue(Value value, ShardingAttr sharding, bool isOpenByDefault);
  void run();
  bool update(Value value, const Layout &layout);
  /// Merges the tensors' shardings of each factor; `hasConflict` if some factor
  /// was left out because tensors disagree or factors want one axis.
  FactorAxes merge(Operation *op, const ShardingRule &rule, bool &hasConflict);
  bool propagateOp(Operation *op, const ShardingRule &rule);
  bool settleFirstConflict();
  void write();
};
} // namespace

void Propagator::addValue(Value value, ShardingAttr sharding,
                          bool isOpenByDefault) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type)
    return;
  ValueState state;
  if (sharding) {
    state.layout = readLayout(sharding, mesh);
    for (DimShardingAttr dim : sharding.getDims())
      state.isOpen.push_back(dim.getIsOpen());
  } else {
    state.layout = getReplicatedLayout(type.getRank());
    state.isOpen.assign(type.getRank(), isOpenByDefault);
  }
  states[value] = std::move(state);
}

LogicalResult Propagator::initialise() {
  for (BlockArgument arg : function.getArguments())
    addValue(arg, getValueSharding(arg), /*isOpenByDefault=*/false);
  for (Operation &op : function.getBody().front()) {
    if (op.getNumRegions() != 0)
      return op.emitOpError() << "is not sharded yet; run the model without it "
                                 "or on a mesh of one rank";
    for (Value result : op.getResults())
      addValue(result, getValueSharding(result), /*isOpenByDefault=*/true);
    if (isa<ReshardOp, func::ReturnOp>(op))
      continue;
    FailureOr<ShardingRule> rule = getShardingRuleOf(&op);
    if (failed(rule))
      return failure();
    ops.push_back({&op, std::move(*rule)});
  }
  // What the function promises is where the returned value should end.
  Operation *terminator = function.getBody().front().getTerminator();
  for (auto [index, value] : llvm::enumerate(terminator->getOperands()))
    if (auto declared =
            function.getResultAttrOfType<ShardingAttr>(index, shardingAttrName))
      if (states.count(value))
        update(value, readLayout(declared, mesh));
  return success();
}

/// Adds to open dims what `layout` has beyond them; true if something changed.
bool Propagator::update(Value value, const Layout &layout) {
  ValueState &state = states[value];
  bool changed = false;
  for (size_t dim = 0; dim < state.layout.dims.size(); ++dim) {
    AxisPieces &pieces = state.layout.dims[dim];
    if (!state.isOpen[dim] || pieces == layout.dims[dim] ||
        !isPrefix(pieces, layout.dims[dim]))
      continue;
    AxisPieces extra = dropPrefix(layout.dims[dim], pieces);
    if (overlaps(extra, getUsedAxes(state.layout)))
      continue;
    pieces = layout.dims[dim];
    changed = true;
  }
  return changed;
}

FactorAxes Propagator::merge(Operation *op, const ShardingRule &rule,
                             bool &hasConflict) {
  if (auto it = settled.find(op); it != settled.end())
    return it->second;
  size_t numFactors = rule.factors.size();
  FactorAxes merged(numFactors);
  llvm::SmallVector<bool> conflicts(numFactors, false);
  auto collect = [&](Value value, const TensorFactors &factors) {
    FactorAxes axes(numFactors);
    projectTensor(states[value].layout, factors, rule, axes);
    for (size_t factor = 0; factor < numFactors; ++factor) {
      if (isPrefix(axes[factor], merged[factor]))
        continue;
      if (isPrefix(merged[factor], axes[factor]))
        merged[factor] = axes[factor];
      else
        conflicts[factor] = true;
    }
  };
  for (auto [value, factors] : llvm::zip(op->getOperands(), rule.operands))
    collect(value, factors);
  for (auto [value, factors] : llvm::zip(op->getResults(), rule.results))
    collect(value, factors);
  for (size_t a = 0; a < numFactors; ++a) {
    if (!isShardable(rule.factors[a].kind))
      merged[a].clear();
    for (size_t b = a + 1; b < numFactors; ++b)
      if (overlaps(merged[a], merged[b]))
        conflicts[a] = conflicts[b] = true;
  }
  for (size_t factor = 0; factor < numFactors; ++factor)
    if (conflicts[factor]) {
      merged[factor].clear();
      hasConflict = true;
    }
  return merged;
}

bool Propagator::propagateOp(Operation *op, const ShardingRule &rule) {
  bool hasConflict = false, changed = false;
  FactorAxes axes = merge(op, rule, hasConflict);
  for (auto [value, factors] : llvm::zip(op->getResults(), rule.results))
    changed |= update(value, getLayoutPrefix(factors, rule, axes));
  for (auto [value, factors] : llvm::zip(op->getOperands(), rule.operands))
    changed |= update(value, getLayoutPrefix(factors, rule, axes));
  return changed;
}

/// Settles the first op (in program order) whose tensors disagree, by price.
bool Propagator::settleFirstConflict() {
  for (auto &[op, rule] : ops) {
    bool hasConflict = false;
    if (settled.count(op))
      continue;
    merge(op, rule, hasConflict);
    if (!hasConflict)
      continue;
    llvm::SmallVector<TensorState> operands, results;
    for (Value value : op->getOperands())
      operands.push_back({cast<RankedTensorType>(value.getType()),
                          states[value].layout, false,
                          isParameterValue(value)});
    for (Value value : op->getResults()) {
      ValueState &state = states[value];
      bool isOpen =
          llvm::all_of(state.isOpen, [](bool open) { return open; }) &&
          getUsedAxes(state.layout).empty();
      results.push_back({cast<RankedTensorType>(value.getType()), state.layout,
                         isOpen, false});
    }
    settled[op] = chooseFactors(rule, operands, results, mesh).axes;
    return true;
  }
  return false;
}

void Propagator::run() {
  do {
    bool changed = true;
    while (changed) {
      changed = false;
      for (auto &[op, rule] : ops)
        changed |= propagateOp(op, rule);
      for (auto &[op, rule] : llvm::reverse(ops))
        changed |= propagateOp(op, rule);
    }
  } while (settleFirstConflict());
}

void Propagator::write() {
  for (BlockArgument arg : function.getArguments())
    if (states.count(arg))
      setSharding(arg, writeSharding(states[arg].layout, mesh));
  for (Operation &op : function.getBody().front())
    if (!isa<ReshardOp>(op))
      for (Value result : op.getResults())
        if (states.count(result))
          setSharding(result, writeSharding(states[result].layout, mesh));
  Operation *terminator = function.getBody().front().getTerminator();
  for (auto [index, value] : llvm::enumerate(terminator->getOperands())) {
    if (!states.count(value))
      continue;
    Layout layout = states[value].layout;
    layout.partial.clear();
    if (auto declared =
            function.getResultAttrOfType<ShardingAttr>(index, shardingAttrName))
      layout = readLayout(declared, mesh);
    function.setResultAttr(index, shardingAttrName,
                           writeSharding(layout, mesh));
  }
}

namespace {
struct PropagatePass : mlir::dshard::impl::PropagatePassBase<PropagatePass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    if (!mesh) {
      getOperation().emitError()
          << "module has no " << meshAttrName << "; give it one with --mesh";
      return signalPassFailure();
    }
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      Propagator propagator;
      propagator.function = function;
      propagator.mesh = mesh;
      if (failed(propagator.initialise()))
        return signalPassFailure();
      propagator.run();
      propagator.write();
    }
  }
};
} // namespace
