//===- FullyShard.cpp - Decide the storage sharding of parameters ---------===//

#include "dshard/Cost/Resharding.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Propagate/FactorSharding.h"
#include "dshard/Transforms/Propagate/Gates.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "dshard/Transforms/Propagate/Units.h"
#include "llvm/Support/FormatVariadic.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_FULLYSHARDPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// Where a parameter is stored.
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
  bool gathersAgain = false;
  Units units;

  void run();
  void shard(BlockArgument argument, const Layout &compute,
             const StorageChoice &storage);
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

void Sharder::shard(BlockArgument argument, const Layout &compute,
                    const StorageChoice &storage) {
  auto type = cast<RankedTensorType>(argument.getType());
  std::string unit = units.getUnitOf(argument);
  Operation *first = nullptr;
  for (Operation *user : argument.getUsers())
    if (!first || user->isBeforeInBlock(first))
      first = user;
  if (storage.paddedDim >= 0) {
    SmallVector<int64_t> shape(type.getShape());
    shape[storage.paddedDim] = storage.paddedSize;
    argument.setType(type.clone(shape));
    emitRemark(argument.getLoc())
        << describeValue(argument) << ": dim " << storage.paddedDim
        << " padded from " << type.getDimSize(storage.paddedDim) << " to "
        << storage.paddedSize << " for storage over " << describe(axes, mesh)
        << " of " << getSize(axes) << " ranks";
  }
  setSharding(argument, writeSharding(storage.layout, mesh));
  OpBuilder builder(first);
  bool again = gathersAgain && units.isGatheredAgain(unit);
  auto path = builder.getStringAttr(unit);
  auto part = PartAttr::get(builder.getContext(), Part::forward);
  ShardingAttr computeSharding = writeSharding(compute, mesh);
  auto reshard = ReshardOp::create(
      builder, first->getLoc(), argument.getType(), argument, computeSharding,
      builder.getStringAttr("gather " + describeValue(argument)),
      again ? builder.getUnitAttr() : UnitAttr(), path, part);
  Value gathered = reshard.getResult();
  if (storage.paddedDim >= 0) {
    DShardBuilder make(builder, first->getLoc(), path, part);
    gathered = make.sliceDim(gathered, storage.paddedDim, 0,
                             type.getDimSize(storage.paddedDim));
    setSharding(gathered, computeSharding);
  }
  argument.replaceAllUsesExcept(gathered, reshard);
}

void Sharder::run() {
  for (BlockArgument argument : function.getArguments()) {
    auto role = function.getArgAttrOfType<RoleAttr>(argument.getArgNumber(),
                                                    roleAttrName);
    ShardingAttr sharding = getValueSharding(argument);
    if (!role || role.getValue() != Role::param || !sharding ||
        argument.use_empty())
      continue;
    // One that is returned as it is has no user inside the model.
    if (llvm::any_of(argument.getUsers(), llvm::IsaPred<func::ReturnOp>))
      continue;
    Layout compute = readLayout(sharding, mesh);
    if (overlaps(getUsedAxes(compute), axes))
      continue; // already sharded over them
    std::optional<StorageChoice> storage = chooseStorage(
        cast<RankedTensorType>(argument.getType()), compute, axes);
    if (storage)
      shard(argument, compute, *storage);
    else
      emitRemark(argument.getLoc())
          << describeValue(argument) << " of "
          << llvm::formatv("{0:F0}", getTensorBytes(cast<RankedTensorType>(
                                         argument.getType())))
                 .str()
          << " bytes is stored as it is computed with, "
          << describe(compute, mesh) << ": " << describe(axes, mesh) << " of "
          << getSize(axes) << " ranks divides no dim of it";
  }
  SmallVector<Type> inputs(function.getBody().getArgumentTypes());
  function.setType(FunctionType::get(function.getContext(), inputs,
                                     function.getResultTypes()));
}

namespace {
struct FullyShardPass : mlir::dshard::impl::FullyShardPassBase<FullyShardPass> {
  using FullyShardPassBase::FullyShardPassBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    if (!llvm::is_contained(
            {"", "none", "optimizer", "gradients", "parameters"},
            mode.getValue())) {
      emitError(UnknownLoc::get(&getContext()))
          << "unknown fully-sharded mode '" << mode
          << "'; the modes are none, optimizer, gradients, parameters";
      return signalPassFailure();
    }
    FailureOr<MeshAttr> mesh = getMeshOrEmitError(module);
    if (failed(mesh))
      return signalPassFailure();
    if (mesh->getAxisSize("cp") > 1) {
      module.emitError() << "mesh axis cp=" << mesh->getAxisSize("cp")
                         << ": context parallelism is not built yet; use "
                            "dp_replicate, dp_shard or tp";
      return signalPassFailure();
    }
    bool isOn = mode.empty() || mode == "gradients" || mode == "parameters";
    AxisPieces axes;
    for (StringRef axis : {"dp_shard", "cp"})
      if (int64_t size = mesh->getAxisSize(axis); size > 1)
        axes.push_back({StringAttr::get(&getContext(), axis), 1, size});
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      // A wrong --fsdp-unit is an error even where nothing is sharded.
      FailureOr<Units> units = Units::find(function, unit);
      if (failed(units))
        return signalPassFailure();
      if (isOn && !axes.empty())
        Sharder{function, *mesh, axes, mode != "gradients", std::move(*units)}
            .run();
    }
  }
};
} // namespace
