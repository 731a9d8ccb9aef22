//===- EvaluateIndex.cpp - Reference values of look-ups and iota ----------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

static int64_t product(ArrayRef<int64_t> sizes) {
  int64_t result = 1;
  for (int64_t size : sizes)
    result *= size;
  return result;
}

static LogicalResult emitOutside(Operation *op, double index, int64_t dim,
                                 int64_t size) {
  return op->emitOpError() << "index " << static_cast<int64_t>(index)
                           << " is outside dim " << dim << " of size " << size;
}

LogicalResult GatherOp::evaluate(ArrayRef<HostTensor> operands,
                                 SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0], &indices = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t dim = getDim(), size = input.shape()[dim];
  int64_t outer = product(input.shape().take_front(dim));
  int64_t inner = product(input.shape().drop_front(dim + 1));
  double *out = result.data.data();
  for (int64_t o = 0; o < outer; ++o) {
    for (double value : indices.data) {
      int64_t index = value;
      bool isInside = true;
      if (getOffset()) {
        index -= static_cast<int64_t>(operands[2].data[0]);
        isInside = index >= 0 && index < size;
      } else {
        if (index < -size || index >= size)
          return emitOutside(*this, value, dim, size);
        index += index < 0 ? size : 0;
      }
      if (isInside)
        std::copy_n(&input.data[(o * size + index) * inner], inner, out);
      out += inner; // outside: the zeros that are there
    }
  }
  results.push_back(std::move(result));
  return success();
}

LogicalResult GatherNdOp::evaluate(ArrayRef<HostTensor> operands,
                                   SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0], &indices = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t batchDims = getBatchDims(), tuple = indices.shape().back();
  int64_t batches = product(input.shape().take_front(batchDims));
  int64_t perBatch = product(indices.shape().drop_front(batchDims).drop_back());
  int64_t inner = product(input.shape().drop_front(batchDims + tuple));
  const double *index = indices.data.data();
  double *out = result.data.data();
  for (int64_t batch = 0; batch < batches; ++batch) {
    for (int64_t i = 0; i < perBatch; ++i, out += inner) {
      int64_t position = batch;
      for (int64_t dim = batchDims; dim < batchDims + tuple; ++dim) {
        int64_t size = input.shape()[dim], at = *index;
        if (at < -size || at >= size)
          return emitOutside(*this, *index, dim, size);
        position = position * size + (at < 0 ? at + size : at);
        ++index;
      }
      std::copy_n(input.data.data() + position * inner, inner, out);
    }
  }
  results.push_back(std::move(result));
  return success();
}

LogicalResult ScatterAddOp::evaluate(ArrayRef<HostTensor> operands,
                                     SmallVectorImpl<HostTensor> &results) {
  const HostTensor &indices = operands[0], &updates = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t dim = getDim(), size = result.shape()[dim];
  int64_t outer = product(result.shape().take_front(dim));
  int64_t inner = product(result.shape().drop_front(dim + 1));
  const double *in = updates.data.data();
  for (int64_t o = 0; o < outer; ++o) {
    for (double value : indices.data) {
      int64_t index = value;
      if (getOffset())
        index -= static_cast<int64_t>(operands[2].data[0]);
      else if (index < 0)
        index += size;
      if (index >= 0 && index < size)
        for (int64_t i = 0; i < inner; ++i)
          result.data[(o * size + index) * inner + i] += in[i];
      in += inner;
    }
  }
  results.push_back(std::move(result));
  return success();
}

LogicalResult IotaOp::evaluate(ArrayRef<HostTensor> operands,
                               SmallVectorImpl<HostTensor> &results) {
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  double start = getStart().convertToDouble();
  double step = getStep().convertToDouble();
  double *out = result.data.data();
  forEachIndex(result.shape(), [&](ArrayRef<int64_t> index) {
    *out++ = start + index[getDim()] * step;
  });
  results.push_back(std::move(result));
  return success();
}
