//===- FactorSharding.cpp - Shardings of an op's factors ------------------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::dshard;

bool mlir::dshard::isShardable(FactorKind kind) {
  return kind == FactorKind::parallel || kind == FactorKind::reduce;
}

//===----------------------------------------------------------------------===//
// Tensors to factors and back
//===----------------------------------------------------------------------===//

bool mlir::dshard::projectDim(ArrayRef<AxisPiece> pieces,
                              ArrayRef<int64_t> factors,
                              const ShardingRule &rule, FactorAxes &axes) {
  if (pieces.empty())
    return true;
  if (factors.empty())
    return false;
  size_t index = 0;
  int64_t remaining = rule.factors[factors[0]].size;
  for (AxisPiece piece : pieces) {
    while (piece.size > 1) {
      if (remaining == 1) {
        if (++index == factors.size())
          return false;
        remaining = rule.factors[factors[index]].size;
        continue;
      }
      int64_t taken = piece.size;
      if (remaining % taken != 0) {
        if (taken % remaining != 0)
          return false;
        taken = remaining;
      }
      axes[factors[index]].push_back({piece.name, piece.pre, taken});
      remaining /= taken;
      piece = {piece.name, piece.pre * taken, piece.size / taken};
    }
  }
  return true;
}

bool mlir::dshard::projectTensor(const Layout &layout,
                                 const TensorFactors &factors,
                                 const ShardingRule &rule, FactorAxes &axes) {
  bool fits = true;
  for (auto [pieces, dimFactors] : llvm::zip(layout.dims, factors))
    fits &= projectDim(pieces, dimFactors, rule, axes);
  for (AxisPieces &pieces : axes)
    mergePieces(pieces);
  return fits;
}

/// Joins the axes of a dim's factors; false if minor ones had to be left out.
static bool joinFactors(ArrayRef<int64_t> factors, const ShardingRule &rule,
                        const FactorAxes &axes, AxisPieces &pieces) {
  bool isFull = true;
  for (int64_t factor : factors) {
    if (!isFull && !axes[factor].empty())
      return false;
    if (!isFull)
      continue;
    pieces.append(axes[factor]);
    isFull = getSize(axes[factor]) == rule.factors[factor].size;
  }
  mergePieces(pieces);
  return true;
}

FailureOr<Layout> mlir::dshard::getLayout(const TensorFactors &factors,
                                          const ShardingRule &rule,
                                          const FactorAxes &axes) {
  Layout layout = getReplicatedLayout(factors.size());
  for (auto [dimFactors, pieces] : llvm::zip(factors, layout.dims))
    if (!joinFactors(dimFactors, rule, axes, pieces))
      return failure();
  return layout;
}

Layout mlir::dshard::getLayoutPrefix(const TensorFactors &factors,
                                     const ShardingRule &rule,
                                     const FactorAxes &axes) {
  Layout layout = getReplicatedLayout(factors.size());
  for (auto [dimFactors, pieces] : llvm::zip(factors, layout.dims)) {
    joinFactors(dimFactors, rule, axes, pieces);
    mergePieces(pieces);
  }
  return layout;
}

LogicalResult mlir::dshard::addNaturalPartial(const ShardingRule &rule,
                                              size_t index,
                                              const FactorAxes &axes,
                                              Layout &layout) {
  llvm::SmallDenseSet<int64_t> own;
  for (const auto &factors : rule.results[index])
    own.insert(factors.begin(), factors.end());
  for (auto [number, factor, pieces] : llvm::enumerate(rule.factors, axes)) {
    bool isSum = rule.missingFactorsSum &&
                 factor.kind == FactorKind::parallel && !own.contains(number);
    if ((factor.kind != FactorKind::reduce && !isSum) || pieces.empty())
      continue;
    ReductionKind kind = isSum ? ReductionKind::sum : factor.reduction;
    if (!layout.partial.empty() && layout.kind != kind)
      return failure();
    layout.kind = kind;
    layout.partial.append(pieces);
  }
  sortPieces(layout.partial);
  return success();
}

//===----------------------------------------------------------------------===//
// Choosing
//===----------------------------------------------------------------------===//

namespace {
struct Price {
  double cost = 0, bytes = 0;
};

struct Chooser {
  const ShardingRule &rule;
  ArrayRef<TensorState> operands, results;
  MeshAttr mesh;

