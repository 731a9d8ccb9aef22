//===- ContextParallel.cpp - Shard the sequence over cp -------------------===//

#include "InputDims.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Strategy/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_CONTEXTPARALLELPASS
#include "dshard/Transforms/Strategy/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// Brings the sequence dims of one function into the layout's order, from the
/// inputs on, by the ops' rules.
class Orderer {
public:
  Orderer(func::FuncOp function, SequenceLayout layout, StringRef method,
          int64_t parts)
      : function(function), layout(layout), method(method), parts(parts) {}
  LogicalResult run();

private:
  func::FuncOp function;
  SequenceLayout layout;
  StringRef method;
  int64_t parts; ///< ranks of cp

  LogicalResult orderInputs();
  LogicalResult visit(Operation *op);
  void visitReturn(func::ReturnOp op);
  void setAttention(AttentionOp op);
  bool isTransparent(Operation *op, const ShardingRule &rule, int64_t factor);
  void setOrder(OpOperand &operand, int64_t dim, bool isOrdered);
  Value order(Value value, int64_t dim);
  Value buildOrdered(Value value, int64_t dim);
  bool isOrdered(Value value, int64_t dim) {
    auto it = ordered.find(value);
    return it != ordered.end() && it->second.contains(dim);
  }
  /// Sequence dims: those that lie in the layout's order.
  DenseMap<Value, llvm::SmallDenseSet<int64_t, 2>> ordered;
  /// A value that was reordered once serves all its later users.
  DenseMap<std::tuple<Value, int64_t, int>, Value> reordered;
};
} // namespace

static int64_t sizeOf(Value value, int64_t dim) {
  return cast<RankedTensorType>(value.getType()).getDimSize(dim);
}

/// The op reads positions off the order of S and T.
static bool isPositional(AttentionOp op) {
  return op.getCausal() || int64_t(op.getWindow()) >= 0;
}

//===----------------------------------------------------------------------===//
// Inputs and results
//===----------------------------------------------------------------------===//

/// Puts `cp` before what shards `dim` of `value` (nothing, or tp).
static void shardOverCp(Value value, int64_t dim, bool isOpenByDefault) {
  MLIRContext *context = value.getContext();
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<DimShardingAttr> dims(
      type.getRank(), DimShardingAttr::get(context, {}, isOpenByDefault));
  SmallVector<AxisRefAttr> partial;
  ReductionKind kind = ReductionKind::sum;
  if (ShardingAttr present = getSharding(value)) {
    dims.assign(present.getDims().begin(), present.getDims().end());
    partial.assign(present.getPartial().begin(), present.getPartial().end());
    kind = present.getKind();
  }
  SmallVector<AxisRefAttr> axes = {AxisRefAttr::get(context, "cp")};
  if (llvm::is_contained(dims[dim].getAxes(), axes.front()))
    return;
  llvm::append_range(axes, dims[dim].getAxes());
  dims[dim] = DimShardingAttr::get(context, axes, dims[dim].getIsOpen());
  setSharding(value, ShardingAttr::get(context, dims, partial, kind));
}

