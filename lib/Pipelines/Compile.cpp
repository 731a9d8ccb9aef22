//===- Compile.cpp - Run the phases ---------------------------------------===//

#include "MicroBatches.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Import/Import.h"
#include "dshard/Pipelines/Pipelines.h"
#include "dshard/Support/File.h"
#include "dshard/Transforms/Train/TrainConfig.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassInstrumentation.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"

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

/// Refuses, in one place, what pipelines cannot do yet, and their flags where
/// there is none.
static LogicalResult verifyPipeline(MeshAttr mesh,
                                    const CompileOptions &options,
                                    MLIRContext &context) {
  auto error = [&] { return emitError(UnknownLoc::get(&context)); };
  llvm::StringRef split = options.pipelineSplit,
                  schedule = options.pipelineSchedule;
  if (!split.empty() && split != "layers" && split != "cost")
    return error() << "--pp-split=" << split
                   << ": a pipeline is split by 'layers' or by 'cost'";
  static constexpr llvm::StringLiteral planned[] = {
      "1f1b", "interleaved_1f1b", "looped_bfs",
      "dfs",  "v_schedule",       "zero_bubble"};
  if (llvm::is_contained(planned, schedule))
    return error() << "--pp-schedule=" << schedule
                   << " is not built yet; use gpipe";
  if (!schedule.empty() && schedule != "gpipe")
    return error() << "--pp-schedule=" << schedule
                   << ": unknown schedule; use gpipe";
  int64_t stages = mesh ? mesh.getAxisSize("pp") : 1;
  if (stages == 1 && !(split.empty() && schedule.empty()))
    return error() << (split.empty() ? "--pp-schedule" : "--pp-split")
                   << " is for pipelines; give --mesh=pp=N";
  if (options.microBatches < stages && options.train.empty() && !options.from)
    emitRemark(UnknownLoc::get(&context))
        << "--micro-batches=" << options.microBatches << " for pp=" << stages
        << " stages: with fewer micro-batches than stages some always wait";
  if (stages > 1 && !options.train.empty())
    return error() << "mesh axis pp=" << stages
                   << " with --train: pipelines run forward only yet; use "
                      "dp_replicate, dp_shard or tp";
  return success();
}

LogicalResult mlir::dshard::writeModule(ModuleOp module, llvm::StringRef path) {
  auto error = [&] { return emitError(UnknownLoc::get(module.getContext())); };
  std::string text;
  llvm::raw_string_ostream stream(text);
  // With locations, so that --from loses nothing.
  module.print(stream, OpPrintingFlags().enableDebugInfo());
  stream << "\n";
  if (!path.empty() && path != "-") {
    ::dshard::Status written =
        ::dshard::writeFile(path.str(), text.data(), text.size());
    return written ? success() : error() << written.message();
  }
  llvm::raw_fd_ostream &out = llvm::outs();
  out << text;
  out.flush();
  if (!out.has_error())
    return success();
  std::string reason = out.error().message();
  out.clear_error(); // else the stream ends the program
  return error() << "standard output: cannot write: " << reason;
}

/// FOLDER/NAME.mlir; makes the folder.
static LogicalResult dumpModule(ModuleOp module, llvm::StringRef folder,
                                llvm::StringRef name) {
  if (std::error_code code = llvm::sys::fs::create_directories(folder))
    return emitError(UnknownLoc::get(module.getContext()))
           << "cannot make folder '" << folder << "': " << code.message();
  return writeModule(module, (folder + "/" + name + ".mlir").str());
}

namespace {
/// Writes the module after each pass: NN-flag.mlir.
struct DumpPasses : PassInstrumentation {
  DumpPasses(std::string folder, int &count, bool &hasFailed)
      : folder(std::move(folder)), count(count), hasFailed(hasFailed) {}
  void runAfterPass(Pass *pass, Operation *op) override {
    auto module = dyn_cast<ModuleOp>(op);
    if (!module)
      module = op->getParentOfType<ModuleOp>();
    if (!module || pass->getArgument().empty() || hasFailed)
      return;
    std::string name =
        llvm::formatv("{0,0+2}-{1}", count++, pass->getArgument()).str();
    hasFailed = failed(dumpModule(module, folder, name));
  }
  std::string folder;
  int &count;
  bool &hasFailed;
};
} // namespace

