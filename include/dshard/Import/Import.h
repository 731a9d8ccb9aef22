//===- Import.h - ONNX files become modules of the dshard dialect -*- C++
//-*-===//
//
// importOnnx reads one .onnx file (opset 1 to 28) and builds
//
//   module attributes {dshard.model = "folder/model.onnx"} {
//     func.func @run(%input_ids: tensor<2x16xi64> {dshard.name = "input_ids",
//           dshard.role = #dshard.role<input>, dshard.dim_names = ["batch",
//           "seq"]},
//         %w: tensor<64x64xf32> {dshard.name = "val_42",
//           dshard.role = #dshard.role<param>, dshard.weight =
//           #dshard.weight<...>})
//         -> (tensor<2x16x256xf32> {dshard.name = "logits", ...})
//
// - Arguments are the graph's inputs in order, then one per weight that is
// used.
// - Shapes are static: every symbolic dim is bound by `dims`. Shape arithmetic
// is
//   evaluated here; none of it is left in the module.
// - Weights stay in their files: a weight is a byte range of an external data
//   file or of the .onnx itself. Nothing above 16 KiB is read, but the first
//   and last 64 KiB of each range for its identity. A data file that is absent
//   gives a remark and weights without identity.
// - A tensor is a weight if it is external, above 4 KiB, or a named parameter;
//   everything else (scalars, axes, inv_freq) is a dshard.constant.
// - Functions of the model are inlined; where one has the name of an op that
//   the importer knows, too, the function is the definition.
// - Every op has `path` (definitions.md) and `part = forward`; its location is
// the
//   node's name.
//
// Errors go to the context's diagnostic handlers, one line for one wrong model:
// "model.onnx: node 'node_view' (Reshape): ...". Names from the file are
// escaped.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_IMPORT_IMPORT_H
#define DSHARD_IMPORT_IMPORT_H

#include "mlir/IR/OwningOpRef.h"
#include "mlir/Support/LLVM.h"
#include "llvm/ADT/StringRef.h"
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mlir {
class MLIRContext;
class ModuleOp;
} // namespace mlir

namespace mlir::dshard {

struct ImportOptions {
  /// Symbolic dim = size. A dim expression may be bound as a whole.
  std::vector<std::pair<std::string, int64_t>> dims;
  /// INPUT = "batch,seq": names for the dims of an input, in place of the
  /// file's (an empty entry keeps the file's).
  std::vector<std::pair<std::string, std::string>> dimRoles;
  /// INPUT = VALUE: an input that becomes a constant: one number for every
  /// element, or as many as elements, separated by commas; true and false
  /// count.
  std::vector<std::pair<std::string, std::string>> constants;
  /// Name of the function.
  std::string entry = "run";
  /// The model is to be trained: a small tensor of floats whose name is a
  /// module's parameter is a weight too, and weights say whether the file calls
  /// them parameters (`dshard.is_parameter`).
  bool training = false;
};

/// Imports the ONNX file at `path`. The dialects it needs are loaded into the
/// context.
FailureOr<OwningOpRef<ModuleOp>> importOnnx(MLIRContext &context,
                                            llvm::StringRef path,
                                            const ImportOptions &options);

} // namespace mlir::dshard

#endif // DSHARD_IMPORT_IMPORT_H
