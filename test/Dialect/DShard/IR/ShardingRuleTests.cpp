//===- ShardingRuleTests.cpp - Rules that an op must not have -------------===//
//
// Ops' own rules are right (sharding-rules.mlir), so their verifier can only be
// shown wrong ones from here: rule_c1 to rule_c6.
//
//===----------------------------------------------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace mlir::dshard;

namespace {
class ShardingRuleTest : public ::testing::Test {
protected:
  ShardingRuleTest() {
    context.loadDialect<DShardDialect, func::FuncDialect>();
    module = parseSourceString<ModuleOp>(R"(
      func.func @run(%a: tensor<2x3xf32>, %b: tensor<3x4xf32>) -> tensor<2x4xf32> {
        %0 = dshard.matmul %a, %b {path = "m", part = #dshard.part<forward>}
          : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
        return %0 : tensor<2x4xf32>
      })",
                                         &context);
    module->walk([&](MatMulOp op) { product = op; });
    // m, n, k
    rule.addFactor(2);
    rule.addFactor(4);
    rule.addFactor(3, FactorKind::reduce);
    rule.operands = {{{0}, {2}}, {{2}, {1}}};
    rule.results = {{{0}, {1}}};
    rule.linear = {true, true};
  }

  /// What the verifier says; empty if nothing.
  std::string verify() {
    std::string text;
    ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
      text += diagnostic.str();
      return success();
    });
    bool isGood = succeeded(rule.verify(product));
    EXPECT_EQ(isGood, text.empty());
    return text;
  }

  MLIRContext context;
  OwningOpRef<ModuleOp> module;
  Operation *product = nullptr;
  ShardingRule rule;
};
} // namespace

TEST_F(ShardingRuleTest, AcceptsARightRule) { EXPECT_EQ(verify(), ""); }

TEST_F(ShardingRuleTest, C1OperandCount) {
  rule.operands.pop_back();
  EXPECT_EQ(verify(), "'dshard.matmul' op sharding rule has 1 operands and 1 "
                      "results, the op 2 and 1");
}

TEST_F(ShardingRuleTest, C1ResultCount) {
  rule.results.push_back(rule.results.front());
  EXPECT_EQ(verify(), "'dshard.matmul' op sharding rule has 2 operands and 2 "
                      "results, the op 2 and 1");
}

TEST_F(ShardingRuleTest, C1LinearCount) {
  rule.linear.pop_back();
  EXPECT_EQ(verify(), "'dshard.matmul' op sharding rule says of 1 operands of "
                      "2 whether it is linear in them");
}

TEST_F(ShardingRuleTest, C2MappingRank) {
  rule.operands[1].pop_back();
  EXPECT_EQ(verify(), "'dshard.matmul' op sharding rule: operand 1 has 1 dims, "
                      "its type 2");
}

TEST_F(ShardingRuleTest, C3UnusedFactor) {
  rule.addFactor(5);
  EXPECT_EQ(verify(), "'dshard.matmul' op sharding rule: factor 3 is in no "
                      "operand and no result");
}

TEST_F(ShardingRuleTest, C4FactorTwiceInOneTensor) {
  rule.operands[0][1] = {0};
  EXPECT_EQ(verify(),
            "'dshard.matmul' op sharding rule: factor 0 is twice in operand 0");
}

TEST_F(ShardingRuleTest, C4UnknownFactor) {
  rule.operands[0][1] = {7};
  EXPECT_EQ(verify(),
            "'dshard.matmul' op sharding rule: operand 0 names factor 7 of 3");
}

TEST_F(ShardingRuleTest, C5ReduceFactorInAResult) {
  rule.results[0][1] = {2};
  EXPECT_EQ(verify(),
            "'dshard.matmul' op sharding rule: reduce factor 2 is in result 0");
}

TEST_F(ShardingRuleTest, C6FactorSizes) {
  rule.factors[1].size = 2;
  EXPECT_EQ(verify(), "'dshard.matmul' op sharding rule: factors of dim 1 of "
                      "operand 1 make 2, its size is 4");
}
