//===- SequenceParallel.cpp - Shard the residual stream over tp -----------===//

#include "InputDims.h"
#include "PadSequence.h"
#include "Parameters.h"
#include "dshard/Transforms/Strategy/Passes.h"
#include "llvm/ADT/MapVector.h"
#include <tuple>

namespace mlir::dshard {
#define GEN_PASS_DEF_SEQUENCEPARALLELPASS
#include "dshard/Transforms/Strategy/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// The sequence dim of each value that has one: that of the inputs, else that
/// of an attention's rows (a picture's patches, a sound's frames, which are no
/// dim of an input), carried on by the ops' rules. A dim in which the sequence
/// is merged with another (a reshape to [batch * seq, h]) is not followed.
class SequenceDims {
public:
  LogicalResult find(func::FuncOp function);
  std::optional<int64_t> get(Value value) const {
    auto it = dims.find(value);
    return it == dims.end() ? std::nullopt : std::optional(it->second);
  }
  /// The dim is one of an input, whose size the user chooses.
  bool isOfInput(Value value) const { return ofInput.contains(value); }

private:
  void note(Value value, int64_t dim, bool isOfInput);
  LogicalResult follow(Operation *op, bool backward);
  DenseMap<Value, int64_t> dims;
  llvm::DenseSet<Value> ofInput;
  bool hasChanged = false;
};
} // namespace

/// Control hands values on as they are; the backward part follows by itself.
static bool isCompute(Operation *op) {
  auto part = op->getAttrOfType<PartAttr>("part");
  return !isa<func::ReturnOp, RepeatOp, IfOp, YieldOp>(op) &&
         (!part || part.getValue() == Part::forward);
}

void SequenceDims::note(Value value, int64_t dim, bool isOfInput) {
  if (!dims.try_emplace(value, dim).second)
    return;
  hasChanged = true;
  if (isOfInput)
    ofInput.insert(value);
}

/// From operands to results, or (of what no input says) also back.
LogicalResult SequenceDims::follow(Operation *op, bool backward) {
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  DenseMap<int64_t, bool> factors; // and whether they are of an input
  auto collect = [&](ValueRange values, ArrayRef<TensorFactors> tensors) {
    for (auto [value, tensor] : llvm::zip(values, tensors))
      if (std::optional<int64_t> dim = get(value))
        if (ArrayRef<int64_t> own = tensor[*dim]; own.size() == 1)
          factors[own.front()] |= isOfInput(value);
  };
  auto spread = [&](ValueRange values, ArrayRef<TensorFactors> tensors) {
    for (auto [value, tensor] : llvm::zip(values, tensors))
      for (auto [dim, own] : llvm::enumerate(tensor))
        if (own.size() == 1)
          if (auto it = factors.find(own.front()); it != factors.end())
            note(value, dim, it->second);
  };
  collect(op->getOperands(), rule->operands);
  if (backward)
    collect(op->getResults(), rule->results);
  spread(op->getResults(), rule->results);
  if (backward)
    spread(op->getOperands(), rule->operands);
  return success();
}

LogicalResult SequenceDims::find(func::FuncOp function) {
  for (BlockArgument argument : function.getArguments())
    if (unsigned i = argument.getArgNumber(); isInput(function, i))
      if (std::optional<int64_t> dim = findSequenceDim(function, i))
        note(argument, *dim, /*isOfInput=*/true);
  SmallVector<Operation *> ops;
  bool known = true;
  function.getBody().walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (!isCompute(op))
      return;
    ops.push_back(op);
    known = known && succeeded(follow(op, /*backward=*/false));
  });
  if (!known)
    return failure();
  for (Operation *op : ops)
    if (auto attention = dyn_cast<AttentionOp>(op))
      note(attention.getResult(), 2, /*isOfInput=*/false);
  // A residual stream tells what is added to it, and that where it comes from.
  for (hasChanged = true; hasChanged;) {
    hasChanged = false;
    for (Operation *op : ops)
      if (failed(follow(op, /*backward=*/true)))
        return failure();
    for (Operation *op : llvm::reverse(ops))
      if (failed(follow(op, /*backward=*/true)))
        return failure();
  }
  return success();
}

