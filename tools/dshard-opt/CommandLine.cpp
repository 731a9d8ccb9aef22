//===- CommandLine.cpp - Parse the compiler's flags -----------------------===//

#include "CommandLine.h"
#include "dshard/Pipelines/Options.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/raw_ostream.h"

namespace dshard::tool {

using namespace mlir::dshard;
using llvm::StringRef;

void printHelp() {
  llvm::outs()
      << R"(dshard-opt: compile an ONNX model into a sharded execution plan

usage: dshard-opt MODEL.onnx [options]       compile
       dshard-opt FILE.mlir --from=PHASE ... resume from a phase's IR
       dshard-opt FILE.mlir --PASS ...       run single passes (as mlir-opt does;
                                             --help-passes lists them)

model
  --dim NAME=SIZE         bind a symbolic dim; repeat for each
  --dims INPUT=batch,seq  say what the dims of an input are
  --const NAME=VALUE      fix an input to a constant
  --entry NAME[:DIM=SIZE,...]  name of the entry point (default run)
sharding
  --mesh=AXIS=SIZE,...    axes: pp, dp_replicate, dp_shard, cp, tp (default: one rank)
  --ranks=N               infer dp_shard as N / (the other axes)
  --tp-plan=NAME|FILE     built-in plan, or JSON from module paths to styles
  --sequence-parallel     shard the residual stream on the sequence over tp
  --cp-method=METHOD      how keys meet queries over cp: ring (default), all_gather,
                          all_to_all or hierarchical (all_to_all inside a ring)
  --cp-layout=LAYOUT      order of the sequence over cp: zigzag (default where attention
                          is causal), contiguous or striped
  --fsdp=MODE             none, optimizer, gradients or parameters (the default
                          where dp_shard * cp > 1): what is stored sharded
  --fsdp-unit=GLOB        modules that are gathered at once (default: the layers)
training
  --train=FILE            add the entry point train_step: loss, gradients, AdamW; FILE is
                          JSON with the keys loss, logits, labels, ignore_index,
                          shift_labels, optimizer, clip_norm, nonfinite, outputs
  --micro-batches=N       accumulate gradients over N parts of the batch
pipeline
  --pp-split=HOW          divide the model over pp by layers (default) or by cost
  --pp-schedule=gpipe     order of the micro-batches on each stage
  --micro-batches=N       the batch goes through the stages in N parts (default 1)
output
  --to=PHASE              stop after a phase and print MLIR; phases:
                          )"
      << listPhases() << R"(
  --from=PHASE            the input is MLIR after PHASE
  --emit=mlir|plan        what to write (default: plan; mlir with --to)
  -o FILE                 where to (default: standard output, or MODEL.dsplan)
  --dump-phases-to=DIR    write the IR after each phase
  --dump-passes-to=DIR    write the IR after each pass
  --explain               print each collective with reason, axes, bytes, source
  --quiet                 no remarks
  --target=cpu[:native|x86-64-v3|x86-64-v4]|cuda:sm_80|cuda:sm_90|cuda:sm_100

examples
  dshard-opt mlp.onnx --dim batch=16 --mesh=tp=2 --tp-plan=plan.json -o mlp.dsplan
  dshard-opt llama.onnx --dim batch=2 --dim seq=128 --mesh=tp=4 -o llama.dsplan
  dshard-opt llama.onnx --dim batch=2 --dim seq=128 --mesh=dp_shard=2,tp=2 --sequence-parallel
  dshard-opt llama.onnx --dim batch=2 --dim seq=128 --to=graph | less
  dshard-opt llama.onnx --dim batch=2 --dim seq=512 --mesh=cp=2 --cp-method=ring
  echo '{"shift_labels": true, "clip_norm": 1.0}' > train.json
  dshard-opt char.onnx --dim batch=8 --dim seq=128 --mesh=dp_shard=2,tp=2 --train=train.json --micro-batches=2
  dshard-run llama.dsplan --random-weights --input input_ids=random --input attention_mask=random

exit status: 0 done, 1 the model or the configuration is wrong, 2 the command line is wrong
)";
}

namespace {
/// Flags that exist in the design and have no implementation yet.
constexpr std::pair<llvm::StringLiteral, llvm::StringLiteral> unbuiltFlags[] = {
    {"pack-weights", "packing weights into the plan"},
    {"hash-weights", "hashing whole weights"},
};

Parsed usageError(const llvm::Twine &message) {
  llvm::errs() << "dshard-opt: " << message << "; see dshard-opt --help\n";
  return Parsed::badUsage;
}
} // namespace

