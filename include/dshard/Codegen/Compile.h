//===- Compile.h - Kernels to one relocation-free image ---------*- C++ -*-===//
//
// llvm.funcs of the kernel convention -> LLVM IR -> object code -> one ELF
// image per plan, in process: no needed libraries, no imports, no dynamic
// relocations, no constructors, no thread-local storage. Whatever would need
// one is an error.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_CODEGEN_COMPILE_H
#define DSHARD_CODEGEN_COMPILE_H

#include "dshard/Support/Status.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringMap.h"

#include <string>
#include <vector>

namespace mlir::dshard {

/// A CPU that images are made for.
struct CpuTarget {
  std::string name; ///< "cpu:x86-64-v3": what the plan says
  std::string cpu;  ///< LLVM's name
  /// CPU features that an image may use and the runtime checks.
  std::vector<std::string> features;
  unsigned vectorBits = 256;
};

/// Understands `cpu`, `cpu:native`, `cpu:x86-64-v3` and `cpu:x86-64-v4`; native
/// is the best of the two that this machine has.
::dshard::Result<CpuTarget> getCpuTarget(llvm::StringRef spec);

struct KernelImage {
  std::vector<char> bytes;           ///< ELF shared object
  llvm::StringMap<uint64_t> entries; ///< function -> offset in the loaded image
};

/// Compiles all functions of `kernels`, which is lowered in place. Diagnostics
/// on failure.
FailureOr<KernelImage> compileKernels(ModuleOp kernels,
                                      const CpuTarget &target);

/// Dialects that kernels and their lowering use, and the translation to LLVM
/// IR.
void registerCodegenDialects(DialectRegistry &registry);

} // namespace mlir::dshard

#endif // DSHARD_CODEGEN_COMPILE_H
