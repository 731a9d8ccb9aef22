//===- FormKernels.cpp - Group ops into library calls and kernels ---------===//

#include "Simplify.h"
#include "dshard/Transforms/Local/Calls.h"
#include "dshard/Transforms/Local/Kernels.h"
#include "dshard/Transforms/Local/Passes.h"
#include "dshard/Transforms/Local/RankValues.h"
#include "mlir/Analysis/TopologicalSortUtils.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"
#include <climits>

namespace mlir::dshard {
#define GEN_PASS_DEF_FORMKERNELSPASS
#include "dshard/Transforms/Local/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

/// Moves `ops` (in program order) into one region before the last of them;
/// `outputs` become its results. Constants that are used stay outside of calls,
/// unless they are among `ops`, and are copied into kernels. Ops that others
/// still use stay as well.
static FusedOp buildFused(ArrayRef<Operation *> ops,
                          MutableArrayRef<Value> outputs, Operation *anchor,
                          StringRef call = "") {
  OpBuilder builder(ops.back());
  llvm::SetVector<Value> inputs;
  llvm::SetVector<Operation *> constants;
  llvm::SmallPtrSet<Operation *, 16> inside(ops.begin(), ops.end());
  for (Operation *op : ops)
    for (Value operand : op->getOperands()) {
      Operation *producer = operand.getDefiningOp();
      if (producer && inside.count(producer))
        continue;
      if (call.empty() && producer && isa<ConstantOp>(producer))
        constants.insert(producer);
      else
        inputs.insert(operand);
    }
  SmallVector<Type> types;
  for (Value output : outputs)
    types.push_back(output.getType());
  auto fused =
      FusedOp::create(builder, anchor->getLoc(), types, inputs.getArrayRef(),
                      anchor->getAttrOfType<StringAttr>("path"),
                      anchor->getAttrOfType<PartAttr>("part"));
  if (!call.empty())
    fused->setAttr(callAttrName, builder.getStringAttr(call));
  Block *body = builder.createBlock(&fused.getBody());
  IRMapping mapping;
  for (Value input : inputs)
    mapping.map(input, body->addArgument(input.getType(), input.getLoc()));
  for (Operation *constant : constants)
    builder.clone(*constant, mapping);
  for (Operation *op : ops)
    builder.clone(*op, mapping);
  SmallVector<Value> yielded;
  for (Value output : outputs)
    yielded.push_back(mapping.lookup(output));
  YieldOp::create(builder, anchor->getLoc(), yielded);
  for (auto &&[output, result] : llvm::zip_equal(outputs, fused.getResults()))
    output.replaceAllUsesWith(result);
  for (Operation *op : llvm::reverse(ops))
    if (op->use_empty())
      op->erase();
  for (Operation *constant : constants)
    if (constant->use_empty())
      constant->erase();
  return fused;
}

static void sortByPosition(SmallVectorImpl<Operation *> &ops) {
  llvm::sort(ops,
             [](Operation *a, Operation *b) { return a->isBeforeInBlock(b); });
  ops.erase(llvm::unique(ops), ops.end());
}

//===----------------------------------------------------------------------===//
// Library calls
//===----------------------------------------------------------------------===//

static void formMatMul(MatMulOp op, bool isGpu) {
  FailureOr<MatMulCall> call = matchMatMul(op);
  if (failed(call))
    return;
  auto element = [](Value value) { return typeOf(value).getElementType(); };
  if (isGpu && (element(op.getLhs()) != element(op.getRhs()) ||
                (element(op.getResult()) != element(op.getLhs()) &&
                 !element(op.getResult()).isF32())))
    return; // no such product in the library
  SmallVector<Operation *> ops;
  bool isQuantized = !isGpu && matchQuantized(*call, ops);
  for (auto [view, operand] :
       {std::pair{&call->lhs, op.getLhs()}, std::pair{&call->rhs, op.getRhs()}})
    if (view->root != operand && !(isQuantized && view == &call->rhs))
      for (Value value = operand; value != view->root;
           value = value.getDefiningOp()->getOperand(0))
        ops.push_back(value.getDefiningOp());
  ops.push_back(op);
  matchEpilogue(*call, ops, isGpu);
  sortByPosition(ops);
  SmallVector<Value> outputs = {call->result};
  buildFused(ops, outputs, op, "matmul");
}

/// A library call on a CPU, a kernel on a GPU.
static void formAttention(AttentionOp op, bool isGpu) {
  SmallVector<Operation *> ops;
  FailureOr<AttentionCall> call = matchAttention(op, &ops);
  if (failed(call))
    return;
  ops.push_back(op);
  sortByPosition(ops);
  SmallVector<Value> outputs;
  if (!call->result.use_empty())
    outputs.push_back(call->result);
  if (!op.getLogSumExp().use_empty())
    outputs.push_back(op.getLogSumExp());
  if (outputs.empty()) {
    op->erase();
    return;
  }
  buildFused(ops, outputs, op, isGpu ? "" : "attention");
}

static void formAttentionGrad(AttentionGradOp op, bool isGpu) {
  SmallVector<Operation *> ops;
  FailureOr<AttentionGradCall> call = matchAttentionGrad(op, &ops);
  if (failed(call))
    return;
  ops.push_back(op);
  sortByPosition(ops);
  buildFused(ops, call->results, op, isGpu ? "" : "attention_grad");
}

/// A number that only the rank decides, as a chain of ops of its own: what else
/// computes with it may become a kernel.
static Value cloneNumber(OpBuilder &builder, Value value) {
  Operation *op = value.getDefiningOp();
  if (!op || !isa<RankIndexOp, ConstantOp, MulOp>(op))
    return value;
  IRMapping mapping;
  for (Value operand : op->getOperands())
    mapping.map(operand, cloneNumber(builder, operand));
  return builder.clone(*op, mapping)->getResult(0);
}

/// grouped_matmul or grouped_weight_grad.
static void formGrouped(Operation *op) {
  if (op->getNumOperands() > 3) {
    OpBuilder builder(op);
    op->setOperand(3, cloneNumber(builder, op->getOperand(3)));
  }
  SmallVector<Operation *> ops = {op};
  SmallVector<Value> outputs = {op->getResult(0)};
  buildFused(ops, outputs, op,
             isa<GroupedMatMulOp>(op) ? "grouped_matmul"
                                      : "grouped_weight_grad");
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

namespace {

struct Group {
  SmallVector<Operation *> ops; // last first
  RankedTensorType rows;        // the largest result
};

class Clusters {
public:
  explicit Clusters(Block &block) : block(block) {}
  LogicalResult run();

private:
  void place(Operation *op);
  bool mayJoin(Operation *op, int group, bool isOutput, double &accesses,
               bool &aligned);
  double readsPerElement(Operation *user, OpOperand &use);
  bool mayMerge(Operation *op, int a, int b);
  bool reaches(Operation *from, int group);
  int horizonOf(int group) const;
  bool isMember(Operation *op) const { return groupOf.count(op); }

  Block &block;
  DenseMap<Operation *, int> position; // in the block
  std::vector<Group> groups;
  std::vector<std::pair<int, int>> spans; // first, last position of each group
  DenseMap<Operation *, int> groupOf;
  /// How often each element of a member is computed; whether it is indexed by
  /// the same row as the results, so that what it folds is folded once per row.
  DenseMap<Operation *, double> accessesOf;
  DenseMap<Operation *, bool> alignedOf;
};

/// A kernel of more inputs and outputs than this helps nobody.
constexpr size_t largestGroup = 48;
/// Elements from which a pass over memory is worth more than a larger kernel.
constexpr int64_t smallestMerge = 1024;
/// Loads and additions are recomputed rather than stored, within reason.
constexpr double mostAccesses = 8;

bool isFold(Operation *op) {
  return isa<RmsNormOp, LayerNormOp, SoftmaxOp, ReduceOp, MatMulOp>(op);
}

bool isHeavy(Operation *op) {
  return isFold(op) ||
         isa<ExpOp, LogOp, TanhOp, ErfOp, SigmoidOp, SiluOp, GeluOp, SwigluOp,
             SinOp, CosOp, AtanOp, PowOp, ModOp, RotaryOp>(op);
}

/// Folds the last dim of its input, once per row.
bool foldsRows(Operation *op) {
  if (isa<RmsNormOp, LayerNormOp>(op))
    return true;
  if (auto softmax = dyn_cast<SoftmaxOp>(op))
    return static_cast<int64_t>(softmax.getDim()) ==
           typeOf(softmax.getInput()).getRank() - 1;
  auto reduce = dyn_cast<ReduceOp>(op);
  return reduce && reduce.getDims().size() == 1 && reduce.getKeepDims() &&
         reduce.getDims()[0] == typeOf(reduce.getInput()).getRank() - 1;
}

/// In numpy's pairing, `value` has one element, or all, of each row of `user`.
bool isRowOf(RankedTensorType value, RankedTensorType user) {
  if (value.getShape() == user.getShape())
    return true;
  return value.getRank() == user.getRank() && value.getRank() > 0 &&
         value.getShape().back() == 1 &&
         value.getShape().drop_back() == user.getShape().drop_back();
}

} // namespace

double Clusters::readsPerElement(Operation *user, OpOperand &use) {
  RankedTensorType from = typeOf(use.get()), to = typeOf(user->getResult(0));
  double ratio =
      static_cast<double>(to.getNumElements()) / from.getNumElements();
  if (use.getOperandNumber() == 0) {
    if (isa<RmsNormOp, RotaryOp>(user))
      return 2;
    if (isa<LayerNormOp, SoftmaxOp>(user))
      return 3;
    if (isa<ReduceOp>(user))
      return 1;
  }
  if (isa<GatherOp, GatherNdOp>(user) && use.getOperandNumber() > 0)
    return 1; // once per slice
  if (isa<ScatterAddOp>(user))
    return 1;
  if (user->hasTrait<Pointwise>() && isRowOf(from, to))
    return 1; // once per row
  return ratio;
}

/// No op behind this position reaches the group: values go forward, and no
/// group that they may jump back in lies on both sides.
int Clusters::horizonOf(int group) const {
  int horizon = spans[group].second;
  for (bool grows = true; grows;) {
    grows = false;
    for (auto [first, last] : llvm::reverse(spans))
      if (first <= horizon && last > horizon) {
        horizon = last;
        grows = true;
      }
  }
  return horizon;
}

bool Clusters::reaches(Operation *from, int group) {
  int horizon = horizonOf(group);
  SmallVector<Operation *> work = {from};
  llvm::SmallPtrSet<Operation *, 32> seen;
  while (!work.empty()) {
    Operation *op = block.findAncestorOpInBlock(*work.pop_back_val());
    if (!op || position.lookup(op) > horizon || !seen.insert(op).second)
      continue;
    auto it = groupOf.find(op);
    if (it != groupOf.end()) {
      if (it->second == group)
        return true;
      // A group runs as a whole.
      for (Operation *member : groups[it->second].ops)
        for (Operation *user : member->getUsers())
          work.push_back(user);
      continue;
    }
    for (Operation *user : op->getUsers())
      work.push_back(user);
  }
  return false;
}

/// The collective that gathers a parameter which `op` reads; null if none.
static Operation *getParameterGather(Operation *op) {
  for (Value operand : op->getOperands())
    if (auto gather = operand.getDefiningOp<AllGatherOp>())
      if (llvm::all_of(gather.getInputs(), llvm::IsaPred<BlockArgument>))
        return gather;
  return nullptr;
}

/// A kernel that reads parameters of two units would keep both gathered.
static bool readsOtherUnit(Operation *op, ArrayRef<Operation *> members) {
  Operation *own = getParameterGather(op);
  return own && llvm::any_of(members, [&](Operation *member) {
           Operation *other = getParameterGather(member);
           return other && other != own;
         });
}

bool Clusters::mayJoin(Operation *op, int number, bool isOutput,
                       double &accesses, bool &aligned) {
  Group &group = groups[number];
  RankedTensorType type = typeOf(op->getResult(0));
  if (group.ops.size() >= largestGroup)
    return false;
  if (readsOtherUnit(op, group.ops))
    return false;
  if (isa<ScatterAddOp>(op) || (isOutput && isa<ScatterAddOp>(group.ops[0])))
    return false; // a kernel of its own, with one result
  if (isOutput && type.getShape() != group.rows.getShape() &&
      !isRowOf(type, group.rows))
    return false;
  accesses = isOutput ? 1 : 0;
  aligned = true;
  for (OpOperand &use : op->getResult(0).getUses()) {
    Operation *user = use.getOwner();
    auto it = groupOf.find(user);
    if (it == groupOf.end() || it->second != number) {
      if (reaches(user, number))
        return false;
      continue;
    }
    if (isa<MatMulOp>(user))
      return false;
    accesses =
        std::max(accesses, accessesOf[user] * readsPerElement(user, use));
    RankedTensorType userType = typeOf(user->getResult(0));
    bool sameRows = user->hasTrait<Pointwise>() ? isRowOf(type, userType)
                    : foldsRows(user)           ? use.getOperandNumber() == 0
                                                : false;
    aligned &= sameRows && alignedOf[user];
  }
  if (isFold(op))
    return foldsRows(op) && aligned && accesses <= 3;
  if (isHeavy(op))
    return accesses <= 1;
  return accesses <= mostAccesses || type.getNumElements() <= 64;
}

/// Two kernels over the same elements that both read what `op` computes are
/// one: it is neither stored nor read again.
bool Clusters::mayMerge(Operation *op, int a, int b) {
  RankedTensorType type = typeOf(op->getResult(0));
  if (!op->hasTrait<Pointwise>() || type.getNumElements() < smallestMerge ||
      groups[a].ops.size() + groups[b].ops.size() >= largestGroup)
    return false;
  for (int number : {a, b})
    for (Operation *member : groups[number].ops)
      if (!member->hasTrait<Pointwise>() ||
          typeOf(member->getResult(0)).getShape() != type.getShape() ||
          readsOtherUnit(member, groups[number == a ? b : a].ops))
        return false;
  for (auto [from, to] : {std::pair{a, b}, std::pair{b, a}})
    for (Operation *member : groups[from].ops)
      for (Operation *user : member->getUsers())
        if (!(groupOf.count(user) && groupOf[user] == from) &&
            reaches(user, to))
          return false;
  return true;
}

void Clusters::place(Operation *op) {
  llvm::SetVector<int> candidates;
  bool outside = false;
  for (Operation *user : op->getUsers()) {
    auto it = groupOf.find(user);
    if (it == groupOf.end())
      outside = true;
    else
      candidates.insert(it->second);
  }
  if (candidates.size() == 2 && mayMerge(op, candidates[0], candidates[1])) {
    int kept = candidates[0], dropped = candidates[1];
    for (Operation *member : groups[dropped].ops) {
      groups[kept].ops.push_back(member);
      groupOf[member] = kept;
    }
    groups[dropped].ops.clear();
    spans[kept] = {std::min(spans[kept].first, spans[dropped].first),
                   std::max(spans[kept].second, spans[dropped].second)};
    spans[dropped] = {INT_MAX, -1};
    candidates.remove(dropped);
  }
  bool isOutput = outside || candidates.size() != 1;
  double accesses = 1;
  bool aligned = true;
  for (int candidate : candidates)
    if (mayJoin(op, candidate, isOutput, accesses, aligned)) {
      groups[candidate].ops.push_back(op);
      spans[candidate].first = position[op];
      groupOf[op] = candidate;
      accessesOf[op] = accesses;
      alignedOf[op] = aligned;
      return;
    }
  groupOf[op] = groups.size();
  accessesOf[op] = 1;
  alignedOf[op] = true;
  groups.push_back({{op}, typeOf(op->getResult(0))});
  spans.push_back({position[op], position[op]});
}

LogicalResult Clusters::run() {
  for (auto [index, op] : llvm::enumerate(block))
    position[&op] = static_cast<int>(index);
  for (Operation &op : llvm::reverse(block)) {
    if (op.hasTrait<OpTrait::IsTerminator>() || isa<ConstantOp>(op))
      continue;
    bool isStructure =
        isa<FusedOp, ReshardOp, AllGatherOp, AllReduceOp, ReduceScatterOp,
            AllToAllOp, BroadcastOp, PermuteOp, SendOp, RecvOp, LocalSliceOp,
            RankIndexOp, RepeatOp, IfOp>(op);
    if (isStructure || isRankValue(&op))
      continue;
    if (!isKernelOp(&op))
      return op.emitError("has no kernel or library call for these types");
    if (auto reshape = dyn_cast<ReshapeOp>(op)) {
      // Between buffers a reshape is another name; inside kernels it is index
      // arithmetic that lets the producer fuse.
      Operation *producer = reshape.getInput().getDefiningOp();
      bool fusable = producer && isKernelOp(producer) &&
                     !isa<ConstantOp, ReshapeOp>(producer);
      bool used = llvm::any_of(op.getUsers(),
                               [&](Operation *user) { return isMember(user); });
      if (!fusable || !used)
        continue;
    }
    place(&op);
  }
  for (Group &group : groups) {
    if (group.ops.empty() || // merged into another
        (group.ops.size() == 1 && isa<ReshapeOp>(group.ops[0])))
      continue;
    sortByPosition(group.ops);
    llvm::SmallPtrSet<Operation *, 16> inside(group.ops.begin(),
                                              group.ops.end());
    SmallVector<Value> outputs;
    for (Operation *op : group.ops)
      if (llvm::any_of(op->getUsers(),
                       [&](Operation *user) { return !inside.count(user); }))
        outputs.push_back(op->getResult(0));
    if (outputs.empty())
      continue; // dead; removed below
    Operation *anchor = group.ops.back();
    for (Operation *op : group.ops)
      if (isFold(op))
        anchor = op;
    buildFused(group.ops, outputs, anchor);
  }
  // Constants that calls, collectives or the result need as buffers.
  for (Operation &op : llvm::make_early_inc_range(block)) {
    auto constant = dyn_cast<ConstantOp>(op);
    if (!constant || isRankValue(constant))
      continue;
    if (constant->use_empty()) {
      constant->erase();
      continue;
    }
    OpBuilder builder(constant);
    auto fused = FusedOp::create(builder, constant.getLoc(), constant.getType(),
                                 ValueRange(), builder.getStringAttr(""),
                                 PartAttr::get(op.getContext(), Part::forward));
    constant->replaceAllUsesWith(fused->getResults());
    builder.createBlock(&fused.getBody());
    constant->moveBefore(&fused.getBody().front(),
                         fused.getBody().front().end());
    YieldOp::create(builder, constant.getLoc(), constant->getResults());
  }
  return success();
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

static void eraseDead(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(block)))
    if (isOpTriviallyDead(&op))
      op.erase();
}

/// One kernel with three results, which may be written over its operands.
static LogicalResult formAdamW(AdamWOp op) {
  SmallVector<Operation *> ops = {op};
  SmallVector<Value> outputs(op->getResults());
  FusedOp fused = buildFused(ops, outputs, op);
  // Constants that it reads stand before it.
  return decompose(*fused.getBody().front().getOps<AdamWOp>().begin());
}

static LogicalResult formInBlock(Block &block, bool isGpu) {
  sinkConstants(block);
  eraseDead(block);
  // Where there is no such call, a kernel that looks the matrices up.
  for (Operation &op : llvm::make_early_inc_range(block))
    if (isa<GroupedMatMulOp, GroupedWeightGradOp>(op) &&
        (isGpu || !isGroupedCall(&op)) && failed(decompose(&op)))
      return failure();
  if (failed(simplifyForKernels(block)))
    return failure();
  eraseDead(block);
  for (auto op : llvm::make_early_inc_range(block.getOps<AdamWOp>()))
    if (failed(formAdamW(op)))
      return failure();
  SmallVector<Operation *> calls;
  for (Operation &op : block)
    if (isa<MatMulOp, GroupedMatMulOp, GroupedWeightGradOp, AttentionOp,
            AttentionGradOp>(op))
      calls.push_back(&op);
  for (Operation *op : calls) {
    if (auto matmul = dyn_cast<MatMulOp>(op))
      formMatMul(matmul, isGpu);
    else if (isa<GroupedMatMulOp, GroupedWeightGradOp>(op))
      formGrouped(op);
    else if (auto grad = dyn_cast<AttentionGradOp>(op))
      formAttentionGrad(grad, isGpu);
    else
      formAttention(cast<AttentionOp>(op), isGpu);
  }
  eraseDead(block);
  if (failed(Clusters(block).run()))
    return failure();
  sortTopologically(&block);
  eraseDead(block);
  for (Operation &op : block)
    if (isa<RepeatOp, IfOp>(op))
      for (Region &region : op.getRegions())
        if (failed(formInBlock(region.front(), isGpu)))
          return failure();
  return success();
}

namespace {
struct FormKernels : mlir::dshard::impl::FormKernelsPassBase<FormKernels> {
  using FormKernelsPassBase::FormKernelsPassBase;

  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (function.isDeclaration())
        continue;
      if (!function.getBody().hasOneBlock()) {
        function.emitError("has more than one block");
        return signalPassFailure();
      }
      if (failed(formInBlock(function.getBody().front(),
                             StringRef(target).starts_with("cuda"))))
        return signalPassFailure();
    }
  }
};
} // namespace
