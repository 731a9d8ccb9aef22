//===- Pad.cpp - Pad the vocabulary to a multiple of its axes -------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Gates.h"
#include "dshard/Transforms/Propagate/Growth.h"
#include "dshard/Transforms/Propagate/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_PADPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// One dim of one value that grows.
struct Padding {
  Value value;
  int64_t dim, size, padded;
};

/// What padding a parameter means for each of its uses, found before anything
/// is changed.
struct PaddingPlan {
  llvm::SmallVector<Padding> transposed; ///< results that grow along
  llvm::SmallVector<GatherOp> lookups;   ///< their indices must not go negative
  llvm::SmallVector<MatMulOp> products;  ///< their last (or row) dim is cropped
  llvm::SmallVector<int64_t> productDims;
  /// Other operands of backward products that contract the dim: they get zeros.
  llvm::SmallVector<OpOperand *> contracted;
  llvm::SmallVector<int64_t> contractedDims;
};
} // namespace

static Part getPart(Operation *op) {
  auto part = op->getAttrOfType<PartAttr>("part");
  return part ? part.getValue() : Part::forward;
}

/// The use that cannot take a padded dim, or null.
static Operation *detectUses(const Padding &padding, PaddingPlan &plan) {
  for (OpOperand &use : padding.value.getUses()) {
    Operation *user = use.getOwner();
    if (getPart(user) == Part::optimizer)
      continue; // grows with the parameter
    if (auto transpose = dyn_cast<TransposeOp>(user)) {
      const auto *it = llvm::find(transpose.getPermutation(), padding.dim);
      Padding next{transpose.getResult(),
                   it - transpose.getPermutation().begin(), padding.size,
                   padding.padded};
      plan.transposed.push_back(next);
      if (Operation *bad = detectUses(next, plan))
        return bad;
    } else if (auto gather = dyn_cast<GatherOp>(user)) {
      if (use.getOperandNumber() != 0 ||
          static_cast<int64_t>(gather.getDim()) != padding.dim)
        return user;
      plan.lookups.push_back(gather);
    } else if (auto matmul = dyn_cast<MatMulOp>(user)) {
      auto type = cast<RankedTensorType>(padding.value.getType());
      bool isRhs = use.getOperandNumber() == 1;
      bool transposed =
          isRhs ? matmul.getTransposeRhs() : matmul.getTransposeLhs();
      // The kept dim of the right operand is its last, of the left its last but
      // one.
      int64_t kept = type.getRank() - (isRhs != transposed ? 1 : 2);
      if (matmul.getLhs() == matmul.getRhs())
        return user;
      if (padding.dim != kept && padding.dim >= type.getRank() - 2 &&
          getPart(user) == Part::backward) {
        OpOperand &other = user->getOpOperand(isRhs ? 0 : 1);
        bool otherTransposed =
            isRhs ? matmul.getTransposeLhs() : matmul.getTransposeRhs();
        int64_t rank = cast<RankedTensorType>(other.get().getType()).getRank();
        plan.contracted.push_back(&other);
        plan.contractedDims.push_back(rank -
                                      (isRhs != otherTransposed ? 1 : 2));
        continue;
      }
      if (padding.dim != kept)
        return user;
      auto result = cast<RankedTensorType>(matmul.getResult().getType());
      plan.products.push_back(matmul);
      plan.productDims.push_back(result.getRank() - (isRhs ? 1 : 2));
    } else {
      return user;
    }
  }
  return nullptr;
}

static void applyPadding(const Padding &padding, const PaddingPlan &plan,
                         MeshAttr mesh) {
  for (const Padding &grown : plan.transposed) {
    Value value = grown.value;
    value.setType(growType(value.getType(), grown.dim, grown.padded));
  }
  for (GatherOp gather : plan.lookups) {
    // Negative indices count from the model's end, not from the padded one.
    OpBuilder builder(gather);
    DShardBuilder make(builder, gather);
    Value indices = gather.getIndices();
    Type element = DShardBuilder::typeOf(indices).getElementType();
    Value isNegative =
        make.compare(indices, make.scalar(0, element), ComparePredicate::lt);
    Value wrapped = make.binary<AddOp>(
        indices, make.scalar(static_cast<double>(padding.size), element));
    gather.getIndicesMutable().assign(
        make.select(isNegative, wrapped, indices));
  }
  for (auto [matmul, dim] : llvm::zip(plan.products, plan.productDims)) {
    OpBuilder builder(matmul);
    builder.setInsertionPointAfter(matmul);
    DShardBuilder make(builder, matmul);
    MatMulOp product = matmul;
    Value result = product.getResult();
    result.setType(growType(result.getType(), dim, padding.padded));
    Value cropped = make.sliceDim(result, dim, 0, padding.size);
    result.replaceAllUsesExcept(cropped, cropped.getDefiningOp());
  }
  for (auto [operand, dim] : llvm::zip(plan.contracted, plan.contractedDims)) {
    OpBuilder builder(operand->getOwner());
    DShardBuilder make(builder, operand->getOwner());
    operand->set(padWithZeros(make, operand->get(), dim, padding.padded));
  }
}

