//===- Simplify.cpp - Ops in forms that calls and kernels know ------------===//

#include "Simplify.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Local/Calls.h"
#include "mlir/IR/IRMapping.h"

using namespace mlir;
using namespace mlir::dshard;

static RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

/// A reorder as a look-up of its chunks (zigzag) or a transposition (striped),
/// between views.
static void decomposeReorder(ReorderOp op) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  Value value = op.getInput();
  auto type = cast<RankedTensorType>(value.getType());
  int64_t dim = op.getDim(), parts = op.getParts(), size = type.getDimSize(dim);
  auto split = [&](int64_t major) { // dim -> [major, rest]
    SmallVector<int64_t> shape(type.getShape());
    shape[dim] = major;
    shape.insert(shape.begin() + dim + 1, size / major);
    return shape;
  };
  if (op.getLayout() == SequenceLayout::zigzag) {
    int64_t chunks = 2 * parts;
    SmallVector<int64_t> source(chunks);
    for (int64_t i = 0; i < chunks; ++i) {
      int64_t natural =
          getNaturalPosition(SequenceLayout::zigzag, parts, chunks, i);
      source[op.getInverse() ? natural : i] = op.getInverse() ? i : natural;
    }
    auto indices = RankedTensorType::get({chunks}, builder.getI64Type());
    Value table =
        ConstantOp::create(builder, op.getLoc(), indices,
                           DenseElementsAttr::get(indices, ArrayRef(source)));
    value = make.reshape(value, split(chunks));
    value = make.create<GatherOp>(value.getType(), value, table,
                                  /*offset=*/Value(), uint64_t(dim));
  } else if (op.getLayout() == SequenceLayout::striped) {
    // Position i = inside * parts + part.
    value = make.reshape(value, split(op.getInverse() ? parts : size / parts));
    SmallVector<int64_t> exchange(
        llvm::to_vector(llvm::seq<int64_t>(0, type.getRank() + 1)));
    std::swap(exchange[dim], exchange[dim + 1]);
    value = make.transpose(value, exchange);
  }
  op.getResult().replaceAllUsesWith(make.reshape(value, type.getShape()));
  op->erase();
}

/// Where the backward needs an attention's result that the forward transposes,
/// the call writes the transposed one only, and the gradient reads that through
/// strides: one tensor to keep instead of two.
static void shareTransposed(AttentionOp op) {
  TransposeOp transpose;
  SmallVector<OpOperand *> others;
  for (OpOperand &use : op.getResult().getUses()) {
    auto candidate = dyn_cast<TransposeOp>(use.getOwner());
    if (candidate && !transpose)
      transpose = candidate;
    else if (isa<AttentionGradOp>(use.getOwner()))
      others.push_back(&use);
    else
      return;
  }
  if (!transpose || others.empty() || transpose->getBlock() != op->getBlock() ||
      transpose.getPermutation()[3] != 3)
    return;
  OpBuilder builder(op->getContext());
  builder.setInsertionPointAfter(transpose);
  SmallVector<int64_t> inverse(4);
  for (auto [to, from] : llvm::enumerate(transpose.getPermutation()))
    inverse[from] = to;
  Value back = DShardBuilder(builder, transpose)
                   .transpose(transpose.getResult(), inverse);
  for (OpOperand *use : others)
    use->set(back);
}

LogicalResult mlir::dshard::decompose(Operation *op) {
  OpBuilder builder(op);
  SmallVector<Value> results;
  auto interface = dyn_cast<DecomposeInterface>(op);
  if (!interface ||
      failed(interface.decompose(builder, op->getOperands(), results)))
    return op->emitError("has no library call for its types and no "
                         "decomposition");
  op->replaceAllUsesWith(results);
  op->erase();
  return success();
}

/// Elements from which a fold to one number is worth two kernels.
constexpr int64_t largeFold = 1 << 16;
constexpr int64_t mostPieces = 64;

