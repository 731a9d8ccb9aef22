//===- InsertReshards.cpp - Make every change of sharding an op -----------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/Support/FormatVariadic.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_INSERTRESHARDSPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// How one op runs: decided for the whole function before anything is inserted.
struct Decision {
  ShardingRule rule;
  FactorChoice choice;
  llvm::SmallVector<Layout> needed;  ///< of operands
  llvm::SmallVector<Layout> natural; ///< of results
};

struct Inserter {
  func::FuncOp function;
  MeshAttr mesh;
  /// What the program says of a value before anything is inserted (of a
  /// repeat's carried value: what it says of the result).
  llvm::DenseMap<Value, Layout> wanted;
  /// What results are as their op gives them.
  llvm::DenseMap<Value, Layout> natural;
  /// Values that stay partial for their one user; all others are brought to
  /// `wanted` behind their op.
  llvm::DenseSet<Value> kept;
  AvailableLayouts available;
  llvm::DenseMap<Operation *, Decision> decisions;
  /// A value resharded once serves all later uses.
  llvm::DenseMap<std::pair<Value, ShardingAttr>, Value> cache;

  LogicalResult run();
  // Deciding.
  LogicalResult collect(Operation *op);
  void noteAvailable(Operation *op, const ShardingRule &rule);
  bool isPending(Value value) const;
  const Layout &getCurrent(Value value);
  Value detectAccumulator(Operation *op);
  bool canAbsorb(Operation *op, const ShardingRule &rule);
  LogicalResult decide(Operation *op);
  // Doing.
  LogicalResult apply(Operation *op);
  LogicalResult applyToResult(Operation *op, Value value);
  LogicalResult applyToHandovers(Operation *op);
  LogicalResult applyToReturn(func::ReturnOp op);
  void findSources(Value value, llvm::SetVector<Operation *> &sources);
  std::string explainResult(OpResult value, const Layout &from,
                            const ReshardPlan &plan);
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

//===----------------------------------------------------------------------===//
// Deciding
//===----------------------------------------------------------------------===//

LogicalResult Inserter::collect(Operation *op) {
  for (Value value : op->getResults()) {
    ShardingAttr sharding = getValueSharding(value);
    if (!sharding || sharding.hasOpenDim())
      return op->emitOpError()
             << "result " << cast<OpResult>(value).getResultNumber()
             << " has no closed sharding; run dshard-propagate first";
    wanted[value] = readLayout(sharding, mesh);
  }
  for (auto [index, value] : llvm::enumerate(op->getOperands()))
    if (auto argument = dyn_cast<BlockArgument>(value)) {
      ShardingAttr sharding = getValueSharding(value);
      if (!sharding || sharding.hasOpenDim())
        return op->emitOpError()
               << "operand " << index
               << " has no closed sharding; run dshard-propagate first";
      if (getCarried(value) == value)
        wanted[value] = readLayout(sharding, mesh);
    }
  return success();
}

/// A sum over axes is pending on `value` as its op gives it, and it is not
/// meant to stay so for all its users.
bool Inserter::isPending(Value value) const {
  Value carried = getCarried(value);
  auto it = natural.find(carried);
  return it != natural.end() && !it->second.partial.empty() &&
         it->second.kind == ReductionKind::sum &&
         wanted.lookup(carried).partial.empty();
}

const Layout &Inserter::getCurrent(Value value) {
  return kept.contains(value) ? natural[getCarried(value)]
                              : wanted[getCarried(value)];
}

/// `next = carried + step`, yielded as the same carried value of a repeat that
/// starts at zero: the sum may be left pending until after the loop, so that
/// gradients are reduced once and not in every iteration. Gives the repeat's
/// result, or null.
Value Inserter::detectAccumulator(Operation *op) {
  auto add = dyn_cast<AddOp>(op);
  auto repeat = dyn_cast<RepeatOp>(op->getParentOp());
  if (!add || !repeat || !add.getResult().hasOneUse())
    return {};
  OpOperand &use = *add.getResult().use_begin();
  if (!isa<YieldOp>(use.getOwner()))
    return {};
  Value result = repeat.getResult(use.getOperandNumber());
  Value start = repeat.getInitial()[use.getOperandNumber()];
  for (auto [carried, step] : {std::pair(add.getLhs(), add.getRhs()),
                               std::pair(add.getRhs(), add.getLhs())}) {
    if (!isa<BlockArgument>(carried) || getCarried(carried) != result ||
        carried == result || !carried.hasOneUse() || !step.hasOneUse() ||
        !isPending(step) || !start.hasOneUse() || !isZeroConstant(start) ||
        carried.getType() != step.getType() ||
        !wanted.lookup(result).partial.empty())
      continue;
    natural[result] = natural[step];
    kept.insert(carried);
    kept.insert(start);
    natural[start] = natural[step];
    return result;
  }
  return {};
}

/// Ops behind which reducing costs no more than before them.
static bool keepsSize(Operation *op) {
  if (!isa<AddOp, SubOp, NegOp, MulOp, DivOp, CastOp, TransposeOp, ReshapeOp,
           PadOp, SliceOp, ReduceOp>(op))
    return false;
  double before = 0;
  for (Value value : op->getOperands())
    before = std::max(before,
                      getTensorBytes(cast<RankedTensorType>(value.getType())));
  double after =
      getTensorBytes(cast<RankedTensorType>(op->getResult(0).getType()));
  // Twice: a gradient that is cast to f32, or padded for its storage.
  return after <= 2 * before;
}

/// Whether the sums pending on the op's operands may stay so through it; then
/// they are kept. Sums that are added are reduced once, not twice, and a
/// gradient's ends where its parameter is stored.
bool Inserter::canAbsorb(Operation *op, const ShardingRule &rule) {
  if (!keepsSize(op))
    return false;
  llvm::SmallVector<size_t> pending;
  for (auto [index, value] : llvm::enumerate(op->getOperands()))
    if (isPending(value)) {
      if (!value.hasOneUse())
        return false;
      pending.push_back(index);
    }
  if (pending.empty())
    return false;
  Value first = op->getOperand(pending.front());
  const Layout &layout = natural[getCarried(first)];
  if (rule.jointlyLinear) {
    // The accumulator is known to be partial by now, if it can be.
    if (pending.size() != op->getNumOperands())
      return false;
    for (Value value : op->getOperands())
      if (natural[getCarried(value)].partial != layout.partial)
        return false;
  } else {
    if (pending.size() != 1 || !rule.linear[pending.front()])
      return false;
    for (auto [index, value] : llvm::enumerate(op->getOperands()))
      if (index != pending.front() &&
          overlaps(getUsedAxes(getCurrent(value)), layout.partial))
        return false;
  }
  // Reduced to shards, it is not to become whole behind the op.
  if (getSize(getUsedAxes(wanted[op->getResult(0)])) <
      getSize(getUsedAxes(wanted[getCarried(first)])))
    return false;
  for (Value value : op->getOperands())
    if (isPending(value))
      kept.insert(value);
  return true;
}

/// What an op that a parameter decides will bring its other operands to.
void Inserter::noteAvailable(Operation *op, const ShardingRule &rule) {
  if (llvm::none_of(op->getOperands(), isParameterValue))
    return;
  llvm::SmallVector<TensorState> operands, results;
  for (Value value : op->getOperands())
    operands.push_back({cast<RankedTensorType>(value.getType()),
                        getCurrent(value), false, isParameterValue(value)});
  for (Value value : op->getResults())
    results.push_back({cast<RankedTensorType>(value.getType()), wanted[value]});
  FactorChoice choice = chooseFactors(rule, operands, results, mesh);
  for (auto [value, factors, state] :
       llvm::zip(op->getOperands(), rule.operands, operands)) {
    FailureOr<Layout> needed = getLayout(factors, rule, choice.axes);
    if (succeeded(needed) && !state.isParameter && *needed != state.layout)
      available[value].push_back(*needed);
  }
}

LogicalResult Inserter::decide(Operation *op) {
  Decision &decision = decisions[op];
  const ShardingRule &rule = decision.rule;
  Value accumulator = detectAccumulator(op);
  bool absorbs = canAbsorb(op, rule);
  if (accumulator && !absorbs) {
    natural.erase(accumulator);
    for (Value value : op->getOperands())
      kept.erase(value);
  }

  llvm::SmallVector<TensorState> operands, results;
  for (Value value : op->getOperands())
    operands.push_back({cast<RankedTensorType>(value.getType()),
                        getCurrent(value), false, isParameterValue(value),
                        available.lookup(value)});
  for (Value value : op->getResults())
    results.push_back({cast<RankedTensorType>(value.getType()), wanted[value]});
  // What every result is wanted to be partial over may pass through from
  // operands that the op is linear in, too; everything else is reduced before
  // it is used.
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
    passes = (absorbs || isWantedPartial(first)) &&
             (rule.jointlyLinear ? agree
                                 : partialOperands.size() == 1 &&
                                       rule.linear[partialOperands.front()]);
    if (passes) {
      passed.partial = first.partial;
      passed.kind = first.kind;
    }
  }

