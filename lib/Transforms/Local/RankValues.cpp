//===- RankValues.cpp - Numbers that only depend on the rank --------------===//

#include "dshard/Transforms/Local/RankValues.h"

using namespace mlir;
using namespace mlir::dshard;

static bool isNumber(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.hasStaticShape() && type.getNumElements() == 1;
}

/// Computed from ranks and constants alone.
static bool isFromRank(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op || !isNumber(value) || op->getNumResults() != 1)
    return false;
  if (isa<RankIndexOp, ConstantOp>(op))
    return true;
  return isa<EvaluateInterface>(op) && op->getNumRegions() == 0 &&
         !isa<ReshardOp>(op) && llvm::all_of(op->getOperands(), isFromRank);
}

/// Of attention's queries, or of a rank's groups.
static bool isCallOffset(OpOperand &use) {
  if (auto attention = dyn_cast<AttentionOp>(use.getOwner()))
    return attention.getQueryOffset() == use.get();
  if (isa<GroupedMatMulOp, GroupedWeightGradOp>(use.getOwner()))
    return use.getOperandNumber() == 3;
  auto fused = dyn_cast<FusedOp>(use.getOwner());
  if (!fused || !fused->hasAttr(callAttrName))
    return false;
  BlockArgument inside =
      fused.getBody().front().getArgument(use.getOperandNumber());
  return !inside.use_empty() && llvm::all_of(inside.getUses(), isCallOffset);
}

bool mlir::dshard::isRankValue(Operation *op) {
  if (op->getNumResults() != 1 || op->use_empty() ||
      !isFromRank(op->getResult(0)))
    return false;
  return llvm::all_of(op->getUses(), [](OpOperand &use) {
    return isa<IfOp>(use.getOwner()) || isCallOffset(use) ||
           isRankValue(use.getOwner());
  });
}

FailureOr<SmallVector<double>> mlir::dshard::evaluateRankValue(Value value,
                                                               MeshAttr mesh) {
  if (!mesh || !isFromRank(value))
    return failure();
  Operation *op = value.getDefiningOp();
  int64_t ranks = mesh.getNumRanks();
  SmallVector<double> numbers;
  if (auto index = dyn_cast<RankIndexOp>(op)) {
    SmallVector<AxisRefAttr> axes(index.getAxes().getAsRange<AxisRefAttr>());
    for (int64_t rank = 0; rank < ranks; ++rank)
      numbers.push_back(double(mesh.getIndexIn(rank, axes)));
    return numbers;
  }
  SmallVector<SmallVector<double>> operands;
  for (Value operand : op->getOperands()) {
    FailureOr<SmallVector<double>> known = evaluateRankValue(operand, mesh);
    if (failed(known))
      return failure();
    operands.push_back(std::move(*known));
  }
  ScopedDiagnosticHandler quiet(op->getContext(),
                                [](Diagnostic &) { return success(); });
  for (int64_t rank = 0; rank < ranks; ++rank) {
    SmallVector<HostTensor> inputs, results;
    for (auto [operand, known] : llvm::zip_equal(op->getOperands(), operands))
      inputs.emplace_back(cast<RankedTensorType>(operand.getType()),
                          known[rank]);
    if (failed(cast<EvaluateInterface>(op).evaluate(inputs, results)) ||
        results.size() != 1)
      return failure();
    results[0].roundToElementType();
    numbers.push_back(results[0].data[0]);
  }
  return numbers;
}
