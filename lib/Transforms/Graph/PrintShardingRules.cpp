//===- PrintShardingRules.cpp - Say the factor rule of every op -----------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_PRINTSHARDINGRULESPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// i, j, ..., z, a, b, ...
static char getLetter(int64_t factor) { return 'a' + (factor + 8) % 26; }

static void print(ArrayRef<TensorFactors> tensors, llvm::raw_ostream &os) {
  os << "(";
  llvm::interleaveComma(tensors, os, [&](const TensorFactors &dims) {
    os << "[";
    llvm::interleaveComma(dims, os, [&](ArrayRef<int64_t> factors) {
      if (factors.empty())
        os << "_";
      for (int64_t factor : factors)
        os << getLetter(factor);
    });
    os << "]";
  });
  os << ")";
}

static std::string toString(const ShardingRule &rule) {
  std::string text;
  llvm::raw_string_ostream os(text);
  print(rule.operands, os);
  os << "->";
  print(rule.results, os);
  os << " {";
  int64_t i = 0;
  llvm::interleaveComma(rule.factors, os, [&](const Factor &factor) {
    os << getLetter(i++) << "=" << factor.size;
    switch (factor.kind) {
    case FactorKind::parallel:
      break;
    case FactorKind::reduce:
      os << " reduce " << stringifyReductionKind(factor.reduction);
      break;
    case FactorKind::gather:
      os << " gather";
      break;
    case FactorKind::ring:
      os << " ring";
      break;
    }
  });
  os << "}";
  SmallVector<size_t> linear;
  for (auto [operand, isLinear] : llvm::enumerate(rule.linear))
    if (isLinear)
      linear.push_back(operand);
  if (!linear.empty()) {
    os << " linear ";
    llvm::interleaveComma(linear, os);
  }
  if (rule.jointlyLinear)
    os << " jointly linear";
  if (rule.missingFactorsSum)
    os << " missing factors sum";
  return text;
}

namespace {
struct PrintShardingRulesPass
    : mlir::dshard::impl::PrintShardingRulesPassBase<PrintShardingRulesPass> {
  void runOnOperation() override {
    WalkResult result = getOperation().walk([&](ShardingRuleInterface op) {
      FailureOr<ShardingRule> rule = getShardingRuleOf(op);
      if (failed(rule))
        return WalkResult::interrupt();
      op->emitRemark() << ::toString(*rule);
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
    markAllAnalysesPreserved();
  }
};
} // namespace
