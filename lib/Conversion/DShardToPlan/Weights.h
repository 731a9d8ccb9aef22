//===- Weights.h - States of all entry points, and their loading -*- C++
//-*-===//
//
// Internal to DShardToPlan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_WEIGHTS_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_WEIGHTS_H

#include "PlanContext.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/StringSet.h"

namespace mlir::dshard {

/// A rhs that the load program packs: the local parameter is [k, n], or [n, k],
/// or `groups` of these, or [n, ...] whose other dims in some order are k (a
/// convolution's weights).
struct PackedForm {
  int64_t k = 0, n = 0;
  bool transposed = false;
  int64_t groups = 0;        ///< 0: one matrix
  SmallVector<int64_t> rows; ///< the dims of k, major to minor; empty: 2 dims
  bool operator==(const PackedForm &other) const {
    return k == other.k && n == other.n && transposed == other.transposed &&
           groups == other.groups && rows == other.rows;
  }
};

/// What a state holds. A parameter may become two: plain and packed.
struct WeightState {
  BlockArgument argument; ///< the first one that reads it
  WeightAttr weight;      ///< null: starts at zero
  ShardingAttr sharding;
  bool packed = false;
  PackedForm form;
  int64_t index = 0;  ///< of the state
  int64_t stage = -1; ///< -1: all ranks hold it
  int64_t size = 0;
  RankedTensorType local;
  std::string name;
};

/// The states of all functions. Arguments of several functions that have the
/// same state name (`dshard.state`, else the weight's name) share one, but each
/// stage of a pipeline has its own, which only its ranks hold and load.
class Weights {
public:
  Weights(PlanContext &plan, ArrayRef<func::FuncOp> functions)
      : plan(plan), functions(functions) {}

  /// Adds the states. A state is packed only where no function writes it.
  LogicalResult addStates();
  /// Appends the `load` program.
  LogicalResult buildLoad();

  /// The stage of an argument's function; -1: none.
  static int64_t stageOf(BlockArgument argument);
  /// The name of the state that an argument holds; empty: none.
  static StringRef nameOf(BlockArgument argument);
  static bool isState(Value value);
  /// The result of the argument's own function that is its new value, or -1.
  static int resultOf(BlockArgument argument);
  /// A state that the argument's own function does not write.
  static bool isReadOnly(Value value) {
    return isState(value) && resultOf(cast<BlockArgument>(value)) < 0;
  }
  /// The use of such an argument behind an operand of a product that is the
  /// argument, or that argument with its dims in another order, which `load`
  /// does where it packs; null if it is neither.
  OpOperand *packedUse(OpOperand &operand) const;
  /// The state that a use of such an argument reads.
  const WeightState *find(OpOperand &use) const;
  /// The plain state of an argument; null if it has none.
  const WeightState *findPlain(BlockArgument argument) const;

private:
  struct Group {
    SmallVector<BlockArgument> arguments; ///< one per function that has it
    bool written = false;
  };
  LogicalResult addGroup(StringRef name, const Group &group);
  static std::string keyOf(BlockArgument argument);
  LogicalResult buildOne(OpBuilder &builder, const WeightState &state);

  PlanContext &plan;
  SmallVector<func::FuncOp> functions;
  std::vector<WeightState> states;
  llvm::StringMap<SmallVector<size_t>> byKey;
  llvm::StringSet<> names; ///< of states
};

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_WEIGHTS_H
