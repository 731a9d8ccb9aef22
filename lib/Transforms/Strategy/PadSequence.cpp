//===- PadSequence.cpp - Sequences that tp does not divide ----------------===//

#include "PadSequence.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct Padder {
  int64_t dim, before, after;
  DenseMap<Value, Value> padded;

  /// `operand` of an op whose result has `rank` dims: the same if it has no
  /// such dim.
  Value grow(Operation *user, Value operand, int64_t rank);
  bool follow(Operation *op);
};
} // namespace

static RankedTensorType resize(Value value, int64_t dim, int64_t size) {
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<int64_t> shape(type.getShape());
  shape[dim] = size;
  return type.clone(shape);
}

Value Padder::grow(Operation *user, Value operand, int64_t rank) {
  if (Value known = padded.lookup(operand))
    return known;
  auto type = cast<RankedTensorType>(operand.getType());
  int64_t own = dim - (rank - type.getRank());
  if (own < 0 || type.getDimSize(own) != before)
    return operand;
  OpBuilder builder(user);
  DShardBuilder make(builder, user);
  SmallVector<int64_t> low(type.getRank(), 0), high(type.getRank(), 0);
  high[own] = after - before;
  Value result = make.create<PadOp>(resize(operand, own, after), operand, low,
                                    high, llvm::APFloat(0.0));
  padded[operand] = result;
  return result;
}

/// Rows of zeros stay finite in these, so that no gradient of theirs is lost.
bool Padder::follow(Operation *op) {
  if (!isa<AddOp, SubOp, MulOp, NegOp, CastOp, LayerNormOp, RmsNormOp>(op) ||
      op->getNumResults() != 1 ||
      llvm::none_of(op->getOperands(),
                    [&](Value value) { return padded.contains(value); }))
    return false;
  Value result = op->getResult(0);
  auto type = cast<RankedTensorType>(result.getType());
  if (type.getRank() <= dim || type.getDimSize(dim) != before)
    return false;
  SmallVector<Value> operands;
  for (Value operand : op->getOperands())
    operands.push_back(grow(op, operand, type.getRank()));
  OpBuilder builder(op);
  Operation *grown = builder.clone(*op);
  grown->setOperands(operands);
  grown->getResult(0).setType(resize(result, dim, after));
  padded[result] = grown->getResult(0);
  return true;
}

SmallVector<Value> mlir::dshard::padSequence(ArrayRef<Value> values,
                                             int64_t dim, int64_t size) {
  Value first = values.front();
  Padder padder;
  padder.dim = dim;
  padder.before = cast<RankedTensorType>(first.getType()).getDimSize(dim);
  padder.after = size;
  SmallVector<Value> order(values), found;
  for (Value value : values) {
    Operation *op = value.getDefiningOp();
    // Behind the op, where it stands for the value.
    Operation *next = op->getNextNode();
    OpBuilder builder(next);
    DShardBuilder make(builder, op);
    auto type = cast<RankedTensorType>(value.getType());
    SmallVector<int64_t> low(type.getRank(), 0), high(type.getRank(), 0);
    high[dim] = size - padder.before;
    Value grown = make.create<PadOp>(resize(value, dim, size), value, low, high,
                                     llvm::APFloat(0.0));
    padder.padded[value] = grown;
    found.push_back(grown);
  }
  SmallVector<Operation *> ops;
  for (Operation &op : *first.getParentBlock())
    ops.push_back(&op);
  SmallVector<Operation *> replaced;
  for (Operation *op : ops) {
    auto part = op->getAttrOfType<PartAttr>("part");
    if ((!part || part.getValue() == Part::forward) && padder.follow(op)) {
      order.push_back(op->getResult(0));
      replaced.push_back(op);
    }
  }
  // Everything else reads the rows that there were.
  for (Value value : order) {
    Value grown = padder.padded[value];
    SmallVector<OpOperand *> uses;
    for (OpOperand &use : value.getUses())
      if (use.getOwner() != grown.getDefiningOp() &&
          !llvm::is_contained(replaced, use.getOwner()))
        uses.push_back(&use);
    if (uses.empty())
      continue;
    OpBuilder builder(value.getContext());
    builder.setInsertionPointAfterValue(grown);
    DShardBuilder make(builder, grown.getDefiningOp());
    Value cropped = make.sliceDim(grown, dim, 0, padder.before);
    for (OpOperand *use : uses)
      use->set(cropped);
  }
  for (Operation *op : llvm::reverse(replaced))
    op->erase();
  return found;
}
