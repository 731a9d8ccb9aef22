//===- WeightNames.cpp - Parameters and buffers by their names ------------===//

#include "dshard/Dialect/DShard/IR/WeightNames.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"

using llvm::StringRef;

bool mlir::dshard::isParameterPath(StringRef name) {
  llvm::SmallVector<StringRef> parts;
  name.split(parts, '.');
  return parts.size() > 1 && llvm::all_of(parts, [](StringRef part) {
           return !part.empty() && llvm::all_of(part, [](char c) {
             return llvm::isAlnum(c) || c == '_';
           });
         });
}

bool mlir::dshard::isMadeUpName(StringRef name) {
  return name.starts_with("val_") || name.starts_with("_val") ||
         name.starts_with("onnx::");
}

bool mlir::dshard::isBufferName(StringRef name) {
  return name.ends_with("inv_freq") || name.ends_with(".running_mean") ||
         name.ends_with(".running_var") || name.contains("position_ids");
}