LogicalResult Orderer::orderInputs() {
  MLIRContext *context = function.getContext();
  bool found = false;
  int64_t unit = layout == SequenceLayout::zigzag ? 2 * parts : parts;
  for (BlockArgument argument : function.getArguments()) {
    unsigned i = argument.getArgNumber();
    std::optional<int64_t> dim;
    if (isInput(function, i))
      dim = findSequenceDim(function, i);
    if (!dim || sizeOf(argument, *dim) == 1) // broadcast
      continue;
    found = true;
    int64_t size = sizeOf(argument, *dim);
    if (size % unit != 0) {
      InFlightDiagnostic diagnostic =
          emitError(UnknownLoc::get(context))
          << describeInput(function, i) << ": sequence dim " << *dim
          << " of size " << size << " is not divisible by " << unit << " ("
          << (unit == parts ? "" : "2 * ") << "cp=" << parts << ", layout "
          << stringifySequenceLayout(layout) << "); sizes that divide: ";
      if (size > unit)
        diagnostic << size / unit * unit << ", ";
      return diagnostic << size / unit * unit + unit;
    }
    shardOverCp(argument, *dim, /*isOpenByDefault=*/false);
    auto origin = function.getArgAttrOfType<OriginAttr>(i, originAttrName);
    std::string text = origin ? origin.getText().str() + ", " : "";
    function.setArgAttr(
        i, originAttrName,
        OriginAttr::get(context,
                        StringAttr::get(context, text +
                                                     "context parallel: "
                                                     "sequence dim " +
                                                     Twine(*dim))));
    ordered[argument].insert(*dim);
    if (layout == SequenceLayout::contiguous)
      continue;
    function.setArgAttr(i, layoutAttrName,
                        SequenceLayoutAttr::get(context, layout));
    function.setArgAttr(i, layoutDimAttrName,
                        IntegerAttr::get(IntegerType::get(context, 64), *dim));
  }
  if (found)
    return success();
  return emitError(UnknownLoc::get(context))
         << "mesh axis cp=" << parts
         << " shards the sequence, but no input has a sequence dim longer than "
            "1; name one "
            "with --dims INPUT=batch,seq";
}

void Orderer::visitReturn(func::ReturnOp op) {
  MLIRContext *context = function.getContext();
  for (OpOperand &operand : op->getOpOperands()) {
    unsigned i = operand.getOperandNumber();
    // The boundary knows of one ordered dim.
    SmallVector<int64_t> dims(ordered[operand.get()].begin(),
                              ordered[operand.get()].end());
    llvm::sort(dims);
    for (int64_t dim : ArrayRef(dims).drop_front(dims.empty() ? 0 : 1))
      setOrder(operand, dim, false);
    if (dims.empty())
      continue;
    if (operand.get().getDefiningOp())
      shardOverCp(operand.get(), dims[0], /*isOpenByDefault=*/true);
    if (layout == SequenceLayout::contiguous)
      continue;
    function.setResultAttr(i, layoutAttrName,
                           SequenceLayoutAttr::get(context, layout));
    function.setResultAttr(
        i, layoutDimAttrName,
        IntegerAttr::get(IntegerType::get(context, 64), dims[0]));
  }
}

//===----------------------------------------------------------------------===//
// Orders of operands
//===----------------------------------------------------------------------===//

/// A constant, or a count, in the layout's order; null if it is something else.
static Value reorderConstant(Value value, int64_t dim, SequenceLayout layout,
                             int64_t parts) {
  Operation *op = value.getDefiningOp();
  if (!op || op->hasAttr(shardingsAttrName))
    return {};
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<Attribute> elements;
  auto constant = dyn_cast<ConstantOp>(op);
  auto iota = dyn_cast<IotaOp>(op);
  if (constant) {
    auto dense = dyn_cast<DenseElementsAttr>(constant.getValue());
    if (!dense)
      return {};
    if (dense.isSplat())
      return value;
    llvm::append_range(elements, dense.getValues<Attribute>());
  } else if (iota && type.getRank() == 1) {
    double start = iota.getStart().convertToDouble(),
           step = iota.getStep().convertToDouble();
    Type element = type.getElementType();
    for (int64_t i = 0; i < type.getDimSize(0); ++i) {
      double count = start + double(i) * step;
      elements.push_back(isa<FloatType>(element)
                             ? Attribute(FloatAttr::get(element, count))
                             : IntegerAttr::get(element, int64_t(count)));
    }
  } else {
    return {};
  }
  int64_t size = type.getDimSize(dim), inner = 1;
  for (int64_t other : type.getShape().drop_front(dim + 1))
    inner *= other;
  SmallVector<Attribute> moved;
  moved.reserve(elements.size());
  for (int64_t i = 0, n = elements.size(); i < n; ++i) {
    int64_t position = i / inner % size;
    int64_t from = getNaturalPosition(layout, parts, size, position);
    moved.push_back(elements[i + (from - position) * inner]);
  }
  OpBuilder builder(op);
  builder.setInsertionPointAfter(op);
  return ConstantOp::create(builder, op->getLoc(), type,
                            DenseElementsAttr::get(type, moved));
}

