//===- Pipelines.h - The phases, named once, and their passes ---*- C++ -*-===//
//
// import -> graph -> train -> annotate -> resolve -> local -> schedule -> plan
//
// Each phase is a list of passes that ends in a gate (a verify pass that says
// what may no longer exist). Nothing else knows their order.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PIPELINES_PIPELINES_H
#define DSHARD_PIPELINES_PIPELINES_H

#include "mlir/Support/LLVM.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mlir {
class DialectRegistry;
class MLIRContext;
class ModuleOp;
template <typename T> class OwningOpRef;
} // namespace mlir

namespace mlir::dshard {

enum class Phase {
  import,
  graph,
  train,
  annotate,
  resolve,
  local,
  schedule,
  plan
};

llvm::StringRef getPhaseName(Phase phase);
std::optional<Phase> parsePhase(llvm::StringRef name);
/// "import, graph, ..." for messages.
std::string listPhases();

/// Everything a compilation depends on, as the command line or the C API gives
/// it.
struct CompileOptions {
  std::string model; ///< path of an .onnx, or of .mlir with `from`
  std::string mesh;  ///< "dp_shard=2,tp=2"; empty: one rank
  int64_t ranks = 0; ///< 0: as the mesh says
  std::vector<std::pair<std::string, int64_t>> dims; ///< symbolic dim = size
  std::vector<std::pair<std::string, std::string>>
      dimRoles; ///< INPUT = "batch,seq"
  std::vector<std::pair<std::string, std::string>> constants; ///< NAME = VALUE
  std::string entry = "run";
  std::string tensorParallelPlan; ///< name or file; empty: built-in
  bool sequenceParallel = false;
  std::string train;         ///< JSON file; empty: no training
  int64_t microBatches = 1;  ///< parts of the batch per step
  std::string contextMethod; ///< ring, all_gather, all_to_all; empty: ring
  std::string
      contextLayout; ///< zigzag, contiguous, striped; empty: as masks ask
  std::string pipelineSplit;    ///< layers or cost; empty: layers
  std::string pipelineSchedule; ///< gpipe; empty: gpipe
  std::string fsdp;             ///< mode; empty: parameters where dp_shard > 1
  std::string fsdpUnit;         ///< glob of module paths; empty: the layers
  std::string target = "cpu:native";
  std::optional<Phase> from;
  Phase to = Phase::plan;
  std::string dumpPhasesTo;       ///< folder, empty: none
  std::string dumpPassesTo;       ///< folder, empty: none
  std::string commandLine;        ///< recorded in the plan
  raw_ostream *explain = nullptr; ///< where to list the collectives
};

/// The passes of a phase after import, as an MLIR pipeline text without anchor.
std::string getPhasePipeline(Phase phase, const CompileOptions &options);

/// Dialects and passes of dshard and of what it lowers to.
void registerAllDialects(DialectRegistry &registry);
void registerAllPasses();

/// Prints a table of the module's collectives (phases local and schedule):
/// kind, axes, bytes of operands per rank, reason, source node.
void explainCollectives(ModuleOp module, raw_ostream &os);

/// Writes IR with its locations to `path`, whole or not at all; empty or "-":
/// to standard output. Errors are diagnostics.
LogicalResult writeModule(ModuleOp module, llvm::StringRef path);

/// Imports (or parses) the model, sets its mesh and runs the phases up to
/// `options.to`. Diagnostics go to the context's handlers. With to = plan the
/// module holds the plan dialect, ready for emitPlan.
LogicalResult compile(MLIRContext &context, const CompileOptions &options,
                      OwningOpRef<ModuleOp> &module);

} // namespace mlir::dshard

#endif // DSHARD_PIPELINES_PIPELINES_H