/// Its result is a pending sum over tp, because a parameter's contracted dim is
/// sharded over it.
static bool isRowParallel(Operation *op, const ShardingRule &rule) {
  auto isOverTp = [](const ParameterDim &parameter) {
    ShardingAttr sharding = getSharding(parameter.argument);
    return sharding && llvm::any_of(sharding.getDims()[parameter.dim].getAxes(),
                                    [](AxisRefAttr axis) {
                                      return axis.getName().getValue() == "tp";
                                    });
  };
  for (auto [value, tensor] : llvm::zip(op->getOperands(), rule.operands))
    for (auto [dim, factors] : llvm::enumerate(tensor))
      if (llvm::any_of(factors,
                       [&](int64_t factor) {
                         return rule.factors[factor].kind == FactorKind::reduce;
                       }) &&
          llvm::any_of(findParameterDims(value, dim), isOverTp))
        return true;
  return false;
}

static std::string describe(Operation *op) {
  auto path = op->getAttrOfType<StringAttr>("path");
  return path && !path.getValue().empty() ? path.str()
                                          : op->getName().stripDialect().str();
}

static SmallVector<DimShardingAttr> getDims(Value value) {
  if (ShardingAttr present = getSharding(value))
    return SmallVector<DimShardingAttr>(present.getDims());
  return SmallVector<DimShardingAttr>(
      cast<RankedTensorType>(value.getType()).getRank(),
      DimShardingAttr::get(value.getContext(), {}, true));
}

/// A plan that says another layout means it.
static bool isSaid(Value value, int64_t dim) {
  SmallVector<DimShardingAttr> dims = getDims(value);
  return llvm::any_of(dims,
                      [](DimShardingAttr own) {
                        return llvm::any_of(
                            own.getAxes(), [](AxisRefAttr axis) {
                              return axis.getName().getValue() == "tp";
                            });
                      }) ||
         (!dims[dim].getIsOpen() && dims[dim].getAxes().empty());
}

static void shardOverTp(Value value, int64_t dim) {
  MLIRContext *context = value.getContext();
  SmallVector<DimShardingAttr> dims = getDims(value);
  dims[dim] =
      DimShardingAttr::get(context, AxisRefAttr::get(context, "tp"), false);
  setSharding(value, ShardingAttr::get(context, dims, {}, ReductionKind::sum));
  Operation *op = value.getDefiningOp();
  auto origin = op->getAttrOfType<OriginAttr>(originAttrName);
  std::string text = origin ? origin.getText().str() + ", " : "";
  op->setAttr(
      originAttrName,
      OriginAttr::get(context, StringAttr::get(context, text + "sequence "
                                                               "parallel")));
}

namespace {
/// The row-parallel results of a function.
struct RowParallel {
  size_t count = 0;
  /// They have no sequence dim.
  std::vector<std::string> whole;
  /// To be padded, by block, dim and size.
  llvm::MapVector<std::tuple<Block *, int64_t, int64_t>, SmallVector<Value>>
      undivided;
};
} // namespace

/// Shards the sequence dim of a row-parallel result over tp.
static LogicalResult shardResult(Value value, const SequenceDims &sequence,
                                 MeshAttr mesh, RowParallel &found) {
  Operation *op = value.getDefiningOp();
  auto type = cast<RankedTensorType>(value.getType());
  std::string name = describe(op);
  ++found.count;
  std::optional<int64_t> dim = sequence.get(value);
  if (!dim) {
    found.whole.push_back(name);
    return success();
  }
  int64_t size = type.getDimSize(*dim), ranks = mesh.getAxisSize("tp");
  if (size % ranks != 0 && sequence.isOfInput(value)) {
    InFlightDiagnostic diagnostic =
        emitError(value.getLoc())
        << "--sequence-parallel: sequence dim " << *dim << " of size " << size
        << " of the output of " << name << " is not divisible by tp=" << ranks
        << "; sizes that divide: ";
    if (size > ranks)
      diagnostic << size / ranks * ranks << ", ";
    return diagnostic << size / ranks * ranks + ranks;
  }
  if (isSaid(value, *dim))
    return success();
  if (size % ranks == 0)
    shardOverTp(value, *dim);
  else
    found.undivided[{op->getBlock(), *dim, size}].push_back(value);
  return success();
}

