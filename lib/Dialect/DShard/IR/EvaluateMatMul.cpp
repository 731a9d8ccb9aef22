//===- EvaluateMatMul.cpp - Reference values of matrix products -----------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

/// The last two dims of the matrix at `offset`, as [rows, columns] row-major.
static std::vector<double> getMatrix(const HostTensor &tensor, int64_t offset,
                                     int64_t rows, int64_t columns,
                                     bool transposed) {
  auto begin = tensor.data.begin() + offset;
  if (!transposed)
    return std::vector<double>(begin, begin + rows * columns);
  std::vector<double> result(rows * columns);
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t row = 0; row < rows; ++row)
      result[row * columns + column] = begin[column * rows + row];
  return result;
}

/// c += a b. Each element sums over k in order; the blocks of columns only keep
/// a panel of b in the cache.
static void multiply(const double *a, const double *b, double *c, int64_t m,
                     int64_t k, int64_t n) {
  constexpr int64_t block = 256;
  for (int64_t first = 0; first < n; first += block) {
    int64_t last = std::min(first + block, n);
    for (int64_t i = 0; i < m; ++i) {
      double *row = c + i * n;
      for (int64_t l = 0; l < k; ++l) {
        double x = a[i * k + l];
        const double *source = b + l * n;
#pragma clang loop vectorize(enable)
        for (int64_t j = first; j < last; ++j)
          row[j] += x * source[j];
      }
    }
  }
}

/// Number of the matrix that `index` of the result's batch dims reads.
static int64_t getMatrixNumber(const HostTensor &operand,
                               ArrayRef<int64_t> index) {
  ArrayRef<int64_t> batch = operand.shape().drop_back(2);
  int64_t number = 0;
  for (auto [i, size] : llvm::zip_equal(broadcastIndex(index, batch), batch))
    number = number * size + i;
  return number;
}

LogicalResult MatMulOp::evaluate(ArrayRef<HostTensor> operands,
                                 SmallVectorImpl<HostTensor> &results) {
  const HostTensor &lhs = operands[0], &rhs = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t m = result.shape()[result.rank() - 2];
  int64_t n = result.shape()[result.rank() - 1];
  int64_t k = lhs.shape()[lhs.rank() - (getTransposeLhs() ? 2 : 1)];
  double *out = result.data.data();
  int64_t cachedNumber = -1; // a matrix shared by the batch is copied once
  std::vector<double> b;
  forEachIndex(result.shape().drop_back(2), [&](ArrayRef<int64_t> index) {
    std::vector<double> a = getMatrix(lhs, getMatrixNumber(lhs, index) * m * k,
                                      m, k, getTransposeLhs());
    int64_t number = getMatrixNumber(rhs, index);
    if (number != cachedNumber)
      b = getMatrix(rhs, number * k * n, k, n, getTransposeRhs());
    cachedNumber = number;
    multiply(a.data(), b.data(), out, m, k, n);
    out += m * n;
  });
  results.push_back(std::move(result));
  return success();
}

LogicalResult WeightGradOp::evaluate(ArrayRef<HostTensor> operands,
                                     SmallVectorImpl<HostTensor> &results) {
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t m = result.shape()[0], n = result.shape()[1];
  int64_t rows = m == 0 ? 0 : operands[0].size() / m;
  std::vector<double> lhs =
      getMatrix(operands[0], 0, m, rows, /*transposed=*/true);
  multiply(lhs.data(), operands[1].data.data(), result.data.data(), m, rows, n);
  results.push_back(std::move(result));
  return success();
}

/// Which of `count` matrices row `i` uses; -1 for one that another rank holds.
static FailureOr<int64_t> getGroup(Operation *op, ArrayRef<HostTensor> operands,
                                   int64_t i, int64_t count) {
  auto group = static_cast<int64_t>(operands[2].data[i]);
  if (operands.size() > 3) {
    group -= static_cast<int64_t>(operands[3].data[0]);
    return group >= 0 && group < count ? group : -1;
  }
  if (group < 0 || group >= count)
    return op->emitOpError() << "row " << i << " is of group " << group
                             << ", there are " << count;
  return group;
}

LogicalResult GroupedMatMulOp::evaluate(ArrayRef<HostTensor> operands,
                                        SmallVectorImpl<HostTensor> &results) {
  const HostTensor &rows = operands[0], &weights = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t k = rows.shape().back(), n = result.shape().back();
  // One copy of each matrix that is used, row-major.
  std::vector<std::vector<double>> matrices(weights.shape()[0]);
  for (int64_t i = 0, e = operands[2].size(); i < e; ++i) {
    FailureOr<int64_t> group = getGroup(*this, operands, i, matrices.size());
    if (failed(group))
      return failure();
    if (*group < 0)
      continue; // the zeros that are there
    std::vector<double> &matrix = matrices[*group];
    if (matrix.empty())
      matrix = getMatrix(weights, *group * k * n, k, n, getTransposeWeights());
    multiply(&rows.data[i * k], matrix.data(), &result.data[i * n], 1, k, n);
  }
  results.push_back(std::move(result));
  return success();
}

LogicalResult
GroupedWeightGradOp::evaluate(ArrayRef<HostTensor> operands,
                              SmallVectorImpl<HostTensor> &results) {
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  int64_t m = result.shape()[1], n = result.shape()[2];
  for (int64_t i = 0, e = operands[2].size(); i < e; ++i) {
    FailureOr<int64_t> group = getGroup(*this, operands, i, result.shape()[0]);
    if (failed(group))
      return failure();
    if (*group >= 0)
      multiply(&operands[0].data[i * m], &operands[1].data[i * n],
               &result.data[*group * m * n], m, 1, n);
  }
  results.push_back(std::move(result));
  return success();
}
