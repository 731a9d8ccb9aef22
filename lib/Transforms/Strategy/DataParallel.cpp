//===- DataParallel.cpp - Shard the batch of every input ------------------===//

#include "InputDims.h"
#include "dshard/Transforms/Strategy/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_DATAPARALLELPASS
#include "dshard/Transforms/Strategy/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct BatchDim {
  unsigned argument;
  int64_t dim, size;
};
} // namespace

/// The batch dims that carry samples. Beside a larger batch one of size 1 is
/// broadcast (position ids, say), and stays whole.
static SmallVector<BatchDim> detectBatchDims(func::FuncOp function) {
  SmallVector<BatchDim> found;
  int64_t largest = 0;
  for (unsigned i = 0; i < function.getNumArguments(); ++i) {
    if (!isInput(function, i))
      continue;
    std::optional<int64_t> dim = findBatchDim(function, i);
    if (!dim)
      continue;
    int64_t size =
        cast<RankedTensorType>(function.getArgumentTypes()[i]).getDimSize(*dim);
    found.push_back({i, *dim, size});
    largest = std::max(largest, size);
  }
  if (largest > 1)
    llvm::erase_if(found,
                   [](const BatchDim &batch) { return batch.size == 1; });
  return found;
}

/// "dp_replicate=2, dp_shard=2".
static std::string describeAxes(ArrayRef<AxisRefAttr> axes, MeshAttr mesh) {
  std::string text;
  for (AxisRefAttr axis : axes)
    text += (text.empty() ? "" : ", ") + axis.getName().str() + "=" +
            std::to_string(mesh.getSize(axis));
  return text;
}

static void shardBatch(func::FuncOp function, const BatchDim &batch,
                       ArrayRef<AxisRefAttr> axes) {
  MLIRContext *context = function.getContext();
  BlockArgument argument = function.getArgument(batch.argument);
  int64_t rank = cast<RankedTensorType>(argument.getType()).getRank();
  SmallVector<DimShardingAttr> dims(rank,
                                    DimShardingAttr::get(context, {}, false));
  if (ShardingAttr present = getSharding(argument)) {
    dims.assign(present.getDims().begin(), present.getDims().end());
    // Whoever wrote axes there meant them.
    if (!dims[batch.dim].getAxes().empty())
      return;
  }
  dims[batch.dim] = DimShardingAttr::get(context, axes, false);
  setSharding(argument,
              ShardingAttr::get(context, dims, {}, ReductionKind::sum));
  function.setArgAttr(
      batch.argument, originAttrName,
      OriginAttr::get(context,
                      StringAttr::get(context, "data parallel: batch dim " +
                                                   Twine(batch.dim))));
}

/// How many pieces the batch goes through a step in.
static int64_t countMicroBatches(func::FuncOp function) {
  int64_t count = 1;
  for (auto repeat : function.getBody().getOps<RepeatOp>())
    count = std::max<int64_t>(count, repeat.getCount());
  return count;
}

static LogicalResult run(func::FuncOp function, ArrayRef<AxisRefAttr> axes,
                         MeshAttr mesh) {
  SmallVector<BatchDim> found = detectBatchDims(function);
  if (found.empty())
    return function.emitError()
           << "mesh axes " << describeAxes(axes, mesh)
           << " shard the batch, but no input has a batch dim; name one with "
              "--dims INPUT=batch,...";
  int64_t microBatches = countMicroBatches(function);
  // For a pipeline the types are those of one part already.
  int64_t parts = 1;
  if (auto count = function->getAttrOfType<IntegerAttr>(microBatchesAttrName))
    parts = std::max<int64_t>(count.getInt(), 1);
  microBatches *= parts;
  int64_t ranks = mesh.getSize(axes) * microBatches;
  for (const BatchDim &batch : found) {
    int64_t size = batch.size * parts;
    if (size % ranks == 0)
      continue;
    int64_t below = size / ranks * ranks;
    InFlightDiagnostic diagnostic =
        function.emitError()
        << describeInput(function, batch.argument) << ": batch dim "
        << batch.dim << " of size " << size << " is not divisible by "
        << describeAxes(axes, mesh);
    if (microBatches > 1)
      diagnostic << " in " << microBatches << " micro-batches";
    diagnostic << "; sizes that divide: ";
    if (below > 0)
      diagnostic << below << ", ";
    return diagnostic << below + ranks;
  }
  for (const BatchDim &batch : found)
    shardBatch(function, batch, axes);
  return success();
}

namespace {
struct DataParallelPass
    : mlir::dshard::impl::DataParallelPassBase<DataParallelPass> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    MeshAttr mesh = getMesh(module);
    if (!mesh) {
      module.emitError() << "module has no " << meshAttrName
                         << "; give it one with --mesh";
      return signalPassFailure();
    }
    SmallVector<AxisRefAttr> axes;
    for (StringRef axis : {"dp_replicate", "dp_shard"})
      if (mesh.getAxisSize(axis) > 1)
        axes.push_back(AxisRefAttr::get(&getContext(), axis));
    if (axes.empty())
      return;
    for (auto function : module.getOps<func::FuncOp>())
      if (!function.isExternal() && failed(run(function, axes, mesh)))
        return signalPassFailure();
  }
};
} // namespace
