//===- Operators.cpp - The table of ONNX ops ------------------------------===//

#include "Operators.h"

using namespace mlir::dshard::onnx;

ImportFunction mlir::dshard::onnx::findOperator(llvm::StringRef domain,
                                                llvm::StringRef name) {
  static const llvm::StringMap<ImportFunction> table = {
#define DSHARD_ONNX_OP(op, function) {#op, function},
#include "Operators.def"
  };
  return domain.empty() || domain == "ai.onnx" ? table.lookup(name) : nullptr;
}
