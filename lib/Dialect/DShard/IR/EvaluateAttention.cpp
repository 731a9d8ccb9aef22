//===- EvaluateAttention.cpp - Reference values of attention, rotary ------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include <cmath>
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

static constexpr double infinity = std::numeric_limits<double>::infinity();

/// What the bias adds to the score of row i and key j.
static double biasAt(const HostTensor *bias, int64_t b, int64_t h, int64_t i,
                     int64_t j) {
  if (!bias)
    return 0;
  ArrayRef<int64_t> shape = bias->shape();
  auto at = [&](int64_t dim, int64_t index) {
    return shape[dim] == 1 ? 0 : index;
  };
  return bias->at({at(0, b), at(1, h), at(2, i), at(3, j)});
}

namespace {
/// Which keys a row attends.
struct Attended {
  const HostTensor *padding = nullptr;
  bool causal = false;
  int64_t offset = 0, window = -1;
  SequenceLayout layout = SequenceLayout::contiguous;
  int64_t parts = 1, rows = 0, keys = 0;

  bool operator()(int64_t b, int64_t row, int64_t key) const {
    if (padding && padding->at({b, key}) == 0)
      return false;
    int64_t i = getNaturalPosition(layout, parts, rows, row) + offset;
    int64_t j = getNaturalPosition(layout, parts, keys, key);
    return (!causal || j <= i) && (window < 0 || j > i - window);
  }
};
} // namespace

LogicalResult AttentionOp::evaluate(ArrayRef<HostTensor> operands,
                                    SmallVectorImpl<HostTensor> &results) {
  const HostTensor &query = operands[0], &key = operands[1],
                   &value = operands[2];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  HostTensor logSumExp(cast<RankedTensorType>(getLogSumExp().getType()));
  int64_t heads = query.shape()[1], keyHeads = key.shape()[1];
  int64_t depth = query.shape()[3], keys = key.shape()[2];
  int64_t valueDepth = value.shape()[3];
  double scale = getScale().convertToDouble();
  double softcap = getSoftcap().convertToDouble();
  const HostTensor *next = operands.begin() + 3;
  Attended isAttended;
  if (getKeyPadding())
    isAttended.padding = next++;
  isAttended.causal = getCausal();
  isAttended.offset = getOffset();
  if (getQueryOffset())
    isAttended.offset += static_cast<int64_t>(next->data[0]);
  isAttended.window = getWindow();
  isAttended.layout = getLayout();
  isAttended.parts = getParts();
  isAttended.rows = query.shape()[2];
  isAttended.keys = keys;
  const HostTensor *bias = getBias() ? &operands.back() : nullptr;

  std::vector<double> scores(keys);
  forEachIndex(query.shape().drop_back(), [&](ArrayRef<int64_t> index) {
    int64_t b = index[0], h = index[1], i = index[2];
    int64_t kvHead = b * keyHeads + h / (heads / keyHeads);
    int64_t row = (b * heads + h) * query.shape()[2] + i;
    const double *q = &query.data[row * depth];
    double largest = -infinity;
    for (int64_t j = 0; j < keys; ++j) {
      scores[j] = -infinity;
      if (!isAttended(b, i, j))
        continue;
      const double *k = &key.data[(kvHead * keys + j) * depth];
      double dot = 0;
      for (int64_t d = 0; d < depth; ++d)
        dot += q[d] * k[d];
      scores[j] = dot * scale;
      if (softcap > 0)
        scores[j] = softcap * std::tanh(scores[j] / softcap);
      if (bias) // its keys lie in natural order
        scores[j] +=
            biasAt(bias, b, h, i,
                   getNaturalPosition(getLayout(), getParts(), keys, j));
      largest = std::max(largest, scores[j]);
      if (std::isnan(scores[j])) // a NaN reaches the output
        largest = scores[j];
    }
    bool attendsNothing = largest == -infinity;
    logSumExp.data[row] = -infinity;
    if (attendsNothing && getFullyMasked() == FullyMasked::zero)
      return;
    double sum = 0;
    for (double &score : scores) {
      score = attendsNothing ? 1.0 : std::exp(score - largest);
      sum += score;
    }
    if (!attendsNothing)
      logSumExp.data[row] = largest + std::log(sum);
    double *out = &result.data[row * valueDepth];
    for (int64_t j = 0; j < keys; ++j) {
      double weight = scores[j] / sum;
      if (weight == 0)
        continue; // a key that is not attended may hold anything
      const double *v = &value.data[(kvHead * keys + j) * valueDepth];
      for (int64_t d = 0; d < valueDepth; ++d)
        out[d] += weight * v[d];
    }
  });
  results.push_back(std::move(result));
  results.push_back(std::move(logSumExp));
  return success();
}

