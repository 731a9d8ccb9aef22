//===- Schedule.cpp - Order a local program, least memory first -----------===//

#include "dshard/Transforms/Local/Passes.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_SCHEDULEPASS
#include "dshard/Transforms/Local/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// Only tensors of known size count; the gates refuse all others.
static int64_t bytesOf(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || !type.hasStaticShape() || !type.getElementType().isIntOrFloat())
    return 0;
  return type.getNumElements() * getElementBytes(type.getElementType());
}

namespace {
/// Greedy list scheduling: of the ops that are ready, the one that leaves the
/// least memory live; the first in program order among equals. Collectives and
/// whatever has effects keep their order, which is the same on all ranks.
class Scheduler {
public:
  explicit Scheduler(Block &block) : block(block) {}
  void run();

private:
  using Reads = SmallVector<std::pair<Value, int>, 4>;
  int64_t growth(Operation *op) const;
  /// Roots that `op` or its region reads, with how often.
  static Reads readsOf(Operation *op);
  /// Values of an aliasing chain (reshapes) share the bytes of their root.
  static Value rootOf(Value value) {
    while (auto reshape = value.getDefiningOp<ReshapeOp>())
      value = reshape.getInput();
    return value;
  }

  void orderStates();

  Block &block;
  DenseMap<Operation *, SmallVector<Operation *>> after; // of orderStates
  DenseMap<Operation *, Reads> reads; // of each op: asked for at every step
  DenseMap<Operation *, int> position;
  DenseMap<Operation *, int> waiting; // producers not yet placed
  DenseMap<Value, int> remaining;     // readers of a root not yet placed
};
} // namespace

Scheduler::Reads Scheduler::readsOf(Operation *op) {
  llvm::SmallMapVector<Value, int, 4> reads;
  op->walk([&](Operation *inner) {
    for (Value operand : inner->getOperands())
      if (inner == op ||
          !op->isAncestor(operand.getParentBlock()->getParentOp()))
        ++reads[rootOf(operand)];
  });
  return Reads(reads.begin(), reads.end());
}

int64_t Scheduler::growth(Operation *op) const {
  int64_t bytes = 0;
  if (!isa<ReshapeOp>(op))
    for (Value result : op->getResults())
      bytes += bytesOf(result);
  for (auto [root, count] : reads.find(op)->second) {
    auto it = remaining.find(root);
    if (root.getDefiningOp() && it != remaining.end() && it->second == count)
      bytes -= bytesOf(root);
  }
  return bytes;
}

/// The new value of a state stays after the reads of the old one that the
/// program has before it, so that it can be written over it.
void Scheduler::orderStates() {
  auto function = dyn_cast<func::FuncOp>(block.getParentOp());
  if (!function)
    return;
  DenseMap<Attribute, SmallVector<BlockArgument, 1>> arguments;
  for (BlockArgument argument : block.getArguments())
    if (Attribute name =
            function.getArgAttr(argument.getArgNumber(), stateAttrName))
      arguments[name].push_back(argument);
  for (OpOperand &result : block.getTerminator()->getOpOperands()) {
    auto name = function.getResultAttrOfType<StringAttr>(
        result.getOperandNumber(), stateAttrName);
    Operation *producer = result.get().getDefiningOp();
    if (!name || !producer)
      continue;
    for (BlockArgument argument : arguments.lookup(name))
      for (Operation *user : argument.getUsers()) {
        Operation *reader = block.findAncestorOpInBlock(*user);
        if (position.count(reader) && position.count(producer) &&
            position[reader] < position[producer])
          after[producer].push_back(reader);
      }
  }
}

void Scheduler::run() {
  SmallVector<Operation *> ops;
  for (Operation &op : block.without_terminator()) {
    position[&op] = ops.size();
    ops.push_back(&op);
  }
  orderStates();
  auto keepsOrder = [](Operation *op) {
    return isa<AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp,
               BroadcastOp, PermuteOp, SendOp, RecvOp, RepeatOp, IfOp>(op);
  };
  DenseMap<Operation *, SmallVector<Operation *>> successors;
  Operation *previous = nullptr;
  for (Operation *op : ops) {
    llvm::SmallSetVector<Operation *, 8> producers;
    op->walk([&](Operation *inner) {
      for (Value operand : inner->getOperands()) {
        Operation *producer = operand.getDefiningOp();
        if (producer && position.count(producer) && producer != op)
          producers.insert(producer);
      }
    });
    for (Operation *reader : after.lookup(op))
      producers.insert(reader);
    if (keepsOrder(op)) {
      if (previous)
        producers.insert(previous);
      previous = op;
    }
    waiting[op] = producers.size();
    reads[op] = readsOf(op);
    for (Operation *producer : producers)
      successors[producer].push_back(op);
    if (!isa<ReshapeOp>(op))
      for (auto [root, count] : reads[op])
        remaining[root] += count;
  }
  for (Value operand : block.getTerminator()->getOperands())
    ++remaining[rootOf(operand)]; // never freed
  SmallVector<Operation *> ready;
  for (Operation *op : ops)
    if (!waiting[op])
      ready.push_back(op);
  Operation *terminator = block.getTerminator();
  while (!ready.empty()) {
    auto best = ready.begin();
    auto rank = [&](Operation *op) {
      // What frees memory goes at once; what takes some, in program order.
      int64_t bytes = growth(op);
      return std::pair<int64_t, int>(bytes < 0 ? bytes : 0, position[op]);
    };
    for (auto it = ready.begin(); it != ready.end(); ++it)
      if (rank(*it) < rank(*best))
        best = it;
    Operation *op = *best;
    ready.erase(best);
    op->moveBefore(terminator);
    if (!isa<ReshapeOp>(op))
      for (auto [root, count] : reads[op])
        remaining[root] -= count;
    for (Operation *successor : successors[op])
      if (--waiting[successor] == 0)
        ready.push_back(successor);
  }
}

namespace {
struct Schedule : mlir::dshard::impl::SchedulePassBase<Schedule> {
  void runOnOperation() override {
    getOperation().walk([](Block *block) {
      if (!isa<FusedOp>(block->getParentOp()) && !block->empty() &&
          block->back().hasTrait<OpTrait::IsTerminator>())
        Scheduler(*block).run();
    });
  }
};
} // namespace
