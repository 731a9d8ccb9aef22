//===- IrFuzzer.cpp - The parser of dshard's dialects, and the phases -----===//
//
// What `dshard-opt FILE.mlir --from=PHASE` does: the text says its phase, and
// runs through the ones after it. Kernels are compiled for one in eight inputs:
// LLVM takes most of the time, and little of it is ours.
//
//===----------------------------------------------------------------------===//

#include "Fuzzer.h"
#include "TextMutator.h"
#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Pipelines/Pipelines.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include <functional>
#include <optional>
#include <string_view>

using namespace mlir;

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
  mlir::dshard::registerAllPasses();
  return 0;
}

static std::optional<mlir::dshard::Phase> phaseOf(StringRef text) {
  StringRef rest = text.split("dshard.phase = \"").second;
  return mlir::dshard::parsePhase(
      rest.take_until([](char c) { return c == '"'; }));
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static ::dshard::fuzz::InputPath file("input.mlir");
  StringRef text(reinterpret_cast<const char *>(data), size);
  if (text.contains('\0'))
    return 0; // libMLIR's lexer takes it for the end
  file.write(data, size);
  mlir::dshard::CompileOptions options;
  options.model = file.path;
  options.from = phaseOf(text).value_or(mlir::dshard::Phase::import);
  bool withKernels = std::hash<std::string_view>{}(text) % 8 == 0;
  options.to =
      withKernels ? mlir::dshard::Phase::plan : mlir::dshard::Phase::schedule;
  options.target = "cpu:x86-64-v3";
  if (options.to < *options.from)
    options.to = *options.from;

  // To make a context takes longer than most inputs; it keeps every attribute.
  static std::unique_ptr<MLIRContext> kept;
  static int uses = 0;
  if (uses++ % 100 == 0) {
    DialectRegistry registry;
    mlir::dshard::registerAllDialects(registry);
    kept = std::make_unique<MLIRContext>(registry,
                                         MLIRContext::Threading::DISABLED);
  }
  MLIRContext &context = *kept;
  int errors = 0;
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    errors += diagnostic.getSeverity() == DiagnosticSeverity::Error;
    return success();
  });
  OwningOpRef<ModuleOp> module;
  bool isDone = succeeded(mlir::dshard::compile(context, options, module));
  if (isDone && options.to == mlir::dshard::Phase::plan) {
    std::string plan = file.path + ".dsplan";
    isDone = succeeded(mlir::dshard::emitPlan(*module, plan, {}));
    std::remove(plan.c_str());
  }
  // A refusal says why.
  if (!isDone && errors == 0)
    std::abort();
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
                                          size_t maxSize, unsigned seed) {
  return ::dshard::fuzz::mutateText(data, size, maxSize, seed);
}