/// `value`, which lies in natural order, in the layout's. What has the dim from
/// constants alone (position ids, rotary tables, masks) is computed in that
/// order from them, so that each rank computes its part.
Value Orderer::order(Value value, int64_t dim) {
  Value &known = reordered[{value, dim, 1}];
  if (!known) {
    Value built = buildOrdered(value, dim);
    reordered[{value, dim, 1}] = built;
    return built;
  }
  return known;
}

/// True if no input and no parameter reaches `value`.
static bool isFromConstants(Value value) {
  SmallVector<Value> work = {value};
  llvm::SmallDenseSet<Value> seen;
  while (!work.empty()) {
    Value next = work.pop_back_val();
    if (!seen.insert(next).second)
      continue;
    Operation *op = next.getDefiningOp();
    if (!op || op->getNumRegions() != 0)
      return false;
    llvm::append_range(work, op->getOperands());
  }
  return true;
}

Value Orderer::buildOrdered(Value value, int64_t dim) {
  if (layout == SequenceLayout::contiguous)
    return value;
  if (Value constant = reorderConstant(value, dim, layout, parts))
    return constant;
  Operation *op = value.getDefiningOp();
  OpBuilder builder(value.getContext());
  builder.setInsertionPointAfterValue(value);
  if (op && op->getNumOperands() > 0 && op->getNumResults() == 1) {
    ScopedDiagnosticHandler quiet(value.getContext(),
                                  [](Diagnostic &) { return success(); });
    FailureOr<ShardingRule> rule = getShardingRuleOf(op);
    if (succeeded(rule) && rule->results[0][dim].size() == 1) {
      int64_t factor = rule->results[0][dim].front();
      auto has = [&](ArrayRef<int64_t> own) {
        return llvm::is_contained(own, factor);
      };
      bool isRepeated = true, fromConstants = true;
      for (auto [operand, dims] : llvm::zip(op->getOperands(), rule->operands))
        if (llvm::any_of(dims, has)) {
          isRepeated = false;
          fromConstants &= isFromConstants(operand);
        }
      if (isRepeated && isa<BroadcastToOp>(op)) // the same all along the dim
        return value;
      if (!isRepeated && fromConstants && isTransparent(op, *rule, factor)) {
        SmallVector<Value> operands(op->getOperands());
        for (auto [operand, dims] : llvm::zip(operands, rule->operands))
          for (auto [d, own] : llvm::enumerate(dims))
            if (has(own))
              operand = order(operand, d);
        Operation *clone = builder.clone(*op);
        clone->setOperands(operands);
        ordered[clone->getResult(0)] = ordered[value];
        ordered[clone->getResult(0)].insert(dim);
        return clone->getResult(0);
      }
    }
  }
  StringAttr path = op ? getPathOf(op) : StringAttr();
  PartAttr part = op ? getPartOf(op) : PartAttr();
  DShardBuilder make(
      builder, value.getLoc(), path ? path : builder.getStringAttr(""),
      part ? part : PartAttr::get(value.getContext(), Part::forward));
  Value result =
      make.create<ReorderOp>(value.getType(), value, uint64_t(dim), layout,
                             uint64_t(parts), /*inverse=*/false);
  ordered[result] = ordered[value];
  ordered[result].insert(dim);
  return result;
}

/// Makes `dim` of an operand lie in the layout's order, or in the natural one.
void Orderer::setOrder(OpOperand &operand, int64_t dim, bool wanted) {
  Value value = operand.get();
  if (isOrdered(value, dim) == wanted)
    return;
  if (wanted) {
    Value built = order(value, dim);
    if (built == value) // the same in every order
      return;
    ordered[built].insert(dim);
    operand.set(built);
    return;
  }
  Operation *user = operand.getOwner();
  Value &known = reordered[{value, dim, 0}];
  if (layout == SequenceLayout::contiguous)
    return;
  if (!known) {
    OpBuilder builder(user); // the first one, in program order
    Operation *like = getPathOf(user) ? user : value.getDefiningOp();
    StringAttr path = like ? getPathOf(like) : StringAttr();
    DShardBuilder make(builder, user->getLoc(),
                       path ? path : builder.getStringAttr(""),
                       PartAttr::get(value.getContext(), Part::forward));
    known = make.create<ReorderOp>(value.getType(), value, uint64_t(dim),
                                   layout, uint64_t(parts), /*inverse=*/true);
    auto others = ordered[value];
    others.erase(dim);
    ordered[known] = others;
    user->emitRemark() << "needs the sequence dim " << dim << " of "
                       << value.getType()
                       << " whole and in its own order: it is gathered from "
                          "all cp="
                       << parts << " ranks";
  }
  operand.set(known);
}

