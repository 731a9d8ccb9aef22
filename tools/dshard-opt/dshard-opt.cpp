//===- dshard-opt.cpp - The compiler's main -------------------------------===//

#include "CommandLine.h"
#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Pipelines/Options.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Support/Timing.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace ::dshard::tool;

static void printDiagnostic(const Diagnostic &diagnostic) {
  llvm::errs() << "dshard-opt: " << mlir::dshard::describe(diagnostic) << "\n";
}

static int runCompiler(CommandLine &commandLine) {
  DialectRegistry registry;
  mlir::dshard::registerAllDialects(registry);
  mlir::dshard::registerAllPasses();
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.printOpOnDiagnostic(false); // one line; the location says which op
  bool sawError = false;
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    bool isError = diagnostic.getSeverity() == DiagnosticSeverity::Error;
    // The first error is the cause; what follows from it only confuses.
    if ((isError && sawError) || (!isError && !commandLine.remarks))
      return success();
    sawError |= isError;
    printDiagnostic(diagnostic);
    for (const Diagnostic &note : diagnostic.getNotes())
      printDiagnostic(note);
    return success();
  });

  if (commandLine.explain)
    commandLine.compile.explain = &llvm::outs();
  OwningOpRef<ModuleOp> module;
  if (failed(mlir::dshard::compile(context, commandLine.compile, module))) {
    if (!sawError)
      llvm::errs() << "dshard-opt: error: compilation failed without a reason; "
                      "this is a defect of dshard\n";
    return 1;
  }
  if (commandLine.emitPlan) {
    std::string path = commandLine.output;
    if (path.empty())
      path =
          (llvm::sys::path::stem(commandLine.compile.model) + ".dsplan").str();
    mlir::dshard::EmitOptions emit;
    emit.model = commandLine.compile.model;
    emit.commandLine = commandLine.compile.commandLine;
    return failed(mlir::dshard::emitPlan(*module, path, emit)) ? 1 : 0;
  }
  if (commandLine.explain && commandLine.output.empty())
    return 0;
  return failed(mlir::dshard::writeModule(*module, commandLine.output)) ? 1 : 0;
}

/// An ordinary mlir-opt: every pass has its flag.
static int runPasses(int argc, char **argv) {
  DialectRegistry registry;
  mlir::dshard::registerAllDialects(registry);
  mlir::dshard::registerAllPasses();
  for (int i = 1; i < argc; ++i)
    if (llvm::StringRef(argv[i]) == "--help-passes")
      argv[i] = const_cast<char *>("--help");
  llvm::cl::opt<std::string> input(llvm::cl::Positional,
                                   llvm::cl::desc("<input file>"),
                                   llvm::cl::init("-"));
  llvm::cl::opt<std::string> output("o", llvm::cl::desc("Output filename"),
                                    llvm::cl::value_desc("filename"),
                                    llvm::cl::init("-"));
  // As MLIR's own MlirOptMain, whose exit status for a wrong flag is 1.
  MlirOptMainConfig::registerCLOptions(registry);
  registerAsmPrinterCLOptions();
  registerMLIRContextCLOptions();
  registerPassManagerCLOptions();
  registerDefaultTimingManagerCLOptions();
  std::string wrong;
  llvm::raw_string_ostream stream(wrong);
  if (!llvm::cl::ParseCommandLineOptions(argc, argv, "dshard's passes\n",
                                         &stream)) {
    llvm::errs() << llvm::StringRef(wrong).split('\n').first;
    if (!wrong.empty())
      llvm::errs() << "\n";
    return 2;
  }
  return asMainReturnCode(MlirOptMain(argc, argv, input, output, registry));
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  CommandLine commandLine;
  switch (parseCommandLine(argc, argv, commandLine)) {
  case Parsed::compile:
    return runCompiler(commandLine);
  case Parsed::help:
    printHelp();
    return 0;
  case Parsed::badUsage:
    return 2;
  case Parsed::badValue:
    return 1;
  case Parsed::passes:
    break;
  }
  return runPasses(argc, argv);
}
