//===- ImportFuzzer.cpp - The ONNX importer -------------------------------===//

#include "Fuzzer.h"
#include "WireMutator.h"
#include "dshard/Import/Import.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static ::dshard::fuzz::InputPath file("model.onnx");
  file.write(data, size);
  // To make a context takes longer than most imports; it keeps every attribute.
  static std::unique_ptr<MLIRContext> kept;
  static int uses = 0;
  if (uses++ % 200 == 0)
    kept = std::make_unique<MLIRContext>(MLIRContext::Threading::DISABLED);
  MLIRContext &context = *kept;
  int errors = 0;
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    errors += diagnostic.getSeverity() == DiagnosticSeverity::Error;
    return success();
  });
  mlir::dshard::ImportOptions options;
  // What the seeds call their symbolic dims; one that a model lacks is refused.
  if (size % 2)
    options.dims = {{"batch", 2}, {"seq", 8}};
  auto module = mlir::dshard::importOnnx(context, file.path, options);
  // A refusal says why, and what was accepted is in order.
  if (failed(module) ? errors == 0 : failed(verify(**module)))
    std::abort();
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
                                          size_t maxSize, unsigned seed) {
  return ::dshard::fuzz::mutateWire(data, size, maxSize, seed);
}
