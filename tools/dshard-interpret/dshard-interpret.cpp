//===- dshard-interpret.cpp - The interpreter's main ----------------------===//
#include "CommandLine.h"
#include "dshard/Reference/Inputs.h"
#include "dshard/Reference/Steps.h"
#include "dshard/Support/Text.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/ScopedPrinter.h"
#include "llvm/Support/raw_ostream.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;
using namespace ::dshard::tool;
using ::dshard::Result;
using ::dshard::Status;

static int fail(const Twine &message) {
  llvm::errs() << "dshard-interpret: error: " << message << "\n";
  return 1;
}

static void printDiagnostic(Diagnostic &diagnostic) {
  if (diagnostic.getSeverity() != DiagnosticSeverity::Error &&
      diagnostic.getSeverity() != DiagnosticSeverity::Note)
    return;
  bool isNote = diagnostic.getSeverity() == DiagnosticSeverity::Note;
  llvm::errs() << "dshard-interpret: " << (isNote ? "note: " : "error: ");
  if (auto position =
          diagnostic.getLocation()->findInstanceOf<FileLineColLoc>())
    llvm::errs() << position.getFilename().getValue() << ":"
                 << position.getLine() << ":" << position.getColumn() << ": ";
  if (auto name = diagnostic.getLocation()->findInstanceOf<NameLoc>())
    llvm::errs() << "node '" << name.getName().getValue() << "': ";
  llvm::errs() << diagnostic.str() << "\n";
  for (Diagnostic &note : diagnostic.getNotes())
    printDiagnostic(note);
}

/// A program, the function to run, and what came out.
struct Program {
  std::string path;
  OwningOpRef<ModuleOp> module;
  func::FuncOp function;
  SmallVector<HostTensor> results;
};

static Status findEntry(Program &program, const std::string &name) {
  SmallVector<func::FuncOp> functions;
  std::vector<std::string> names;
  for (func::FuncOp function : program.module->getOps<func::FuncOp>()) {
    // The stages of a pipeline are private, and so is their entry point.
    if (function.isPrivate() && !function->hasAttr(stagesAttrName) &&
        function.getName() != name)
      continue;
    functions.push_back(function);
    names.push_back(function.getName().str());
    if (function.getName() == name)
      program.function = function;
  }
  if (functions.empty())
    return Status::error(program.path + ": no function to run");
  if (name.empty() && functions.size() == 1)
    program.function = functions.front();
  if (!program.function)
    return Status::error(program.path + ": " +
                         (name.empty()
                              ? "several functions; choose one with --entry"
                              : "no function '" + name + "'") +
                         " (there are " + ::dshard::join(names, ", ") + ")");
  for (Type type : program.function.getFunctionType().getInputs())
    if (!isa<RankedTensorType>(type))
      return Status::error(program.path + ": '" +
                           program.function.getName().str() +
                           "' takes something that is no tensor");
  for (Type type : program.function.getFunctionType().getResults())
    if (!isa<RankedTensorType>(type))
      return Status::error(program.path + ": '" +
                           program.function.getName().str() +
                           "' gives something that is no tensor");
  return Status();
}

static std::vector<std::string> getArgumentNames(func::FuncOp function) {
  std::vector<std::string> names;
  for (unsigned i = 0; i < function.getNumArguments(); ++i)
    names.push_back(getArgumentName(function, i));
  return names;
}

static std::vector<std::string> getResultNames(func::FuncOp function) {
  std::vector<std::string> names;
  for (unsigned i = 0; i < function.getNumResults(); ++i)
    names.push_back(getResultName(function, i));
  return names;
}

/// What --scalar says.
static Status readScalars(const CommandLine &commandLine, func::FuncOp function,
                          InputOptions &options) {
  for (const auto &[name, value] : commandLine.scalars) {
    std::vector<std::string> known;
    RankedTensorType type;
    for (unsigned i = 0; i < function.getNumArguments(); ++i) {
      auto scalar = function.getArgAttrOfType<StringAttr>(i, scalarAttrName);
      if (!scalar)
        continue;
      known.push_back(scalar.getValue().str());
      if (known.back() == name)
        type = getGlobalArgumentType(function, i);
    }
    if (!type)
      return Status::error(
          "--scalar " + name + ": '" + function.getName().str() +
          "' has no such scalar (there are " +
          (known.empty() ? "none" : ::dshard::join(known, ", ")) + ")");
    HostTensor tensor(type, value);
    tensor.roundToElementType();
    if (!std::isfinite(value) || !std::isfinite(tensor.data.front()))
      return Status::error(
          "--scalar " + name + ": " + ::dshard::formatDouble(value) +
          " is not finite as " + llvm::to_string(type.getElementType()));
    options.given[name] = std::move(tensor);
  }
  return Status();
}

