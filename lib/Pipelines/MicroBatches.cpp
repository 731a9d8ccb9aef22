//===- MicroBatches.cpp - The model on a part of the batch ----------------===//

#include "MicroBatches.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "llvm/ADT/BitVector.h"

using namespace mlir;
using namespace mlir::dshard;

/// The name of dim 0 of an input; empty where it has none.
static StringRef getBatchName(func::FuncOp function, unsigned index) {
  auto names = function.getArgAttrOfType<ArrayAttr>(index, dimNamesAttrName);
  auto name =
      names && !names.empty() ? dyn_cast<StringAttr>(names[0]) : StringAttr();
  return name ? name.getValue() : "";
}

/// Divides the sizes of the batch dims in `options` by `count`.
static LogicalResult divideBatch(func::FuncOp function, ImportOptions &options,
                                 int64_t count) {
  llvm::SmallDenseSet<StringRef> done;
  for (unsigned i = 0; i < function.getNumArguments(); ++i) {
    auto type = cast<RankedTensorType>(function.getArgumentTypes()[i]);
    if (function.getArgAttr(i, weightAttrName) || type.getRank() == 0 ||
        type.getDimSize(0) == 1)
      continue;
    StringRef input = function.getArgAttrOfType<StringAttr>(i, nameAttrName);
    auto error = [&] {
      return function.emitError() << "--micro-batches=" << count << ": ";
    };
    StringRef name = getBatchName(function, i);
    auto dim = llvm::find_if(
        options.dims, [&](const auto &dim) { return dim.first == name; });
    if (dim == options.dims.end())
      return error() << "dim 0 of input '" << input << "' has the fixed size "
                     << type.getDimSize(0)
                     << " in the model; export it with a symbolic batch";
    if (!done.insert(name).second)
      continue;
    if (dim->second % count != 0)
      return error() << "does not divide the batch of " << dim->second
                     << " (dim '" << name << "' of input '" << input << "')";
    dim->second /= count;
  }
  return success();
}

/// The model on the `count`-th part of the batch of `model`.
static FailureOr<OwningOpRef<ModuleOp>> importPart(func::FuncOp model,
                                                   StringRef path,
                                                   ImportOptions options,
                                                   int64_t count) {
  if (failed(divideBatch(model, options, count)))
    return failure();
  // What the importer remarks on, it has said the first time.
  ScopedDiagnosticHandler quiet(model.getContext(), [](Diagnostic &diagnostic) {
    return failure(diagnostic.getSeverity() == DiagnosticSeverity::Error);
  });
  FailureOr<OwningOpRef<ModuleOp>> imported =
      importOnnx(*model.getContext(), path, options);
  if (succeeded(imported))
    (*(**imported).getOps<func::FuncOp>().begin())
        ->setAttr(
            microBatchesAttrName,
            IntegerAttr::get(IntegerType::get(model.getContext(), 64), count));
  return imported;
}

/// Whether dim 0 is `count` times longer in `whole`; failure if anything else
/// differs.
static FailureOr<bool> isDivided(Type whole, Type part, int64_t count) {
  if (whole == part)
    return false;
  auto from = cast<RankedTensorType>(whole), to = cast<RankedTensorType>(part);
  if (from.getRank() == 0 || from.getRank() != to.getRank() ||
      from.getElementType() != to.getElementType() ||
      from.getShape().drop_front() != to.getShape().drop_front() ||
      from.getDimSize(0) != to.getDimSize(0) * count)
    return failure();
  return true;
}

/// Marks the arguments and results of both that have the batch in dim 0.
static LogicalResult markBatch(func::FuncOp whole, func::FuncOp part,
                               int64_t count) {
  auto unit = UnitAttr::get(whole.getContext());
  for (unsigned i = 0; i < whole.getNumArguments(); ++i) {
    FailureOr<bool> divided = isDivided(whole.getArgumentTypes()[i],
                                        part.getArgumentTypes()[i], count);
    if (failed(divided))
      return whole.emitError() << "--micro-batches=" << count << ": input "
                               << whole.getArgAttr(i, nameAttrName) << " of "
                               << whole.getArgumentTypes()[i]
                               << " does not have the batch in dim 0 alone";
    if (*divided)
      for (func::FuncOp function : {whole, part})
        function.setArgAttr(i, microBatchedAttrName, unit);
  }
  for (unsigned i = 0; i < whole.getNumResults(); ++i) {
    FailureOr<bool> divided =
        isDivided(whole.getResultTypes()[i], part.getResultTypes()[i], count);
    if (failed(divided))
      return whole.emitError() << "--micro-batches=" << count << ": output "
                               << whole.getResultAttr(i, nameAttrName) << " of "
                               << whole.getResultTypes()[i]
                               << " does not have the batch in dim 0 alone";
    if (*divided)
      for (func::FuncOp function : {whole, part})
        function.setResultAttr(i, microBatchedAttrName, unit);
  }
  return success();
}

/// Leaves nothing but the computation of result `kept`.
static LogicalResult keepResult(func::FuncOp function, unsigned kept) {
  llvm::BitVector others(function.getNumResults(), true);
  others.reset(kept);
  Block &body = function.getBody().front();
  body.getTerminator()->eraseOperands(others);
  if (failed(function.eraseResults(others)))
    return failure();
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(body)))
    if (isOpTriviallyDead(&op))
      op.erase();
  return success();
}

