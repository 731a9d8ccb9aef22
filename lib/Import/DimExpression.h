//===- DimExpression.h - Symbolic dims --------------------------*- C++ -*-===//
//
// Exporters write dims as text: "batch", "2", "past + 1", "4*batch",
// "((seq**2)//seq)", "Min(128, seq)", "Concatkey.4_dim_0". Operators: + - * //
// / % **, Min, Max, Mod, parentheses. Text that does not parse is one symbol.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_IMPORT_DIMEXPRESSION_H
#define DSHARD_LIB_IMPORT_DIMEXPRESSION_H

#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mlir::dshard::onnx {

using SymbolSizes = llvm::StringMap<int64_t>;

/// The symbols of `text`, in order, each once. {"past"} for "past + 1", {} for
/// "2".
std::vector<std::string> symbolsOf(llvm::StringRef text);

/// The size that `text` stands for; nothing if a symbol is unbound or the
/// arithmetic has no result (division by zero, overflow). A binding of the
/// whole text comes first.
std::optional<int64_t> evaluateDim(llvm::StringRef text,
                                   const SymbolSizes &sizes);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_DIMEXPRESSION_H
