//===- Compile.cpp - Run the phases ---------------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Import/Import.h"
#include "dshard/Pipelines/Pipelines.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassInstrumentation.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Support/FileUtilities.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/ToolOutputFile.h"

using namespace mlir;
using namespace mlir::dshard;

static constexpr llvm::StringLiteral axisNames[] = {"pp", "dp_replicate",
                                                    "dp_shard", "cp", "tp"};
static constexpr int dpShardAxis = 2;

/// "dp_shard=2,tp=2" in canonical order; with `ranks`, dp_shard takes the rest.
static FailureOr<MeshAttr> parseMesh(MLIRContext &context, llvm::StringRef text,
                                     int64_t ranks) {
  auto error = [&] { return emitError(UnknownLoc::get(&context)); };
  llvm::SmallVector<int64_t> sizes(std::size(axisNames), 0);
  llvm::SmallVector<llvm::StringRef> entries;
  text.split(entries, ',', -1, /*KeepEmpty=*/false);
  for (llvm::StringRef entry : entries) {
    auto [name, value] = entry.split('=');
    name = name.trim();
    const auto *axis = llvm::find(axisNames, name);
    if (axis == std::end(axisNames))
      return error() << "unknown mesh axis '" << name << "'; the axes are "
                     << llvm::join(std::begin(axisNames), std::end(axisNames),
                                   ", ");
    int64_t size = 0;
    if (value.trim().getAsInteger(10, size) || size < 1)
      return error() << "mesh axis '" << name << "' has size '" << value
                     << "'; it must be a whole number >= 1";
    int64_t &slot = sizes[axis - std::begin(axisNames)];
    if (slot)
      return error() << "mesh axis '" << name << "' is given twice";
    slot = size;
  }
  // A huge mesh is a typing error, not a request.
  constexpr int64_t maxRanks = 1 << 20;
  int64_t product = 1;
  for (int64_t size : sizes) {
    if (size > maxRanks || (product *= std::max<int64_t>(size, 1)) > maxRanks)
      return error() << "mesh '" << text << "' has more than " << maxRanks
                     << " ranks";
  }
  if (ranks) {
    if (sizes[dpShardAxis] == 0 && ranks % product == 0)
      sizes[dpShardAxis] = ranks / product;
    else if (product != ranks)
      return error() << "--ranks=" << ranks << " does not suit the mesh '"
                     << text << "' of " << product
                     << " ranks; leave one of them out";
  }
  llvm::SmallVector<MeshAxisAttr> axes;
  for (auto [name, size] : llvm::zip_equal(axisNames, sizes))
    if (size)
      axes.push_back(MeshAxisAttr::get(
          &context, StringAttr::get(&context, name), size, Link::none));
  return MeshAttr::get(&context, axes);
}

/// Refuses, in one place, the strategies that have no passes yet.
static LogicalResult refuseMissingStrategies(MeshAttr mesh,
                                             MLIRContext &context) {
  static constexpr std::pair<llvm::StringLiteral, llvm::StringLiteral>
      missing[] = {{"pp", "pipeline"}, {"cp", "context"}};
  for (const auto &[axis, what] : missing)
    if (mesh.getAxisSize(axis) > 1)
      return emitError(UnknownLoc::get(&context))
             << "mesh axis " << axis << "=" << mesh.getAxisSize(axis) << ": "
             << what
             << " parallelism is not built yet; use dp_replicate, dp_shard or "
                "tp";
  return success();
}

static LogicalResult writeModule(ModuleOp module, llvm::StringRef folder,
                                 llvm::StringRef name) {
  std::string message;
  if (std::error_code code = llvm::sys::fs::create_directories(folder))
    return emitError(UnknownLoc::get(module.getContext()))
           << "cannot make folder '" << folder << "': " << code.message();
  std::unique_ptr<llvm::ToolOutputFile> file =
      openOutputFile((folder + "/" + name + ".mlir").str(), &message);
  if (!file)
    return emitError(UnknownLoc::get(module.getContext())) << message;
  module.print(file->os(), OpPrintingFlags().enableDebugInfo());
  file->os() << "\n";
  file->keep();
  return success();
}

