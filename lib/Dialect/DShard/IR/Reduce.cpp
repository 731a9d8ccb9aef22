//===- Reduce.cpp - Reductions --------------------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult ReduceOp::verify() {
  RankedTensorType input = getInput().getType(), result = getResult().getType();
  // reduce_c1
  int64_t last = -1;
  for (int64_t dim : getDims()) {
    if (dim < 0 || dim >= input.getRank())
      return emitOpError() << "dim " << dim << " is not one of "
                           << input.getRank();
    if (dim <= last)
      return emitOpError() << "dims are not sorted and unique: " << dim
                           << " after " << last;
    last = dim;
  }
  // reduce_c2
  SmallVector<int64_t> expected;
  for (auto [i, size] : llvm::enumerate(input.getShape())) {
    if (!llvm::is_contained(getDims(), int64_t(i)))
      expected.push_back(size);
    else if (getKeepDims())
      expected.push_back(1);
  }
  if (result != input.clone(expected))
    return emitOpError() << "result is " << result << ", expected "
                         << input.clone(expected);
  // reduce_c3
  if (getKind() == ReductionKind::mean && input.getElementType().isIntOrIndex())
    return emitOpError() << "mean is not for the integers of " << input;
  return success();
}

ShardingRule ReduceOp::getShardingRule() {
  RankedTensorType input = getInput().getType();
  bool isMean = getKind() == ReductionKind::mean;
  ShardingRule rule;
  TensorFactors operand, result;
  for (auto [i, size] : llvm::enumerate(input.getShape())) {
    bool reduced = llvm::is_contained(getDims(), int64_t(i));
    // The local form of mean already divides, so its partials sum up.
    int64_t factor = rule.addFactor(
        size, reduced ? FactorKind::reduce : FactorKind::parallel,
        reduced && !isMean ? getKind() : ReductionKind::sum);
    operand.push_back({factor});
    if (!reduced)
      result.push_back({factor});
    else if (getKeepDims())
      result.emplace_back();
  }
  rule.operands = {operand};
  rule.results = {result};
  rule.linear = {isMean || getKind() == ReductionKind::sum};
  return rule;
}

LogicalResult ReduceOp::partition(OpBuilder &builder, ValueRange operands,
                                  const PartitionContext &context,
                                  SmallVectorImpl<Value> &results) {
  if (failed(partitionByCloning(*this, builder, operands, context, results)))
    return failure();
  if (getKind() != ReductionKind::mean)
    return success();
  auto local = cast<RankedTensorType>(operands[0].getType());
  int64_t globalCount = 1, localCount = 1;
  for (int64_t dim : getDims()) {
    globalCount *= getInput().getType().getDimSize(dim);
    localCount *= local.getDimSize(dim);
  }
  if (globalCount == localCount)
    return success();
  // The clone divides by the local count; the partial sums of its results,
  // divided by the number of shards, make the global mean. A division, as the
  // number is exact in every float type and its reciprocal is not.
  DShardBuilder make(builder, *this);
  Type elementType = getResult().getType().getElementType();
  results.back() = make.binary<DivOp>(
      results.back(),
      make.scalar(double(globalCount / localCount), elementType));
  return success();
}
