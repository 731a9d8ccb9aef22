//===- Operators.cpp - The table of ONNX ops ------------------------------===//

#include "Operators.h"

using namespace mlir::dshard::onnx;

ImportFunction mlir::dshard::onnx::findOperator(llvm::StringRef domain,
                                                llvm::StringRef name) {
  static const llvm::StringMap<ImportFunction> table = {
#define DSHARD_ONNX_OP(op, function) {#op, function},
#define DSHARD_ONNX_DOMAIN_OP(domain, op, function) {domain ":" #op, function},
#include "Operators.def"
  };
  if (domain.empty() || domain == "ai.onnx")
    return name.contains(':') ? nullptr : table.lookup(name);
  return table.lookup((domain + ":" + name).str());
}