Parsed parseCommandLine(int argc, char **argv, CommandLine &commandLine) {
  CompileOptions &options = commandLine.compile;
  llvm::ArrayRef<char *> arguments(argv + 1, argc - 1);
  auto has = [&](StringRef flag) {
    return llvm::any_of(arguments, [&](StringRef text) {
      return text.starts_with(flag) &&
             (text.size() == flag.size() || text[flag.size()] == '=');
    });
  };
  if (arguments.empty() || has("--help") || has("-h"))
    return Parsed::help;
  bool isOnnx = llvm::any_of(arguments, [](StringRef text) {
    return !text.starts_with("-") && text.ends_with(".onnx");
  });
  // A model under another name still compiles when a flag of ours asks for it.
  bool isCompilation =
      isOnnx || has("--to") || has("--from") || has("--emit") || has("--mesh");
  if (!isCompilation)
    return Parsed::passes;

  bool sawEmit = false, sawTo = false, sawEntry = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    StringRef text = arguments[i];
    options.commandLine += (i ? " " : "") + text.str();
    if (!text.starts_with("-") || text == "-") {
      if (!options.model.empty())
        return usageError("two models: '" + options.model + "' and '" + text +
                          "'");
      options.model = text.str();
      continue;
    }
    auto [flag, value] = text.ltrim('-').split('=');
    bool hasValue = text.contains('=');
    auto take = [&]() { // the value, from the next argument if need be
      if (hasValue)
        return true;
      if (i + 1 >= arguments.size())
        return false;
      value = arguments[++i];
      options.commandLine += " " + value.str();
      return true;
    };
    auto missing = [&] { return usageError("--" + flag + " needs a value"); };

    if (const auto *unbuilt = llvm::find_if(
            unbuiltFlags,
            [&](const auto &entry) { return entry.first == flag; });
        unbuilt != std::end(unbuiltFlags)) {
      llvm::errs() << "dshard-opt: error: --" << flag << ": " << unbuilt->second
                   << " is not built yet\n";
      return Parsed::badValue;
    }
    if (flag == "explain" || flag == "quiet") {
      (flag == "explain" ? commandLine.explain : commandLine.remarks) =
          flag == "explain";
      continue;
    }
    bool takesValue;
    if (isOption(flag, takesValue)) {
      if (!takesValue && hasValue)
        return usageError("--" + flag + " takes no value");
      if (takesValue && !take())
        return missing();
      if (flag == "entry" && std::exchange(sawEntry, true)) {
        llvm::errs()
            << "dshard-opt: error: --entry " << value
            << ": several entry points in one plan are not built yet\n";
        return Parsed::badValue;
      }
      std::string error;
      switch (setOption(options, flag, value, error)) {
      case OptionStatus::set:
        continue;
      case OptionStatus::badValue:
        llvm::errs() << "dshard-opt: error: " << error << "\n";
        return Parsed::badValue;
      case OptionStatus::unknown:
      case OptionStatus::badUsage:
        return usageError(error);
      }
    }
    if (flag == "o" || flag == "output") {
      if (!take())
        return missing();
      commandLine.output = value.str();
    } else if (flag == "to" || flag == "from") {
      if (!take())
        return missing();
      std::optional<Phase> phase = parsePhase(value);
      if (!phase)
        return usageError("--" + flag + "=" + value +
                          ": no such phase; the phases are " + listPhases());
      if (flag == "to") {
        options.to = *phase;
        sawTo = true;
      } else {
        options.from = *phase;
      }
    } else if (flag == "emit") {
      if (!take())
        return missing();
      if (value != "mlir" && value != "plan")
        return usageError("--emit=" + value + ": write mlir or plan");
      sawEmit = true;
      commandLine.emitPlan = value == "plan";
    } else if (flag == "dump-phases-to") {
      if (!take())
        return missing();
      options.dumpPhasesTo = value.str();
    } else if (flag == "dump-passes-to") {
      if (!take())
        return missing();
      options.dumpPassesTo = value.str();
    } else {
      return usageError("unknown flag '" + text + "'");
    }
  }
  if (options.model.empty())
    return usageError("no model given");
  if (sawTo && !sawEmit)
    commandLine.emitPlan = false;
  if (commandLine.emitPlan && options.to != Phase::plan)
    return usageError("--emit=plan goes with --to=plan");
  return Parsed::compile;
}

} // namespace dshard::tool