  // An axis over which a value stays partial shards nothing else in the op.
  llvm::SmallVector<TensorState> priced(operands), pricedResults(results);
  for (auto *states : {&priced, &pricedResults})
    for (TensorState &state : *states)
      for (AxisPieces &pieces : state.layout.dims)
        while (passes && overlaps(pieces, passed.partial))
          pieces.pop_back();
  FactorChoice &choice = decision.choice;
  choice = chooseFactors(rule, priced, pricedResults, mesh);

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
    decision.needed.push_back(*needed);
  }
  for (auto [index, value] : llvm::enumerate(op->getResults())) {
    FailureOr<Layout> layout =
        getLayout(rule.results[index], rule, choice.axes);
    if (failed(layout) ||
        failed(addNaturalPartial(rule, index, choice.axes, *layout)))
      return op->emitOpError() << "has no sharding of result " << index
                               << " that its rule can say";
    if (passes) {
      if (!layout->partial.empty() && layout->kind != passed.kind)
        return op->emitOpError() << "mixes pending reductions of two kinds";
      layout->kind = passed.kind;
      layout->partial.append(passed.partial);
      sortPieces(layout->partial);
    }
    natural[value] = *layout;
    decision.natural.push_back(*layout);
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Doing
//===----------------------------------------------------------------------===//

/// The ops whose sums are pending on `value`.
void Inserter::findSources(Value value, llvm::SetVector<Operation *> &sources) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return; // an accumulator, in its loop
  if (auto repeat = dyn_cast<RepeatOp>(op)) {
    Operation *yield = repeat.getBody().front().getTerminator();
    findSources(yield->getOperand(cast<OpResult>(value).getResultNumber()),
                sources);
    return;
  }
  bool isSource = true;
  for (Value operand : op->getOperands())
    if (kept.contains(operand)) {
      findSources(operand, sources);
      isSource = false;
    }
  if (isSource)
    sources.insert(op);
}