/// What --input says, with the types of `function`.
static Status readInputs(const CommandLine &commandLine, func::FuncOp function,
                         InputOptions &options) {
  options.weights = commandLine.weights;
  options.randomSeed = commandLine.randomInputs;
  options.randomWeights = commandLine.randomWeights;
  options.steps = commandLine.steps;
  std::vector<std::string> names = getArgumentNames(function);
  for (const auto &[name, what] : commandLine.inputs) {
    unsigned index = llvm::find(names, name) - names.begin();
    for (unsigned i = 0; index == names.size() && i < names.size(); ++i)
      if (auto weight =
              function.getArgAttrOfType<WeightAttr>(i, weightAttrName);
          weight && weight.getName() == name)
        index = i;
    if (index == names.size())
      return Status::error("--input " + name + ": '" +
                           function.getName().str() + "' has no such input" +
                           ::dshard::didYouMean(name, names));
    if (StringRef(what) == "random" || StringRef(what).starts_with("random:")) {
      uint64_t seed = 0;
      if (what.size() > 6 && !parseSeed(what.substr(7), seed))
        return Status::error("--input " + name + "=" + what + ": not a seed");
      options.randomInputs[name] = seed;
      continue;
    }
    RankedTensorType type = getGlobalArgumentType(function, index);
    if (options.steps && !function.getArgAttr(index, stateAttrName) &&
        !function.getArgAttr(index, weightAttrName))
      type = withSteps(type, *options.steps);
    if (auto weight =
            function.getArgAttrOfType<WeightAttr>(index, weightAttrName);
        weight && !weight.getTransposed())
      type = RankedTensorType::get(weight.getType().getShape(),
                                   type.getElementType());
    Result<HostTensor> value = readTensor(what, type);
    if (!value)
      return Status::error("--input " + name + ": " + value.status().message());
    if (commandLine.precision == Precision::model)
      value->roundToElementType();
    options.given[name] = std::move(*value);
  }
  return readScalars(commandLine, function, options);
}

static void printValues(const HostTensor &tensor, ArrayRef<int64_t> shape,
                        int64_t &next) {
  if (shape.empty()) {
    llvm::outs() << llvm::format("%.6g", tensor.data[next++]);
    return;
  }
  llvm::outs() << "[";
  for (int64_t i = 0; i < shape.front(); ++i) {
    if (i > 0)
      llvm::outs() << ", ";
    printValues(tensor, shape.drop_front(), next);
  }
  llvm::outs() << "]";
}

static void printTensor(StringRef name, const HostTensor &tensor) {
  llvm::outs() << name << " : " << tensor.type << " = ";
  if (tensor.size() <= 256) {
    int64_t next = 0;
    printValues(tensor, tensor.shape(), next);
  } else {
    double sum = 0;
    for (double x : tensor.data)
      sum += x;
    auto [low, high] =
        std::minmax_element(tensor.data.begin(), tensor.data.end());
    llvm::outs() << llvm::format("min %.6g, max %.6g, mean %.6g", *low, *high,
                                 sum / tensor.size());
  }
  llvm::outs() << "\n";
}

static double getDefaultTolerance(Precision precision, Type element) {
  if (precision == Precision::fp64)
    return 1e-9;
  if (element.isBF16())
    return 2.5e-2;
  return element.isF16() ? 5e-3 : 1e-5;
}

/// A state that is stored padded, without its padding; as it is if that is not
/// zero.
static HostTensor dropPadding(const HostTensor &stored, RankedTensorType type) {
  if (stored.rank() != type.getRank())
    return stored;
  HostTensor cropped(type);
  double rest = 0;
  forEachIndex(stored.shape(), [&](ArrayRef<int64_t> index) {
    bool isInside =
        llvm::all_of(llvm::zip(index, type.getShape()), [](auto pair) {
          return std::get<0>(pair) < std::get<1>(pair);
        });
    if (isInside)
      cropped.at(index) = stored.at(index);
    else
      rest += std::fabs(stored.at(index));
  });
  return rest == 0 ? cropped : stored;
}