/// A length that follows from the model, not from an input, is padded.
static void padUndivided(func::FuncOp function, MeshAttr mesh,
                         const RowParallel &found) {
  int64_t ranks = mesh.getAxisSize("tp");
  for (const auto &[place, values] : found.undivided) {
    auto [block, dim, size] = place;
    int64_t padded = (size + ranks - 1) / ranks * ranks;
    emitRemark(UnknownLoc::get(function.getContext()))
        << "--sequence-parallel: " << values.size() << " of " << found.count
        << " row-parallel outputs are padded from " << size << " to " << padded
        << " rows, because tp=" << ranks
        << " does not divide them: " << describe(values.front().getDefiningOp())
        << (values.size() > 1 ? ", ..." : "");
    for (Value value : padSequence(values, dim, padded))
      shardOverTp(value, dim);
  }
}

/// One line for all outputs that stay whole, the first few by name.
static void remarkWhole(func::FuncOp function, const RowParallel &found) {
  if (found.whole.empty())
    return;
  InFlightDiagnostic remark =
      emitRemark(UnknownLoc::get(function.getContext()))
      << "--sequence-parallel: " << found.whole.size() << " of " << found.count
      << " row-parallel outputs stay whole, because they have no sequence dim "
         "(--dims INPUT=batch,seq names that of an input): ";
  constexpr size_t shown = 3;
  llvm::interleave(
      ArrayRef(found.whole).take_front(shown),
      [&](StringRef name) { remark << name; }, [&] { remark << ", "; });
  if (found.whole.size() > shown)
    remark << ", ...";
}

static LogicalResult run(func::FuncOp function, MeshAttr mesh) {
  SequenceDims sequence;
  if (failed(sequence.find(function)))
    return failure();
  RowParallel found;
  WalkResult walked = function.getBody().walk([&](Operation *op) {
    if (!isCompute(op))
      return WalkResult::advance();
    FailureOr<ShardingRule> rule = getShardingRuleOf(op);
    if (failed(rule))
      return WalkResult::interrupt();
    // Rows of experts are no sequence; their sum ends where the residual stream
    // is sharded.
    if (isa<GroupedMatMulOp>(op) && !sequence.get(op->getResult(0)))
      return WalkResult::advance();
    if (isRowParallel(op, *rule))
      for (Value result : op->getResults())
        if (failed(shardResult(result, sequence, mesh, found)))
          return WalkResult::interrupt();
    return WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return failure();
  if (found.count == 0)
    return emitError(UnknownLoc::get(function.getContext()))
           << "--sequence-parallel: the tensor-parallel plan has no "
              "row-parallel module whose output could be sharded on the "
              "sequence; give one the style rowwise";
  padUndivided(function, mesh, found);
  remarkWhole(function, found);
  return success();
}

namespace {
struct SequenceParallelPass
    : mlir::dshard::impl::SequenceParallelPassBase<SequenceParallelPass> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    MeshAttr mesh = getMesh(module);
    if (!mesh) {
      module.emitError() << "module has no " << meshAttrName
                         << "; give it one with --mesh";
      return signalPassFailure();
    }
    if (mesh.getAxisSize("tp") <= 1) {
      emitError(UnknownLoc::get(&getContext()))
          << "--sequence-parallel shards over tp, which has size 1; give "
             "--mesh=tp=N, or leave it out";
      return signalPassFailure();
    }
    for (auto function : module.getOps<func::FuncOp>())
      if (!function.isExternal() && failed(run(function, mesh)))
        return signalPassFailure();
  }
};
} // namespace
