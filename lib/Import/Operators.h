//===- Operators.h - The table of ONNX ops ----------------------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_OPERATORS_H
#define DSHARD_LIB_IMPORT_OPERATORS_H

#include "NodeImporter.h"

namespace mlir::dshard::onnx {

/// The importer of an op, or null. "ai.onnx" and "" are one domain.
ImportFunction findOperator(llvm::StringRef domain, llvm::StringRef name);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_OPERATORS_H
