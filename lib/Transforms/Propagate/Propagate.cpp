//===- Propagate.cpp - Give every value one closed sharding ---------------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "llvm/ADT/StringMap.h"

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

/// One op with a rule, or one value that control hands on.
struct Node {
  Operation *op;
  llvm::SmallVector<Value> operands, results;
  ShardingRule rule;
  /// Once a conflict was settled: factors no longer depend on tensors.
  std::optional<FactorAxes> settled = std::nullopt;
  /// A value changed since it was looked at.
  bool isDirty = true;
  /// When it was looked at.
  bool hasConflict = false;
};

/// Propagation over one function.
struct Propagator {
  func::FuncOp function;
  MeshAttr mesh;
  /// Of a repeat's carried value only the result has a state (getCarried).
  llvm::DenseMap<Value, ValueState> states;
  std::vector<Node> nodes;
  AvailableLayouts available;
  /// Indices into `nodes`, by the value that a state is of.
  llvm::DenseMap<Value, llvm::SmallVector<size_t, 4>> nodesOf;

  LogicalResult initialise();
  LogicalResult addOp(Operation *op);
  void addValue(Value value, ShardingAttr sharding, bool isOpenByDefault);
  ValueState &stateOf(Value value) { return states[getCarried(value)]; }
  void run();
  bool update(Value value, const Layout &layout);
  /// Merges the tensors' shardings of each factor; `hasConflict` if some factor
  /// was left out because tensors disagree or factors want one axis.
  FactorAxes merge(const Node &node, bool &hasConflict);
  bool propagate(Node &node);
  void settle(Node &node);
  bool settleFirstConflict();
  void write();
};
} // namespace

static bool hasParameter(const Node &node) {
  return llvm::any_of(node.operands, isParameterValue);
}

static bool sharesOperand(const Node &lhs, const Node &rhs) {
  return llvm::any_of(lhs.operands, [&](Value value) {
    return llvm::is_contained(rhs.operands, value);
  });
}

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

LogicalResult Propagator::addOp(Operation *op) {
  if (auto repeat = dyn_cast<RepeatOp>(op)) {
    addValue(repeat.getBody().getArgument(0), {}, /*isOpenByDefault=*/false);
    // Zeros that several accumulators start from may become shards of several
    // kinds.
    for (OpOperand &operand : repeat->getOpOperands())
      if (auto zero = operand.get().getDefiningOp<ConstantOp>();
          zero && !zero->hasOneUse()) {
        OpBuilder builder(repeat);
        operand.set(builder.clone(*zero)->getResult(0));
        addValue(operand.get(), {}, /*isOpenByDefault=*/true);
      }
  }
  for (Value result : op->getResults())
    addValue(result, getValueSharding(result), /*isOpenByDefault=*/true);
  for (Handover handover : getHandovers(op)) {
    // A handed-on value may be one that states know by another name.
    Value value = handover.operand->get();
    nodes.push_back({op,
                     {value},
                     {handover.target},
                     getHandoverRule(cast<RankedTensorType>(value.getType()))});
  }
  if (isa<ReshardOp, func::ReturnOp, RepeatOp, IfOp, YieldOp>(op))
    return success();
  if (op->getNumRegions() != 0)
    return op->emitOpError() << "is not sharded yet; run the model without it "
                                "or on a mesh of one rank";
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  nodes.push_back({op, llvm::SmallVector<Value>(op->getOperands()),
                   llvm::SmallVector<Value>(op->getResults()),
                   std::move(*rule)});
  return success();
}

LogicalResult Propagator::initialise() {
  for (BlockArgument arg : function.getArguments())
    addValue(arg, getValueSharding(arg), /*isOpenByDefault=*/false);
  // Clones of constants come before the op that is visited.
  WalkResult walked =
      function.getBody().walk<WalkOrder::PreOrder>([&](Operation *op) {
        return failed(addOp(op)) ? WalkResult::interrupt()
                                 : WalkResult::advance();
      });
  if (walked.wasInterrupted())
    return failure();
  // A state is written back as it is stored.
  llvm::StringMap<ShardingAttr> stored;
  for (BlockArgument arg : function.getArguments())
    if (auto state = function.getArgAttrOfType<StringAttr>(arg.getArgNumber(),
                                                           stateAttrName))
      stored[state.getValue()] = writeSharding(stateOf(arg).layout, mesh);
  // What the function promises is where the returned value should end.
  Operation *terminator = function.getBody().front().getTerminator();
  for (auto [index, value] : llvm::enumerate(terminator->getOperands())) {
    auto state = function.getResultAttrOfType<StringAttr>(index, stateAttrName);
    if (state && stored.count(state.getValue()) &&
        !function.getResultAttr(index, shardingAttrName))
      function.setResultAttr(index, shardingAttrName, stored[state.getValue()]);
    if (auto declared =
            function.getResultAttrOfType<ShardingAttr>(index, shardingAttrName))
      if (states.count(getCarried(value)))
        update(value, readLayout(declared, mesh));
  }
  return success();
}

