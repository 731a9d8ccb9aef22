//===- FoldCollectives.cpp - Drop, share and merge collectives ------------===//

#include "dshard/Transforms/Local/Passes.h"
#include "llvm/ADT/StringExtras.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_FOLDCOLLECTIVESPASS
#include "dshard/Transforms/Local/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static bool isCollective(Operation *op) {
  return isa<AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp, BroadcastOp,
             PermuteOp, LocalSliceOp>(op);
}

/// Attributes that say why, not what.
static bool isExplanation(StringAttr name) {
  return name == "why" || name == "path" || name == "part";
}

/// What the op does is the same; its part too (a gather of the backward part is
/// there to free the memory in between).
static bool doesTheSame(Operation *lhs, Operation *rhs) {
  if (lhs->getName() != rhs->getName() ||
      lhs->getOperands() != rhs->getOperands() ||
      lhs->getAttr("part") != rhs->getAttr("part") ||
      lhs->getResultTypes() != rhs->getResultTypes())
    return false;
  DictionaryAttr mine = lhs->getAttrDictionary();
  DictionaryAttr other = rhs->getAttrDictionary();
  return llvm::all_of(mine,
                      [&](NamedAttribute attr) {
                        return isExplanation(attr.getName()) ||
                               other.get(attr.getName()) == attr.getValue();
                      }) &&
         mine.size() == other.size();
}

/// The common part of two module paths: "a.b.c", "a.b.d" -> "a.b".
static StringAttr joinPaths(StringAttr lhs, StringAttr rhs) {
  if (!lhs || lhs == rhs)
    return lhs;
  llvm::SmallVector<llvm::StringRef> left, right, common;
  lhs.getValue().split(left, '.');
  (rhs ? rhs.getValue() : llvm::StringRef()).split(right, '.');
  for (auto [a, b] : llvm::zip(left, right)) {
    if (a != b)
      break;
    common.push_back(a);
  }
  return StringAttr::get(lhs.getContext(), llvm::join(common, "."));
}

/// `kept` now also does what `dropped` did; it keeps both reasons.
static void joinReasons(Operation *kept, Operation *dropped) {
  auto mine = kept->getAttrOfType<StringAttr>("why");
  auto other = dropped->getAttrOfType<StringAttr>("why");
  if (mine && other && !mine.getValue().contains(other.getValue()))
    kept->setAttr("why",
                  StringAttr::get(kept->getContext(),
                                  mine.getValue() + "; " + other.getValue()));
  kept->setAttr("path", joinPaths(kept->getAttrOfType<StringAttr>("path"),
                                  dropped->getAttrOfType<StringAttr>("path")));
}

/// An earlier collective of the same block that does the same.
static Operation *detectEqual(Operation *op) {
  for (Operation *other : op->getOperand(0).getUsers())
    if (other != op && other->getBlock() == op->getBlock() &&
        other->isBeforeInBlock(op) && doesTheSame(other, op))
      return other;
  return nullptr;
}

static bool shareEqual(Operation *op) {
  Operation *other = detectEqual(op);
  if (!other)
    return false;
  joinReasons(other, op);
  op->replaceAllUsesWith(other->getResults());
  op->erase();
  return true;
}

/// local_slice(all_reduce(x)) -> reduce_scatter(x), if nothing else needs the
/// sum.
static bool foldSliceOfReduce(LocalSliceOp slice) {
  auto reduce = slice.getInput().getDefiningOp<AllReduceOp>();
  if (!reduce || reduce.getNumResults() != 1 || !slice.getInput().hasOneUse() ||
      reduce->getBlock() != slice->getBlock() ||
      reduce.getAxes() != slice.getAxes())
    return false;
  OpBuilder builder(slice);
  int64_t dim = slice.getDim();
  auto scatter = ReduceScatterOp::create(
      builder, reduce.getLoc(), TypeRange(slice.getType()), reduce.getInputs(),
      reduce.getKindAttr(), builder.getDenseI64ArrayAttr({dim}),
      slice.getAxesAttr(), reduce.getWhyAttr(), reduce.getPathAttr(),
      reduce.getPartAttr());
  slice.getResult().replaceAllUsesWith(scatter.getResult(0));
  slice.erase();
  reduce.erase();
  return true;
}

