//===- Names.h - Module paths and parameter names ---------------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_NAMES_H
#define DSHARD_LIB_IMPORT_NAMES_H

#include "ModelFile.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringMap.h"
#include <optional>
#include <vector>

namespace mlir::dshard::onnx {

/// What value_info says about an initializer.
struct ParameterNames {
  /// Initializer -> the parameter that its value was folded from
  /// (pkg.onnxscript.optimizer.folded_from, one name that is no val_*). The
  /// name is longer by `_copy` where another initializer has it already: the
  /// transposed copy of a small tied head is lm_head.weight_copy.
  llvm::StringMap<std::string> foldedFrom;
  /// Initializer -> PARAMETER or BUFFER (torch's graph signature).
  llvm::StringMap<std::string> kinds;

  explicit ParameterNames(const pb::GraphProto &graph);
  /// The name that people know the parameter by, and that keys its random
  /// values (docs/RandomWeights.md).
  std::string nameOf(llvm::StringRef initializer) const;
};

/// The strings of a printed Python list: "['', 'model']". Nothing if it is
/// none.
std::optional<std::vector<std::string>> parsePythonList(llvm::StringRef text);

/// `path` of a node (definitions.md): from its name scopes, else from a name
/// with slashes, else from `parameter` (the name of a weight that it reads, may
/// be empty), else empty.
std::string modulePath(const pb::NodeProto &node, llvm::StringRef parameter);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_NAMES_H
