//===- EvaluateNorm.cpp - Reference values of norms and softmax -----------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

/// Calls body(first, size) for each row of the last dim.
static void forEachRow(const HostTensor &tensor,
                       llvm::function_ref<void(int64_t, int64_t)> body) {
  int64_t size = tensor.shape().back();
  for (int64_t first = 0; first < tensor.size(); first += size)
    body(first, size);
}

LogicalResult RmsNormOp::evaluate(ArrayRef<HostTensor> operands,
                                  SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0], &weight = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  double epsilon = getEpsilon().convertToDouble();
  forEachRow(input, [&](int64_t first, int64_t size) {
    double sum = 0;
    for (int64_t i = 0; i < size; ++i)
      sum += input.data[first + i] * input.data[first + i];
    double scale = 1.0 / std::sqrt(sum / size + epsilon);
    for (int64_t i = 0; i < size; ++i)
      result.data[first + i] = input.data[first + i] * scale * weight.data[i];
  });
  results.push_back(std::move(result));
  return success();
}

LogicalResult LayerNormOp::evaluate(ArrayRef<HostTensor> operands,
                                    SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0], &weight = operands[1];
  const HostTensor *bias = getBias() ? &operands[2] : nullptr;
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  double epsilon = getEpsilon().convertToDouble();
  forEachRow(input, [&](int64_t first, int64_t size) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < size; ++i)
      sum += input.data[first + i];
    double mean = sum / size;
    for (int64_t i = 0; i < size; ++i)
      squares +=
          (input.data[first + i] - mean) * (input.data[first + i] - mean);
    double scale = 1.0 / std::sqrt(squares / size + epsilon);
    for (int64_t i = 0; i < size; ++i)
      result.data[first + i] =
          (input.data[first + i] - mean) * scale * weight.data[i] +
          (bias ? bias->data[i] : 0.0);
  });
  results.push_back(std::move(result));
  return success();
}

LogicalResult SoftmaxOp::evaluate(ArrayRef<HostTensor> operands,
                                  SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t dim = getDim(), size = input.shape()[dim];
  SmallVector<int64_t> strides = input.strides();
  SmallVector<int64_t> lines(input.shape());
  lines[dim] = 1;
  if (size == 0)
    lines[dim] = 0; // nothing to normalise
  forEachIndex(lines, [&](ArrayRef<int64_t> index) {
    int64_t first = 0;
    for (auto [i, stride] : llvm::zip_equal(index, strides))
      first += i * stride;
    const double *in = &input.data[first];
    double *out = &result.data[first];
    int64_t stride = strides[dim];
    double largest = in[0], sum = 0;
    for (int64_t i = 1; i < size; ++i)
      largest = std::max(largest, in[i * stride]);
    for (int64_t i = 0; i < size; ++i)
      sum += out[i * stride] = std::exp(in[i * stride] - largest);
    for (int64_t i = 0; i < size; ++i)
      out[i * stride] /= sum;
  });
  results.push_back(std::move(result));
  return success();
}