/// Permuting this factor on all tensors alike does not change what the op
/// means.
bool Orderer::isTransparent(Operation *op, const ShardingRule &rule,
                            int64_t factor) {
  switch (rule.factors[factor].kind) {
  case FactorKind::parallel:
    break;
  case FactorKind::reduce:
    // Indices name positions of the dim that they look up in.
    if (isa<GatherOp, GatherNdOp>(op))
      return false;
    break;
  case FactorKind::ring: {
    // The queries and keys of an attention that sees no positions.
    auto attention = dyn_cast<AttentionOp>(op);
    if (!attention || isPositional(attention))
      return false;
    break;
  }
  case FactorKind::gather:
    // It needs the whole dim, in whatever order.
    if (!isa<SoftmaxOp>(op))
      return false;
    break;
  }
  // Wherever it is, it is the whole dim.
  for (const auto *tensors : {&rule.operands, &rule.results})
    for (const TensorFactors &dims : *tensors)
      for (ArrayRef<int64_t> own : dims)
        if (own.size() != 1 && llvm::is_contained(own, factor))
          return false;
  return true;
}

/// Self-attention follows the sequence into any order: `parts` and `layout` say
/// so, and make S and T one factor.
void Orderer::setAttention(AttentionOp op) {
  if (sizeOf(op.getQuery(), 2) != sizeOf(op.getKey(), 2) ||
      op.getQueryOffset() || (isPositional(op) && int64_t(op.getOffset()) != 0))
    return;
  bool reaches = isOrdered(op.getQuery(), 2) || isOrdered(op.getKey(), 2) ||
                 isOrdered(op.getValue(), 2) ||
                 (op.getKeyPadding() && isOrdered(op.getKeyPadding(), 1));
  if (!reaches)
    return;
  op.setParts(parts);
  op.setLayout(layout);
  op->setAttr(contextMethodAttrName, StringAttr::get(op.getContext(), method));
}

LogicalResult Orderer::visit(Operation *op) {
  if (op->getNumRegions() != 0)
    return op->emitOpError()
           << "is not sharded over cp yet; leave cp out of the mesh";
  if (isa<ReshardOp>(op)) {
    ordered[op->getResult(0)] = ordered[op->getOperand(0)];
    return success();
  }
  if (auto attention = dyn_cast<AttentionOp>(op))
    setAttention(attention);
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  llvm::SmallDenseSet<int64_t> factors;
  for (auto [value, dims] : llvm::zip(op->getOperands(), rule->operands))
    for (auto [dim, own] : llvm::enumerate(dims))
      if (isOrdered(value, dim) && own.size() == 1 &&
          isTransparent(op, *rule, own.front()))
        factors.insert(own.front());
  auto isIn = [&](ArrayRef<int64_t> own) {
    return own.size() == 1 && factors.contains(own.front());
  };
  for (auto [operand, dims] : llvm::zip(op->getOpOperands(), rule->operands))
    for (auto [dim, own] : llvm::enumerate(dims))
      setOrder(operand, dim, isIn(own));
  for (auto [result, dims] : llvm::zip(op->getResults(), rule->results))
    for (auto [dim, own] : llvm::enumerate(dims))
      if (isIn(own)) {
        ordered[result].insert(dim);
        // Where another strategy says something, cp stands above it, unless it
        // wants the whole dim.
        if (ShardingAttr present = getSharding(result)) {
          DimShardingAttr own = present.getDims()[dim];
          if (!own.getAxes().empty() || own.getIsOpen())
            shardOverCp(result, dim, /*isOpenByDefault=*/true);
        }
      }
  return success();
}

