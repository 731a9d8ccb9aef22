//===- FactorSharding.h - Shardings of an op's factors ----------*- C++ -*-===//
//
// Propagation, reshard insertion and the gates all ask one question: how are
// the factors of this op sharded? `projectDim` reads it off a tensor,
// `getLayout` writes it back, `chooseFactors` settles a disagreement by price.
//
// Example: attention's query head dim is made of the factors Hkv = 2 and rep
// = 4.
// {"tp"} with tp=4 projects to Hkv {"tp":(1)2}, rep {"tp":(2)2}; a key head dim
// has Hkv alone, so it is sharded {"tp":(1)2} and replicated over the rest.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_PROPAGATE_FACTORSHARDING_H
#define DSHARD_TRANSFORMS_PROPAGATE_FACTORSHARDING_H

#include "dshard/Cost/Resharding.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// Per factor of an op: its axes.
using FactorAxes = llvm::SmallVector<AxisPieces>;

/// Deals the axes of one dim out to its factors, adding to `axes`. What does
/// not fit (a factor boundary inside an axis that it does not divide, or a dim
/// without factors) is left out, and the answer is false.
bool projectDim(ArrayRef<AxisPiece> pieces, ArrayRef<int64_t> factors,
                const ShardingRule &rule, FactorAxes &axes);
/// All dims of one tensor; false if something did not fit.
bool projectTensor(const Layout &layout, const TensorFactors &factors,
                   const ShardingRule &rule, FactorAxes &axes);

/// The layout that a tensor has under `axes`, nothing pending. Failure if a
/// minor factor of a dim is sharded though a more major one is not sharded
/// fully: a dim cannot say that.
FailureOr<Layout> getLayout(const TensorFactors &factors,
                            const ShardingRule &rule, const FactorAxes &axes);
/// The same as far as it goes: minor factors that cannot be said are left out.
Layout getLayoutPrefix(const TensorFactors &factors, const ShardingRule &rule,
                       const FactorAxes &axes);

/// Factors that may be sharded at all: parallel and reduce.
bool isShardable(FactorKind kind);

/// Adds to `layout`, that of result `index`, what it is partial over: the axes
/// of the sharded reduce factors and, where the rule says so, of those that the
/// result lacks. Failure if two kinds meet.
LogicalResult addNaturalPartial(const ShardingRule &rule, size_t index,
                                const FactorAxes &axes, Layout &layout);

/// What `chooseFactors` is told about one tensor of the op.
struct TensorState {
  RankedTensorType type;
  Layout layout;
  /// Results only: dims take whatever the op gives (nothing to reshard to).
  bool isOpen = false;
  /// Its sharding is the user's decision: gathering it is the last resort.
  bool isParameter = false;
  /// Operands only: what the value is brought to anyway, for another op. That
  /// costs nothing more.
  llvm::SmallVector<Layout, 0> available = {};
};

struct FactorChoice {
  FactorAxes axes;
  double cost = 0;          ///< what was minimised
  double bytes = 0;         ///< wire bytes per rank times link cost
  bool hadConflict = false; ///< operands disagreed, or an axis was wanted twice
  /// The best alternative that was turned down, for the remark.
  std::string winner, loser;
  double loserCost = 0, loserBytes = 0;
};

/// The factor shardings of `op`. What the operands agree on stands; for the
/// rest the candidates are what operands and results have, and nothing at all.
/// Least wire cost wins, then the finest sharding, then the first in order.
/// Always succeeds: all replicated is a candidate.
FactorChoice chooseFactors(const ShardingRule &rule,
                           ArrayRef<TensorState> operands,
                           ArrayRef<TensorState> results, MeshAttr mesh);

/// The sharding of a value: of a function argument, an op's result, or what a
/// reshard says; null if none.
ShardingAttr getValueSharding(Value value);
/// A parameter, or one that was only gathered, cropped, or changed its layout
/// or type.
bool isParameterValue(Value value);

//===----------------------------------------------------------------------===//
// Regions
//===----------------------------------------------------------------------===//

/// What the value of a region argument becomes: the result of its
/// `dshard.repeat`. Their sharding is one. Any other value is its own.
Value getCarried(Value value);

/// A control op hands `operand` on, unchanged, as `target`: initial values and
/// yielded ones, as results of the op with the region.
struct Handover {
  OpOperand *operand;
  Value target;
};
/// Of a repeat (its initial values) or a yield; none of any other op.
llvm::SmallVector<Handover> getHandovers(Operation *op);
/// What a handover means for sharding: the identity.
ShardingRule getHandoverRule(RankedTensorType type);
/// Zeros may be partial over anything.
bool isZeroConstant(Value value);
/// The op of `block` that is `op` or holds it.
Operation *getAncestorIn(Block *block, Operation *op);

/// Per value: the layouts that it is brought to for an op whose parameters
/// leave no choice. Others that use the value get them for free.
using AvailableLayouts = llvm::DenseMap<Value, llvm::SmallVector<Layout, 0>>;

/// "input %x", "output of model.norm (rms_norm)": a value in messages.
std::string describeValue(Value value);
/// "model.layers.0.mlp.down_proj", or the op's name without a path.
std::string describeOp(Operation *op);

/// An op that takes part in sharding through its rule (not return, not
/// reshard).
bool hasRule(Operation *op);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_PROPAGATE_FACTORSHARDING_H