  /// What running the op with `axes` costs, or nothing if it cannot.
  std::optional<Price> getCost(const FactorAxes &axes) const {
    AxisPieces used;
    for (auto [factor, pieces] : llvm::zip(rule.factors, axes)) {
      if (factor.size % getSize(pieces) != 0 || overlaps(used, pieces))
        return std::nullopt;
      used.append(pieces);
    }
    Price total;
    for (auto [state, factors] : llvm::zip(operands, rule.operands)) {
      FailureOr<Layout> needed = getLayout(factors, rule, axes);
      if (failed(needed))
        return std::nullopt;
      Layout actual = state.layout;
      // What a partial operand costs is the same for every candidate.
      actual.partial.clear();
      double price = llvm::is_contained(state.available, *needed)
                         ? 0
                         : getPrice(state, actual, *needed);
      constexpr double lastResort = 1e6;
      total.cost += state.isParameter ? price * lastResort : price;
      total.bytes += price;
    }
    for (auto [index, state] : llvm::enumerate(results)) {
      FailureOr<Layout> natural = getLayout(rule.results[index], rule, axes);
      if (failed(natural))
        return std::nullopt;
      Layout wanted = state.isOpen ? *natural : state.layout;
      if (failed(addNaturalPartial(rule, index, axes, *natural)))
        return std::nullopt;
      if (wanted.partial != natural->partial && !wanted.partial.empty())
        wanted.partial.clear();
      wanted.kind = natural->kind;
      double price = getPrice(state, *natural, wanted);
      total.cost += price;
      total.bytes += price;
    }
    return total;
  }

  double getPrice(const TensorState &state, const Layout &from,
                  const Layout &to) const {
    FailureOr<ReshardPlan> plan = planReshard(from, to);
    return failed(plan)
               ? 0
               : getWireCost(from, *plan, getTensorBytes(state.type), mesh);
  }

  std::string describeAxes(const FactorAxes &axes,
                           ArrayRef<size_t> factors) const {
    std::string text;
    for (size_t factor : factors) {
      if (axes[factor].empty())
        continue;
      text += (text.empty() ? "" : ", ") + getFactorName(factor) + " over " +
              describe(axes[factor], mesh);
    }
    return text.empty() ? "nothing sharded" : text;
  }

  /// "dim 1 of operand 0": a factor's first place.
  std::string getFactorName(size_t factor) const {
    for (auto [what, tensors] :
         {std::pair("operand ", &rule.operands), {"result ", &rule.results}})
      for (auto [index, factors] : llvm::enumerate(*tensors))
        for (auto [dim, dimFactors] : llvm::enumerate(factors))
          if (llvm::is_contained(dimFactors, static_cast<int64_t>(factor)))
            return ("dim " + llvm::Twine(dim) + " of " + what +
                    llvm::Twine(index))
                .str();
    return "a factor";
  }
};
} // namespace

static void addCandidate(llvm::SmallVector<AxisPieces> &candidates,
                         const AxisPieces &pieces) {
  if (!llvm::is_contained(candidates, pieces))
    candidates.push_back(pieces);
}

