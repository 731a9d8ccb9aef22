//===- VerifyResolved.cpp - The gate of the resolve phase -----------------===//

#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Gates.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYRESOLVEDPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// resolved_c1, and sharding_c1..c5.
static LogicalResult verifyValue(Value value, MeshAttr mesh) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type)
    return success();
  ShardingAttr sharding = getValueSharding(value);
  auto emit = [&] { return emitError(value.getLoc()); };
  if (!sharding)
    return emit() << describeValue(value)
                  << " has no sharding; run dshard-propagate";
  for (auto [index, dim] : llvm::enumerate(sharding.getDims()))
    if (dim.getIsOpen())
      return emit() << describeValue(value) << ": dim " << index
                    << " is still open; run dshard-propagate";
  return sharding.verifyFor(type, mesh, describeValue(value), emit);
}

static std::string getKindName(FactorKind kind) {
  switch (kind) {
  case FactorKind::parallel:
    return "parallel";
  case FactorKind::reduce:
    return "reduce";
  case FactorKind::gather:
    return "gather";
  case FactorKind::ring:
    return "ring";
  }
  return "unknown";
}

namespace {
/// What one tensor says of a factor.
struct Opinion {
  Value value;
  std::string name; ///< "operand 1"
  size_t dim = 0;
  AxisPieces pieces;
};
} // namespace

/// resolved_c2..c4 for one op.
static LogicalResult verifyOp(Operation *op, MeshAttr mesh) {
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  size_t numFactors = rule->factors.size();
  llvm::SmallVector<std::optional<Opinion>> opinions(numFactors);
  for (auto [values, tensors, what] :
       {std::tuple(ValueRange(op->getOperands()), &rule->operands, "operand "),
        std::tuple(ValueRange(op->getResults()), &rule->results, "result ")})
    for (auto [index, value] : llvm::enumerate(values)) {
      Layout layout = readLayout(getValueSharding(value), mesh);
      FactorAxes axes(numFactors);
      std::string name = (what + llvm::Twine(index)).str();
      for (auto [dim, factors] : llvm::enumerate((*tensors)[index])) {
        if (!projectDim(layout.dims[dim], factors, *rule, axes))
          return op->emitOpError()
                 << name << ": dim " << dim << " of size "
                 << cast<RankedTensorType>(value.getType()).getDimSize(dim)
                 << " is sharded " << describe(layout.dims[dim], mesh)
                 << ", which the op cannot follow; reshard it first";
        for (int64_t factor : factors) {
          mergePieces(axes[factor]);
          if (!isShardable(rule->factors[factor].kind) && !axes[factor].empty())
            return op->emitOpError()
                   << "needs the whole dim " << dim << " of " << name << " ("
                   << getKindName(rule->factors[factor].kind)
                   << " factor), but it is sharded "
                   << describe(layout.dims[dim], mesh) << "; gather it first";
          auto &known = opinions[factor];
          if (!known) {
            known = Opinion{value, name, dim, axes[factor]};
            continue;
          }
          if (known->pieces == axes[factor])
            continue;
          InFlightDiagnostic diagnostic =
              op->emitOpError()
              << "is sharded differently along one factor: dim " << known->dim
              << " of " << known->name << " " << describe(known->pieces, mesh)
              << ", dim " << dim << " of " << name << " "
              << describe(axes[factor], mesh) << "; reshard one of them";
          noteOrigin(
              diagnostic, known->value,
              describe(readLayout(getValueSharding(known->value), mesh), mesh));
          noteOrigin(diagnostic, value, describe(layout, mesh));
          return diagnostic;
        }
      }
    }
  for (size_t a = 0; a < numFactors; ++a)
    for (size_t b = a + 1; b < numFactors; ++b)
      if (opinions[a] && opinions[b] &&
          overlaps(opinions[a]->pieces, opinions[b]->pieces)) {
        InFlightDiagnostic diagnostic =
            op->emitOpError()
            << "is sharded over one axis along two factors: dim "
            << opinions[a]->dim << " of " << opinions[a]->name << " "
            << describe(opinions[a]->pieces, mesh) << " and dim "
            << opinions[b]->dim << " of " << opinions[b]->name << " "
            << describe(opinions[b]->pieces, mesh) << "; gather one of them";
        return diagnostic;
      }
  return success();
}

/// resolved_c9
static LogicalResult verifyHandovers(Operation *op, MeshAttr mesh) {
  for (Handover handover : getHandovers(op)) {
    Layout from = readLayout(getValueSharding(handover.operand->get()), mesh);
    Layout to = readLayout(getValueSharding(handover.target), mesh);
    if (from.dims != to.dims)
      return op->emitOpError()
             << "hands on operand " << handover.operand->getOperandNumber()
             << " as " << describe(from, mesh)
             << ", but the value that it becomes is " << describe(to, mesh)
             << "; reshard it first";
  }
  return success();
}

