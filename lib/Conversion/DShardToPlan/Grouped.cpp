//===- Grouped.cpp - Products with the matrix of each row's group ---------===//

#include "Converter.h"
#include "dshard/Runtime/Cpu/GroupedGemm.h"

using namespace mlir;
using namespace mlir::dshard;

static int64_t rowBytes(RankedTensorType type) {
  return type.getShape().back() * (type.getElementTypeBitWidth() / 8);
}

LogicalResult Converter::convertGrouped(FusedOp op) {
  Operation &inner = op.getBody().front().front();
  if (!isGroupedCall(&inner))
    return op.emitError("is not a grouped product that the library computes");
  auto operandOf = [&](unsigned number) -> OpOperand & {
    auto argument = cast<BlockArgument>(inner.getOperand(number));
    return op->getOpOperand(argument.getArgNumber());
  };
  FailureOr<Attribute> first = literal(0);
  if (inner.getNumOperands() > 3) {
    first = rankNumber(operandOf(3).get());
    if (failed(first))
      return op.emitError("has an offset that is not known for each rank");
  }
  auto matmul = dyn_cast<GroupedMatMulOp>(inner);
  RankedTensorType lhs = typeOf(inner.getOperand(0)),
                   rhs = typeOf(inner.getOperand(1)),
                   result = typeOf(inner.getResult(0));
  int64_t rows = typeOf(inner.getOperand(2)).getNumElements();
  int64_t count = (matmul ? rhs : result).getDimSize(0);
  bool packed = false, transposed = matmul && matmul.getTransposeWeights();
  if (matmul && Weights::isReadOnly(operandOf(1).get())) {
    const WeightState *state = weights.find(operandOf(1));
    packed = state && state->packed;
  }
  SmallVector<SmallVector<Value>> uses;
  for (unsigned number : {0, 1, 2})
    uses.push_back({read(operandOf(number))});
  uses.push_back({write(op.getResult(0))});
  uint64_t bytes = ::dshard::cpu::groupedWorkspaceBytes(
      count, rows, rowBytes(lhs), rowBytes(matmul ? result : rhs));
  int workspace =
      newStorage(RankedTensorType::get({static_cast<int64_t>(bytes)},
                                       IntegerType::get(op.getContext(), 8,
                                                        IntegerType::Unsigned)),
                 op.getLoc(), "workspace", nullptr);
  uses.push_back({storages[workspace].buffer});
  SmallVector<Attribute> values = {literal(count), literal(rows)};
  if (matmul) {
    values.append({literal(result.getShape().back()),
                   literal(lhs.getShape().back()), *first,
                   literal(transposed && !packed), literal(packed)});
    instruction(op, InstructionKind::GROUPED_MATMUL, uses, values);
  } else {
    values.append({literal(lhs.getShape().back()),
                   literal(rhs.getShape().back()), *first});
    instruction(op, InstructionKind::GROUPED_WEIGHT_GRAD, uses, values);
  }
  threadScratch =
      std::max<uint64_t>(threadScratch, ::dshard::cpu::gemmScratchBytes());
  return success();
}
