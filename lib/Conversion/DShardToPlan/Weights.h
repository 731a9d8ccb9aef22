//===- Weights.h - States of parameters, and their loading ------*- C++ -*-===//
//
// Internal to DShardToPlan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_WEIGHTS_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_WEIGHTS_H

#include "PlanContext.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::dshard {

/// A rhs that the load program packs: the local parameter is [k, n], or [n, k].
struct PackedForm {
  int64_t k = 0, n = 0;
  bool transposed = false;
};

/// What a state holds.
struct WeightState {
  unsigned argument = 0;
  bool packed = false;
  PackedForm form;
  int64_t index = 0; ///< of the state
  int64_t size = 0;
  RankedTensorType local;
  std::string name;
};

class Weights {
public:
  Weights(PlanContext &plan, func::FuncOp function)
      : plan(plan), function(function) {}

  /// Adds the states of all parameters.
  LogicalResult addStates();
  /// The state that a use of a parameter reads.
  const WeightState *find(OpOperand &use) const;
  bool isParameter(Value value) const;
  /// Appends the `load` program.
  LogicalResult buildLoad();

private:
  LogicalResult buildOne(OpBuilder &builder, const WeightState &state);

  PlanContext &plan;
  func::FuncOp function;
  std::vector<WeightState> states;
};

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_WEIGHTS_H
