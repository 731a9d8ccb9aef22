//===- VjpAttention.cpp - Gradients of attention and rotary ---------------===//

#include "Vjp.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult mlir::dshard::buildVjp(AttentionOp op, Vjp &vjp) {
  if (vjp.given[1])
    return op.emitOpError(
        "has no gradient through log_sum_exp; training through it is refused");
  if (op.getLayout() != SequenceLayout::contiguous || op.getQueryOffset())
    return op.emitOpError() << "has no gradient with the layout "
                            << stringifySequenceLayout(op.getLayout())
                            << "; training with a sharded attention sequence "
                               "(a cp axis) is not supported";
  auto grad = vjp.make.create<AttentionGradOp>(
      TypeRange{op.getQuery().getType(), op.getKey().getType(),
                op.getValue().getType()},
      op.getQuery(), op.getKey(), op.getValue(), op.getResult(),
      op.getLogSumExp(), vjp.given[0], op.getKeyPadding(), op.getBias(),
      op.getScaleAttr(), op.getCausalAttr(), op.getOffsetAttr(),
      op.getWindowAttr(), op.getSoftcapAttr(), op.getFullyMaskedAttr());
  for (unsigned i = 0; i < 3; ++i)
    vjp.wanted[i] = grad->getResult(i);
  // Nobody asks for that of a bias of constants: it is dead then.
  if (Value bias = op.getBias())
    vjp.wanted[op->getNumOperands() - 1] = vjp.sumTo(
        buildAttentionBiasGrad(grad, vjp.make), vjp.make.typeOf(bias));
  return success();
}

LogicalResult mlir::dshard::buildVjp(RotaryOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  Value g = vjp.given[0];
  // A rotation by the opposite angle.
  vjp.wanted[0] = make.create<RotaryOp>(g.getType(), g, op.getCos(),
                                        make.unary<NegOp>(op.getSin()),
                                        op.getInterleavedAttr());
  // Of the tables: summed over the heads, and the batch where it shares one.
  int64_t half = op.getInput().getType().getDimSize(3) / 2;
  auto parts = [&](Value value) {
    return op.getInterleaved() ? std::pair(make.sliceDim(value, 3, 0, half, 2),
                                           make.sliceDim(value, 3, 1, half, 2))
                               : std::pair(make.sliceDim(value, 3, 0, half),
                                           make.sliceDim(value, 3, half, half));
  };
  auto [x1, x2] = parts(op.getInput());
  auto [g1, g2] = parts(g);
  auto sum = [&](Value gradient, Value table) {
    gradient = make.reduce(gradient, ReductionKind::sum, {1}, false);
    return vjp.sumTo(gradient, make.typeOf(table));
  };
  vjp.wanted[1] = sum(vjp.add(vjp.mul(g1, x1), vjp.mul(g2, x2)), op.getCos());
  vjp.wanted[2] = sum(vjp.sub(vjp.mul(g2, x1), vjp.mul(g1, x2)), op.getSin());
  return success();
}
