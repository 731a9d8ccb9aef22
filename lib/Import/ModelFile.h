//===- ModelFile.h - Read an .onnx without its weights ----------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_MODELFILE_H
#define DSHARD_LIB_IMPORT_MODELFILE_H

#include "dshard/Support/Status.h"
#include "dshard_onnx.pb.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringRef.h"
#include <memory>
#include <string>

namespace mlir::dshard::onnx {
namespace pb = ::dshard_onnx;

/// Tensor values up to this many bytes are read and become constants.
constexpr uint64_t maxConstantBytes = 4096;

/// The opsets of ai.onnx that the importer knows.
constexpr int64_t minOpset = 1, maxOpset = 28;

/// A parsed model whose large tensor values are still in the file.
///
/// In every TensorProto, `segment` is the byte range of its raw_data,
/// float_data or double_data in the .onnx (the obsolete field is free for that:
/// a file that uses it is refused). Values above maxConstantBytes are left out;
/// raw_data is then present and empty.
struct ModelFile {
  std::string path;   ///< as given
  std::string folder; ///< of path; "." for none
  std::string name;   ///< last part of path
  uint64_t size = 0;
  pb::ModelProto model;
  /// Opset of ai.onnx of nodes that came out of functions (Functions.h), and of
  /// the graphs in them; other nodes are in the model's.
  llvm::DenseMap<const pb::NodeProto *, int64_t> opsets;
};

/// Reads and parses; the error says what kind of file it is instead.
::dshard::Result<std::unique_ptr<ModelFile>>
readModelFile(llvm::StringRef path);

/// `text` in quotes; bytes that are no printable ASCII escaped; long text cut.
std::string quote(llvm::StringRef text);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_MODELFILE_H
