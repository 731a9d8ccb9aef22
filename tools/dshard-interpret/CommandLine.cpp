//===- CommandLine.cpp - Parse the interpreter's flags --------------------===//
#include "CommandLine.h"
#include "dshard/Support/Text.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/raw_ostream.h"

using namespace dshard::tool;
using mlir::dshard::Precision;

void dshard::tool::printHelp() {
  llvm::outs()
      << R"(dshard-interpret: run a program of any phase in the reference interpreter

usage: dshard-interpret IN.mlir [options]

Runs a program in the dshard dialect on global inputs, slowly, in double
precision. A program of the local phase runs on all its ranks in one thread.

  --input NAME=FILE.npy      value of an input (or of a weight)
  --input NAME=random[:SEED] floats in [-1, 1), ids below the gathered size, masks 1
  --random-inputs[=SEED]     the same for every input that is not given
  --weights DIR              folder of the weight files (default: the model's)
  --random-weights[=SEED]    weights of docs/RandomWeights.md instead of files
  --scalar NAME=VALUE        a scalar of the program (lr)
  --steps N                  run N times: states go on, inputs and other outputs
                             have a leading dim of N
  --output NAME=FILE.npy     write an output: floats as float64, or with
                             --precision=model in their type (16 bits as float32)
  --against OTHER.mlir       run both on the same inputs and compare the outputs
                             (may be given several times)
  --rtol R  --atol A         |a - b| <= A + R * max|a| (default with fp64: R = 1e-9;
                             with model: 1e-5, f16 5e-3, bf16 2.5e-2; A = 0)
  --precision=fp64|model     round nothing (default), or each op to its type
  --entry NAME               the function, when there are several
  --ranks N                  fail unless the program has N ranks
  --help

Inputs and outputs are named by dshard.name, else by their index. Without --output
and --against the outputs are printed.

Exit status: 0 done (and equal), 1 the program or the inputs are wrong, or the
outputs differ, 2 the command line is wrong.

Examples:
  dshard-interpret mlp.mlir --random-inputs --random-weights
  dshard-opt mlp.onnx --mesh=tp=2 --dump-phases-to=phases --to=schedule -o mlp.mlir
  dshard-interpret phases/import.mlir --against mlp.mlir --random-inputs --random-weights
  dshard-interpret mlp.mlir --input x=x.npy --weights . --output y=y.npy --precision=model
)";
}

bool dshard::tool::parseSeed(const std::string &text, uint64_t &seed) {
  return !llvm::StringRef(text).getAsInteger(10, seed);
}

static Parsed usageError(const llvm::Twine &message) {
  llvm::errs() << "dshard-interpret: error: " << message << "; try --help\n";
  return Parsed::badUsage;
}

Parsed dshard::tool::parseCommandLine(int argc, char **argv,
                                      CommandLine &commandLine) {
  for (int i = 1; i < argc; ++i) {
    llvm::StringRef argument = argv[i];
    if (!argument.starts_with("-")) {
      if (!commandLine.program.empty())
        return usageError("two programs: '" + commandLine.program + "' and '" +
                          argument + "'; compare them with --against");
      commandLine.program = argument.str();
      continue;
    }
    auto [flagText, rest] = argument.ltrim('-').split('=');
    std::string flag = flagText.str(), value = rest.str();
    bool hasValue = argument.contains('=');
    if (flag == "help" || flag == "h")
      return Parsed::help;

    bool isSeedFlag = flag == "random-inputs" || flag == "random-weights";
    if (isSeedFlag) { // the value may only follow after =
      uint64_t seed = 0;
      if (hasValue && !parseSeed(value, seed))
        return usageError("--" + flag + "=" + value + ": not a seed");
      (flag == "random-inputs" ? commandLine.randomInputs
                               : commandLine.randomWeights) = seed;
      continue;
    }
    bool isKnown = false;
    for (const char *known :
         {"input", "output", "weights", "against", "rtol", "atol", "precision",
          "entry", "ranks", "scalar", "steps"})
      isKnown |= flag == known;
    if (!isKnown)
      return usageError("unknown flag '" + argument + "'");
    if (!hasValue) {
      if (++i == argc)
        return usageError("--" + flag + " needs a value");
      value = argv[i];
    }
    if (flag == "input" || flag == "output") {
      auto [name, what] = llvm::StringRef(value).split('=');
      if (name.empty() || what.empty())
        return usageError(
            "--" + flag + " " + value + ": write NAME=" +
            (flag == "input" ? "FILE.npy or NAME=random" : "FILE.npy"));
      auto &list = flag == "input" ? commandLine.inputs : commandLine.outputs;
      for (const auto &other : list)
        if (other.first == name)
          return usageError("--" + flag + " names '" + name + "' twice");
      list.emplace_back(name.str(), what.str());
    } else if (flag == "scalar") {
      auto [name, text] = llvm::StringRef(value).split('=');
      double number = 0;
      if (name.empty() || !parseDouble(text.str(), number))
        return usageError("--scalar " + value + ": write NAME=NUMBER");
      for (const auto &other : commandLine.scalars)
        if (other.first == name)
          return usageError("--scalar names '" + name + "' twice");
      commandLine.scalars.emplace_back(name.str(), number);
    } else if (flag == "steps") {
      int64_t steps = 0;
      if (!parseInteger(value, steps, 1))
        return usageError("--steps " + value + ": not a number of steps");
      commandLine.steps = steps;
    } else if (flag == "weights") {
      commandLine.weights = value;
    } else if (flag == "against") {
      commandLine.against.push_back(value);
    } else if (flag == "entry") {
      commandLine.entry = value;
    } else if (flag == "rtol" || flag == "atol") {
      double tolerance;
      if (!parseDouble(value, tolerance) || !(tolerance >= 0))
        return usageError("--" + flag + " " + value + ": not a tolerance");
      (flag == "rtol" ? commandLine.rtol : commandLine.atol) = tolerance;
    } else if (flag == "precision") {
      if (value != "fp64" && value != "model")
        return usageError("--precision=" + value + ": write fp64 or model");
      commandLine.precision =
          value == "fp64" ? Precision::fp64 : Precision::model;
    } else if (!parseInteger(value, commandLine.ranks, 1)) {
      return usageError("--ranks " + value + ": not a number of ranks");
    }
  }
  if (commandLine.program.empty())
    return usageError("no program given");
  return Parsed::run;
}