LogicalResult Orderer::run() {
  // context_parallel_c5
  for (Operation &op : function.getBody().front())
    if (auto part = getPartOf(&op); part && part.getValue() != Part::forward)
      return emitError(UnknownLoc::get(function.getContext()))
             << "--mesh=cp=" << parts << ": '" << function.getName()
             << "' is a training step, and context parallelism is for forward "
                "programs so far; leave cp out of the mesh";
  if (failed(orderInputs()))
    return failure();
  for (Operation &op : llvm::make_early_inc_range(function.getBody().front())) {
    if (auto returnOp = dyn_cast<func::ReturnOp>(op))
      visitReturn(returnOp);
    else if (failed(visit(&op)))
      return failure();
  }
  // What is read in the layout's order only.
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(function.getBody().front())))
    if (isOpTriviallyDead(&op))
      op.erase();
  return success();
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
struct ContextParallelPass
    : mlir::dshard::impl::ContextParallelPassBase<ContextParallelPass> {
  using ContextParallelPassBase::ContextParallelPassBase;

  InFlightDiagnostic error() {
    return emitError(UnknownLoc::get(&getContext()));
  }

  /// context_parallel_c2, c3.
  LogicalResult checkOptions(int64_t ranks) {
    if (ranks <= 1 && (!method.empty() || !layout.empty()))
      return error() << (method.empty() ? "--cp-layout" : "--cp-method")
                     << " is for a mesh with an axis cp > 1; give --mesh=cp=N";
    if (!method.empty() && !llvm::is_contained({"ring", "all_gather",
                                                "all_to_all", "hierarchical"},
                                               method.getValue()))
      return error() << "unknown --cp-method '" << method
                     << "'; the methods are ring, all_gather, all_to_all, "
                        "hierarchical";
    if (!layout.empty() && !symbolizeSequenceLayout(layout))
      return error() << "unknown --cp-layout '" << layout
                     << "'; the layouts are zigzag, contiguous, striped";
    return success();
  }

  /// context_parallel_c4, before sequences are touched.
  LogicalResult checkAttention(func::FuncOp function, StringRef method,
                               SequenceLayout layout) {
    WalkResult result = function.walk([&](AttentionOp op) {
      auto path = getPathOf(op);
      std::string name = path && !path.getValue().empty()
                             ? path.getValue().str()
                             : "an attention";
      if ((method == "ring" || method == "hierarchical") &&
          int64_t(op.getWindow()) >= 0) {
        error() << name << " has a sliding window of "
                << int64_t(op.getWindow()) << ", which --cp-method=" << method
                << " does not take; use all_gather or all_to_all";
        return WalkResult::interrupt();
      }
      if ((method == "all_gather" || method == "hierarchical") &&
          layout == SequenceLayout::striped && isPositional(op)) {
        error() << name << " is causal: --cp-method=" << method
                << " does not take --cp-layout=striped; use zigzag or "
                   "contiguous";
        return WalkResult::interrupt();
      }
      return WalkResult::advance();
    });
    return failure(result.wasInterrupted());
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    MeshAttr mesh = getMesh(module);
    if (!mesh) {
      module.emitError() << "module has no " << meshAttrName
                         << "; give it one with --mesh";
      return signalPassFailure();
    }
    int64_t ranks = mesh.getAxisSize("cp");
    if (failed(checkOptions(ranks)))
      return signalPassFailure();
    if (ranks <= 1)
      return;
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      bool isCausal = false;
      function.walk([&](AttentionOp op) { isCausal |= isPositional(op); });
      SequenceLayout order = !layout.empty() ? *symbolizeSequenceLayout(layout)
                             : isCausal      ? SequenceLayout::zigzag
                                             : SequenceLayout::contiguous;
      StringRef way = method.empty() ? StringRef("ring") : method.getValue();
      Orderer orderer(function, order, way, ranks);
      if (failed(checkAttention(function, way, order)) || failed(orderer.run()))
        return signalPassFailure();
    }
  }
};
} // namespace
