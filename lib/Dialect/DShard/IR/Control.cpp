//===- Control.cpp - Verify repeat, if and fused regions ------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

static LogicalResult verifyTypes(Operation *op, TypeRange got,
                                 TypeRange expected, StringRef what) {
  if (got.size() != expected.size())
    return op->emitOpError() << what << ": " << got.size()
                             << " values, expected " << expected.size();
  for (auto [i, types] : llvm::enumerate(llvm::zip_equal(got, expected))) {
    auto [a, b] = types;
    if (a != b)
      return op->emitOpError()
             << what << ": value " << i << " is " << a << ", expected " << b;
  }
  return success();
}

LogicalResult RepeatOp::verify() {
  // repeat_c1
  if (int64_t(getCount()) < 1)
    return emitOpError() << "count is " << int64_t(getCount())
                         << ", expected at least 1";
  Block &block = getBody().front();
  SmallVector<Type> arguments = {
      RankedTensorType::get({}, IntegerType::get(getContext(), 64))};
  llvm::append_range(arguments, getInitial().getTypes());
  if (failed(verifyTypes(*this, getResultTypes(), getInitial().getTypes(),
                         "results")) ||
      failed(verifyTypes(*this, block.getArgumentTypes(), arguments,
                         "arguments of the region")))
    return failure();
  return verifyTypes(*this, block.getTerminator()->getOperandTypes(),
                     getResultTypes(), "yielded values");
}

LogicalResult IfOp::verify() {
  // if_c1
  auto expected = RankedTensorType::get({}, IntegerType::get(getContext(), 1));
  if (getCondition().getType() != expected)
    return emitOpError() << "condition is " << getCondition().getType()
                         << ", expected " << expected;
  for (auto [name, region] :
       {std::pair<StringRef, Region *>{"then region", &getThenRegion()},
        {"else region", &getElseRegion()}})
    if (failed(verifyTypes(*this,
                           region->front().getTerminator()->getOperandTypes(),
                           getResultTypes(), name)))
      return failure();
  return success();
}

LogicalResult FusedOp::verify() {
  // fused_c1
  Block &block = getBody().front();
  if (failed(verifyTypes(*this, block.getArgumentTypes(),
                         getInputs().getTypes(), "arguments of the region")))
    return failure();
  return verifyTypes(*this, block.getTerminator()->getOperandTypes(),
                     getResultTypes(), "yielded values");
}