/// `value` in another shape of as many elements; what computes it element by
/// element moves to the operands, so that no index needs a division.
static Value reshapeThrough(DShardBuilder &make, OpBuilder &builder,
                            Value value, ArrayRef<int64_t> shape) {
  Operation *op = value.getDefiningOp();
  auto isNumber = [](Value operand) {
    return typeOf(operand).getNumElements() == 1;
  };
  if (!op || !op->hasTrait<Pointwise>() || isa<GradientOp>(op) ||
      !value.hasOneUse() ||
      !llvm::all_of(op->getOperands(), [&](Value operand) {
        return typeOf(operand).getShape() == typeOf(value).getShape() ||
               isNumber(operand);
      }))
    return make.reshape(value, shape);
  SmallVector<Value> operands;
  for (Value operand : op->getOperands())
    operands.push_back(
        !operands.empty() && operand == op->getOperand(0) ? operands[0]
        : isNumber(operand) ? make.reshape(operand, {})
                            : reshapeThrough(make, builder, operand, shape));
  Operation *moved = builder.clone(*op);
  moved->setOperands(operands);
  moved->getResult(0).setType(typeOf(value).clone(shape));
  return moved->getResult(0);
}

/// A fold of everything to one number, in two steps whose pieces only depend on
/// the shape: threads share the first, and the order is always the same.
static void splitFold(ReduceOp op) {
  RankedTensorType type = typeOf(op.getInput());
  int64_t count = type.getNumElements(), pieces = 1;
  if (typeOf(op.getResult()).getNumElements() != 1 || count < largeFold ||
      op.getKind() == ReductionKind::mean)
    return;
  for (int64_t n = 2; n <= mostPieces; ++n)
    if (count % n == 0)
      pieces = n;
  if (pieces == 1)
    return;
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  auto fold = [&](Value value, int64_t dim, ArrayRef<int64_t> shape) -> Value {
    return make.create<ReduceOp>(type.clone(shape), value, op.getKindAttr(),
                                 builder.getDenseI64ArrayAttr({dim}),
                                 UnitAttr());
  };
  Value value =
      reshapeThrough(make, builder, op.getInput(), {pieces, count / pieces});
  value = fold(fold(value, 1, {pieces}), 0, {});
  op.getResult().replaceAllUsesWith(
      make.reshape(value, typeOf(op.getResult()).getShape()));
  op->erase();
}

LogicalResult mlir::dshard::simplifyForKernels(Block &block) {
  // Decompositions may give what needs another one.
  for (bool changed = true; changed;) {
    changed = false;
    for (Operation &op : llvm::make_early_inc_range(block)) {
      if (auto reorder = dyn_cast<ReorderOp>(op)) {
        decomposeReorder(reorder);
      } else if (auto gradient = dyn_cast<GradientOp>(op)) {
        gradient.getResult().replaceAllUsesWith(gradient.getInput());
        gradient->erase();
      } else if (auto attention = dyn_cast<AttentionOp>(op)) {
        if (succeeded(matchAttention(attention))) {
          shareTransposed(attention);
          continue;
        }
        if (failed(decompose(attention)))
          return failure();
      } else if (auto grad = dyn_cast<AttentionGradOp>(op)) {
        if (succeeded(matchAttentionGrad(grad)))
          continue;
        if (failed(decompose(grad)))
          return failure();
      } else if (isa<WeightGradOp, CrossEntropyOp>(op)) {
        if (failed(decompose(&op)))
          return failure();
      } else {
        continue;
      }
      changed = true;
    }
  }
  for (auto op : llvm::make_early_inc_range(block.getOps<ReduceOp>()))
    splitFold(op);
  return success();
}

void mlir::dshard::sinkConstants(Block &block) {
  for (Operation &op : block) {
    if (!isa<RepeatOp, IfOp>(op))
      continue;
    for (Region &region : op.getRegions()) {
      IRMapping mapping;
      region.walk([&](Operation *inner) {
        for (OpOperand &operand : inner->getOpOperands()) {
          auto constant = operand.get().getDefiningOp<ConstantOp>();
          if (!constant || region.isAncestor(constant->getParentRegion()))
            continue;
          if (!mapping.contains(constant.getResult())) {
            OpBuilder builder = OpBuilder::atBlockBegin(&region.front());
            builder.clone(*constant, mapping);
          }
          operand.set(mapping.lookup(constant.getResult()));
        }
      });
    }
  }
}