/// local_slice(all_gather(x)) along one dim over the same axes is x.
static bool foldSliceOfGather(LocalSliceOp slice) {
  auto result = dyn_cast<OpResult>(slice.getInput());
  auto gather = slice.getInput().getDefiningOp<AllGatherOp>();
  if (!gather || gather.getAxes() != slice.getAxes() ||
      gather.getDims()[result.getResultNumber()] !=
          static_cast<int64_t>(slice.getDim()))
    return false;
  slice.getResult().replaceAllUsesWith(
      gather.getInputs()[result.getResultNumber()]);
  slice.erase();
  if (gather.use_empty())
    gather.erase();
  return true;
}

/// all_gather(local_slice(x)) along one dim over the same axes is x.
static bool foldGatherOfSlice(AllGatherOp gather) {
  if (gather.getNumResults() != 1)
    return false;
  auto slice = gather.getInputs()[0].getDefiningOp<LocalSliceOp>();
  if (!slice || slice.getAxes() != gather.getAxes() ||
      gather.getDims()[0] != static_cast<int64_t>(slice.getDim()))
    return false;
  gather.getResult(0).replaceAllUsesWith(slice.getInput());
  gather.erase();
  if (slice.use_empty())
    slice.erase();
  return true;
}

/// all_reduce(a) + all_reduce(b) -> all_reduce(a + b): half the bytes. Only
/// where neither sum is needed for itself.
static bool foldSumOfReduces(Operation *add) {
  if (!isa<AddOp, SubOp>(add))
    return false;
  auto left = add->getOperand(0).getDefiningOp<AllReduceOp>();
  auto right = add->getOperand(1).getDefiningOp<AllReduceOp>();
  if (!left || !right || left == right || left.getNumResults() != 1 ||
      right.getNumResults() != 1 || !add->getOperand(0).hasOneUse() ||
      left->getBlock() != add->getBlock() ||
      right->getBlock() != add->getBlock() || !add->getOperand(1).hasOneUse() ||
      left.getAxes() != right.getAxes() ||
      left.getKind() != ReductionKind::sum ||
      right.getKind() != ReductionKind::sum ||
      add->getOperand(0).getType() != add->getOperand(1).getType())
    return false;
  OpBuilder builder(add);
  builder.setInsertionPointAfter(add);
  joinReasons(left, right);
  auto merged = AllReduceOp::create(
      builder, left.getLoc(), TypeRange(add->getResult(0).getType()),
      ValueRange(add->getResult(0)), left.getKindAttr(), left.getAxesAttr(),
      left.getWhyAttr(), left.getPathAttr(), left.getPartAttr());
  add->getResult(0).replaceAllUsesExcept(merged.getResult(0), merged);
  add->setOperands({left.getInputs()[0], right.getInputs()[0]});
  left.erase();
  right.erase();
  return true;
}

static bool foldOnce(Operation *op) {
  if (isCollective(op) && op->getNumOperands() > 0 && shareEqual(op))
    return true;
  if (auto slice = dyn_cast<LocalSliceOp>(op))
    return foldSliceOfReduce(slice) || foldSliceOfGather(slice);
  if (auto gather = dyn_cast<AllGatherOp>(op))
    return foldGatherOfSlice(gather);
  return foldSumOfReduces(op);
}

namespace {
struct FoldCollectivesPass
    : mlir::dshard::impl::FoldCollectivesPassBase<FoldCollectivesPass> {
  void runOnOperation() override {
    bool changed = true;
    while (changed) {
      changed = false;
      llvm::SmallVector<Operation *> ops;
      getOperation().walk([&](Operation *op) {
        if (isCollective(op) || isa<AddOp, SubOp>(op))
          ops.push_back(op);
      });
      // A fold erases ops of the list: start again after each. Programs have at
      // most hundreds of collectives.
      for (Operation *op : ops)
        if (foldOnce(op)) {
          changed = true;
          break;
        }
    }
  }
};
} // namespace