/// resolved_c6: of the gradient op itself.
static LogicalResult
verifyGradient(GradientOp op, const llvm::StringMap<ShardingAttr> &parameters,
               MeshAttr mesh) {
  auto it = parameters.find(op.getOf());
  if (it == parameters.end() || !it->second)
    return op.emitOpError() << "is of '" << op.getOf()
                            << "', which is no parameter of this function";
  Layout own = readLayout(getValueSharding(op.getResult()), mesh);
  Layout stored = readLayout(it->second, mesh);
  if (own != stored)
    return op.emitOpError()
           << "gives the gradient of '" << op.getOf() << "' as "
           << describe(own, mesh) << ", but the parameter is stored as "
           << describe(stored, mesh) << "; reshard the gradient";
  return success();
}

/// resolved_c5..c7.
static LogicalResult verifyFunction(func::FuncOp function, MeshAttr mesh) {
  Operation *terminator = function.getBody().front().getTerminator();
  llvm::StringMap<ShardingAttr> states, parameters;
  for (BlockArgument arg : function.getArguments()) {
    unsigned index = arg.getArgNumber();
    auto sharding =
        function.getArgAttrOfType<ShardingAttr>(index, shardingAttrName);
    if (auto state =
            function.getArgAttrOfType<StringAttr>(index, stateAttrName))
      states[state.getValue()] = sharding;
    if (!isParameterValue(arg))
      continue;
    for (llvm::StringRef key : {nameAttrName, stateAttrName})
      if (auto name = function.getArgAttrOfType<StringAttr>(index, key))
        parameters[name.getValue()] = sharding;
    if (auto weight =
            function.getArgAttrOfType<WeightAttr>(index, weightAttrName))
      parameters[weight.getName().getValue()] = sharding;
  }
  WalkResult walked = function.getBody().walk([&](GradientOp op) {
    return failed(verifyGradient(op, parameters, mesh))
               ? WalkResult::interrupt()
               : WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return failure();
  for (auto [index, value] : llvm::enumerate(terminator->getOperands())) {
    ShardingAttr sharding = getValueSharding(value);
    if (!sharding)
      continue;
    Layout layout = readLayout(sharding, mesh);
    auto declared =
        function.getResultAttrOfType<ShardingAttr>(index, shardingAttrName);
    if (!declared || readLayout(declared, mesh) != layout) {
      InFlightDiagnostic diagnostic =
          terminator->emitOpError() << "gives result " << index << " as "
                                    << describe(layout, mesh) << ", declared ";
      if (declared)
        diagnostic << describe(readLayout(declared, mesh), mesh);
      else
        diagnostic << "nothing";
      return diagnostic << "; run dshard-insert-reshards";
    }
    if (auto state =
            function.getResultAttrOfType<StringAttr>(index, stateAttrName)) {
      auto it = states.find(state.getValue());
      if (it == states.end())
        return terminator->emitOpError() << "writes state '" << state.getValue()
                                         << "', which no argument declares";
      if (it->second != declared)
        return terminator->emitOpError()
               << "writes state '" << state.getValue() << "' as "
               << describe(layout, mesh) << ", but it is stored as "
               << describe(readLayout(it->second, mesh), mesh);
    }
    auto role = function.getResultAttrOfType<RoleAttr>(index, roleAttrName);
    auto name = function.getResultAttrOfType<StringAttr>(index, nameAttrName);
    if (!role || role.getValue() != Role::grad || !name)
      continue;
    auto it = parameters.find(name.getValue());
    if (it != parameters.end() && it->second &&
        readLayout(it->second, mesh) != layout)
      return terminator->emitOpError()
             << "gives the gradient of '" << name.getValue() << "' as "
             << describe(layout, mesh) << ", but the parameter is stored as "
             << describe(readLayout(it->second, mesh), mesh)
             << "; reshard the gradient";
  }
  return success();
}

namespace {
struct VerifyResolvedPass
    : mlir::dshard::impl::VerifyResolvedPassBase<VerifyResolvedPass> {
  void runOnOperation() override {
    FailureOr<MeshAttr> mesh = getMeshOrEmitError(getOperation());
    if (failed(mesh))
      return signalPassFailure();
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      for (BlockArgument arg : function.getArguments())
        if (failed(verifyValue(arg, *mesh)))
          return signalPassFailure();
      WalkResult walked = function.getBody().walk([&](Operation *op) {
        bool fails = failed(verifyPathAndPart(op));
        for (Value value : op->getResults())
          fails = fails || failed(verifyValue(value, *mesh));
        if (isa<RepeatOp, IfOp, YieldOp>(op))
          fails = fails || failed(verifyHandovers(op, *mesh));
        else if (!isa<ReshardOp, func::ReturnOp>(op))
          fails = fails || failed(verifyOp(op, *mesh));
        return fails ? WalkResult::interrupt() : WalkResult::advance();
      });
      if (walked.wasInterrupted() || failed(verifyFunction(function, *mesh)))
        return signalPassFailure();
    }
  }
};
} // namespace
