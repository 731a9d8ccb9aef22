//===- Autodiff.cpp - Reverse-mode differentiation ------------------------===//

#include "dshard/Transforms/Train/Autodiff.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/DenseSet.h"

using namespace mlir;
using namespace mlir::dshard;

static bool isFloat(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && isa<FloatType>(type.getElementType());
}

/// The ops through which a change of `wrt` reaches other values, in program
/// order. `active` gets all values that depend on `wrt` smoothly.
static SmallVector<Operation *>
findActiveOps(Block &forward, ArrayRef<Value> wrt, DenseSet<Value> &active) {
  for (Value value : wrt)
    if (isFloat(value))
      active.insert(value);
  SmallVector<Operation *> ops;
  for (Operation &op : forward) {
    if (op.hasTrait<OpTrait::IsTerminator>())
      continue;
    bool depends = false;
    op.walk([&](Operation *inner) {
      for (Value operand : inner->getOperands())
        depends |= active.contains(operand);
    });
    if (!depends)
      continue;
    bool isActive = false;
    for (Value result : op.getResults())
      if (isFloat(result)) {
        active.insert(result);
        isActive = true;
      }
    if (isActive)
      ops.push_back(&op);
  }
  return ops;
}

namespace {
struct Differentiator {
  explicit Differentiator(OpBuilder &builder) : builder(builder) {}

  OpBuilder &builder;
  DenseSet<Value> active;
  DenseMap<Value, Value> gradients;

  void add(Value value, Value gradient, Operation *like) {
    Value &sum = gradients[value];
    if (!sum) {
      sum = gradient;
      return;
    }
    DShardBuilder make(builder, like);
    make.part = PartAttr::get(builder.getContext(), Part::backward);
    sum = make.binary<AddOp>(sum, gradient);
  }

  LogicalResult visit(Operation *op) {
    SmallVector<Value> resultGradients;
    for (Value result : op->getResults())
      resultGradients.push_back(gradients.lookup(result));
    if (llvm::none_of(resultGradients, [](Value value) { return !!value; }))
      return success();
    auto differentiable = dyn_cast<DifferentiableInterface>(op);
    if (!differentiable)
      return op->emitOpError("has no gradient; training through it is refused");
    SmallVector<Value> operandGradients;
    if (failed(differentiable.buildVjp(builder, resultGradients,
                                       operandGradients)))
      return failure();
    for (auto [operand, gradient] :
         llvm::zip_equal(op->getOperands(), operandGradients))
      if (gradient && active.contains(operand))
        add(operand, gradient, op);
    return success();
  }
};
} // namespace

LogicalResult mlir::dshard::buildBackward(OpBuilder &builder, Block &forward,
                                          ArrayRef<Value> outputs,
                                          ArrayRef<Value> outputGradients,
                                          ArrayRef<Value> wrt,
                                          SmallVectorImpl<Value> &gradients) {
  Differentiator differentiator(builder);
  SmallVector<Operation *> ops =
      findActiveOps(forward, wrt, differentiator.active);
  Block *block = builder.getInsertionBlock();
  Block::iterator end = builder.getInsertionPoint();
  Operation *before = end == block->begin() ? nullptr : &*std::prev(end);

  for (auto [output, gradient] : llvm::zip_equal(outputs, outputGradients)) {
    if (!gradient || !differentiator.active.contains(output))
      continue;
    Operation *like = output.getDefiningOp();
    differentiator.add(output, gradient, like ? like : block->getParentOp());
  }
  for (Operation *op : llvm::reverse(ops))
    if (failed(differentiator.visit(op)))
      return failure();
  for (Value value : wrt)
    gradients.push_back(differentiator.gradients.lookup(value));

  // A gradient that nobody asked for (of a mask, a table) is dropped here: ops
  // build those of all their operands.
  DenseSet<Value> wanted(gradients.begin(), gradients.end());
  Block::iterator begin =
      before ? std::next(before->getIterator()) : block->begin();
  while (end != begin) {
    Operation &op = *--end;
    if (!isOpTriviallyDead(&op) || llvm::any_of(op.getResults(), [&](Value v) {
          return wanted.contains(v);
        }))
      continue;
    bool isFirst = &op == &*begin;
    end = std::next(end);
    if (isFirst)
      begin = end;
    op.erase();
  }
  return success();
}