LogicalResult AttentionGradOp::evaluate(ArrayRef<HostTensor> operands,
                                        SmallVectorImpl<HostTensor> &results) {
  const HostTensor &query = operands[0], &key = operands[1],
                   &value = operands[2], &result = operands[3],
                   &logSumExp = operands[4], &resultGrad = operands[5];
  HostTensor queryGrad(query.type), keyGrad(key.type), valueGrad(value.type);
  int64_t heads = query.shape()[1], keyHeads = key.shape()[1];
  int64_t depth = query.shape()[3], keys = key.shape()[2];
  int64_t valueDepth = value.shape()[3];
  double scale = getScale().convertToDouble();
  double softcap = getSoftcap().convertToDouble();
  Attended isAttended;
  if (getKeyPadding())
    isAttended.padding = &operands[6];
  isAttended.causal = getCausal();
  isAttended.offset = getOffset();
  isAttended.window = getWindow();
  isAttended.rows = query.shape()[2];
  isAttended.keys = keys;
  const HostTensor *bias = getBias() ? &operands.back() : nullptr;

  auto dot = [](const double *x, const double *y, int64_t size) {
    double sum = 0;
    for (int64_t i = 0; i < size; ++i)
      sum += x[i] * y[i];
    return sum;
  };
  forEachIndex(query.shape().drop_back(), [&](ArrayRef<int64_t> index) {
    int64_t b = index[0], h = index[1], i = index[2];
    int64_t kvHead = b * keyHeads + h / (heads / keyHeads);
    int64_t row = (b * heads + h) * query.shape()[2] + i;
    const double *q = &query.data[row * depth];
    const double *gradient = &resultGrad.data[row * valueDepth];
    if (logSumExp.data[row] == -infinity) { // the row attends nothing
      if (getFullyMasked() == FullyMasked::uniform)
        for (int64_t j = 0; j < keys; ++j)
          for (int64_t d = 0; d < valueDepth; ++d)
            valueGrad.data[(kvHead * keys + j) * valueDepth + d] +=
                gradient[d] / keys;
      return;
    }
    double delta = dot(gradient, &result.data[row * valueDepth], valueDepth);
    for (int64_t j = 0; j < keys; ++j) {
      if (!isAttended(b, i, j))
        continue;
      const double *k = &key.data[(kvHead * keys + j) * depth];
      const double *v = &value.data[(kvHead * keys + j) * valueDepth];
      double score = dot(q, k, depth) * scale, bend = 1;
      if (softcap > 0) {
        double tanh = std::tanh(score / softcap);
        score = softcap * tanh;
        bend = 1 - tanh * tanh;
      }
      score += biasAt(bias, b, h, i, j);
      double weight = std::exp(score - logSumExp.data[row]);
      double slope =
          weight * (dot(gradient, v, valueDepth) - delta) * bend * scale;
      for (int64_t d = 0; d < valueDepth; ++d)
        valueGrad.data[(kvHead * keys + j) * valueDepth + d] +=
            weight * gradient[d];
      for (int64_t d = 0; d < depth; ++d) {
        queryGrad.data[row * depth + d] += slope * k[d];
        keyGrad.data[(kvHead * keys + j) * depth + d] += slope * q[d];
      }
    }
  });
  results.push_back(std::move(queryGrad));
  results.push_back(std::move(keyGrad));
  results.push_back(std::move(valueGrad));
  return success();
}

LogicalResult RotaryOp::evaluate(ArrayRef<HostTensor> operands,
                                 SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0], &cos = operands[1], &sin = operands[2];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t half = input.shape()[3] / 2;
  forEachIndex(cos.shape(), [&](ArrayRef<int64_t> angle) {
    int64_t s = angle[1], i = angle[2];
    int64_t first = getInterleaved() ? 2 * i : i;
    int64_t second = getInterleaved() ? 2 * i + 1 : i + half;
    double c = cos.at(angle), d = sin.at(angle);
    for (int64_t b = 0; b < input.shape()[0]; ++b) {
      if (cos.shape()[0] != 1 && b != angle[0])
        continue;
      for (int64_t h = 0; h < input.shape()[1]; ++h) {
        double x1 = input.at({b, h, s, first});
        double x2 = input.at({b, h, s, second});
        result.at({b, h, s, first}) = x1 * c - x2 * d;
        result.at({b, h, s, second}) = x2 * c + x1 * d;
      }
    }
  });
  results.push_back(std::move(result));
  return success();
}