/// The gradient gets zeros for what is padded; moments grow.
static void applyToOptimizer(func::FuncOp function, const Padding &padding) {
  auto arg = cast<BlockArgument>(padding.value);
  growUsers(arg, padding.dim, padding.size, /*onlyOptimizer=*/true);
  StringRef name = getStateName(function, arg.getArgNumber());
  if (name.empty())
    return;
  function.walk([&](GradientOp op) {
    if (op.getOf() != name)
      return;
    OpBuilder builder(op);
    DShardBuilder make(builder, op);
    op.getInputMutable().assign(
        padWithZeros(make, op.getInput(), padding.dim, padding.padded));
    op.getResult().setType(cast<RankedTensorType>(op.getInput().getType()));
    growUsers(op.getResult(), padding.dim, padding.size);
  });
  for (BlockArgument state : function.getArguments()) {
    auto of = function.getArgAttrOfType<StringAttr>(state.getArgNumber(),
                                                    stateOfAttrName);
    if (!of || of.getValue() != name)
      continue;
    state.setType(growType(state.getType(), padding.dim, padding.padded));
    growUsers(state, padding.dim, padding.size);
  }
}

/// The bias of a padded projection: a vector that is only added.
static bool isBias(BlockArgument arg) {
  return cast<RankedTensorType>(arg.getType()).getRank() == 1 &&
         llvm::all_of(arg.getUsers(), [](Operation *user) {
           return isa<AddOp>(user) || getPart(user) == Part::optimizer;
         });
}

/// Pads one dim of a parameter if its axes do not divide it.
static LogicalResult padDim(func::FuncOp function, BlockArgument arg,
                            int64_t dim, const AxisPieces &axes,
                            MeshAttr mesh) {
  auto type = cast<RankedTensorType>(arg.getType());
  int64_t size = type.getDimSize(dim), shards = getSize(axes);
  if (size % shards == 0)
    return success();
  Padding padding{arg, dim, size, (size + shards - 1) / shards * shards};
  std::string name = describeValue(arg);
  if (isBias(arg)) {
    // The product that it is added to is cropped, and so whole on every rank.
    setSharding(arg, ShardingAttr::getReplicated(arg.getContext(), 1));
    emitRemark(arg.getLoc())
        << name << ": a bias of size " << size << " is replicated, because "
        << shards << " ranks do not divide it";
    return success();
  }
  PaddingPlan plan;
  if (Operation *bad = detectUses(padding, plan)) {
    InFlightDiagnostic diagnostic = emitError(arg.getLoc())
                                    << name << ": dim " << dim << " of size "
                                    << size << " is not divisible by "
                                    << describe(axes, mesh) << " of " << shards
                                    << " ranks; sizes that divide: ";
    if (size > shards)
      diagnostic << size / shards * shards << ", ";
    diagnostic << padding.padded;
    diagnostic.attachNote(bad->getLoc())
        << "only a vocabulary dim is padded; this "
        << bad->getName().stripDialect() << " uses the dim otherwise";
    return diagnostic;
  }
  double extra = getTensorBytes(type) / static_cast<double>(size) *
                 static_cast<double>(padding.padded - size);
  InFlightDiagnostic remark =
      emitRemark(arg.getLoc())
      << name << ": dim " << dim << " padded from " << size << " to "
      << padding.padded << " for " << describe(axes, mesh) << " of " << shards
      << " ranks: " << static_cast<int64_t>(extra) << " bytes more in all";
  if (!plan.products.empty())
    remark << ", and " << describeOp(plan.products.front())
           << " is gathered and cropped to " << size;
  applyPadding(padding, plan, mesh);
  arg.setType(growType(type, dim, padding.padded));
  applyToOptimizer(function, padding);
  llvm::SmallVector<Type> inputs(function.getBody().getArgumentTypes());
  llvm::SmallVector<Type> results(
      function.getBody().front().getTerminator()->getOperandTypes());
  function.setType(FunctionType::get(function.getContext(), inputs, results));
  return success();
}

namespace {
struct PadPass : mlir::dshard::impl::PadPassBase<PadPass> {
  void runOnOperation() override {
    FailureOr<MeshAttr> mesh = getMeshOrEmitError(getOperation());
    if (failed(mesh))
      return signalPassFailure();
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      for (BlockArgument arg : function.getArguments()) {
        ShardingAttr sharding = getValueSharding(arg);
        if (!sharding || !isParameterValue(arg))
          continue;
        Layout layout = readLayout(sharding, *mesh);
        for (auto [dim, axes] : llvm::enumerate(layout.dims))
          if (failed(padDim(function, arg, dim, axes, *mesh)))
            return signalPassFailure();
      }
    }
  }
};
} // namespace