/// The user's words for what follows an op whose own result is not the wanted
/// one.
std::string Inserter::explainResult(OpResult value, const Layout &from,
                                    const ReshardPlan &plan) {
  if (from.partial.empty()) {
    bool gathers = llvm::any_of(plan.steps, [](const ReshardStep &step) {
      return step.kind == ReshardKind::all_gather;
    });
    return (gathers ? "gather output of " : "layout of output of ") +
           describeOp(value.getOwner());
  }
  llvm::SetVector<Operation *> sources;
  findSources(value, sources);
  std::string text;
  for (Operation *source : sources) {
    auto part = source->getAttrOfType<PartAttr>("part");
    bool isForward = !part || part.getValue() == Part::forward;
    std::string what =
        isa<MatMulOp>(source) && isForward   ? "row-parallel output of "
        : isa<GatherOp>(source) && isForward ? "vocabulary-parallel output of "
        : isa<MatMulOp>(source)              ? "gradient of the input of "
                                             : "partial output of ";
    what += describeOp(source);
    if (text.find(what) == std::string::npos)
      text += (text.empty() ? "" : "; ") + what;
  }
  return text;
}

Value Inserter::reshard(Operation *user, Value value, const Layout &to,
                        llvm::StringRef why) {
  ShardingAttr target = writeSharding(to, mesh);
  Value &cached = cache[{value, target}];
  if (cached)
    return cached;
  // A result's reshard stands behind its op, an operand's before its first
  // user: in the block of the value, so that no loop repeats it.
  OpBuilder builder(user);
  if (value.getDefiningOp() == user)
    builder.setInsertionPointAfter(user);
  else
    builder.setInsertionPoint(getAncestorIn(value.getParentBlock(), user));
  Operation *origin =
      isa<func::ReturnOp, YieldOp>(user) && value.getDefiningOp()
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

/// Brings a result to what it is wanted to be, unless its user takes it as it
/// is.
LogicalResult Inserter::applyToResult(Operation *op, Value value) {
  const Layout &own = natural[value], &target = wanted[value];
  setSharding(value, writeSharding(own, mesh));
  if (own == target || value.use_empty() || kept.contains(value))
    return success();
  FailureOr<ReshardPlan> plan = planReshard(own, target);
  if (failed(plan))
    return op->emitOpError()
           << "result " << cast<OpResult>(value).getResultNumber()
           << " is to be " << describe(target, mesh) << ", but the op gives "
           << describe(own, mesh) << "; no collective makes a value partial";
  Value changed = reshard(op, value, target,
                          explainResult(cast<OpResult>(value), own, *plan));
  value.replaceAllUsesExcept(changed, changed.getDefiningOp());
  return success();
}

LogicalResult Inserter::apply(Operation *op) {
  const Decision &decision = decisions[op];
  const FactorChoice &choice = decision.choice;
  // What a strategy says of an op is no choice.
  if (choice.hadConflict && !choice.loser.empty() &&
      choice.winner != choice.loser && !op->hasAttr(originAttrName))
    op->emitRemark() << "the operands of " << describeOp(op) << " ("
                     << op->getName().stripDialect()
                     << ") are sharded differently: chose " << choice.winner
                     << " (" << llvm::formatv("{0:F0}", choice.bytes).str()
                     << " wire bytes per rank), not " << choice.loser << " ("
                     << llvm::formatv("{0:F0}", choice.loserBytes).str() << ")";
  for (auto [index, needed] : llvm::enumerate(decision.needed)) {
    Value value = op->getOperand(index);
    Layout current = readLayout(getValueSharding(value), mesh);
    if (needed == current)
      continue;
    FailureOr<ReshardPlan> plan = planReshard(current, needed);
    if (failed(plan))
      return op->emitOpError()
             << "operand " << index << " cannot go from "
             << describe(current, mesh) << " to " << describe(needed, mesh);
    double bytes = getTensorBytes(cast<RankedTensorType>(value.getType()));
    if (bytes >= largeBytes &&
        llvm::any_of(plan->steps, [](const ReshardStep &step) {
          return step.kind == ReshardKind::all_gather;
        }))
      op->emitRemark() << describeValue(value) << " of "
                       << llvm::formatv("{0:F0}", bytes).str()
                       << " bytes is gathered from " << describe(current, mesh)
                       << " to " << describe(needed, mesh) << " for "
                       << describeOp(op) << " (" << op->getName().stripDialect()
                       << ")";
    op->setOperand(
        index, reshard(op, value, needed, explainOperand(op, value, *plan)));
  }
  for (Value value : op->getResults())
    if (failed(applyToResult(op, value)))
      return failure();
  return success();
}

/// Initial and yielded values become what the control op's result is.
LogicalResult Inserter::applyToHandovers(Operation *op) {
  for (Handover handover : getHandovers(op)) {
    Value value = handover.operand->get();
    Layout target = readLayout(getValueSharding(handover.target), mesh);
    if (isa<RepeatOp>(op) && kept.contains(value))
      setSharding(value, writeSharding(target, mesh)); // zeros
    Layout current = readLayout(getValueSharding(value), mesh);
    if (current == target)
      continue;
    FailureOr<ReshardPlan> plan = planReshard(current, target);
    if (failed(plan))
      return op->emitOpError()
             << "operand " << handover.operand->getOperandNumber()
             << " cannot go from " << describe(current, mesh) << " to "
             << describe(target, mesh);
    handover.operand->set(reshard(
        op, value, target, explainOperand(op->getParentOp(), value, *plan)));
  }
  return success();
}

LogicalResult Inserter::applyToReturn(func::ReturnOp op) {
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
  llvm::SmallVector<Operation *> ops;
  function.getBody().walk<WalkOrder::PreOrder>(
      [&](Operation *op) { ops.push_back(op); });
  for (Operation *op : ops)
    if (failed(collect(op)))
      return failure();
  auto hasNoRule =
      llvm::IsaPred<ReshardOp, func::ReturnOp, RepeatOp, IfOp, YieldOp>;
  for (Operation *op : ops) {
    if (hasNoRule(op))
      continue;
    FailureOr<ShardingRule> rule = getShardingRuleOf(op);
    if (failed(rule))
      return failure();
    noteAvailable(op, *rule);
    decisions[op].rule = std::move(*rule);
  }
  for (Operation *op : ops) {
    if (!hasNoRule(op)) {
      if (failed(decide(op)))
        return failure();
      continue;
    }
    // A reshard takes any pending sum, if it asks for no other one.
    if (auto reshard = dyn_cast<ReshardOp>(op))
      if (Value input = reshard.getInput();
          isPending(input) && input.hasOneUse() &&
          succeeded(planReshard(natural[getCarried(input)],
                                wanted[reshard.getResult()])))
        kept.insert(input);
    // What an accumulator's sum is yielded as.
    for (Handover handover : getHandovers(op))
      if (isa<YieldOp>(op) && isPending(handover.target) &&
          isPending(handover.operand->get()))
        kept.insert(handover.operand->get());
  }
  for (Operation *op : ops) {
    // Results first: the region asks what they are.
    if (isa<RepeatOp>(op))
      for (Value result : op->getResults())
        if (natural.count(result) && failed(applyToResult(op, result)))
          return failure();
    if (auto returnOp = dyn_cast<func::ReturnOp>(op)) {
      if (failed(applyToReturn(returnOp)))
        return failure();
    } else if (decisions.count(op)) {
      if (failed(apply(op)))
        return failure();
    } else if (failed(applyToHandovers(op))) {
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
