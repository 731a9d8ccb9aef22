//===- VerifyRows.cpp - May a batch go through in parts? ------------------===//

#include "dshard/Transforms/Partition/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYROWSPASS
#include "dshard/Transforms/Partition/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// Follows the batch through one function: for each value that depends on it,
/// the dim whose major part it is.
class RowChecker {
public:
  explicit RowChecker(func::FuncOp function) : function(function) {}
  LogicalResult run();

private:
  LogicalResult check(Operation *op);
  bool isSameForAllRows(Value value, int64_t dim) const;
  InFlightDiagnostic refuse(Operation *op) const {
    auto path = op->getAttrOfType<StringAttr>("path");
    std::string module =
        path && !path.empty() ? " of '" + path.str() + "'" : "";
    // rows_c1, rows_c2
    return op->emitError() << "--micro-batches="
                           << function
                                  ->getAttrOfType<IntegerAttr>(
                                      microBatchesAttrName)
                                  .getInt()
                           << ": " << op->getName() << module;
  }

  func::FuncOp function;
  DenseMap<Value, int64_t> batchDim;
};
} // namespace

/// Does every index of `dim` hold the same?
bool RowChecker::isSameForAllRows(Value value, int64_t dim) const {
  auto type = cast<RankedTensorType>(value.getType());
  if (type.getDimSize(dim) == 1)
    return true;
  Operation *op = value.getDefiningOp();
  if (!op)
    return false;
  if (auto constant = dyn_cast<ConstantOp>(op)) {
    HostTensor tensor(type);
    if (failed(readElements(constant.getValue(), tensor,
                            [&] { return op->emitOpError(); })))
      return false;
    int64_t inner = 1, rows = type.getDimSize(dim);
    for (int64_t d = dim + 1; d < type.getRank(); ++d)
      inner *= type.getDimSize(d);
    for (int64_t i = 0, size = tensor.size(); i < size; ++i)
      if (tensor.data[i] != tensor.data[i - i / inner % rows * inner])
        return false;
    return true;
  }
  // A factor that no operand has is a broadcast, or counts (iota).
  auto interface = dyn_cast<ShardingRuleInterface>(op);
  if (!interface || isa<IotaOp>(op))
    return false;
  ShardingRule rule = interface.getShardingRule();
  auto result = cast<OpResult>(value).getResultNumber();
  ArrayRef<int64_t> factors = rule.results[result][dim];
  if (factors.size() != 1)
    return false;
  for (auto [number, operand] : llvm::enumerate(op->getOperands()))
    for (auto [d, list] : llvm::enumerate(rule.operands[number]))
      if (llvm::is_contained(list, factors.front()) &&
          (list.size() != 1 || !isSameForAllRows(operand, d)))
        return false;
  return true;
}

LogicalResult RowChecker::check(Operation *op) {
  bool meetsBatch = llvm::any_of(op->getOperands(), [&](Value operand) {
    return batchDim.count(operand);
  });
  if (!meetsBatch)
    return success();
  FailureOr<ShardingRule> rule = getShardingRuleOf(op);
  if (failed(rule))
    return failure();
  int64_t batch = -1;
  for (auto [number, operand] : llvm::enumerate(op->getOperands())) {
    auto found = batchDim.find(operand);
    if (found == batchDim.end())
      continue;
    ArrayRef<int64_t> factors = rule->operands[number][found->second];
    if (factors.empty())
      return refuse(op) << " needs all rows of the batch at once";
    int64_t factor = factors.front();
    if (batch >= 0 && batch != factor)
      return refuse(op) << " combines each row of the batch with each other";
    batch = factor;
  }
  if (rule->factors[batch].kind != FactorKind::parallel)
    return refuse(op) << " reduces over the batch, so its rows cannot go "
                         "through one part after another";
  for (auto [number, operand] : llvm::enumerate(op->getOperands()))
    if (!batchDim.count(operand))
      for (auto [dim, factors] : llvm::enumerate(rule->operands[number]))
        if (llvm::is_contained(factors, batch) &&
            (factors.size() != 1 || !isSameForAllRows(operand, dim)))
          return refuse(op) << " meets the batch with operand " << number
                            << ", which differs from row to row";
  for (auto [number, result] : llvm::enumerate(op->getResults())) {
    bool found = false;
    for (auto [dim, factors] : llvm::enumerate(rule->results[number])) {
      if (!llvm::is_contained(factors, batch))
        continue;
      if (factors.front() != batch)
        return refuse(op) << " mixes the rows of the batch with another dim";
      batchDim[result] = dim;
      found = true;
    }
    if (!found && !result.use_empty())
      return refuse(op) << " reduces over the batch, so its rows cannot go "
                           "through one part after another";
  }
  return success();
}

LogicalResult RowChecker::run() {
  for (BlockArgument argument : function.getArguments())
    if (function.getArgAttr(argument.getArgNumber(), microBatchedAttrName))
      batchDim[argument] = 0;
  Block &body = function.getBody().front();
  for (Operation &op : body.without_terminator())
    if (failed(check(&op)))
      return failure();
  for (auto [number, value] :
       llvm::enumerate(body.getTerminator()->getOperands())) {
    bool expected =
        static_cast<bool>(function.getResultAttr(number, microBatchedAttrName));
    auto found = batchDim.find(value);
    if (expected == (found != batchDim.end()) &&
        (!expected || found->second == 0))
      continue;
    auto name = function.getResultAttrOfType<StringAttr>(number, nameAttrName);
    // rows_c3
    return function.emitError()
           << "--micro-batches: output '" << (name ? name.getValue() : "")
           << "' "
           << (found == batchDim.end()
                   ? "has a batch dim that is not that of the inputs"
                   : "does not have the batch in dim 0");
  }
  return success();
}

namespace {
struct VerifyRowsPass : mlir::dshard::impl::VerifyRowsPassBase<VerifyRowsPass> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      auto count = function->getAttrOfType<IntegerAttr>(microBatchesAttrName);
      if (function.isExternal() || !count || count.getInt() == 1)
        continue;
      if (failed(RowChecker(function).run()))
        return signalPassFailure();
    }
  }
};
} // namespace
