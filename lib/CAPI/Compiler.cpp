//===- Compiler.cpp - Compile models from C -------------------------------===//

#include "dshard/CAPI/Compiler.h"

#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Pipelines/Options.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"

#include <cstring>
#include <mutex>

using namespace mlir;

namespace {
/// What a compilation says.
struct Messages {
  std::string error; // the first: the cause; what follows only confuses
  std::string others;

  void add(const Diagnostic &diagnostic) {
    bool isError = diagnostic.getSeverity() == DiagnosticSeverity::Error;
    if (isError && !error.empty())
      return;
    std::string text = mlir::dshard::describe(diagnostic);
    if (isError)
      error = text.substr(std::strlen("error: "));
    else
      others += text + "\n";
    for (const Diagnostic &note : diagnostic.getNotes())
      others += mlir::dshard::describe(note) + "\n";
  }
};
} // namespace

/// False after an error in `messages`.
static bool compileModel(const char *model,
                         llvm::ArrayRef<dshard_option_t> flags,
                         const char *output, Messages &messages) {
  mlir::dshard::CompileOptions options;
  options.model = model;
  options.commandLine = model;
  for (const dshard_option_t &flag : flags) {
    const char *value = flag.value ? flag.value : "";
    if (mlir::dshard::setOption(options, flag.name, value, messages.error) !=
        mlir::dshard::OptionStatus::set)
      return false;
    options.commandLine += std::string(" --") + flag.name +
                           (flag.value ? std::string("=") + value : "");
  }
  static std::once_flag once;
  std::call_once(once, [] { mlir::dshard::registerAllPasses(); });
  DialectRegistry registry;
  mlir::dshard::registerAllDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.printOpOnDiagnostic(false);
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    messages.add(diagnostic);
    return success();
  });
  OwningOpRef<ModuleOp> module;
  mlir::dshard::EmitOptions emit;
  emit.model = options.model;
  emit.commandLine = options.commandLine;
  if (succeeded(mlir::dshard::compile(context, options, module)) &&
      succeeded(mlir::dshard::emitPlan(*module, output, emit)))
    return true;
  if (messages.error.empty())
    messages.error = "compilation failed without a reason; this is a defect of "
                     "dshard";
  return false;
}

char *dshard_compile(const char *model, const dshard_option_t *options,
                     uint32_t option_count, const char *output,
                     char **messages) {
  Messages said;
  bool done = compileModel(model, {options, option_count}, output, said);
  if (messages)
    *messages = ::strdup(said.others.c_str());
  return done ? nullptr : ::strdup(said.error.c_str());
}
