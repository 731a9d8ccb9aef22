//===- WeightNames.h - Parameters and buffers by their names ----*- C++ -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_WEIGHTNAMES_H
#define DSHARD_DIALECT_DSHARD_IR_WEIGHTNAMES_H

#include "llvm/ADT/StringRef.h"

namespace mlir::dshard {

/// On an argument that is a weight, in a model to train: whether the file calls
/// it a parameter (true) or a buffer (false); absent where it says nothing.
inline constexpr llvm::StringLiteral isParameterAttrName =
    "dshard.is_parameter";

/// Does `name` read like the path of a module's parameter
/// ("layers.0.norm.weight")? Names that exporters make up do not
/// ("onnx::MatMul_12", "/layers.0/Constant_output_0", "val_37").
bool isParameterPath(llvm::StringRef name);

/// Names that exporters make up, in models without paths as well.
bool isMadeUpName(llvm::StringRef name);

/// What modules keep beside their parameters: rotary frequencies, running
/// statistics, positions.
bool isBufferName(llvm::StringRef name);

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_WEIGHTNAMES_H
