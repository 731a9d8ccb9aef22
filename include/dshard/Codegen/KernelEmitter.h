//===- KernelEmitter.h - A fused region as one loop nest --------*- C++ -*-===//
//
// `emitKernel` turns a `dshard.fused` op (dshard ops on static local types)
// into an `llvm.func` of the kernel calling convention (Runtime/Kernel.h) whose
// body is scf/arith/math/vector ops on i64 indices, with explicit vectors along
// the last dim. There is no memory but the kernel's buffers and constant data.
//
// Method: every output element is *pulled*: the value of an op at an index is
// an expression of its operands at mapped indices, so producers fuse into their
// consumers whatever they are (broadcast, transpose, slice, gather, rotary,
// ...). Values that do not depend on an inner loop are emitted outside of it,
// so the statistics of a row (norms, softmax, reductions) are computed once per
// row.
//
// Iterations: a region of pointwise ops over one shape runs over its elements;
// anything else over the rows of its outputs. All outputs have the same rows:
// shape [rows..., d], [rows..., 1] or [rows...].
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_CODEGEN_KERNELEMITTER_H
#define DSHARD_CODEGEN_KERNELEMITTER_H

#include "dshard/Transforms/Local/Kernels.h"

namespace mlir::dshard {

/// What the plan's kernel table says; see plan.fbs, Kernel.
struct KernelInfo {
  int64_t extent = 1;
  int64_t grain = 1;
  int64_t buffers = 0; ///< inputs, then outputs
};

/// Appends the function `name` to `kernels`. Errors are diagnostics at the op.
FailureOr<KernelInfo> emitKernel(FusedOp fused, ModuleOp kernels,
                                 StringRef name);

} // namespace mlir::dshard

#endif // DSHARD_CODEGEN_KERNELEMITTER_H
