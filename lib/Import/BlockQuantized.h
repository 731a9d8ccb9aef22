//===- BlockQuantized.h - Tensors of 4 and 8 bits in blocks -----*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_BLOCKQUANTIZED_H
#define DSHARD_LIB_IMPORT_BLOCKQUANTIZED_H

#include "NodeImporter.h"

namespace mlir::dshard::onnx {

/// The elements of bytes of 8 or twice 4 bits, low nibble first: [..., n] as
/// [..., n * 8 / bits].
Value unpackBits(NodeImporter &n, Value bytes, int64_t bits);

/// `data`, bytes of uint8, as a tensor of `shape` [..., K] in the type of
/// `scales`: (q - zero) scale, where `block` elements of the last dim, which it
/// divides, have one scale and one zero point. These may have any shape; zero
/// points are packed as the data are, or of the scales' type; null: `middle`.
Value dequantizeBlocks(NodeImporter &n, Value data, Value scales, Value zeros,
                       int64_t bits, int64_t block,
                       llvm::ArrayRef<int64_t> shape, double middle);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_BLOCKQUANTIZED_H
