//===- VjpIndex.cpp - Gradients of look-ups and losses --------------------===//

#include "Vjp.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult mlir::dshard::buildVjp(GatherOp op, Vjp &vjp) {
  vjp.wanted[0] =
      vjp.make.create<ScatterAddOp>(op.getInput().getType(), op.getIndices(),
                                    vjp.given[0], op.getOffset(), op.getDim());
  return success();
}

LogicalResult mlir::dshard::buildVjp(ScatterAddOp op, Vjp &vjp) {
  vjp.wanted[1] =
      vjp.make.create<GatherOp>(op.getUpdates().getType(), vjp.given[0],
                                op.getIndices(), op.getOffset(), op.getDim());
  return success();
}

/// Batch dims and indexed dims become one dim, index tuples one number.
LogicalResult mlir::dshard::buildVjp(GatherNdOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  RankedTensorType input = op.getInput().getType(),
                   indices = op.getIndices().getType();
  int64_t batch = op.getBatchDims(), tuple = indices.getShape().back();
  Type element = indices.getElementType();
  SmallVector<int64_t> places(indices.getShape().drop_back());
  auto placesType = RankedTensorType::get(places, element);
  Value linear;
  auto append = [&](Value index, int64_t size) {
    linear = linear
                 ? vjp.add(vjp.mul(linear, make.scalar(double(size), element)),
                           index)
                 : index;
  };
  int64_t rows = 1;
  for (int64_t dim = 0; dim < batch + tuple; ++dim) {
    int64_t size = input.getDimSize(dim);
    rows *= size;
    if (dim < batch) {
      append(make.create<IotaOp>(placesType, uint64_t(dim), llvm::APFloat(0.0),
                                 llvm::APFloat(1.0)),
             size);
      continue;
    }
    Value index = make.reshape(
        make.sliceDim(op.getIndices(), indices.getRank() - 1, dim - batch, 1),
        places);
    Value isNegative =
        make.compare(index, make.scalar(0, element), ComparePredicate::lt);
    append(make.select(isNegative,
                       vjp.add(index, make.scalar(double(size), element)),
                       index),
           size);
  }
  SmallVector<int64_t> slices = {rows};
  llvm::append_range(slices, input.getShape().drop_front(batch + tuple));
  Value sum = make.create<ScatterAddOp>(input.clone(slices), linear,
                                        vjp.given[0], Value(), uint64_t(0));
  vjp.wanted[0] = make.reshape(sum, input.getShape());
  return success();
}

LogicalResult mlir::dshard::buildVjp(CrossEntropyOp op, Vjp &vjp) {
  DShardBuilder &make = vjp.make;
  Type wide = op.getLogSumExp().getType().getElementType();
  Value logits = make.cast(op.getLogits(), wide), labels = op.getLabels();
  RankedTensorType type = make.typeOf(logits);
  Type labelType = op.getLabels().getType().getElementType();
  SmallVector<int64_t> column(op.getLabels().getType().getShape());
  column.push_back(1);
  Value zero = make.scalar(0, wide);

  Value probabilities = make.unary<ExpOp>(
      vjp.sub(logits, make.reshape(op.getLogSumExp(), column)));
  Value rows, gradient; // what multiplies the probabilities of a row
  if (vjp.given[0]) {
    Value isIgnored = make.compare(
        labels, make.scalar(double(int64_t(op.getIgnoreIndex())), labelType),
        ComparePredicate::eq);
    rows = make.reshape(make.select(isIgnored, zero, vjp.given[0]), column);
  }
  Value both = rows;
  if (vjp.given[1]) {
    Value more = make.reshape(vjp.given[1], column);
    both = rows ? vjp.add(rows, more) : more;
  }
  gradient = vjp.mul(probabilities, both);
  if (rows) {
    Value index =
        make.create<IotaOp>(type.clone(labelType), uint64_t(type.getRank() - 1),
                            llvm::APFloat(0.0), llvm::APFloat(1.0));
    Value isLabel =
        make.compare(index, make.reshape(labels, column), ComparePredicate::eq);
    gradient = vjp.sub(gradient, make.select(isLabel, rows, zero));
  }
  vjp.wanted[0] =
      make.cast(gradient, op.getLogits().getType().getElementType());
  return success();
}
