//===- VjpLayout.cpp - Gradients of ops that only move elements -----------===//

#include "Vjp.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult mlir::dshard::buildVjp(ReshapeOp op, Vjp &vjp) {
  vjp.wanted[0] =
      vjp.make.reshape(vjp.given[0], op.getInput().getType().getShape());
  return success();
}

LogicalResult mlir::dshard::buildVjp(TransposeOp op, Vjp &vjp) {
  SmallVector<int64_t> inverse(op.getPermutation().size());
  for (auto [to, from] : llvm::enumerate(op.getPermutation()))
    inverse[from] = to;
  vjp.wanted[0] = vjp.make.transpose(vjp.given[0], inverse);
  return success();
}

LogicalResult mlir::dshard::buildVjp(BroadcastToOp op, Vjp &vjp) {
  vjp.wanted[0] = vjp.sumTo(vjp.given[0], op.getInput().getType());
  return success();
}

LogicalResult mlir::dshard::buildVjp(ConcatOp op, Vjp &vjp) {
  int64_t dim = op.getDim(), start = 0;
  for (auto [input, gradient] : llvm::zip_equal(op.getInputs(), vjp.wanted)) {
    int64_t size = vjp.make.typeOf(input).getDimSize(dim);
    gradient = vjp.make.sliceDim(vjp.given[0], dim, start, size);
    start += size;
  }
  return success();
}

static Value padDim(DShardBuilder &make, Value value, int64_t dim, int64_t low,
                    int64_t high) {
  if (low == 0 && high == 0)
    return value;
  RankedTensorType type = make.typeOf(value);
  SmallVector<int64_t> lows(type.getRank(), 0), highs(type.getRank(), 0),
      shape(type.getShape());
  lows[dim] = low;
  highs[dim] = high;
  shape[dim] += low + high;
  return make.create<PadOp>(type.clone(shape), value, lows, highs,
                            llvm::APFloat(0.0));
}

/// Puts stride - 1 zeros behind every element of a dim.
static Value spreadDim(DShardBuilder &make, Value value, int64_t dim,
                       int64_t stride) {
  if (stride == 1)
    return value;
  SmallVector<int64_t> shape(make.typeOf(value).getShape());
  SmallVector<int64_t> apart(shape);
  apart.insert(apart.begin() + dim + 1, 1);
  value = padDim(make, make.reshape(value, apart), dim + 1, 0, stride - 1);
  shape[dim] *= stride;
  return make.reshape(value, shape);
}

LogicalResult mlir::dshard::buildVjp(SliceOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  RankedTensorType input = op.getInput().getType();
  Value g = vjp.given[0];
  if (make.typeOf(g).getNumElements() == 0) {
    vjp.wanted[0] = make.splat(0, input);
    return success();
  }
  for (int64_t dim = 0; dim < input.getRank(); ++dim) {
    int64_t start = op.getStarts()[dim], stride = op.getStrides()[dim];
    int64_t count = make.typeOf(g).getDimSize(dim);
    if (stride < 0) { // the same elements, last first
      g = make.sliceDim(g, dim, count - 1, count, -1);
      start += (count - 1) * stride;
      stride = -stride;
    }
    if (count == 1)
      stride = 1;
    g = spreadDim(make, g, dim, stride);
    int64_t room = input.getDimSize(dim) - start;
    if (count * stride > room)
      g = make.sliceDim(g, dim, 0, room);
    g = padDim(make, g, dim, start, room - make.typeOf(g).getDimSize(dim));
  }
  vjp.wanted[0] = g;
  return success();
}

LogicalResult mlir::dshard::buildVjp(PadOp op, Vjp &vjp) {
  SmallVector<int64_t> strides(op.getLow().size(), 1);
  vjp.wanted[0] = vjp.make.create<SliceOp>(op.getInput().getType(),
                                           vjp.given[0], op.getLow(), strides);
  return success();
}

LogicalResult mlir::dshard::buildVjp(ReorderOp op, Vjp &vjp) {
  vjp.wanted[0] = vjp.make.create<ReorderOp>(
      op.getInput().getType(), vjp.given[0], op.getDim(), op.getLayout(),
      op.getParts(), !op.getInverse());
  return success();
}