/// Adds to open dims what `layout` has beyond them; true if something changed.
bool Propagator::update(Value value, const Layout &layout) {
  ValueState &state = stateOf(value);
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
  if (changed)
    for (size_t index : nodesOf[getCarried(value)])
      nodes[index].isDirty = true;
  return changed;
}

FactorAxes Propagator::merge(const Node &node, bool &hasConflict) {
  if (node.settled)
    return *node.settled;
  const ShardingRule &rule = node.rule;
  size_t numFactors = rule.factors.size();
  FactorAxes merged(numFactors);
  llvm::SmallVector<bool> conflicts(numFactors, false);
  auto collect = [&](Value value, const TensorFactors &factors) {
    FactorAxes axes(numFactors);
    projectTensor(stateOf(value).layout, factors, rule, axes);
    for (size_t factor = 0; factor < numFactors; ++factor) {
      if (isPrefix(axes[factor], merged[factor]))
        continue;
      if (isPrefix(merged[factor], axes[factor]))
        merged[factor] = axes[factor];
      else
        conflicts[factor] = true;
    }
  };
  for (auto [value, factors] : llvm::zip(node.operands, rule.operands))
    collect(value, factors);
  for (auto [value, factors] : llvm::zip(node.results, rule.results))
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

/// One op's share; true if a value changed. Nothing new comes of an op whose
/// values are as they were.
bool Propagator::propagate(Node &node) {
  if (!node.isDirty)
    return false;
  node.isDirty = node.hasConflict = false;
  bool changed = false;
  FactorAxes axes = merge(node, node.hasConflict);
  for (auto [value, factors] : llvm::zip(node.results, node.rule.results))
    changed |= update(value, getLayoutPrefix(factors, node.rule, axes));
  for (auto [value, factors] : llvm::zip(node.operands, node.rule.operands))
    changed |= update(value, getLayoutPrefix(factors, node.rule, axes));
  return changed;
}

/// Decides by price.
void Propagator::settle(Node &node) {
  llvm::SmallVector<TensorState> operands, results;
  for (Value value : node.operands)
    operands.push_back({cast<RankedTensorType>(value.getType()),
                        stateOf(value).layout, false, isParameterValue(value),
                        available[value]});
  for (Value value : node.results) {
    ValueState &state = stateOf(value);
    bool isOpen = llvm::all_of(state.isOpen, [](bool open) { return open; }) &&
                  getUsedAxes(state.layout).empty();
    results.push_back(
        {cast<RankedTensorType>(value.getType()), state.layout, isOpen, false});
  }
  node.settled = chooseFactors(node.rule, operands, results, mesh).axes;
  node.isDirty = true;
  for (auto [value, factors, state] :
       llvm::zip(node.operands, node.rule.operands, operands))
    if (FailureOr<Layout> needed = getLayout(factors, node.rule, *node.settled);
        succeeded(needed) && *needed != state.layout && !state.isParameter)
      available[value].push_back(*needed);
}

/// Settles the first op (in program order) whose tensors disagree; before it
/// one that a parameter decides, if it brings a common operand to where this
/// one can use it: the gradient of a weight takes what its projection takes.
bool Propagator::settleFirstConflict() {
  auto isInConflict = [](const Node &node) { return node.hasConflict; };
  auto first = llvm::find_if(nodes, isInConflict);
  if (first == nodes.end())
    return false;
  auto best = first;
  if (!hasParameter(*first))
    for (auto it = first + 1; it != nodes.end(); ++it)
      if (it->hasConflict && hasParameter(*it) && sharesOperand(*it, *first)) {
        best = it;
        break;
      }
  settle(*best);
  return true;
}

void Propagator::run() {
  for (auto [index, node] : llvm::enumerate(nodes))
    for (const auto &values : {node.operands, node.results})
      for (Value value : values)
        nodesOf[getCarried(value)].push_back(index);
  do {
    bool changed = true;
    while (changed) {
      changed = false;
      for (Node &node : nodes)
        changed |= propagate(node);
      for (Node &node : llvm::reverse(nodes))
        changed |= propagate(node);
    }
  } while (settleFirstConflict());
}

void Propagator::write() {
  for (BlockArgument arg : function.getArguments())
    if (states.count(arg))
      setSharding(arg, writeSharding(states[arg].layout, mesh));
  function.getBody().walk([&](Operation *op) {
    if (!isa<ReshardOp>(op))
      for (Value result : op->getResults())
        if (states.count(result))
          setSharding(result, writeSharding(states[result].layout, mesh));
  });
  Operation *terminator = function.getBody().front().getTerminator();
  for (auto [index, value] : llvm::enumerate(terminator->getOperands())) {
    if (!states.count(getCarried(value)))
      continue;
    Layout layout = stateOf(value).layout;
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
