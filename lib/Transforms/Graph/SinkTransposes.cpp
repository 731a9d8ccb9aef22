//===- SinkTransposes.cpp - Transposes move behind elementwise ops --------===//

#include "Match.h"
#include "View.h"
#include "dshard/Transforms/Graph/Passes.h"
#include "llvm/ADT/STLExtras.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_SINKTRANSPOSESPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// The permutation of all operands that are as large as the result; empty if
/// they have none in common, or another operand has two dims or more.
static SmallVector<int64_t> detectPermutation(Operation *op) {
  SmallVector<int64_t> common;
  if (!op->hasTrait<Pointwise>() || op->getNumResults() != 1 ||
      op->hasAttr(shardingsAttrName))
    return common;
  for (Value operand : op->getOperands()) {
    auto transpose = operand.getDefiningOp<TransposeOp>();
    if (transpose && !transpose->hasAttr(shardingsAttrName) &&
        shapeOf(operand) == shapeOf(op->getResult(0))) {
      if (!common.empty() && transpose.getPermutation() != ArrayRef(common))
        return {};
      common.assign(transpose.getPermutation().begin(),
                    transpose.getPermutation().end());
    } else if (llvm::count_if(shapeOf(operand),
                              [](int64_t size) { return size != 1; }) > 1) {
      return {};
    }
  }
  return common;
}

static void applyPermutation(Operation *op, ArrayRef<int64_t> permutation) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  Value result = op->getResult(0);
  size_t rank = permutation.size();
  SmallVector<int64_t> shape(rank);
  for (auto [to, from] : llvm::enumerate(permutation))
    shape[from] = shapeOf(result)[to];
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
    if (shapeOf(operand) == shapeOf(result) &&
        operand.getDefiningOp<TransposeOp>()) {
      operands.push_back(operand.getDefiningOp<TransposeOp>().getInput());
      continue;
    }
    // At most one dim: it moves by a reshape.
    SmallVector<int64_t> moved(rank, 1);
    size_t lead = rank - shapeOf(operand).size();
    for (auto [to, from] : llvm::enumerate(permutation))
      if (to >= lead)
        moved[from] = shapeOf(operand)[to - lead];
    operands.push_back(shapeOf(operand).empty() ? operand
                                                : make.reshape(operand, moved));
  }
  Operation *before = builder.clone(*op);
  before->setOperands(operands);
  before->getResult(0).setType(typeOf(result).clone(shape));
  result.replaceAllUsesWith(make.transpose(before->getResult(0), permutation));
}

/// Reshapes and transposes that together move nothing are one reshape.
static void applyNothingMoved(TransposeOp op) {
  Value result = op.getResult();
  View whole = View::dense(shapeOf(result)).normalized();
  Value source =
      findSource(result, nullptr, [&](Value source, const View &view) {
        return typeOf(source).getNumElements() ==
                   typeOf(result).getNumElements() &&
               view.normalized() == whole;
      });
  if (!source || source == result)
    return;
  OpBuilder builder(op);
  builder.setInsertionPointAfter(op);
  result.replaceAllUsesWith(
      DShardBuilder(builder, op).reshape(source, shapeOf(result)));
}

namespace {
struct SinkTransposesPass
    : mlir::dshard::impl::SinkTransposesPassBase<SinkTransposesPass> {
  void runOnOperation() override {
    SmallVector<Operation *> ops;
    getOperation().walk([&](Operation *op) { ops.push_back(op); });
    // In order: a transpose moves on from op to op.
    for (Operation *op : ops)
      if (SmallVector<int64_t> permutation = detectPermutation(op);
          !permutation.empty())
        applyPermutation(op, permutation);
    SmallVector<TransposeOp> transposes;
    getOperation().walk([&](TransposeOp op) { transposes.push_back(op); });
    for (TransposeOp op : transposes)
      if (!op->hasAttr(shardingsAttrName))
        applyNothingMoved(op);
    eraseDeadOps(getOperation());
  }
};
} // namespace
