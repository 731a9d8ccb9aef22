//===- SequenceParallel.cpp - Shard the residual stream over tp -----------===//

#include "InputDims.h"
#include "dshard/Transforms/Strategy/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_SEQUENCEPARALLELPASS
#include "dshard/Transforms/Strategy/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// The sequence dim of each value that has one: that of the inputs, carried on
/// by the ops' rules. A dim in which the sequence is merged with another (a
/// reshape to [batch * seq, h]) is not followed.
class SequenceDims {
public:
  LogicalResult find(func::FuncOp function);
  std::optional<int64_t> get(Value value) const {
    auto it = dims.find(value);
    return it == dims.end() ? std::nullopt : std::optional(it->second);
  }

private:
  LogicalResult follow(Operation *op);
  DenseMap<Value, int64_t> dims;
};
} // namespace

/// Control hands values on as they are; the backward part follows by itself.
static bool isCompute(Operation *op) {
  auto part = op->getAttrOfType<PartAttr>("part");
  return !isa<func::ReturnOp, RepeatOp, IfOp, YieldOp>(op) &&
         (!part || part.getValue() == Part::forward);
}

LogicalResult SequenceDims::follow(Operation *op) {
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  llvm::SmallDenseSet<int64_t> factors;
  for (auto [value, tensor] : llvm::zip(op->getOperands(), rule->operands))
    if (std::optional<int64_t> dim = get(value))
      if (ArrayRef<int64_t> own = tensor[*dim]; own.size() == 1)
        factors.insert(own.front());
  for (auto [value, tensor] : llvm::zip(op->getResults(), rule->results))
    for (auto [dim, own] : llvm::enumerate(tensor))
      if (own.size() == 1 && factors.contains(own.front()))
        dims.try_emplace(value, dim);
  return success();
}

LogicalResult SequenceDims::find(func::FuncOp function) {
  for (BlockArgument argument : function.getArguments())
    if (unsigned i = argument.getArgNumber(); isInput(function, i))
      if (std::optional<int64_t> dim = findSequenceDim(function, i))
        dims[argument] = *dim;
  WalkResult walked =
      function.getBody().walk<WalkOrder::PreOrder>([&](Operation *op) {
        return isCompute(op) && failed(follow(op)) ? WalkResult::interrupt()
                                                   : WalkResult::advance();
      });
  return failure(walked.wasInterrupted());
}

/// The annotation of a parameter, behind transposes and casts; null if none.
static ShardingAttr getParameterSharding(Value value) {
  if (auto transpose = value.getDefiningOp<TransposeOp>()) {
    ShardingAttr inner = getParameterSharding(transpose.getInput());
    if (!inner)
      return {};
    SmallVector<DimShardingAttr> dims;
    for (int64_t dim : transpose.getPermutation())
      dims.push_back(inner.getDims()[dim]);
    return ShardingAttr::get(value.getContext(), dims, {}, ReductionKind::sum);
  }
  if (auto cast = value.getDefiningOp<CastOp>())
    return getParameterSharding(cast.getInput());
  return isa<BlockArgument>(value) ? getSharding(value) : ShardingAttr();
}

/// Its result is a pending sum over tp, because a parameter's contracted dim is
/// sharded over it.
static bool isRowParallel(Operation *op, const ShardingRule &rule) {
  for (auto [value, tensor] : llvm::zip(op->getOperands(), rule.operands)) {
    ShardingAttr sharding = getParameterSharding(value);
    if (!sharding)
      continue;
    for (auto [dim, factors] : llvm::zip(sharding.getDims(), tensor))
      if (llvm::any_of(dim.getAxes(),
                       [](AxisRefAttr axis) {
                         return axis.getName().getValue() == "tp";
                       }) &&
          llvm::any_of(factors, [&](int64_t factor) {
            return rule.factors[factor].kind == FactorKind::reduce;
          }))
        return true;
  }
  return false;
}

/// Shards the sequence dim of a row-parallel result over tp.
static LogicalResult shardResult(Value value, const SequenceDims &sequence,
                                 MeshAttr mesh) {
  Operation *op = value.getDefiningOp();
  auto type = cast<RankedTensorType>(value.getType());
  auto path = op->getAttrOfType<StringAttr>("path");
  std::string name = path && !path.getValue().empty()
                         ? path.str()
                         : op->getName().stripDialect().str();
  std::optional<int64_t> dim = sequence.get(value);
  if (!dim)
    return emitError(value.getLoc())
           << "--sequence-parallel: the output of " << name << ", " << type
           << ", has no sequence dim; name that of the inputs with "
              "--dims INPUT=batch,seq";
  int64_t size = type.getDimSize(*dim), ranks = mesh.getAxisSize("tp");
  if (size % ranks != 0) {
    InFlightDiagnostic diagnostic =
        emitError(value.getLoc())
        << "--sequence-parallel: sequence dim " << *dim << " of size " << size
        << " of the output of " << name << " is not divisible by tp=" << ranks
        << "; sizes that divide: ";
    if (size > ranks)
      diagnostic << size / ranks * ranks << ", ";
    return diagnostic << size / ranks * ranks + ranks;
  }
  MLIRContext *context = value.getContext();
  ShardingAttr present = getSharding(value);
  SmallVector<DimShardingAttr> dims(type.getRank(),
                                    DimShardingAttr::get(context, {}, true));
  if (present)
    dims.assign(present.getDims().begin(), present.getDims().end());
  // A plan that says another layout means it.
  bool isTaken = llvm::any_of(dims, [](DimShardingAttr own) {
    return llvm::any_of(own.getAxes(), [](AxisRefAttr axis) {
      return axis.getName().getValue() == "tp";
    });
  });
  if (isTaken || (!dims[*dim].getIsOpen() && dims[*dim].getAxes().empty()))
    return success();
  dims[*dim] =
      DimShardingAttr::get(context, AxisRefAttr::get(context, "tp"), false);
  setSharding(value, ShardingAttr::get(context, dims, {}, ReductionKind::sum));
  auto origin = op->getAttrOfType<OriginAttr>(originAttrName);
  std::string text = origin ? origin.getText().str() + ", " : "";
  op->setAttr(
      originAttrName,
      OriginAttr::get(context, StringAttr::get(context, text + "sequence "
                                                               "parallel")));
  return success();
}

static LogicalResult run(func::FuncOp function, MeshAttr mesh) {
  SequenceDims sequence;
  if (failed(sequence.find(function)))
    return failure();
  bool found = false;
  WalkResult walked = function.getBody().walk([&](Operation *op) {
    if (!isCompute(op))
      return WalkResult::advance();
    FailureOr<ShardingRule> rule = getShardingRuleOf(op);
    if (failed(rule))
      return WalkResult::interrupt();
    if (!isRowParallel(op, *rule))
      return WalkResult::advance();
    found = true;
    for (Value result : op->getResults())
      if (failed(shardResult(result, sequence, mesh)))
        return WalkResult::interrupt();
    return WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return failure();
  if (found)
    return success();
  return emitError(UnknownLoc::get(function.getContext()))
         << "--sequence-parallel: the tensor-parallel plan has no row-parallel "
            "module whose output could be sharded on the sequence; give one "
            "the style rowwise";
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
