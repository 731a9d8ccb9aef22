//===- Lower.h - What CPU and CUDA compilation share ------------*- C++ -*-===//
//
// Internal to Codegen.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CODEGEN_LOWER_H
#define DSHARD_LIB_CODEGEN_LOWER_H

#include "mlir/IR/BuiltinOps.h"

namespace llvm {
class Module;
class TargetMachine;
} // namespace llvm

namespace mlir::dshard {

/// scf, arith, math and vector ops to the LLVM dialect, in place.
LogicalResult lowerToLLVM(ModuleOp kernels);

/// Allows products and sums to become one, and runs LLVM's O3 with no library
/// function to call. Data layout and triple are the machine's already.
void optimize(llvm::Module &module, llvm::TargetMachine &machine);

} // namespace mlir::dshard

#endif // DSHARD_LIB_CODEGEN_LOWER_H
