//===- FoldConstants.cpp - Evaluate ops on constants ----------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"
#include <cmath>

namespace mlir::dshard {
#define GEN_PASS_DEF_FOLDCONSTANTSPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static DenseElementsAttr toElements(const HostTensor &tensor) {
  Type elementType = tensor.type.getElementType();
  bool splat = llvm::all_equal(tensor.data) && !tensor.data.empty();
  size_t count = splat ? 1 : tensor.data.size();
  if (auto floatType = dyn_cast<FloatType>(elementType)) {
    SmallVector<APFloat> values;
    for (double x : ArrayRef(tensor.data).take_front(count)) {
      APFloat number(x);
      bool lost;
      number.convert(floatType.getFloatSemantics(),
                     APFloat::rmNearestTiesToEven, &lost);
      values.push_back(number);
    }
    return DenseElementsAttr::get(tensor.type, values);
  }
  unsigned width = elementType.getIntOrFloatBitWidth();
  SmallVector<APInt> values;
  for (double x : ArrayRef(tensor.data).take_front(count))
    values.push_back(
        APInt(64, static_cast<uint64_t>(static_cast<int64_t>(x))).trunc(width));
  return DenseElementsAttr::get(tensor.type, values);
}

/// fold_constants_c1
static bool isExact(const HostTensor &tensor) {
  return isa<FloatType>(tensor.type.getElementType()) ||
         llvm::all_of(tensor.data,
                      [](double x) { return std::fabs(x) < 0x1p53; });
}

namespace {
struct FoldConstantsPass
    : mlir::dshard::impl::FoldConstantsPassBase<FoldConstantsPass> {
  using FoldConstantsPassBase::FoldConstantsPassBase;

  /// The results of an op all of whose operands are constants.
  std::optional<SmallVector<HostTensor>> detectFold(Operation *op) {
    auto evaluable = dyn_cast<EvaluateInterface>(op);
    if (!evaluable || isa<ConstantOp, ReshardOp>(op) ||
        op->hasAttr(shardingsAttrName))
      return std::nullopt;
    int64_t elements = 0;
    for (Value result : op->getResults()) {
      if (typeOf(result).getNumElements() > maxElements)
        return std::nullopt;
      elements += typeOf(result).getNumElements();
    }
    if (elements > budget)
      return std::nullopt;
    SmallVector<HostTensor> operands, results;
    for (Value operand : op->getOperands()) {
      auto constant = operand.getDefiningOp<ConstantOp>();
      SmallVector<HostTensor> value;
      if (!constant || failed(constant.evaluate({}, value)) ||
          !isExact(value.front()))
        return std::nullopt;
      operands.push_back(std::move(value.front()));
    }
    // Division by a constant zero and the like: the op stays and says so when
    // it runs.
    ScopedDiagnosticHandler quiet(&getContext(),
                                  [](Diagnostic &) { return success(); });
    if (failed(evaluable.evaluate(operands, results)) ||
        results.size() != op->getNumResults())
      return std::nullopt;
    for (HostTensor &result : results) {
      result.roundToElementType();
      if (!isExact(result))
        return std::nullopt;
    }
    budget -= elements;
    return results;
  }

  void runOnOperation() override {
    budget = totalElements;
    SmallVector<Operation *> ops;
    getOperation().walk([&](Operation *op) { ops.push_back(op); });
    for (Operation *op : ops) {
      if (op->use_empty())
        continue;
      std::optional<SmallVector<HostTensor>> values = detectFold(op);
      if (!values)
        continue;
      OpBuilder builder(op);
      for (auto [result, value] : llvm::zip_equal(op->getResults(), *values))
        result.replaceAllUsesWith(ConstantOp::create(
            builder, op->getLoc(), result.getType(), toElements(value)));
    }
    eraseDeadOps(getOperation());
  }

  int64_t budget = 0;
};
} // namespace
