//===- FullyShard.cpp - Decide the storage sharding of parameters ---------===//

#include "dshard/Cost/Resharding.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Dialect/DShard/IR/Units.h"
#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Gates.h"
#include "dshard/Transforms/Propagate/Growth.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/FormatVariadic.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_FULLYSHARDPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
enum class FullyShardedMode { none, optimizer, gradients, parameters };

/// Where a parameter is stored, or its optimizer states.
struct StorageChoice {
  Layout layout;
  int64_t paddedDim = -1; ///< the dim that grows to `paddedSize`; -1: none
  int64_t paddedSize = 0;
};

/// Shards the parameters of one function.
struct Sharder {
  func::FuncOp function;
  MeshAttr mesh;
  AxisPieces axes; ///< dp_shard, cp
  FullyShardedMode mode;
  Units units;
  bool emitsRemarks; ///< once per module, not per entry point

  void run();
  std::optional<StorageChoice> chooseFor(BlockArgument argument,
                                         const Layout &compute);
  void gather(BlockArgument argument, const StorageChoice &storage,
              const Layout &compute, RankedTensorType type, StringRef unit);
  Value gatherBefore(Operation *first, BlockArgument argument,
                     const StorageChoice &storage, const Layout &compute,
                     RankedTensorType type, StringRef unit, Part part,
                     bool isFreed);
  void shardGradient(GradientOp op, const Layout &compute,
                     const StorageChoice &storage, StringRef name,
                     StringRef unit);
  void shardState(BlockArgument state, const StorageChoice &storage);
  void shardUpdate(AdamWOp op, const Layout &compute,
                   const StorageChoice &storage, RankedTensorType type,
                   StringRef name, StringRef unit);
};
} // namespace