FactorChoice mlir::dshard::chooseFactors(const ShardingRule &rule,
                                         ArrayRef<TensorState> operands,
                                         ArrayRef<TensorState> results,
                                         MeshAttr mesh) {
  Chooser chooser{rule, operands, results, mesh};
  size_t numFactors = rule.factors.size();

  // Per factor: what operands say (agreeing or not), then what results want.
  llvm::SmallVector<llvm::SmallVector<AxisPieces>> candidates(numFactors);
  llvm::SmallVector<bool> isSettled(numFactors, true);
  llvm::SmallVector<size_t> open;
  FactorChoice choice;
  auto collect = [&](const TensorState &state, const TensorFactors &factors,
                     bool isOperand) {
    FactorAxes axes(numFactors);
    projectTensor(state.layout, factors, rule, axes);
    for (const auto &dimFactors : factors)
      for (int64_t factor : dimFactors)
        if (isShardable(rule.factors[factor].kind)) {
          bool isNew = !llvm::is_contained(candidates[factor], axes[factor]);
          if (isOperand && isNew && !candidates[factor].empty())
            isSettled[factor] = false;
          addCandidate(candidates[factor], axes[factor]);
        }
  };
  for (auto [state, factors] : llvm::zip(operands, rule.operands))
    collect(state, factors, true);
  for (size_t factor = 0; factor < numFactors; ++factor) {
    // Replicated operands may be sliced for free, if a result wants that.
    if (candidates[factor].empty() ||
        (candidates[factor].size() == 1 && candidates[factor][0].empty()))
      isSettled[factor] = false;
    else if (!isSettled[factor])
      choice.hadConflict = true;
  }
  // One axis on two settled factors: neither is.
  for (size_t a = 0; a < numFactors; ++a)
    for (size_t b = a + 1; b < numFactors; ++b) {
      if (candidates[a].empty() || candidates[b].empty() ||
          !overlaps(candidates[a].front(), candidates[b].front()))
        continue;
      isSettled[a] = isSettled[b] = false;
      choice.hadConflict = true;
      // Either may give up just what the other wants: {cp, tp} to {cp}.
      for (auto [from, to] : {std::pair(a, b), {b, a}}) {
        AxisPieces kept;
        for (const AxisPiece &piece : candidates[from].front())
          if (!overlaps(piece, candidates[to].front()))
            kept.push_back(piece);
        addCandidate(candidates[from], kept);
      }
    }
  for (auto [state, factors] : llvm::zip(results, rule.results))
    if (!state.isOpen)
      collect(state, factors, false);

  for (size_t factor = 0; factor < numFactors; ++factor) {
    if (isSettled[factor]) {
      candidates[factor].truncate(1);
      continue;
    }
    addCandidate(candidates[factor], {});
    // Few candidates per op: beyond these the first ones decide.
    candidates[factor].truncate(std::min<size_t>(candidates[factor].size(), 4));
    addCandidate(candidates[factor], {});
    if (candidates[factor].size() > 1)
      open.push_back(factor);
  }
  // A settled factor may still not be expressible (a minor factor whose major
  // one is open): then replicating everything is the way out.
  size_t combinations = 1;
  for (auto it = open.begin(); it != open.end(); ++it) {
    if (combinations * candidates[*it].size() > 4096) {
      open.erase(it, open.end());
      break;
    }
    combinations *= candidates[*it].size();
  }

  bool found = false;
  int64_t bestShards = 0;
  auto consider = [&](const FactorAxes &axes) {
    std::optional<Price> price = chooser.getCost(axes);
    if (!price)
      return;
    int64_t shards = 1;
    for (const AxisPieces &pieces : axes)
      shards *= getSize(pieces);
    bool wins = !found || price->cost < choice.cost ||
                (price->cost == choice.cost && shards > bestShards);
    // The runner-up, for the remark.
    std::string text = chooser.describeAxes(axes, open);
    if (wins) {
      if (found && (choice.loser.empty() || choice.cost <= choice.loserCost)) {
        choice.loser = choice.winner;
        choice.loserCost = choice.cost;
        choice.loserBytes = choice.bytes;
      }
      choice.axes = axes;
      choice.cost = price->cost;
      choice.bytes = price->bytes;
      choice.winner = text;
      bestShards = shards;
      found = true;
    } else if (choice.loser.empty() || price->cost < choice.loserCost) {
      choice.loser = text;
      choice.loserCost = price->cost;
      choice.loserBytes = price->bytes;
    }
  };

  FactorAxes axes(numFactors);
  for (size_t factor = 0; factor < numFactors; ++factor)
    if (!candidates[factor].empty())
      axes[factor] = candidates[factor].front();
  llvm::SmallVector<size_t> digits(open.size(), 0);
  for (size_t n = 0; n < combinations; ++n) {
    size_t rest = n;
    for (size_t factor : open) {
      axes[factor] = candidates[factor][rest % candidates[factor].size()];
      rest /= candidates[factor].size();
    }
    consider(axes);
  }
  // No combination can be said (a minor factor is sharded whose major one is
  // not): give up one factor, or at last all of them.
  if (!found) {
    choice.hadConflict = true;
    for (size_t factor = 0; factor < numFactors; ++factor)
      if (!candidates[factor].empty())
        axes[factor] = candidates[factor].front();
    for (size_t factor = 0; factor < numFactors; ++factor) {
      AxisPieces kept;
      std::swap(kept, axes[factor]);
      if (!kept.empty())
        consider(axes);
      std::swap(kept, axes[factor]);
    }
  }
  if (!found)
    consider(FactorAxes(numFactors));
  return choice;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

ShardingAttr mlir::dshard::getValueSharding(Value value) {
  if (auto reshard = value.getDefiningOp<ReshardOp>())
    return reshard.getSharding();
  return getSharding(value);
}

/// The attribute of a function argument, or null.
template <typename AttrT>
static AttrT getArgAttr(Value value, llvm::StringRef name) {
  auto arg = dyn_cast<BlockArgument>(value);
  auto function =
      arg ? dyn_cast<func::FuncOp>(arg.getOwner()->getParentOp()) : nullptr;
  return function ? function.getArgAttrOfType<AttrT>(arg.getArgNumber(), name)
                  : AttrT();
}

bool mlir::dshard::isParameterValue(Value value) {
  while (Operation *op = value.getDefiningOp()) {
    bool isCrop = isa<SliceOp>(op) && op->getOperand(0).getDefiningOp() &&
                  isa<ReshardOp>(op->getOperand(0).getDefiningOp());
    if (!isa<TransposeOp, ReshapeOp, CastOp, ReshardOp>(op) && !isCrop)
      return false;
    value = op->getOperand(0);
  }
  auto role = getArgAttr<RoleAttr>(value, roleAttrName);
  return role && role.getValue() == Role::param;
}

std::string mlir::dshard::describeOp(Operation *op) {
  if (auto path = op->getAttrOfType<StringAttr>("path"))
    if (!path.getValue().empty())
      return path.getValue().str();
  return op->getName().stripDialect().str();
}

std::string mlir::dshard::describeValue(Value value) {
  if (auto gradient = value.getDefiningOp<GradientOp>())
    return "gradient of " + gradient.getOf().str();
  if (Operation *op = value.getDefiningOp()) {
    auto part = op->getAttrOfType<PartAttr>("part");
    bool isBackward = part && part.getValue() == Part::backward;
    std::string text =
        (isBackward ? "gradient in " : "output of ") + describeOp(op);
    llvm::StringRef name = op->getName().stripDialect();
    if (!llvm::StringRef(text).ends_with(name))
      text += " (" + name.str() + ")";
    return text;
  }
  if (auto weight = getArgAttr<WeightAttr>(value, weightAttrName))
    return "parameter " + weight.getName().getValue().str();
  if (auto name = getArgAttr<StringAttr>(value, nameAttrName))
    return "input " + name.getValue().str();
  return ("argument " + llvm::Twine(cast<BlockArgument>(value).getArgNumber()))
      .str();
}

bool mlir::dshard::hasRule(Operation *op) {
  return isa<ShardingRuleInterface>(op);
}

//===----------------------------------------------------------------------===//
// Regions
//===----------------------------------------------------------------------===//

Value mlir::dshard::getCarried(Value value) {
  auto argument = dyn_cast<BlockArgument>(value);
  if (!argument || argument.getArgNumber() == 0)
    return value;
  auto repeat = dyn_cast<RepeatOp>(argument.getOwner()->getParentOp());
  return repeat ? repeat.getResult(argument.getArgNumber() - 1) : value;
}

llvm::SmallVector<Handover> mlir::dshard::getHandovers(Operation *op) {
  llvm::SmallVector<Handover> found;
  Operation *owner = isa<RepeatOp>(op)  ? op
                     : isa<YieldOp>(op) ? op->getParentOp()
                                        : nullptr;
  if (isa_and_nonnull<RepeatOp, IfOp>(owner))
    for (auto [operand, target] :
         llvm::zip(op->getOpOperands(), owner->getResults()))
      found.push_back({&operand, target});
  return found;
}

ShardingRule mlir::dshard::getHandoverRule(RankedTensorType type) {
  ShardingRule rule;
  TensorFactors dims(type.getRank());
  for (auto [i, size] : llvm::enumerate(type.getShape()))
    if (size != 1)
      dims[i].push_back(rule.addFactor(size));
  rule.operands = {dims};
  rule.results = {dims};
  rule.linear = {true};
  return rule;
}

bool mlir::dshard::isZeroConstant(Value value) {
  auto constant = value.getDefiningOp<ConstantOp>();
  auto elements = constant ? dyn_cast<DenseElementsAttr>(constant.getValue())
                           : DenseElementsAttr();
  if (!elements || !elements.isSplat())
    return false;
  if (isa<FloatType>(elements.getElementType()))
    return elements.getSplatValue<llvm::APFloat>().isPosZero();
  return elements.getSplatValue<llvm::APInt>().isZero();
}

Operation *mlir::dshard::getAncestorIn(Block *block, Operation *op) {
  while (op && op->getBlock() != block)
    op = op->getParentOp();
  return op;
}
