//===- Vjp.h - Gradients of the op families ---------------------*- C++ -*-===//
//
// One overload per op (or family): the gradients of the operands from those of
// the results. `make` builds with part = backward and the op's path.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_DIALECT_DSHARD_IR_VJP_H
#define DSHARD_LIB_DIALECT_DSHARD_IR_VJP_H

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

namespace mlir::dshard {

struct Vjp {
  DShardBuilder make;
  /// Of the results; null where none flows, but never all of them.
  ValueRange given;
  /// Of the operands, null at first, each of its operand's type.
  MutableArrayRef<Value> wanted;

  /// The gradient of a value of `type` that was repeated, as numpy broadcasts,
  /// to the dims of `gradient`: summed over what was repeated.
  Value sumTo(Value gradient, RankedTensorType type);
  /// A number in the element type of `like`.
  Value number(double value, Value like) {
    return make.scalar(value, make.typeOf(like).getElementType());
  }
  template <typename OpT> Value binary(Value lhs, Value rhs) {
    return make.binary<OpT>(lhs, rhs);
  }
  Value mul(Value lhs, Value rhs) { return make.binary<MulOp>(lhs, rhs); }
  Value add(Value lhs, Value rhs) { return make.binary<AddOp>(lhs, rhs); }
  Value sub(Value lhs, Value rhs) { return make.binary<SubOp>(lhs, rhs); }
  Value div(Value lhs, Value rhs) { return make.binary<DivOp>(lhs, rhs); }
};

/// Pointwise ops; failure, silently, for one without a gradient.
LogicalResult buildPointwiseVjp(Operation *op, Vjp &vjp);
LogicalResult buildVjp(MatMulOp op, Vjp &vjp);
LogicalResult buildVjp(WeightGradOp op, Vjp &vjp);
LogicalResult buildVjp(GroupedMatMulOp op, Vjp &vjp);
LogicalResult buildVjp(GroupedWeightGradOp op, Vjp &vjp);
LogicalResult buildVjp(AttentionOp op, Vjp &vjp);
/// The gradient of a bias [B,H,S,T], before the sums over dims that it repeats,
/// in single ops.
Value buildAttentionBiasGrad(AttentionGradOp op, DShardBuilder &make);
LogicalResult buildVjp(RotaryOp op, Vjp &vjp);
LogicalResult buildVjp(RmsNormOp op, Vjp &vjp);
LogicalResult buildVjp(LayerNormOp op, Vjp &vjp);
LogicalResult buildVjp(SoftmaxOp op, Vjp &vjp);
LogicalResult buildVjp(ReduceOp op, Vjp &vjp);
LogicalResult buildVjp(ReshapeOp op, Vjp &vjp);
LogicalResult buildVjp(TransposeOp op, Vjp &vjp);
LogicalResult buildVjp(BroadcastToOp op, Vjp &vjp);
LogicalResult buildVjp(ConcatOp op, Vjp &vjp);
LogicalResult buildVjp(SliceOp op, Vjp &vjp);
LogicalResult buildVjp(PadOp op, Vjp &vjp);
LogicalResult buildVjp(ReorderOp op, Vjp &vjp);
LogicalResult buildVjp(GatherOp op, Vjp &vjp);
LogicalResult buildVjp(GatherNdOp op, Vjp &vjp);
LogicalResult buildVjp(ScatterAddOp op, Vjp &vjp);
LogicalResult buildVjp(CrossEntropyOp op, Vjp &vjp);

} // namespace mlir::dshard

#endif // DSHARD_LIB_DIALECT_DSHARD_IR_VJP_H
