//===- IndexRanges.cpp - What indices may be ------------------------------===//

#include "IndexRanges.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct IndexRange {
  int64_t low, high;
};
} // namespace

/// The table that a look-up reads: behind gathers of parameters and views.
static BlockArgument findParameter(Value table) {
  while (Operation *op = table.getDefiningOp()) {
    if (!isa<ReshardOp, CastOp>(op))
      return {};
    table = op->getOperand(0);
  }
  auto argument = cast<BlockArgument>(table);
  return isa<func::FuncOp>(argument.getOwner()->getParentOp())
             ? argument
             : BlockArgument();
}

/// Indices of `gather`, as the model has its table: without padding, from whose
/// end negative ones would count unless they are wrapped before.
static IndexRange getRange(func::FuncOp function, GatherOp gather,
                           bool isWrapped) {
  int64_t size = gather.getInput().getType().getDimSize(gather.getDim());
  BlockArgument table = findParameter(gather.getInput());
  auto weight = table ? function.getArgAttrOfType<WeightAttr>(
                            table.getArgNumber(), weightAttrName)
                      : WeightAttr();
  if (!weight || weight.getTransposed() ||
      weight.getType().getRank() != gather.getInput().getType().getRank())
    return {-size, size - 1};
  int64_t stored = weight.getType().getDimSize(gather.getDim());
  return {stored == size || isWrapped ? -stored : 0, stored - 1};
}

/// Narrows `range` by all look-ups with `value`, also of its rows: a
/// micro-batch.
static void findRanges(func::FuncOp function, Value value, bool isWrapped,
                       std::optional<IndexRange> &range,
                       llvm::SmallDenseSet<Value> &seen) {
  if (!seen.insert(value).second)
    return;
  for (OpOperand &use : value.getUses()) {
    Operation *op = use.getOwner();
    auto gather = dyn_cast<GatherOp>(op);
    if (gather && use.getOperandNumber() == 1) {
      IndexRange own = getRange(function, gather, isWrapped);
      if (range)
        own = {std::max(own.low, range->low), std::min(own.high, range->high)};
      range = own;
      continue;
    }
    // select(index < 0, index + size, index) counts from the end.
    auto select = dyn_cast<SelectOp>(op);
    bool wraps = select && select.getFalseValue() == value &&
                 select.getTrueValue().getDefiningOp<AddOp>();
    if (!wraps && !(gather && use.getOperandNumber() == 0) &&
        !isa<ReshapeOp, TransposeOp, CastOp, ReshardOp, SliceOp>(op))
      continue;
    auto type = cast<RankedTensorType>(op->getResult(0).getType());
    if (type.getElementType().isInteger(32) ||
        type.getElementType().isInteger(64))
      findRanges(function, op->getResult(0), isWrapped || wraps, range, seen);
  }
}

void mlir::dshard::annotateIndexRanges(func::FuncOp function) {
  for (BlockArgument argument : function.getArguments()) {
    unsigned number = argument.getArgNumber();
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!type || !isa<IntegerType>(type.getElementType()) ||
        function.getArgAttr(number, rangeAttrName) ||
        function.getArgAttr(number, stateAttrName) ||
        function.getArgAttr(number, weightAttrName))
      continue;
    std::optional<IndexRange> range;
    llvm::SmallDenseSet<Value> seen;
    findRanges(function, argument, /*isWrapped=*/false, range, seen);
    if (range)
      function.setArgAttr(number, rangeAttrName,
                          DenseI64ArrayAttr::get(function.getContext(),
                                                 {range->low, range->high}));
  }
}
