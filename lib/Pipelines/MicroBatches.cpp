//===- MicroBatches.cpp - The model on a part of the batch ----------------===//

#include "MicroBatches.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"

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

LogicalResult mlir::dshard::addMicroBatch(ModuleOp module, StringRef path,
                                          const ImportOptions &options,
                                          int64_t count) {
  ImportOptions micro = options;
  micro.entry = trainStepName.str();
  FailureOr<OwningOpRef<ModuleOp>> imported =
      importPart(*module.getOps<func::FuncOp>().begin(), path, micro, count);
  if (failed(imported))
    return failure();
  auto function = *(*imported)->getOps<func::FuncOp>().begin();
  function->remove();
  module.push_back(function);
  return success();
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
  PassManager manager(module->getContext(), ModuleOp::getOperationName());
  if (failed(parsePassPipeline((graphPasses + ",dshard-verify-rows").str(),
                               manager)))
    return failure();
  {
    // The same passes say the same again on the part.
    ScopedDiagnosticHandler quiet(
        module->getContext(), [](Diagnostic &diagnostic) {
          return failure(diagnostic.getSeverity() == DiagnosticSeverity::Error);
        });
    if (failed(manager.run(*module)))
      return failure();
  }
  (**imported)->setAttrs((*module)->getAttrDictionary());
  module = std::move(*imported);
  return success();
}