namespace {
/// Writes the module after each pass: NN-flag.mlir.
struct DumpPasses : PassInstrumentation {
  DumpPasses(std::string folder, int &count)
      : folder(std::move(folder)), count(count) {}
  void runAfterPass(Pass *pass, Operation *op) override {
    auto module = dyn_cast<ModuleOp>(op);
    if (!module)
      module = op->getParentOfType<ModuleOp>();
    if (module && !pass->getArgument().empty())
      (void)writeModule(
          module, folder,
          llvm::formatv("{0,0+2}-{1}", count++, pass->getArgument()).str());
  }
  std::string folder;
  int &count;
};
} // namespace

/// Imports `options.model` and gives it its mesh.
static LogicalResult import(MLIRContext &context, const CompileOptions &options,
                            OwningOpRef<ModuleOp> &module) {
  FailureOr<MeshAttr> mesh = parseMesh(context, options.mesh, options.ranks);
  if (failed(mesh) || failed(refuseMissingStrategies(*mesh, context)))
    return failure();
  ImportOptions importOptions;
  importOptions.dims = options.dims;
  importOptions.dimRoles = options.dimRoles;
  importOptions.constants = options.constants;
  importOptions.entry = options.entry;
  FailureOr<OwningOpRef<ModuleOp>> imported =
      importOnnx(context, options.model, importOptions);
  if (failed(imported))
    return failure();
  module = std::move(*imported);
  (*module)->setAttr(meshAttrName, *mesh);
  return success();
}

LogicalResult mlir::dshard::compile(MLIRContext &context,
                                    const CompileOptions &options,
                                    OwningOpRef<ModuleOp> &module) {
  auto finishPhase = [&](Phase phase) -> LogicalResult {
    (*module)->setAttr(phaseAttrName,
                       StringAttr::get(&context, getPhaseName(phase)));
    if (options.dumpPhasesTo.empty())
      return success();
    return writeModule(
        *module, options.dumpPhasesTo,
        llvm::formatv("{0}-{1}", static_cast<int>(phase), getPhaseName(phase))
            .str());
  };

  context.loadDialect<DShardDialect, func::FuncDialect>();
  Phase current = options.from.value_or(Phase::import);
  // Collectives exist in the phases local and schedule; the last of them
  // counts.
  Phase explained = std::min(options.to, Phase::schedule);
  if (options.explain && explained < Phase::local)
    return emitError(UnknownLoc::get(&context))
           << "--explain lists collectives, which exist from phase local on, "
              "not in phase "
           << getPhaseName(options.to);
  if (options.from) {
    if (current > options.to)
      return emitError(UnknownLoc::get(&context))
             << "--from=" << getPhaseName(current)
             << " lies after --to=" << getPhaseName(options.to);
    module = parseSourceFile<ModuleOp>(options.model, &context);
    if (!module)
      return failure();
  } else if (failed(import(context, options, module)) ||
             failed(finishPhase(Phase::import))) {
    return failure();
  }

  int passCount = 0;
  while (current < options.to) {
    current = static_cast<Phase>(static_cast<int>(current) + 1);
    PassManager manager(&context, ModuleOp::getOperationName());
    if (failed(parsePassPipeline(getPhasePipeline(current, options), manager,
                                 llvm::errs())))
      return emitError(UnknownLoc::get(&context))
             << "phase " << getPhaseName(current) << " has an unknown pass";
    if (!options.dumpPassesTo.empty())
      manager.addInstrumentation(
          std::make_unique<DumpPasses>(options.dumpPassesTo, passCount));
    if (failed(manager.run(*module)) || failed(finishPhase(current)))
      return failure();
    if (options.explain && current == explained)
      explainCollectives(*module, *options.explain);
  }
  return success();
}
