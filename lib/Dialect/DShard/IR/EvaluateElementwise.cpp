//===- EvaluateElementwise.cpp - Reference values of pointwise ops --------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

/// Strides of an operand over the result's dims; 0 where it is repeated.
static SmallVector<int64_t> getBroadcastStrides(const HostTensor &operand,
                                                int64_t resultRank) {
  SmallVector<int64_t> strides = operand.strides();
  for (auto [stride, size] : llvm::zip_equal(strides, operand.shape()))
    if (size == 1)
      stride = 0;
  SmallVector<int64_t> result(resultRank - operand.rank(), 0);
  result.append(strides);
  return result;
}

LogicalResult mlir::dshard::evaluatePointwise(
    Operation *op, ArrayRef<HostTensor> operands,
    SmallVectorImpl<HostTensor> &results,
    llvm::function_ref<double(ArrayRef<double>)> apply) {
  HostTensor result(cast<RankedTensorType>(op->getResult(0).getType()));
  SmallVector<SmallVector<int64_t>> strides;
  for (const HostTensor &operand : operands)
    strides.push_back(getBroadcastStrides(operand, result.rank()));

  // Offsets follow the index, so that the whole walk costs one addition per
  // operand and element.
  SmallVector<int64_t> index(result.rank(), 0), offsets(operands.size(), 0);
  SmallVector<double> args(operands.size());
  for (double &element : result.data) {
    for (auto [arg, operand, offset] : llvm::zip_equal(args, operands, offsets))
      arg = operand.data[offset];
    element = apply(args);
    for (int64_t dim = result.rank() - 1; dim >= 0; --dim) {
      bool wraps = ++index[dim] == result.shape()[dim];
      for (auto [offset, stride] : llvm::zip_equal(offsets, strides))
        offset += wraps ? -stride[dim] * (index[dim] - 1) : stride[dim];
      if (!wraps)
        break;
      index[dim] = 0;
    }
  }
  results.push_back(std::move(result));
  return success();
}

double mlir::dshard::divide(Operation *op, double x, double y) {
  if (!isa<IntegerType>(getElementTypeOrSelf(op->getResult(0).getType())))
    return x / y;
  return y == 0 ? 0 : std::trunc(x / y); // exact below 2^53
}

bool mlir::dshard::compare(ComparePredicate predicate, double x, double y) {
  switch (predicate) {
  case ComparePredicate::eq:
    return x == y;
  case ComparePredicate::ne:
    return x != y;
  case ComparePredicate::lt:
    return x < y;
  case ComparePredicate::le:
    return x <= y;
  case ComparePredicate::gt:
    return x > y;
  case ComparePredicate::ge:
    return x >= y;
  }
  return false;
}
