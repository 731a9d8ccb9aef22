//===- Parameters.cpp - The parameters behind a value ---------------------===//

#include "Parameters.h"

using namespace mlir;
using namespace mlir::dshard;

static bool isParameter(BlockArgument argument) {
  auto function = dyn_cast<func::FuncOp>(argument.getOwner()->getParentOp());
  auto role = function ? function.getArgAttrOfType<RoleAttr>(
                             argument.getArgNumber(), roleAttrName)
                       : RoleAttr();
  return role && role.getValue() == Role::param;
}

bool mlir::dshard::isWeightOp(Operation *op) {
  return isa<TransposeOp, CastOp, ReshapeOp, ConcatOp, SliceOp, SubOp, MulOp,
             BitAndOp, ShiftRightOp>(op);
}

/// `use`: of the value, or null. `dim` < 0: the dim is none of the value's own
/// from there on. False if something else than parameters and constants is met.
static bool trace(Value value, OpOperand *use, int64_t dim,
                  WeightTrace &found) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    if (!isParameter(argument))
      return false;
    if (dim >= 0 && llvm::none_of(found.parameters, [&](auto &known) {
          return known.argument == argument;
        }))
      found.parameters.push_back({argument, dim});
    return true;
  }
  Operation *op = value.getDefiningOp();
  if (auto constant = dyn_cast<ConstantOp>(op)) {
    auto dense = dyn_cast<DenseElementsAttr>(constant.getValue());
    if (dim >= 0 && !(dense && dense.isSplat())) {
      if (use)
        found.constants.push_back({use, dim});
      else
        found.isComplete = false;
    }
    return true;
  }
  if (!isWeightOp(op))
    return false;
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return false;
  int64_t factor = -1;
  if (dim >= 0) {
    ArrayRef<int64_t> own = rule->results[0][dim];
    if (!own.empty() && rule->factors[own.front()].kind == FactorKind::parallel)
      factor = own.front();
    else
      found.isComplete = false;
  }
  for (auto [operand, tensor] :
       llvm::zip(op->getOpOperands(), rule->operands)) {
    int64_t next = -1;
    for (auto [i, factors] : llvm::enumerate(tensor)) {
      if (factor < 0 || !llvm::is_contained(factors, factor))
        continue;
      if (factors.front() == factor)
        next = i;
      else
        found.isComplete = false;
    }
    if (!trace(operand.get(), &operand, next, found))
      return false;
  }
  return true;
}

SmallVector<ParameterDim> mlir::dshard::findParameterDims(Value value,
                                                          int64_t dim) {
  WeightTrace found;
  if (!trace(value, nullptr, dim, found))
    return {};
  return std::move(found.parameters);
}

std::optional<WeightTrace> mlir::dshard::traceWeight(OpOperand &use,
                                                     int64_t dim) {
  WeightTrace found;
  if (!trace(use.get(), &use, dim, found))
    return std::nullopt;
  return found;
}
