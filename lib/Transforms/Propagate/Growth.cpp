//===- Growth.cpp - What grows with a padded parameter --------------------===//

#include "dshard/Transforms/Propagate/Growth.h"

using namespace mlir;
using namespace mlir::dshard;

StringRef mlir::dshard::getStateName(func::FuncOp function, unsigned argument) {
  if (auto state =
          function.getArgAttrOfType<StringAttr>(argument, stateAttrName))
    return state.getValue();
  auto weight = function.getArgAttrOfType<WeightAttr>(argument, weightAttrName);
  return weight ? weight.getName().getValue() : StringRef();
}

RankedTensorType mlir::dshard::growType(Type type, int64_t dim, int64_t size) {
  auto tensor = cast<RankedTensorType>(type);
  SmallVector<int64_t> shape(tensor.getShape());
  shape[dim] = size;
  return tensor.clone(shape);
}

Value mlir::dshard::padWithZeros(DShardBuilder &make, Value value, int64_t dim,
                                 int64_t size) {
  RankedTensorType type = DShardBuilder::typeOf(value);
  SmallVector<int64_t> low(type.getRank(), 0), high(type.getRank(), 0);
  high[dim] = size - type.getDimSize(dim);
  return make.create<PadOp>(growType(type, dim, size), value, low, high,
                            llvm::APFloat(0.0));
}

/// An operand of an update that has grown, or does so with its parameter.
static bool growsToo(Value value, int64_t dim, int64_t size) {
  if (cast<RankedTensorType>(value.getType()).getDimSize(dim) == size ||
      value.getDefiningOp<GradientOp>())
    return true;
  auto argument = dyn_cast<BlockArgument>(value);
  auto function =
      argument ? dyn_cast<func::FuncOp>(argument.getOwner()->getParentOp())
               : func::FuncOp();
  return function &&
         function.getArgAttr(argument.getArgNumber(), stateOfAttrName);
}

/// An elementwise op that can grow along `dim` to `type`, and gives zeros where
/// its grown operands are zero.
static bool keepsZeros(Operation *op, RankedTensorType type, int64_t dim) {
  if (!isa<AddOp, SubOp, MulOp, DivOp, NegOp, AbsOp, SqrtOp, SignOp, CastOp>(
          op) ||
      cast<RankedTensorType>(op->getResult(0).getType()).getRank() !=
          type.getRank())
    return false;
  llvm::SmallVector<bool> isGrown;
  for (Value operand : op->getOperands()) {
    auto own = cast<RankedTensorType>(operand.getType());
    int64_t ownDim = dim + own.getRank() - type.getRank();
    bool isBroadcast = ownDim < 0 || own.getDimSize(ownDim) == 1;
    if (!isBroadcast && own.getDimSize(ownDim) != type.getDimSize(dim))
      return false;
    isGrown.push_back(!isBroadcast);
  }
  if (isa<AddOp, SubOp>(op))
    return isGrown[0] && isGrown[1];
  return !isa<DivOp>(op) || (isGrown[0] && !isGrown[1]);
}

void mlir::dshard::growUsers(Value value, int64_t dim, int64_t size,
                             bool onlyOptimizer) {
  auto type = cast<RankedTensorType>(value.getType());
  Value cropped;
  for (OpOperand &use : llvm::make_early_inc_range(value.getUses())) {
    Operation *user = use.getOwner();
    if (cropped && user == cropped.getDefiningOp())
      continue;
    auto returnOp = dyn_cast<func::ReturnOp>(user);
    auto part = user->getAttrOfType<PartAttr>("part");
    if (onlyOptimizer && !returnOp && !isa<ReshardOp>(user) &&
        (!part || part.getValue() != Part::optimizer))
      continue;
    if (auto reshard = dyn_cast<ReshardOp>(user)) {
      if (reshard.getType() != type) {
        reshard.getResult().setType(type);
        growUsers(reshard.getResult(), dim, size);
      }
      continue;
    }
    auto reduce = dyn_cast<ReduceOp>(user);
    if (reduce && llvm::is_contained(reduce.getDims(), dim) &&
        reduce.getKind() == ReductionKind::sum)
      continue;
    auto update = dyn_cast<AdamWOp>(user);
    bool isUpdate =
        update &&
        llvm::all_of(user->getOperands().take_front(4), [&](Value operand) {
          return growsToo(operand, dim, type.getDimSize(dim));
        });
    if (isUpdate || keepsZeros(user, type, dim)) {
      for (Value result : user->getResults()) {
        auto own = cast<RankedTensorType>(result.getType());
        if (own.getRank() != type.getRank() || own.getDimSize(dim) != size)
          continue;
        result.setType(type.clone(own.getElementType()));
        growUsers(result, dim, size);
      }
      continue;
    }
    if (returnOp && cast<func::FuncOp>(returnOp->getParentOp())
                        .getResultAttr(use.getOperandNumber(), stateAttrName))
      continue;
    if (!cropped) {
      OpBuilder builder(user->getContext());
      builder.setInsertionPointAfterValue(value);
      // Nothing of the backward part waits for it.
      Operation *like = value.getDefiningOp() ? value.getDefiningOp() : user;
      DShardBuilder make(builder, like->getLoc(),
                         like->getAttrOfType<StringAttr>("path"),
                         PartAttr::get(builder.getContext(), Part::optimizer));
      cropped = make.sliceDim(value, dim, 0, size);
    }
    use.set(cropped);
  }
}
