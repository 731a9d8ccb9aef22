//===- VjpNorm.cpp - Gradients of norms, softmax and reductions -----------===//
//
// Norms in f32 as forward. Their row sums are over inputs alone, none waits for
// another, so that one pass over the row makes all of them and a second the
// gradient.
//
//===----------------------------------------------------------------------===//

#include "Vjp.h"

using namespace mlir;
using namespace mlir::dshard;

static Type getWideType(Value value) {
  Type type = getElementTypeOrSelf(value.getType());
  return type.isF64() ? type : Type(Float32Type::get(value.getContext()));
}

/// Gradients are in the wide type so far.
static void castWanted(Operation *op, Vjp &vjp) {
  for (auto [operand, gradient] :
       llvm::zip_equal(op->getOperands(), vjp.wanted))
    if (gradient)
      gradient =
          vjp.make.cast(gradient, getElementTypeOrSelf(operand.getType()));
}

LogicalResult mlir::dshard::buildVjp(RmsNormOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  Type wide = getWideType(op.getInput());
  Value x = make.cast(op.getInput(), wide), g = make.cast(vjp.given[0], wide);
  int64_t last = make.typeOf(x).getRank() - 1;
  auto mean = [&](Value value) {
    return make.reduce(value, ReductionKind::mean, {last}, true);
  };
  Value weighted = vjp.mul(g, make.cast(op.getWeight(), wide));
  Value scale = make.unary<RsqrtOp>(
      vjp.add(mean(vjp.mul(x, x)),
              make.scalar(op.getEpsilon().convertToDouble(), wide)));
  // s (g w) - x s^3 mean(g w x)
  Value pull = vjp.mul(vjp.mul(scale, vjp.mul(scale, scale)),
                       mean(vjp.mul(weighted, x)));
  vjp.wanted[0] = vjp.sub(vjp.mul(weighted, scale), vjp.mul(x, pull));
  vjp.wanted[1] =
      vjp.sumTo(vjp.mul(g, vjp.mul(x, scale)), op.getWeight().getType());
  castWanted(op, vjp);
  return success();
}

LogicalResult mlir::dshard::buildVjp(LayerNormOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  Type wide = getWideType(op.getInput());
  Value x = make.cast(op.getInput(), wide), g = make.cast(vjp.given[0], wide);
  int64_t last = make.typeOf(x).getRank() - 1;
  auto mean = [&](Value value) {
    return make.reduce(value, ReductionKind::mean, {last}, true);
  };
  Value weighted = vjp.mul(g, make.cast(op.getWeight(), wide));
  Value centered = vjp.sub(x, mean(x));
  Value scale = make.unary<RsqrtOp>(
      vjp.add(mean(vjp.mul(centered, centered)),
              make.scalar(op.getEpsilon().convertToDouble(), wide)));
  // s (g w - mean(g w)) - c s^3 mean(g w c)
  Value pull = vjp.mul(vjp.mul(scale, vjp.mul(scale, scale)),
                       mean(vjp.mul(weighted, centered)));
  vjp.wanted[0] = vjp.sub(vjp.mul(vjp.sub(weighted, mean(weighted)), scale),
                          vjp.mul(centered, pull));
  vjp.wanted[1] =
      vjp.sumTo(vjp.mul(g, vjp.mul(centered, scale)), op.getWeight().getType());
  if (op.getBias())
    vjp.wanted[2] = vjp.sumTo(g, op.getBias().getType());
  castWanted(op, vjp);
  return success();
}

LogicalResult mlir::dshard::buildVjp(SoftmaxOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  Type wide = getWideType(op.getInput());
  Value y = make.cast(op.getResult(), wide), g = make.cast(vjp.given[0], wide);
  Value mean = make.reduce(vjp.mul(g, y), ReductionKind::sum,
                           {int64_t(op.getDim())}, true);
  vjp.wanted[0] = vjp.mul(y, vjp.sub(g, mean));
  castWanted(op, vjp);
  return success();
}

LogicalResult mlir::dshard::buildVjp(ReduceOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  Value x = op.getInput();
  RankedTensorType type = op.getInput().getType();
  SmallVector<int64_t> kept(type.getShape());
  int64_t count = 1;
  for (int64_t dim : op.getDims()) {
    count *= kept[dim];
    kept[dim] = 1;
  }
  Value g = make.reshape(vjp.given[0], kept);
  Value y = make.reshape(op.getResult(), kept);
  Value zero = vjp.number(0, g), one = vjp.number(1, g);
  auto sum = [&](Value value) {
    return make.reduce(value, ReductionKind::sum, op.getDims(), true);
  };
  auto indicate = [&](Value condition) {
    return make.select(condition, one, zero);
  };
  switch (op.getKind()) {
  case ReductionKind::mean:
    g = vjp.div(g, vjp.number(double(count), g));
    [[fallthrough]];
  case ReductionKind::sum:
    vjp.wanted[0] = make.broadcastTo(g, type.getShape());
    return success();
  case ReductionKind::max:
  case ReductionKind::min: {
    // Equal extremes share it evenly.
    Value hits = make.broadcastTo(
        indicate(make.compare(x, y, ComparePredicate::eq)), type.getShape());
    vjp.wanted[0] = vjp.mul(hits, vjp.div(g, sum(hits)));
    return success();
  }
  case ReductionKind::product: {
    // The product of the others; y / x does not say it where x is zero.
    Value isZero = make.compare(x, zero, ComparePredicate::eq);
    Value nonZero = make.select(isZero, one, x);
    Value product =
        make.reduce(nonZero, ReductionKind::product, op.getDims(), true);
    Value zeros = sum(indicate(isZero));
    Value others = vjp.sub(zeros, indicate(isZero)); // zeros beside this one
    Value noOther = make.compare(others, zero, ComparePredicate::eq);
    vjp.wanted[0] =
        vjp.mul(g, make.select(noOther, vjp.div(product, nonZero), zero));
    return success();
  }
  }
  return op.emitOpError("has no gradient; training through it is refused");
}
