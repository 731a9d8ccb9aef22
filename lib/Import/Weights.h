//===- Weights.h - Tensors of the file: constants and weights ---*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_WEIGHTS_H
#define DSHARD_LIB_IMPORT_WEIGHTS_H

#include "Names.h"
#include "dshard/Dialect/DShard/IR/DShardAttrs.h"
#include "dshard/Support/File.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::dshard::onnx {

/// f32 for FLOAT and so on; null for a type that the importer does not take.
Type elementType(MLIRContext *context, int dataType);
/// "FLOAT8E4M3FN" or "type 99".
std::string dataTypeName(int dataType);

/// The static shape as a type; an error for a negative dim, for more than 32
/// dims, or for more than 2^46 bytes.
::dshard::Result<RankedTensorType> makeTensorType(llvm::ArrayRef<int64_t> shape,
                                                  Type elementType);

/// How the first node that reads a tensor uses it: what fan_in and `transposed`
/// follow from.
struct FirstReader {
  const pb::NodeProto *node = nullptr;
  int position = 0;
};
/// docs/RandomWeights.md.
uint64_t fanInOf(llvm::ArrayRef<int64_t> dims, const FirstReader &reader);

/// A tensor of the file: a value, or the place where one lies.
struct FileTensor {
  RankedTensorType type;
  /// Set for a constant.
  DenseElementsAttr value;
  /// Set for a weight.
  WeightAttr weight;
};

/// Reads tensors of one model: decides what is a weight, finds and checks the
/// bytes.
class TensorReader {
public:
  TensorReader(MLIRContext *context, const ModelFile &file)
      : context(context), file(file) {}

  /// `isParameter`: a weight even if it is small. `name`: as people know it.
  ::dshard::Result<FileTensor> read(const pb::TensorProto &tensor,
                                    llvm::StringRef name, bool isParameter,
                                    const FirstReader &reader);

  /// Data files that are not there, each once.
  const std::vector<std::string> &absentFiles() const { return absent; }

private:
  /// A byte range of a file beneath the model's folder.
  struct Range {
    std::string location;
    uint64_t offset = 0, length = 0;
    uint64_t fileSize = 0;
    bool present = false;
  };
  ::dshard::Result<Range> findExternal(const pb::TensorProto &tensor,
                                       uint64_t expectedBytes);
  ::dshard::Result<int> openDataFile(const std::string &location,
                                     uint64_t &size);
  ::dshard::Result<WeightAttr> makeWeight(const Range &range,
                                          RankedTensorType type,
                                          llvm::StringRef name,
                                          const FirstReader &reader);

  MLIRContext *context;
  const ModelFile &file;
  std::vector<std::string> absent;
};

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_WEIGHTS_H
