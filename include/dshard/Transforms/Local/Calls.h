//===- Calls.h - Fused regions that are one library call --------*- C++ -*-===//
//
// A `dshard.fused` op with the attribute `dshard.call` holds exactly what one
// instruction of the plan computes:
//
//   "matmul"     views of lhs and rhs, matmul, then optionally, in this order:
//                bias, activation (relu, gelu, silu), residual; on CPUs the rhs
//                may be computed from block-quantised buffers in the region
//   "grouped_matmul", "grouped_weight_grad"  that op alone, on CPUs
//   "attention_grad"  views of all 4-dim operands, attention_grad, views of its
//                three results
//   "attention"  views of query, key and value, attention, views of its result
//
// A view is a chain of transposes and reshapes that moves no element: the call
// reads or writes through strides. Formation and conversion match the same way.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_LOCAL_CALLS_H
#define DSHARD_TRANSFORMS_LOCAL_CALLS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// Element strides of `shape` over the contiguous tensor `root`.
struct StridedView {
  Value root;
  SmallVector<int64_t> shape, strides;
};

SmallVector<int64_t> contiguousStrides(ArrayRef<int64_t> shape);

/// Follows transposes and reshapes up while they keep a strided view (always
/// succeeds: the root is where it stops). Collects the ops passed in `ops`.
/// With `within`, ops of other blocks are not followed: a call cannot take them
/// in.
StridedView traceView(Value value, SmallVectorImpl<Operation *> *ops = nullptr,
                      Block *within = nullptr);

enum class CallActivation { none, relu, geluErf, geluTanh, silu };

/// All operands as element strides; see MATMUL in Plan/Instructions.def.
struct MatMulCall {
  MatMulOp op;
  StridedView lhs, rhs;
  Value bias, residual; ///< null where absent
  CallActivation activation = CallActivation::none;
  Value result; ///< of the last op of the chain
  int64_t batch = 1, m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, strideLhs = 0, strideRhs = 0;
  bool transposeLhs = false, transposeRhs = false;
  /// Block-quantised (matchQuantized): see MATMUL_NBITS. Null: it is not.
  Value quantized, scales, zeroPoints;
  int64_t block = 0, bits = 0;
  /// The lhs is rounded to 8 bits in those blocks; `lhs` is what it was before.
  bool int8 = false;
};

/// Matches the product alone. Fails silently if no library call computes it:
/// other types, batches that are no single stride.
FailureOr<MatMulCall> matchMatMul(MatMulOp op);
/// Recognises a rhs that is (cast(q) - zero) * scales in blocks of its columns,
/// as the importer of MatMulNBits writes it; appends the ops that compute it,
/// constants among them, to `ops`. False, and `call` as it was, if it is none.
bool matchQuantized(MatMulCall &call, SmallVectorImpl<Operation *> &ops);
/// Extends `call` by what follows its result, while the next op is the only use
/// and keeps the type; appends those ops to `ops`. The library on a GPU knows
/// relu and the tanh form of gelu, adds the residual before them, and takes a
/// bias of the result's type only.
void matchEpilogue(MatMulCall &call, SmallVectorImpl<Operation *> &ops,
                   bool isGpu = false);

/// Whether a grouped_matmul or a grouped_weight_grad has types that the library
/// computes.
bool isGroupedCall(Operation *op);

struct AttentionCall {
  AttentionOp op;
  StridedView query, key, value;
  Value bias; ///< contiguous; null: none
  /// Element strides of [B, H, S, Dv] in the final result.
  SmallVector<int64_t> resultStrides;
  Value result; ///< after its views; null if unused
};

/// Element strides of a contiguous bias of these dims, 0 where it repeats.
SmallVector<int64_t, 4> biasStrides(ArrayRef<int64_t> shape);

/// Matches the attention with the views around it; appends those to `ops`.
/// Fails silently if its types are not those of the library call.
FailureOr<AttentionCall>
matchAttention(AttentionOp op, SmallVectorImpl<Operation *> *ops = nullptr);

struct AttentionGradCall {
  AttentionGradOp op;
  /// query, key, value, result, log_sum_exp, result_grad, key_padding, bias;
  /// the last two have no root where they are absent. The bias and those of
  /// fewer than 4 dims are contiguous.
  SmallVector<StridedView> operands;
  Value bias; ///< null: none
  /// The gradients of query, key and value after their views, and the element
  /// strides of [B, H, S, D] in them.
  SmallVector<Value> results;
  SmallVector<SmallVector<int64_t>> resultStrides;
};

/// As matchAttention.
FailureOr<AttentionGradCall>
matchAttentionGrad(AttentionGradOp op,
                   SmallVectorImpl<Operation *> *ops = nullptr);

/// The gate of phase `schedule` for one op of a function's block
/// (verify_schedule_c1 to c3). Errors are diagnostics.
LogicalResult verifyScheduled(Operation &op);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_LOCAL_CALLS_H