/// Each row of `logits` must belong to the same row of the inputs: labels and
/// inputs go through the parts of the batch row by row.
static LogicalResult checkLogits(func::FuncOp whole, StringRef logits,
                                 int64_t count) {
  auto error = [&](Type type) {
    return whole.emitError() << "--micro-batches=" << count << ": logits '"
                             << logits << "' are " << type;
  };
  static constexpr llvm::StringLiteral wayOut =
      "; train without --micro-batches, or export logits as [batch, ...]";
  auto type = cast<RankedTensorType>(whole.getResultTypes().front());
  if (!whole.getResultAttr(0, microBatchedAttrName))
    return error(type) << ", which do not have the batch in dim 0" << wayOut;
  for (unsigned i = 0; i < whole.getNumArguments(); ++i) {
    auto input = cast<RankedTensorType>(whole.getArgumentTypes()[i]);
    if (whole.getArgAttr(i, microBatchedAttrName) &&
        input.getDimSize(0) != type.getDimSize(0))
      return error(type) << ", and the batch of input "
                         << whole.getArgAttr(i, nameAttrName) << " is "
                         << input.getDimSize(0) << wayOut;
  }
  return success();
}

/// Runs passes on a copy of a model, which has said its remarks.
static LogicalResult runQuietly(ModuleOp module, StringRef passes) {
  PassManager manager(module.getContext(), ModuleOp::getOperationName());
  if (failed(parsePassPipeline(passes, manager)))
    return failure();
  ScopedDiagnosticHandler quiet(
      module.getContext(), [](Diagnostic &diagnostic) {
        return failure(diagnostic.getSeverity() == DiagnosticSeverity::Error);
      });
  return manager.run(module);
}

/// Proves, on copies, that the loss of the whole is the sum of those of the
/// parts.
static LogicalResult verifyTraining(ModuleOp module, func::FuncOp part,
                                    int64_t count, StringRef logits,
                                    StringRef graphPasses) {
  OwningOpRef<ModuleOp> copy = module.clone();
  OwningOpRef<func::FuncOp> partCopy = part.clone();
  auto whole = *copy->getOps<func::FuncOp>().begin();
  auto indices = llvm::seq<unsigned>(0, whole.getNumResults());
  auto found = llvm::find_if(indices, [&](unsigned i) {
    auto name = whole.getResultAttrOfType<StringAttr>(i, nameAttrName);
    return name && name.getValue() == logits;
  });
  if (found == indices.end())
    return success(); // dshard-build-train-step lists the outputs
  if (failed(keepResult(whole, *found)) ||
      failed(keepResult(*partCopy, *found)) ||
      failed(markBatch(whole, *partCopy, count)) ||
      failed(checkLogits(whole, logits, count)))
    return failure();
  whole->setAttr(microBatchesAttrName, part->getAttr(microBatchesAttrName));
  if (failed(runQuietly(*copy, graphPasses)))
    return failure();
  // Its way out is another than that of pipelines.
  std::string reason;
  Location where = whole.getLoc();
  {
    ScopedDiagnosticHandler capture(
        module.getContext(), [&](Diagnostic &diagnostic) {
          if (reason.empty() &&
              diagnostic.getSeverity() == DiagnosticSeverity::Error) {
            reason = diagnostic.str();
            where = diagnostic.getLocation();
          }
          return success();
        });
    PassManager manager(module.getContext(), ModuleOp::getOperationName());
    if (succeeded(parsePassPipeline("dshard-verify-rows", manager)) &&
        succeeded(manager.run(*copy)))
      return success();
  }
  return emitError(where) << reason << "; train without --micro-batches";
}

LogicalResult mlir::dshard::addMicroBatch(ModuleOp module, StringRef path,
                                          const ImportOptions &options,
                                          int64_t count, StringRef logits,
                                          StringRef graphPasses) {
  ImportOptions micro = options;
  micro.entry = trainStepName.str();
  FailureOr<OwningOpRef<ModuleOp>> imported =
      importPart(*module.getOps<func::FuncOp>().begin(), path, micro, count);
  if (failed(imported))
    return failure();
  auto function = *(*imported)->getOps<func::FuncOp>().begin();
  if (failed(verifyTraining(module, function, count, logits, graphPasses)))
    return failure();
  function->remove();
  module.push_back(function);
  return success();
}

LogicalResult mlir::dshard::divideIntoMicroBatches(
    OwningOpRef<ModuleOp> &module, StringRef path, const ImportOptions &options,
    int64_t count, StringRef graphPasses) {
  auto whole = *module->getOps<func::FuncOp>().begin();
  FailureOr<OwningOpRef<ModuleOp>> imported =
      importPart(whole, path, options, count);
  if (failed(imported))
    return failure();
  auto part = *(*imported)->getOps<func::FuncOp>().begin();
  if (failed(markBatch(whole, part, count)))
    return failure();
  whole->setAttr(microBatchesAttrName, part->getAttr(microBatchesAttrName));
  // The same passes say the same again on the part.
  if (failed(runQuietly(*module, (graphPasses + ",dshard-verify-rows").str())))
    return failure();
  (**imported)->setAttrs((*module)->getAttrDictionary());
  module = std::move(*imported);
  return success();
}
