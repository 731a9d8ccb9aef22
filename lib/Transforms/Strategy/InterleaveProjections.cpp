//===- InterleaveProjections.cpp - Deal out [q | k | v] by rank -----------===//

#include "ApplyStyle.h"
#include "Parameters.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Dialect/DShard/IR/Interleave.h"
#include "dshard/Transforms/Strategy/Passes.h"
#include "llvm/ADT/STLExtras.h"
#include <set>

namespace mlir::dshard {
#define GEN_PASS_DEF_INTERLEAVEPROJECTIONSPASS
#include "dshard/Transforms/Strategy/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// A column-parallel product of several projections, found before anything is
/// changed.
struct FusedProjection {
  Value result;                      ///< with its bias
  SmallVector<SliceOp> slices;       ///< all its uses
  Interleave order;                  ///< of the last dim of `result`
  SmallVector<ParameterDim> weights; ///< which get it
  /// Which get it at once, and of which dim.
  SmallVector<std::pair<OpOperand *, int64_t>> constants;
};
} // namespace

/// The last dim is sharded over all of tp and nothing else.
static bool isColumnParallel(Value value) {
  ShardingAttr sharding = getSharding(value);
  if (!sharding || sharding.getDims().empty())
    return false;
  ArrayRef<AxisRefAttr> axes = sharding.getDims().back().getAxes();
  return axes.size() == 1 && axes[0].getName().getValue() == "tp" &&
         axes[0].isWhole();
}

/// The uses, if all of them are slices of the last dim; then `order` has the
/// segments between their ends.
static bool detectSegments(Value value, SmallVector<SliceOp> &slices,
                           Interleave &order) {
  auto type = cast<RankedTensorType>(value.getType());
  int64_t last = type.getRank() - 1;
  std::set<int64_t> ends = {0, type.getDimSize(last)};
  for (Operation *user : value.getUsers()) {
    auto slice = dyn_cast<SliceOp>(user);
    if (!slice || getSharding(slice.getResult()))
      return false;
    RankedTensorType part = slice.getResult().getType();
    for (int64_t dim = 0; dim < last; ++dim)
      if (part.getDimSize(dim) != type.getDimSize(dim) ||
          slice.getStrides()[dim] != 1)
        return false;
    if (slice.getStrides()[last] != 1 || part.getDimSize(last) == 0)
      return false;
    ends.insert(slice.getStarts()[last]);
    ends.insert(slice.getStarts()[last] + part.getDimSize(last));
    slices.push_back(slice);
  }
  int64_t begin = 0;
  for (int64_t end : ends) {
    if (end != begin)
      order.sizes.push_back(end - begin);
    begin = end;
  }
  // Slices that overlap are no segments.
  for (SliceOp slice : slices) {
    int64_t start = slice.getStarts()[last];
    if (*ends.upper_bound(start) !=
        start + slice.getResult().getType().getDimSize(last))
      return false;
  }
  return order.sizes.size() > 1;
}

static int64_t getSize(Value value, int64_t dim) {
  return cast<RankedTensorType>(value.getType()).getDimSize(dim);
}

/// The parameters and constants that make dim `dim` of an operand, if nothing
/// else reads them on the way.
static bool detectWeights(OpOperand &use, int64_t dim, FusedProjection &fused) {
  std::optional<WeightTrace> found = traceWeight(use, dim);
  if (!found || !found->isComplete)
    return false;
  Value value = use.get();
  int64_t size = getSize(value, dim);
  for (const auto &[constant, own] : found->constants)
    if (getSize(constant->get(), own) != size ||
        !isa<DenseElementsAttr>(
            constant->get().getDefiningOp<ConstantOp>().getValue()))
      return false;
  llvm::append_range(fused.constants, found->constants);
  for (const ParameterDim &weight : found->parameters) {
    auto function =
        cast<func::FuncOp>(weight.argument.getOwner()->getParentOp());
    if (getSize(weight.argument, weight.dim) != size ||
        !function.getArgAttr(weight.argument.getArgNumber(), weightAttrName))
      return false;
    // What comes of it is in this order everywhere.
    SmallVector<Value> values = {weight.argument};
    while (!values.empty()) {
      Value next = values.pop_back_val();
      if (next == value)
        continue;
      for (Operation *user : next.getUsers()) {
        if (!isWeightOp(user))
          return false;
        values.push_back(user->getResult(0));
      }
    }
    fused.weights.push_back(weight);
  }
  return value.hasOneUse() || found->parameters.empty();
}

/// A constant in the order, for one of its uses.
static void interleaveConstant(OpOperand &use, const Interleave &order) {
  auto constant = use.get().getDefiningOp<ConstantOp>();
  auto dense = cast<DenseElementsAttr>(constant.getValue());
  RankedTensorType type = constant.getResult().getType();
  int64_t size = type.getDimSize(order.dim), inner = 1;
  for (int64_t other : type.getShape().drop_front(order.dim + 1))
    inner *= other;
  SmallVector<Attribute> elements(dense.getValues<Attribute>()), moved;
  for (int64_t i = 0, n = elements.size(); i < n; ++i) {
    int64_t position = i / inner % size;
    moved.push_back(
        elements[i + (order.getStored(position) - position) * inner]);
  }
  OpBuilder builder(constant);
  use.set(ConstantOp::create(builder, constant.getLoc(), type,
                             DenseElementsAttr::get(type, moved)));
}

