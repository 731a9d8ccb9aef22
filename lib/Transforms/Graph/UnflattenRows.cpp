//===- UnflattenRows.cpp - Compute on [batch, seq, h], not [rows, h] ------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_UNFLATTENROWSPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// The leading dims that a reshape of more than two dims to [rows, h] merges
/// into rows; empty if `value` is no such reshape.
static SmallVector<int64_t> mergedDims(Value value) {
  auto reshape = value.getDefiningOp<ReshapeOp>();
  if (!reshape || typeOf(value).getRank() != 2)
    return {};
  ArrayRef<int64_t> from = shapeOf(reshape.getInput());
  int64_t rows = 1;
  size_t lead = 0;
  while (lead < from.size() && rows * from[lead] <= shapeOf(value)[0])
    rows *= from[lead++];
  // Dims of size 1 that follow belong to neither.
  if (lead < 2 || rows != shapeOf(value)[0] || rows == 0)
    return {};
  while (lead > 2 && from[lead - 1] == 1)
    --lead;
  return SmallVector<int64_t>(from.take_front(lead));
}

/// The leading dims that the rows of the result are made of; empty if the op
/// does not work on them row by row.
static SmallVector<int64_t> detectRows(Operation *op) {
  SmallVector<int64_t> rows;
  if (op->getNumResults() != 1)
    return rows;
  auto take = [&](Value operand) {
    if (rows.empty())
      rows = mergedDims(operand);
  };
  if (auto product = dyn_cast<MatMulOp>(op)) {
    if (!product.getTransposeLhs() && typeOf(product.getRhs()).getRank() == 2)
      take(product.getLhs());
  } else if (isa<LayerNormOp, RmsNormOp>(op)) {
    take(op->getOperand(0));
  } else if (op->hasTrait<Pointwise>() &&
             typeOf(op->getResult(0)).getRank() == 2) {
    for (Value operand : op->getOperands())
      if (shapeOf(operand).size() == 2 &&
          shapeOf(operand)[0] == shapeOf(op->getResult(0))[0])
        take(operand);
  }
  return rows;
}

static void applyRows(Operation *op, ArrayRef<int64_t> rows) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  Value result = op->getResult(0);
  int64_t count = shapeOf(result)[0];
  auto withRows = [&](int64_t last) {
    SmallVector<int64_t> shape(rows);
    shape.push_back(last);
    return shape;
  };
  SmallVector<Value> operands(op->getOperands());
  bool isPointwise = op->hasTrait<Pointwise>();
  for (auto [i, operand] : llvm::enumerate(operands)) {
    if ((!isPointwise && i > 0) || typeOf(operand).getRank() != 2)
      continue;
    int64_t last = shapeOf(operand)[1];
    if (mergedDims(operand) == rows)
      operand =
          make.reshape(operand.getDefiningOp()->getOperand(0), withRows(last));
    else if (shapeOf(operand)[0] == count)
      operand = make.reshape(operand, withRows(last));
    else // one row for all
      operand = make.reshape(operand, {last});
  }
  Operation *wide = builder.clone(*op);
  wide->setOperands(operands);
  wide->getResult(0).setType(
      typeOf(result).clone(withRows(shapeOf(result)[1])));
  result.replaceAllUsesWith(make.reshape(wide->getResult(0), shapeOf(result)));
}

/// reshape(norm(reshape(x))) that keeps the last dim: the norm works on the
/// final shape as well, and its input may need no merged dims (Qwen 3 by the
/// builder of onnxruntime-genai: [B,S,H*D] -> [B,S*H,D] -> [B,S,H,D]).
static void applyNormLast(ReshapeOp reshape) {
  Operation *norm = reshape.getInput().getDefiningOp();
  if (!isa_and_nonnull<LayerNormOp, RmsNormOp>(norm) ||
      !norm->getResult(0).hasOneUse() ||
      !norm->getOperand(0).getDefiningOp<ReshapeOp>())
    return;
  ArrayRef<int64_t> shape = shapeOf(reshape);
  if (shape.empty() || shape.back() != shapeOf(norm->getResult(0)).back())
    return;
  OpBuilder builder(norm);
  DShardBuilder make(builder, norm);
  Value x = make.reshape(norm->getOperand(0), shape);
  Operation *moved = builder.clone(*norm);
  moved->setOperand(0, x);
  moved->getResult(0).setType(typeOf(x));
  reshape.getResult().replaceAllUsesWith(moved->getResult(0));
}

namespace {
struct UnflattenRowsPass
    : mlir::dshard::impl::UnflattenRowsPassBase<UnflattenRowsPass> {
  void runOnOperation() override {
    SmallVector<Operation *> ops;
    getOperation().walk([&](Operation *op) { ops.push_back(op); });
    // In order: the reshape moves on from op to op, until one undoes it.
    for (Operation *op : ops)
      if (SmallVector<int64_t> rows = detectRows(op); !rows.empty())
        applyRows(op, rows);
    SmallVector<ReshapeOp> reshapes;
    getOperation().walk([&](ReshapeOp op) { reshapes.push_back(op); });
    for (ReshapeOp op : reshapes)
      applyNormLast(op);
    eraseDeadOps(getOperation());
  }
};
} // namespace