/// Compares the outputs by name; 0 when all are equal.
static int compare(Program &program, Program &other,
                   const CommandLine &commandLine) {
  std::vector<std::string> names = getResultNames(program.function);
  if (getResultNames(other.function) != names)
    return fail(program.path + " has the outputs " +
                ::dshard::join(names, ", ") + "; " + other.path + " has " +
                ::dshard::join(getResultNames(other.function), ", "));
  int status = 0;
  for (auto [number, name, ours, given] :
       llvm::enumerate(names, program.results, other.results)) {
    bool isState =
        other.function.getResultAttr(number, stateAttrName) != nullptr;
    HostTensor theirs = isState ? dropPadding(given, ours.type) : given;
    if (ours.shape() != theirs.shape()) {
      llvm::errs() << "dshard-interpret: error: output '" << name
                   << "': " << ours.type << " != " << theirs.type << "\n";
      status = 1;
      continue;
    }
    double difference = getLargestDifference(ours, theirs);
    double magnitude = getLargestMagnitude(ours);
    bool isExact = isa<IntegerType>(ours.type.getElementType());
    double rtol = commandLine.rtol.value_or(
        getDefaultTolerance(commandLine.precision, ours.type.getElementType()));
    double allowed =
        isExact ? 0 : commandLine.atol.value_or(0) + rtol * magnitude;
    bool isEqual = difference <= allowed;
    llvm::outs() << name << " : " << ours.type << " : "
                 << llvm::format(
                        "largest difference %.3g of %.3g (allowed %.3g)",
                        difference, magnitude, allowed)
                 << (isEqual ? "\n" : " DIFFERENT\n");
    if (!isEqual) {
      llvm::errs() << "dshard-interpret: error: output '" << name
                   << "' differs by up to "
                   << llvm::format("%.3g, allowed is %.3g", difference, allowed)
                   << " (" << program.path << " against " << other.path
                   << ")\n";
      status = 1;
    }
  }
  return status;
}

static int runPrograms(const CommandLine &commandLine) {
  DialectRegistry registry;
  registry.insert<DShardDialect, func::FuncDialect>();
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.printOpOnDiagnostic(false);
  ScopedDiagnosticHandler handler(
      &context, [](Diagnostic &diagnostic) { printDiagnostic(diagnostic); });

  InputOptions options;
  llvm::StringMap<HostTensor> drawn;
  // Parses and runs one program; the first one gives the inputs their types.
  auto run = [&](Program &program, bool isFirst) -> int {
    if (!llvm::sys::fs::exists(program.path))
      return fail(program.path + ": no such file");
    program.module = parseSourceFile<ModuleOp>(program.path, &context);
    if (!program.module)
      return 1; // said by the parser
    if (Status status = findEntry(program, commandLine.entry); !status)
      return fail(status.message());
    if (isFirst)
      if (Status status = readInputs(commandLine, program.function, options);
          !status)
        return fail(status.message());
    SmallVector<HostTensor> arguments;
    if (Status status =
            getArguments(program.function, options, drawn, arguments);
        !status)
      return fail(program.path + ": " + status.message());
    return failed(commandLine.steps
                      ? interpretSteps(program.function, arguments,
                                       *commandLine.steps,
                                       commandLine.precision, program.results)
                      : interpret(program.function, arguments,
                                  commandLine.precision, program.results));
  };
  auto checkRanks = [&](Program &program) -> int {
    MeshAttr mesh = getMesh(*program.module);
    int64_t ranks = isSpmd(program.function) && mesh ? mesh.getNumRanks() : 1;
    if (commandLine.ranks == 0 || commandLine.ranks == ranks)
      return 0;
    return fail(program.path + ": has " + Twine(ranks) +
                (ranks == 1 ? " rank" : " ranks") + ", --ranks asks for " +
                Twine(commandLine.ranks));
  };

  Program first;
  first.path = commandLine.program;
  if (run(first, /*isFirst=*/true))
    return 1;
  std::vector<std::string> names = getResultNames(first.function);
  for (const auto &[name, path] : commandLine.outputs) {
    auto found = llvm::find(names, name);
    if (found == names.end())
      return fail("--output " + name + ": '" + first.function.getName() +
                  "' has no such output" + ::dshard::didYouMean(name, names));
    HostTensor result = first.results[found - names.begin()];
    // Exact values stay exact: float64 whatever the program's type.
    if (commandLine.precision == Precision::fp64 &&
        isa<FloatType>(result.type.getElementType()))
      result.type = result.type.clone(Float64Type::get(&context));
    if (Status status = writeTensor(path, result); !status)
      return fail(status.message());
  }
  if (commandLine.against.empty()) {
    if (commandLine.outputs.empty())
      for (auto [name, result] : llvm::zip_equal(names, first.results))
        printTensor(name, result);
    return checkRanks(first);
  }
  int status = 0;
  for (const std::string &path : commandLine.against) {
    Program other;
    other.path = path;
    if (run(other, /*isFirst=*/false) || checkRanks(other))
      return 1;
    if (commandLine.against.size() > 1)
      llvm::outs() << path << ": ";
    status |= compare(first, other, commandLine);
  }
  return status;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  CommandLine commandLine;
  switch (parseCommandLine(argc, argv, commandLine)) {
  case Parsed::run:
    return runPrograms(commandLine);
  case Parsed::help:
    printHelp();
    return 0;
  case Parsed::badUsage:
    return 2;
  }
}