/// `product`: a matmul or a grouped_matmul with a weight.
static std::optional<FusedProjection> detect(Operation *product, int64_t ranks,
                                             const HeadCounts &heads) {
  FusedProjection fused;
  fused.order.parts = ranks;
  fused.result = product->getResult(0);
  if (!isColumnParallel(fused.result) || heads.query % ranks != 0 ||
      heads.keyValue % ranks != 0)
    return std::nullopt;
  OpOperand &weight = product->getOpOperand(1);
  int64_t rank = cast<RankedTensorType>(weight.get().getType()).getRank();
  auto matmul = dyn_cast<MatMulOp>(product);
  bool transposed = matmul
                        ? matmul.getTransposeRhs()
                        : cast<GroupedMatMulOp>(product).getTransposeWeights();
  if (!detectWeights(weight, transposed ? rank - 2 : rank - 1, fused) ||
      fused.weights.empty())
    return std::nullopt;
  if (fused.result.hasOneUse())
    if (auto add = dyn_cast<AddOp>(*fused.result.user_begin())) {
      OpOperand &bias = add->getOpOperand(add.getLhs() == fused.result ? 1 : 0);
      int64_t last = cast<RankedTensorType>(bias.get().getType()).getRank() - 1;
      if (last < 0 || !detectWeights(bias, last, fused) ||
          !isColumnParallel(add.getResult()))
        return std::nullopt;
      fused.result = add.getResult();
    }
  if (!detectSegments(fused.result, fused.slices, fused.order) ||
      llvm::any_of(fused.order.sizes,
                   [&](int64_t size) { return size % ranks != 0; }))
    return std::nullopt;
  return fused;
}

/// Slices of the whole become slices of each part.
static void apply(const FusedProjection &fused) {
  const Interleave &order = fused.order;
  auto type = cast<RankedTensorType>(fused.result.getType());
  int64_t last = type.getRank() - 1, width = type.getDimSize(last);
  for (const ParameterDim &weight : fused.weights) {
    Interleave own = order;
    own.dim = weight.dim;
    cast<func::FuncOp>(weight.argument.getOwner()->getParentOp())
        .setArgAttr(weight.argument.getArgNumber(), interleaveAttrName,
                    own.getAttr(weight.argument.getContext()));
  }
  for (auto [use, dim] : fused.constants) {
    Interleave own = order;
    own.dim = dim;
    interleaveConstant(*use, own);
  }
  for (SliceOp slice : fused.slices) {
    OpBuilder builder(slice);
    DShardBuilder make(builder, slice);
    int64_t start = slice.getStarts()[last], before = 0, inside = 0;
    for (int64_t size : order.sizes) {
      if (before == start)
        break;
      before += size;
      inside += size / order.parts;
    }
    RankedTensorType part = slice.getResult().getType();
    SmallVector<int64_t> shape(type.getShape());
    shape[last] = order.parts;
    shape.push_back(width / order.parts);
    Value parts = make.reshape(fused.result, shape);
    Value own = make.sliceDim(parts, last + 1, inside,
                              part.getDimSize(last) / order.parts);
    slice.getResult().replaceAllUsesWith(make.reshape(own, part.getShape()));
    slice.erase();
  }
}

namespace {
struct InterleaveProjectionsPass
    : mlir::dshard::impl::InterleaveProjectionsPassBase<
          InterleaveProjectionsPass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    int64_t ranks = mesh ? mesh.getAxisSize("tp") : 1;
    if (ranks <= 1)
      return;
    std::vector<FusedProjection> found;
    // All entry points hold one weight: what only some can use stays as it is.
    llvm::DenseMap<Attribute, int64_t> detected, held;
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      for (unsigned i = 0; i < function.getNumArguments(); ++i)
        if (Attribute weight = function.getArgAttr(i, weightAttrName))
          ++held[weight];
      llvm::DenseMap<Operation *, HeadCounts> heads = findHeads(function);
      function.walk([&](Operation *product) {
        if (!isa<MatMulOp, GroupedMatMulOp>(product))
          return;
        if (auto fused = detect(product, ranks, heads.lookup(product))) {
          for (const ParameterDim &weight : fused->weights)
            ++detected[weightOf(weight)];
          found.push_back(std::move(*fused));
        }
      });
    }
    for (const FusedProjection &fused : found)
      if (llvm::all_of(fused.weights, [&](const ParameterDim &weight) {
            Attribute key = weightOf(weight);
            return detected[key] == held[key];
          }))
        apply(fused);
  }

  static Attribute weightOf(const ParameterDim &weight) {
    return cast<func::FuncOp>(weight.argument.getOwner()->getParentOp())
        .getArgAttr(weight.argument.getArgNumber(), weightAttrName);
  }
};
} // namespace
