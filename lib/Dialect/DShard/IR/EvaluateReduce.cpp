//===- EvaluateReduce.cpp - Reference values of reductions ----------------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include <cmath>
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

double mlir::dshard::getReductionIdentity(ReductionKind kind) {
  switch (kind) {
  case ReductionKind::max:
    return -std::numeric_limits<double>::infinity();
  case ReductionKind::min:
    return std::numeric_limits<double>::infinity();
  case ReductionKind::product:
    return 1;
  case ReductionKind::sum:
  case ReductionKind::mean:
    return 0;
  }
  return 0;
}

double mlir::dshard::reduceTwo(ReductionKind kind, double x, double y) {
  switch (kind) {
  case ReductionKind::max:
    return std::isnan(x) || x > y ? x : y;
  case ReductionKind::min:
    return std::isnan(x) || x < y ? x : y;
  case ReductionKind::product:
    return x * y;
  case ReductionKind::sum:
  case ReductionKind::mean:
    return x + y;
  }
  return x;
}

LogicalResult ReduceOp::evaluate(ArrayRef<HostTensor> operands,
                                 SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  HostTensor result(cast<RankedTensorType>(getResult().getType()),
                    getReductionIdentity(getKind()));
  // Strides of the result over the input's dims: 0 along a reduced dim.
  SmallVector<int64_t> strides(input.rank(), 0);
  int64_t stride = 1, count = 1;
  for (int64_t dim = input.rank() - 1; dim >= 0; --dim) {
    if (llvm::is_contained(getDims(), dim)) {
      count *= input.shape()[dim];
      continue;
    }
    strides[dim] = stride;
    stride *= input.shape()[dim];
  }
  const double *in = input.data.data();
  forEachIndex(input.shape(), [&](ArrayRef<int64_t> index) {
    int64_t target = 0;
    for (auto [i, stride] : llvm::zip_equal(index, strides))
      target += i * stride;
    result.data[target] = reduceTwo(getKind(), result.data[target], *in++);
  });
  if (getKind() == ReductionKind::mean)
    for (double &x : result.data)
      x /= count;
  results.push_back(std::move(result));
  return success();
}
