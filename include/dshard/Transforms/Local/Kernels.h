//===- Kernels.h - What a generated kernel can be ---------------*- C++ -*-===//
//
// Kernel formation and code generation agree on this.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_LOCAL_KERNELS_H
#define DSHARD_TRANSFORMS_LOCAL_KERNELS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "llvm/ADT/STLExtras.h"

namespace mlir::dshard {

/// The generator knows this op with these types inside a fused region. A
/// scatter_add is the last op of its region, and its only result.
inline bool isKernelOp(Operation *op) {
  if (isa<GradientOp>(op)) // pointwise, but gone by now
    return false;
  if (!op->hasTrait<Pointwise>() &&
      !isa<ConstantOp, ReshapeOp, TransposeOp, BroadcastToOp, ConcatOp, SliceOp,
           PadOp, GatherOp, GatherNdOp, ScatterAddOp, IotaOp, RotaryOp,
           ReduceOp, MatMulOp, RmsNormOp, LayerNormOp, SoftmaxOp>(op))
    return false;
  auto known = [](Type type) {
    Type element = cast<RankedTensorType>(type).getElementType();
    if (isa<FloatType>(element))
      return element.isF16() || element.isBF16() || element.isF32() ||
             element.isF64();
    unsigned bits = element.getIntOrFloatBitWidth();
    return bits == 1 || bits == 8 || bits == 16 || bits == 32 || bits == 64;
  };
  return llvm::all_of(op->getOperandTypes(), known) &&
         llvm::all_of(op->getResultTypes(), known);
}

/// One kernel can give both results: rows of shape [rows..., d] and [rows...,
/// d], [rows..., 1] or [rows...].
inline bool haveSameRows(RankedTensorType a, RankedTensorType b) {
  if (a.getNumElements() < b.getNumElements())
    std::swap(a, b);
  if (a.getShape() == b.getShape())
    return true;
  if (a.getRank() == 0)
    return false;
  ArrayRef<int64_t> rows = a.getShape().drop_back();
  return b.getShape() == rows ||
         (b.getRank() == a.getRank() && b.getShape().back() == 1 &&
          b.getShape().drop_back() == rows);
}

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_LOCAL_KERNELS_H