/// The first dim that divides after the compute sharding; else the first that
/// has none is padded (dim 0, mostly). Nothing for a scalar, or where tp holds
/// every dim.
static std::optional<StorageChoice> chooseStorage(RankedTensorType type,
                                                  const Layout &compute,
                                                  ArrayRef<AxisPiece> axes) {
  int64_t ranks = getSize(axes);
  StorageChoice choice{compute};
  for (int64_t dim = 0; dim < type.getRank(); ++dim) {
    if (type.getDimSize(dim) == 0 ||
        type.getDimSize(dim) % (getSize(compute.dims[dim]) * ranks) != 0)
      continue;
    choice.layout.dims[dim] = concat(compute.dims[dim], axes);
    return choice;
  }
  for (int64_t dim = 0; dim < type.getRank(); ++dim) {
    int64_t size = type.getDimSize(dim);
    if (!compute.dims[dim].empty() || size == 0)
      continue;
    choice.layout.dims[dim].assign(axes.begin(), axes.end());
    choice.paddedDim = dim;
    choice.paddedSize = (size + ranks - 1) / ranks * ranks;
    return choice;
  }
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Forward and backward: gathers
//===----------------------------------------------------------------------===//

static Part getPart(Operation *op) {
  auto part = op->getAttrOfType<PartAttr>("part");
  return part ? part.getValue() : Part::forward;
}

/// The first of `ops`: in the block of all of them, else the op of the
/// function's block that holds it.
static Operation *findFirst(ArrayRef<Operation *> ops, Block *outer) {
  Block *block = ops.front()->getBlock();
  if (llvm::any_of(ops, [&](Operation *op) { return op->getBlock() != block; }))
    block = outer;
  Operation *first = nullptr;
  for (Operation *op : ops)
    if (Operation *own = getAncestorIn(block, op);
        !first || own->isBeforeInBlock(first))
      first = own;
  return first;
}

static bool isView(Operation *op) {
  return isa<TransposeOp, ReshapeOp, CastOp>(op);
}

/// Uses of `value`, also behind views of the forward part, by backward ops.
static void findBackwardUsers(Value value,
                              SmallVectorImpl<Operation *> &found) {
  for (Operation *user : value.getUsers()) {
    if (getPart(user) == Part::backward)
      found.push_back(user);
    else if (isView(user) && getPart(user) == Part::forward)
      findBackwardUsers(user->getResult(0), found);
  }
}

/// Backward ops read `again` instead of `value`; views are made again.
static void readAgain(Value value, Value again) {
  for (OpOperand &use : llvm::make_early_inc_range(value.getUses())) {
    Operation *user = use.getOwner();
    if (getPart(user) == Part::backward) {
      use.set(again);
      continue;
    }
    SmallVector<Operation *> behind;
    if (isView(user) && getPart(user) == Part::forward)
      findBackwardUsers(user->getResult(0), behind);
    if (behind.empty())
      continue;
    OpBuilder builder(user->getContext());
    builder.setInsertionPointAfterValue(again);
    Operation *view = builder.clone(*user);
    view->setOperand(0, again);
    view->setAttr("part", PartAttr::get(user->getContext(), Part::backward));
    readAgain(user->getResult(0), view->getResult(0));
  }
}

/// Builds storage -> compute before `first`.
Value Sharder::gatherBefore(Operation *first, BlockArgument argument,
                            const StorageChoice &storage, const Layout &compute,
                            RankedTensorType type, StringRef unit, Part part,
                            bool isFreed) {
  OpBuilder builder(first);
  auto path = builder.getStringAttr(unit);
  auto partAttr = PartAttr::get(builder.getContext(), part);
  ShardingAttr computeSharding = writeSharding(compute, mesh);
  Value gathered = ReshardOp::create(
      builder, first->getLoc(), argument.getType(), argument, computeSharding,
      builder.getStringAttr("gather " + describeValue(argument)),
      isFreed ? builder.getUnitAttr() : UnitAttr(), path, partAttr);
  if (storage.paddedDim < 0)
    return gathered;
  DShardBuilder make(builder, first->getLoc(), path, partAttr);
  gathered = make.sliceDim(gathered, storage.paddedDim, 0,
                           type.getDimSize(storage.paddedDim));
  setSharding(gathered, computeSharding);
  return gathered;
}

/// Forward and backward ops read the parameter gathered: once, or, if memory is
/// to be free in between, once each.
void Sharder::gather(BlockArgument argument, const StorageChoice &storage,
                     const Layout &compute, RankedTensorType type,
                     StringRef unit) {
  SmallVector<OpOperand *> uses;
  SmallVector<Operation *> users, forward, backward;
  for (OpOperand &use : argument.getUses()) {
    Operation *user = use.getOwner();
    if (getPart(user) == Part::optimizer)
      continue;
    uses.push_back(&use);
    users.push_back(user);
    if (getPart(user) == Part::forward)
      forward.push_back(user);
  }
  if (users.empty())
    return;
  bool isFreed =
      mode == FullyShardedMode::parameters && units.isGatheredAgain(unit);
  if (isFreed && !forward.empty())
    findBackwardUsers(argument, backward);
  Block *outer = &function.getBody().front();
  Operation *first = findFirst(backward.empty() ? users : forward, outer);
  // Kept to the end of the step: not gathered in each iteration.
  if (mode == FullyShardedMode::gradients)
    first = getAncestorIn(outer, first);
  Value gathered =
      gatherBefore(first, argument, storage, compute, type, unit,
                   forward.empty() ? Part::backward : Part::forward, isFreed);
  for (OpOperand *use : uses)
    use->set(gathered);
  if (!backward.empty())
    readAgain(gathered,
              gatherBefore(findFirst(backward, outer), argument, storage,
                           compute, type, unit, Part::backward,
                           /*isFreed=*/false));
}

//===----------------------------------------------------------------------===//
// Optimizer: shards of gradients, states and updates
//===----------------------------------------------------------------------===//

static RankedTensorType padType(RankedTensorType type,
                                const StorageChoice &storage) {
  SmallVector<int64_t> shape(type.getShape());
  if (storage.paddedDim >= 0)
    shape[storage.paddedDim] = storage.paddedSize;
  return type.clone(shape);
}

/// `value`, with zeros up to the stored size.
static Value padForStorage(DShardBuilder &make, Value value,
                           const StorageChoice &storage) {
  return storage.paddedDim < 0
             ? value
             : padWithZeros(make, value, storage.paddedDim, storage.paddedSize);
}

/// A cotangent is sharded as its primal is computed with: the value, what it
/// is a sum of, and what a loop accumulates in it. Said here, at once, because
/// shardings of activations would reach some of them first.
static void pinCotangent(Value value, const Layout &layout, MeshAttr mesh) {
  Operation *op = value.getDefiningOp();
  if (!op || getValueSharding(value))
    return;
  setSharding(value, writeSharding(layout, mesh));
  if (auto repeat = dyn_cast<RepeatOp>(op)) {
    Operation *yield = repeat.getBody().front().getTerminator();
    pinCotangent(yield->getOperand(cast<OpResult>(value).getResultNumber()),
                 layout, mesh);
  } else if (isa<AddOp, CastOp, NegOp>(op)) {
    for (Value operand : op->getOperands())
      if (cast<RankedTensorType>(operand.getType()).getShape() ==
          cast<RankedTensorType>(value.getType()).getShape())
        pinCotangent(operand, layout, mesh);
  } else if (auto transpose = dyn_cast<TransposeOp>(op)) {
    Layout source = layout;
    for (auto [to, from] : llvm::enumerate(transpose.getPermutation()))
      source.dims[from] = layout.dims[to];
    pinCotangent(transpose.getInput(), source, mesh);
  }
}

/// The gradient, complete where its parameter is stored.
void Sharder::shardGradient(GradientOp op, const Layout &compute,
                            const StorageChoice &storage, StringRef name,
                            StringRef unit) {
  OpBuilder builder(op);
  auto path = builder.getStringAttr(unit);
  auto part = PartAttr::get(builder.getContext(), Part::backward);
  Value value = op.getInput();
  // As soon as it is there: the unreduced one is the larger.
  if (value.getDefiningOp())
    builder.setInsertionPointAfter(value.getDefiningOp());
  pinCotangent(value, compute, mesh);
  DShardBuilder make(builder, op.getLoc(), path, part);
  value = padForStorage(make, value, storage);
  ShardingAttr sharding = writeSharding(storage.layout, mesh);
  auto reshard =
      ReshardOp::create(builder, op.getLoc(), value.getType(), value, sharding,
                        builder.getStringAttr("reduce gradient of " + name),
                        UnitAttr(), path, part);
  op.getInputMutable().assign(reshard.getResult());
  int64_t dim = storage.paddedDim;
  if (dim >= 0) {
    int64_t size = DShardBuilder::typeOf(op.getResult()).getDimSize(dim);
    op.getResult().setType(cast<RankedTensorType>(value.getType()));
    growUsers(op.getResult(), dim, size);
  }
  setSharding(op.getResult(), sharding);
}

void Sharder::shardState(BlockArgument state, const StorageChoice &storage) {
  auto type = cast<RankedTensorType>(state.getType());
  setSharding(state, writeSharding(storage.layout, mesh));
  if (storage.paddedDim < 0)
    return;
  state.setType(padType(type, storage));
  growUsers(state, storage.paddedDim, type.getDimSize(storage.paddedDim));
}

/// Mode `optimizer`: the update works on shards of a parameter that is stored
/// whole, and its result is gathered.
void Sharder::shardUpdate(AdamWOp op, const Layout &compute,
                          const StorageChoice &storage, RankedTensorType type,
                          StringRef name, StringRef unit) {
  OpBuilder builder(op);
  auto path = builder.getStringAttr(unit);
  auto part = PartAttr::get(builder.getContext(), Part::optimizer);
  DShardBuilder make(builder, op.getLoc(), path, part);
  ShardingAttr sharding = writeSharding(storage.layout, mesh);
  auto shard = [&](OpOperand &operand, StringRef what) {
    Value value = padForStorage(make, operand.get(), storage);
    operand.set(ReshardOp::create(
        builder, op.getLoc(), value.getType(), value, sharding,
        builder.getStringAttr("own shard of " + what.str() + name.str()),
        UnitAttr(), path, part));
  };
  shard(op.getParamMutable(), "parameter ");
  shard(op.getGradMutable(), "the gradient of ");
  Value updated = op.getNewParam();
  updated.setType(op.getParam().getType());
  setSharding(updated, sharding);
  builder.setInsertionPointAfter(op);
  auto whole = ReshardOp::create(
      builder, op.getLoc(), updated.getType(), updated,
      writeSharding(compute, mesh),
      builder.getStringAttr("gather updated parameter " + name), UnitAttr(),
      path, part);
  Value result = whole;
  if (storage.paddedDim >= 0)
    result = make.sliceDim(result, storage.paddedDim, 0,
                           type.getDimSize(storage.paddedDim));
  updated.replaceAllUsesExcept(result, whole);
}

//===----------------------------------------------------------------------===//
// All parameters
//===----------------------------------------------------------------------===//

std::optional<StorageChoice> Sharder::chooseFor(BlockArgument argument,
                                                const Layout &compute) {
  auto type = cast<RankedTensorType>(argument.getType());
  if (overlaps(getUsedAxes(compute), axes))
    return std::nullopt; // already sharded over them
  std::optional<StorageChoice> storage = chooseStorage(type, compute, axes);
  if (!emitsRemarks)
    return storage;
  if (!storage)
    emitRemark(argument.getLoc())
        << describeValue(argument) << " of "
        << llvm::formatv("{0:F0}", getTensorBytes(type)).str()
        << " bytes is stored as it is computed with, "
        << describe(compute, mesh) << ": " << describe(axes, mesh) << " of "
        << getSize(axes) << " ranks divides no dim of it";
  else if (storage->paddedDim >= 0)
    emitRemark(argument.getLoc())
        << describeValue(argument) << ": dim " << storage->paddedDim
        << " padded from " << type.getDimSize(storage->paddedDim) << " to "
        << storage->paddedSize << " for storage over " << describe(axes, mesh)
        << " of " << getSize(axes) << " ranks";
  return storage;
}

void Sharder::run() {
  llvm::StringMap<SmallVector<GradientOp, 1>> gradients;
  function.walk([&](GradientOp op) { gradients[op.getOf()].push_back(op); });
  llvm::StringMap<SmallVector<BlockArgument, 2>> states;
  for (BlockArgument argument : function.getArguments())
    if (auto of = function.getArgAttrOfType<StringAttr>(argument.getArgNumber(),
                                                        stateOfAttrName))
      states[of.getValue()].push_back(argument);

  bool shardsStorage = mode == FullyShardedMode::gradients ||
                       mode == FullyShardedMode::parameters;
  for (BlockArgument argument : function.getArguments()) {
    auto role = function.getArgAttrOfType<RoleAttr>(argument.getArgNumber(),
                                                    roleAttrName);
    if (!role || role.getValue() != Role::param)
      continue;
    // One that is returned as it is is stored as the caller gets it.
    bool mayMove =
        !argument.use_empty() &&
        llvm::none_of(argument.getUsers(), llvm::IsaPred<func::ReturnOp>);
    auto type = cast<RankedTensorType>(argument.getType());
    ShardingAttr sharding = getValueSharding(argument);
    Layout compute = sharding ? readLayout(sharding, mesh)
                              : getReplicatedLayout(type.getRank());
    StringRef name = getStateName(function, argument.getArgNumber());
    std::string unit = units.getUnitOf(argument);
    StorageChoice whole{compute}, storage = whole, updated = whole;
    // Modes none and optimizer store what they compute with.
    bool isTrained = !name.empty() && states.count(name);
    if (mayMove && !axes.empty() &&
        (shardsStorage || (mode == FullyShardedMode::optimizer && isTrained)))
      if (std::optional<StorageChoice> choice = chooseFor(argument, compute))
        (shardsStorage ? storage : updated) = *choice;
    if (shardsStorage)
      updated = storage;

    if (storage.layout != compute || storage.paddedDim >= 0) {
      argument.setType(padType(type, storage));
      gather(argument, storage, compute, type, unit);
      setSharding(argument, writeSharding(storage.layout, mesh));
      if (storage.paddedDim >= 0)
        growUsers(argument, storage.paddedDim,
                  type.getDimSize(storage.paddedDim), /*onlyOptimizer=*/true);
    }
    if (name.empty())
      continue;
    for (GradientOp op : gradients.lookup(name))
      shardGradient(op, compute, storage, name, unit);
    if (updated.layout != storage.layout)
      for (Operation *user : llvm::to_vector(argument.getUsers()))
        if (auto update = dyn_cast<AdamWOp>(user))
          shardUpdate(update, compute, updated, type, name, unit);
    for (BlockArgument state : states.lookup(name))
      shardState(state, updated);
  }
  SmallVector<Type> inputs(function.getBody().getArgumentTypes());
  SmallVector<Type> results(
      function.getBody().front().getTerminator()->getOperandTypes());
  function.setType(FunctionType::get(function.getContext(), inputs, results));
}

namespace {
struct FullyShardPass : mlir::dshard::impl::FullyShardPassBase<FullyShardPass> {
  using FullyShardPassBase::FullyShardPassBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto parsed =
        llvm::StringSwitch<std::optional<FullyShardedMode>>(mode.getValue())
            .Case("none", FullyShardedMode::none)
            .Case("optimizer", FullyShardedMode::optimizer)
            .Case("gradients", FullyShardedMode::gradients)
            .Cases({"", "parameters"}, FullyShardedMode::parameters)
            .Default(std::nullopt);
    if (!parsed) {
      emitError(UnknownLoc::get(&getContext()))
          << "unknown fully-sharded mode '" << mode
          << "'; the modes are none, optimizer, gradients, parameters";
      return signalPassFailure();
    }
    FailureOr<MeshAttr> mesh = getMeshOrEmitError(module);
    if (failed(mesh))
      return signalPassFailure();
    AxisPieces axes;
    for (StringRef axis : {"dp_shard", "cp"})
      if (int64_t size = mesh->getAxisSize(axis); size > 1)
        axes.push_back({StringAttr::get(&getContext(), axis), 1, size});
    bool isFirst = true;
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      // A wrong --fsdp-unit is an error even where nothing is sharded.
      FailureOr<Units> units = Units::find(function, unit);
      if (failed(units))
        return signalPassFailure();
      Sharder{function, *mesh, axes, *parsed, std::move(*units), isFirst}.run();
      isFirst = false;
    }
  }
};
} // namespace