/// Imports `options.model` and gives it its mesh.
static LogicalResult import(MLIRContext &context, const CompileOptions &options,
                            OwningOpRef<ModuleOp> &module) {
  auto error = [&] { return emitError(UnknownLoc::get(&context)); };
  if (llvm::StringRef(options.model).ends_with(".mlir"))
    return error() << options.model
                   << " is no ONNX model; if it holds MLIR, say after which "
                      "phase it was written: --from=PHASE, one of "
                   << listPhases();
  FailureOr<MeshAttr> mesh = parseMesh(context, options.mesh, options.ranks);
  if (failed(mesh) || failed(verifyPipeline(*mesh, options, context)))
    return failure();
  if (options.microBatches > 1 && options.train.empty() &&
      mesh->getAxisSize("pp") == 1)
    return error() << "--micro-batches=" << options.microBatches
                   << " is for training and pipelines; give --train=FILE or "
                      "--mesh=pp=N";
  if (!options.train.empty() && options.entry == trainStepName)
    return error() << "--entry=" << options.entry
                   << " is what --train calls its own entry point; name the "
                      "model's otherwise";
  ImportOptions importOptions;
  importOptions.dims = options.dims;
  importOptions.dimRoles = options.dimRoles;
  importOptions.constants = options.constants;
  importOptions.entry = options.entry;
  importOptions.training = !options.train.empty();
  FailureOr<OwningOpRef<ModuleOp>> imported =
      importOnnx(context, options.model, importOptions);
  if (failed(imported))
    return failure();
  module = std::move(*imported);
  (*module)->setAttr(meshAttrName, *mesh);
  // A size of 0 is good for a cache that is empty yet, not for what comes out.
  for (const auto &[name, size] : options.dims)
    for (auto function : module->getOps<func::FuncOp>())
      for (auto [index, type] : llvm::enumerate(function.getResultTypes()))
        if (auto tensor = dyn_cast<RankedTensorType>(type);
            size == 0 && tensor && tensor.getNumElements() == 0) {
          auto output =
              function.getResultAttrOfType<StringAttr>(index, nameAttrName);
          return error() << options.model << ": --dim " << name
                         << "=0 leaves output '"
                         << (output ? output.getValue() : "") << "' of " << type
                         << " without elements; give at least 1";
        }
  if (options.microBatches == 1)
    return success();
  std::string graphPasses = getPhasePipeline(Phase::graph, options);
  if (options.train.empty())
    return divideIntoMicroBatches(module, options.model, importOptions,
                                  options.microBatches, graphPasses);
  ::dshard::Result<TrainConfig> config = loadTrainConfig(options.train);
  if (!config)
    return error() << "--train: " << config.status().message();
  return addMicroBatch(*module, options.model, importOptions,
                       options.microBatches, config->logits, graphPasses);
}

/// Parses the IR of phase `options.from`. What only the importer reads is
/// refused: it would change nothing.
static LogicalResult resume(MLIRContext &context, const CompileOptions &options,
                            OwningOpRef<ModuleOp> &module) {
  auto error = [&] { return emitError(UnknownLoc::get(&context)); };
  llvm::StringRef phase = getPhaseName(*options.from);
  const char *useless = !options.dims.empty()        ? "--dim"
                        : !options.dimRoles.empty()  ? "--dims"
                        : !options.constants.empty() ? "--const"
                        : options.entry != "run"     ? "--entry"
                        : options.microBatches > 1 && options.train.empty()
                            ? "--micro-batches"
                            : nullptr;
  if (useless)
    return error() << useless << " is for an .onnx; with --from=" << phase
                   << " sizes and names are those of '" << options.model << "'";
  if (*options.from >= Phase::train &&
      (!options.train.empty() || options.microBatches > 1))
    return error() << (options.train.empty() ? "--micro-batches" : "--train")
                   << " belongs to the phase train; with --from=" << phase
                   << " it is over";
  module = parseSourceFile<ModuleOp>(options.model, &context);
  if (!module)
    return failure();
  if (auto held = (*module)->getAttrOfType<StringAttr>(phaseAttrName);
      held && held.getValue() != phase)
    return error() << options.model << " holds phase '" << held.getValue()
                   << "', not '" << phase
                   << "'; say --from=" << held.getValue();
  if (options.mesh.empty() && !options.ranks)
    return verifyPipeline(getMesh(*module), options, context);
  FailureOr<MeshAttr> mesh = parseMesh(context, options.mesh, options.ranks);
  if (failed(mesh) || failed(verifyPipeline(*mesh, options, context)))
    return failure();
  MeshAttr held = getMesh(*module);
  if (held && held != *mesh && *options.from >= Phase::annotate)
    return error() << "--mesh: " << options.model << " is sharded for "
                   << held.getNumRanks() << " ranks, as " << held
                   << "; start from an earlier phase for " << *mesh;
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
    return dumpModule(
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
    if (failed(resume(context, options, module)))
      return failure();
  } else if (failed(import(context, options, module)) ||
             failed(finishPhase(Phase::import))) {
    return failure();
  }

  int passCount = 0;
  bool dumpFailed = false;
  while (current < options.to) {
    current = static_cast<Phase>(static_cast<int>(current) + 1);
    PassManager manager(&context, ModuleOp::getOperationName());
    std::string reason;
    llvm::raw_string_ostream stream(reason);
    if (failed(parsePassPipeline(getPhasePipeline(current, options), manager,
                                 stream)))
      return emitError(UnknownLoc::get(&context))
             << "phase " << getPhaseName(current)
             << ": a pass does not take its options: "
             << llvm::StringRef(reason).split('\n').first;
    if (!options.dumpPassesTo.empty())
      manager.addInstrumentation(std::make_unique<DumpPasses>(
          options.dumpPassesTo, passCount, dumpFailed));
    if (failed(manager.run(*module)) || dumpFailed ||
        failed(finishPhase(current)))
      return failure();
    if (options.explain && current == explained)
      explainCollectives(*module, *options.explain);
  }
  return success();
}
