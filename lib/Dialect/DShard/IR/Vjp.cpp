//===- Vjp.cpp - Which family builds an op's gradient ---------------------===//

#include "Vjp.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::dshard;

Value Vjp::sumTo(Value gradient, RankedTensorType type) {
  RankedTensorType from = make.typeOf(gradient);
  SmallVector<int64_t> dims;
  int64_t lead = from.getRank() - type.getRank();
  for (int64_t i = 0; i < from.getRank(); ++i)
    if (i < lead || (type.getDimSize(i - lead) == 1 && from.getDimSize(i) != 1))
      dims.push_back(i);
  if (!dims.empty())
    gradient = make.reduce(gradient, ReductionKind::sum, dims,
                           /*keepDims=*/false);
  return make.reshape(gradient, type.getShape());
}

LogicalResult
mlir::dshard::buildVjpOf(Operation *op, OpBuilder &builder,
                         ValueRange resultGradients,
                         SmallVectorImpl<Value> &operandGradients) {
  operandGradients.assign(op->getNumOperands(), Value());
  // One result and no gradient of it, or all are null: nothing flows.
  if (llvm::none_of(resultGradients, [](Value value) { return !!value; }))
    return success();
  Vjp vjp{DShardBuilder(builder, op), resultGradients, operandGradients};
  vjp.make.part = PartAttr::get(op->getContext(), Part::backward);
  auto refuse = [&] {
    return op->emitOpError("has no gradient; training through it is refused");
  };
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case<MatMulOp, WeightGradOp, GroupedMatMulOp, GroupedWeightGradOp,
            AttentionOp, RotaryOp, RmsNormOp, LayerNormOp, SoftmaxOp, ReduceOp,
            ReshapeOp, TransposeOp, BroadcastToOp, ConcatOp, SliceOp, PadOp,
            ReorderOp, GatherOp, GatherNdOp, ScatterAddOp, CrossEntropyOp>(
          [&](auto known) { return buildVjp(known, vjp); })
      .Case<ConstantOp, IotaOp>([](auto) { return success(); })
      .Case<GradientOp>([&](GradientOp) {
        vjp.wanted[0] = resultGradients[0];
        return success();
      })
      .Default([&](Operation *other) -> LogicalResult {
        if (succeeded(buildPointwiseVjp(other, vjp)))
          return success();
        return refuse();
      });
}
