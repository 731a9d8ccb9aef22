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

void mlir::dshard::growUsers(Value value, int64_t dim, int64_t size) {
  auto type = cast<RankedTensorType>(value.getType());
  Value cropped;
  for (OpOperand &use : llvm::make_early_inc_range(value.getUses())) {
    Operation *user = use.getOwner();
    if (cropped && user == cropped.getDefiningOp())
      continue;
    auto returnOp = dyn_cast<func::ReturnOp>(user);
    auto part = user->getAttrOfType<PartAttr>("part");
    if (!returnOp && !isa<ReshardOp>(user) &&
        (!part || part.getValue() != Part::optimizer))
      continue;
    if (auto reshard = dyn_cast<ReshardOp>(user)) {
      if (reshard.getType() != type) {
        reshard.getResult().setType(type);
        growUsers(reshard.getResult(), dim, size);
      }
      continue;
    }
    auto fits = [&](Value other) {
      auto own = cast<RankedTensorType>(other.getType());
      int64_t ownDim = dim + own.getRank() - type.getRank();
      return ownDim < 0 || own.getDimSize(ownDim) == 1 ||
             own.getDimSize(ownDim) == type.getDimSize(dim);
    };
    auto reduce = dyn_cast<ReduceOp>(user);
    if (reduce && llvm::is_contained(reduce.getDims(), dim) &&
        reduce.getKind() == ReductionKind::sum)
      continue;
    if (isa<AdamWOp>(user) ||
        (user->hasTrait<Pointwise>() &&
         llvm::all_of(user->getOperands(), fits) &&
         cast<RankedTensorType>(user->getResult(0).getType()).getRank() ==
             type.getRank())) {
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
