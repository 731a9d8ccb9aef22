//===- Phases.cpp - What each phase runs, and why -------------------------===//

#include "dshard/Pipelines/Pipelines.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::dshard;

static constexpr std::pair<Phase, llvm::StringLiteral> phaseNames[] = {
    {Phase::import, "import"},     {Phase::graph, "graph"},
    {Phase::train, "train"},       {Phase::annotate, "annotate"},
    {Phase::resolve, "resolve"},   {Phase::local, "local"},
    {Phase::schedule, "schedule"}, {Phase::plan, "plan"},
};

llvm::StringRef mlir::dshard::getPhaseName(Phase phase) {
  return phaseNames[static_cast<int>(phase)].second;
}

std::optional<Phase> mlir::dshard::parsePhase(llvm::StringRef name) {
  for (const auto &[phase, text] : phaseNames)
    if (text == name)
      return phase;
  return std::nullopt;
}

std::string mlir::dshard::listPhases() {
  std::string text;
  for (const auto &[phase, name] : phaseNames)
    text += (text.empty() ? "" : ", ") + name.str();
  return text;
}

/// `value` in the quotes that it does not hold.
static std::string quoted(llvm::StringRef value) {
  const char *mark = value.contains('\'') ? "\"" : "'";
  return (mark + value + mark).str();
}

/// `pass{option='value'}`; without a value just the pass.
static std::string withOption(llvm::StringRef pass, llvm::StringRef option,
                              llvm::StringRef value) {
  if (value.empty())
    return pass.str();
  return (pass + "{" + option + "=" + quoted(value) + "}").str();
}

std::string mlir::dshard::getPhasePipeline(Phase phase,
                                           const CompileOptions &options) {
  std::vector<std::string> passes;
  switch (phase) {
  case Phase::import:
    break;

  //===--------------------------------------------------------------------===//
  // graph: one op per idea of the model
  //===--------------------------------------------------------------------===//
  case Phase::graph:
    passes = {
        "dshard-canonicalize-graph",   // one reshape in a row
        "dshard-raise-grouped-matmul", // before rows get other dims
        "dshard-unflatten-rows",       // batch and sequence as dims
        "dshard-canonicalize-graph",   //
        "dshard-raise-rms-norm",       //
        "dshard-raise-rotary",         //
        "dshard-raise-swiglu",         //
        "dshard-raise-gelu",           //
        "dshard-raise-attention",      // takes the mask apart
        "dshard-fold-constants",  // rotary tables, index grids; patterns need
                                  // the ops
        "dshard-sink-transposes", // channels stay last between convolutions
        "dshard-canonicalize-graph", // reshapes and transposes in a row
        "dshard-cse",                // masks and rotary tables repeat per layer
        "dshard-verify-graph",       // gate
    };
    break;

  //===--------------------------------------------------------------------===//
  // train: a second function, @train_step, on global types
  //===--------------------------------------------------------------------===//
  case Phase::train:
    if (!options.train.empty())
      passes = {
          "dshard-build-train-step{config=" + quoted(options.train) +
              " micro-batches=" + std::to_string(options.microBatches) + "}",
          "dshard-decompose{ops=cross_entropy}", // its reductions may be
                                                 // sharded
      };
    passes.push_back("dshard-verify-train"); // gate
    break;

  //===--------------------------------------------------------------------===//
  // annotate: strategies write shardings on some values
  //===--------------------------------------------------------------------===//
  case Phase::annotate:
    passes = {
        withOption("dshard-tensor-parallel", "plan",
                   options.tensorParallelPlan),
        "dshard-interleave-projections", // [q | k | v]; reads the plan's marks
    };
    if (options.sequenceParallel)
      passes.push_back("dshard-sequence-parallel"); // reads the plan's marks
    passes.insert(
        passes.end(),
        {
            "dshard-data-parallel", //
            // behind the others: cp shards above tp
            "dshard-context-parallel{method=" + quoted(options.contextMethod) +
                " layout=" + quoted(options.contextLayout) + "}",
            "dshard-verify-annotated", // gate
        });
    break;

  //===--------------------------------------------------------------------===//
  // resolve: every value has one sharding, every change of it is an op
  //===--------------------------------------------------------------------===//
  case Phase::resolve:
    passes = {
        "dshard-pad", // vocabulary to a multiple, before sizes matter
        "dshard-fully-shard{mode=" + quoted(options.fsdp) + " unit=" +
            quoted(options.fsdpUnit) + "}", // how parameters, gradients and
                                            // optimizer states are stored
        "dshard-propagate",                 //
        "dshard-insert-reshards",           //
        "dshard-verify-partial",  // no partial value where one cannot pass
        "dshard-verify-resolved", // gate
    };
    break;

  //===--------------------------------------------------------------------===//
  // local: one SPMD program with explicit collectives
  //===--------------------------------------------------------------------===//
  case Phase::local:
    passes = {
        withOption("dshard-split-pipeline", "split",
                   options.pipelineSplit), // on the global program
        "dshard-decompose-reshards",       // one collective each
        "dshard-partition",                // global to local in one conversion
        "canonicalize",                    //
        "dshard-fold-collectives",         //
        "dshard-bucket-collectives",       // one per unit
        "dshard-verify-local",             // gate
    };
    break;

  //===--------------------------------------------------------------------===//
  // schedule: kernels and their order
  //===--------------------------------------------------------------------===//
  case Phase::schedule:
    passes = {
        // one region, one kernel or call
        withOption("dshard-form-kernels", "target", options.target),
        "dshard-schedule",        //
        "dshard-verify-schedule", // gate
    };
    break;

  //===--------------------------------------------------------------------===//
  // plan: buffers, memory, code
  //===--------------------------------------------------------------------===//
  case Phase::plan:
    passes = {withOption("dshard-convert-to-plan", "target", options.target)};
    break;
  }
  return llvm::join(passes, ",");
}
