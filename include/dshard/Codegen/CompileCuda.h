//===- CompileCuda.h - Fused regions to one PTX module ----------*- C++ -*-===//
//
// The CUDA twin of KernelEmitter.h and Compile.h: the same pulled expressions
// under block and thread indices, and the NVPTX back end in process. No
// external tool, no device library: what PTX lacks is LaneMath's polynomials.
//
// A kernel's parameters are its buffers' pointers, inputs then outputs, each
// aligned to 256 bytes. Grids and blocks have one dim. No dynamic shared memory
// so far: `shared` is 0.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_CODEGEN_COMPILECUDA_H
#define DSHARD_CODEGEN_COMPILECUDA_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Support/Status.h"
#include "mlir/IR/BuiltinOps.h"

#include <string>

namespace mlir::dshard {

/// A GPU architecture that PTX is made for.
struct CudaTarget {
  std::string name; ///< "cuda:sm_90": what the plan says
  int arch = 90;    ///< compute capability, times ten
};

/// Understands `cuda` (sm_90), `cuda:sm_80`, `cuda:sm_90` and `cuda:sm_100`.
::dshard::Result<CudaTarget> getCudaTarget(llvm::StringRef spec);

/// What the plan's kernel table says; see plan.fbs, Kernel.
struct CudaKernelInfo {
  std::string name;    ///< the PTX entry
  int64_t grid = 1;    ///< blocks
  int64_t block = 1;   ///< threads of a block, exactly (.maxntid says so too)
  int64_t shared = 0;  ///< bytes of dynamic shared memory
  int64_t buffers = 0; ///< inputs, then outputs
};

/// The generator knows this op inside a region for CUDA: isKernelOp, and
/// attention (of one part) and its gradient, one per region, whose results the
/// region yields or only moves (transpose, reshape).
bool isCudaKernelOp(Operation *op);

/// Appends the kernel `name` to `kernels`. Errors are diagnostics at the op.
FailureOr<CudaKernelInfo> emitCudaKernel(FusedOp fused, ModuleOp kernels,
                                         llvm::StringRef name,
                                         const CudaTarget &target);

/// The PTX text of all functions of `kernels`, which is lowered in place.
/// Diagnostics on failure.
FailureOr<std::string> compileCudaKernels(ModuleOp kernels,
                                          const CudaTarget &target);

} // namespace mlir::dshard

#endif // DSHARD_CODEGEN_COMPILECUDA_H
