//===- ShardingRule.h - Factor rules of ops ---------------------*- C++ -*-===//
//
// A rule names the factors (iteration dims) of an op and says which factors
// make up each dim of each operand and result, major to minor. A dim without
// factors cannot be sharded. Example: matmul [b,m,k] x [k,n] -> [b,m,n] has the
// factors b, m, n (parallel) and k (reduce).
// After Shardy's OpShardingRuleAttr (openxla/shardy, sdy dialect).
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_DIALECT_DSHARD_IR_SHARDINGRULE_H
#define DSHARD_DIALECT_DSHARD_IR_SHARDINGRULE_H

#include "dshard/Dialect/DShard/IR/DShardAttrs.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/Operation.h"
#include "llvm/ADT/SmallVector.h"

namespace mlir::dshard {

enum class FactorKind {
  parallel, ///< in results as well: sharding it needs no communication
  reduce,   ///< contracted: sharding it leaves the results partial
  gather,   ///< the op needs the whole dim: must not be sharded
  ring,     ///< may be streamed with a combine (the KV sequence of attention)
};

struct Factor {
  int64_t size = 1;
  FactorKind kind = FactorKind::parallel;
  ReductionKind reduction = ReductionKind::sum; ///< of a reduce factor
};

/// Factors of each dim of one tensor; outer index dim, inner list major to
/// minor.
using TensorFactors = llvm::SmallVector<llvm::SmallVector<int64_t, 1>>;

struct ShardingRule {
  llvm::SmallVector<Factor> factors;
  llvm::SmallVector<TensorFactors> operands;
  llvm::SmallVector<TensorFactors> results;
  /// Per operand: the op is linear in it, so that a value that is partial (sum)
  /// in this operand alone may pass through. add and sub are linear only
  /// jointly: see `jointlyLinear`.
  llvm::SmallVector<bool> linear;
  /// All operands must be partial over the same axes, or none (add, sub).
  bool jointlyLinear = false;
  /// A parallel factor that a result lacks leaves that result a partial sum
  /// over the factor's axes (else no result may lack one).
  bool missingFactorsSum = false;

  /// Adds a factor, gives its index.
  int64_t addFactor(int64_t size, FactorKind kind = FactorKind::parallel,
                    ReductionKind reduction = ReductionKind::sum);
  /// rule_c1..: counts, ranks, unused factors, a factor twice in one tensor,
  /// reduce factor in a result, factor sizes against dims.
  LogicalResult verify(Operation *op) const;
};

/// The rule of an op, or failure with a diagnostic ("op has no sharding rule").
FailureOr<ShardingRule> getShardingRuleOf(Operation *op);

/// Same-shaped or numpy-broadcast operands; size-1 dims carry no factor.
ShardingRule getPointwiseRule(Operation *op);

/// What `partition` may ask for.
struct PartitionContext {
  MeshAttr mesh;
  llvm::SmallVector<ShardingAttr> operandShardings;
  llvm::SmallVector<ShardingAttr> resultShardings;
  llvm::SmallVector<RankedTensorType> localResultTypes;

  /// tensor<i64>: this rank's index within `axes` (a dshard.rank_index), 0 for
  /// none.
  Value buildRankIndex(OpBuilder &builder, Operation *like,
                       ArrayRef<AxisRefAttr> axes) const;
};

/// Clones `op` on local operands with the context's local result types.
LogicalResult partitionByCloning(Operation *op, OpBuilder &builder,
                                 ValueRange operands,
                                 const PartitionContext &context,
                                 SmallVectorImpl<Value> &results);

/// The vector-Jacobian product of a dshard op: builds the gradients of its
/// operands (null where none flows) from those of its results (null: zero).
/// An op without one is refused by name.
LogicalResult buildVjpOf(Operation *op, OpBuilder &builder,
                         ValueRange resultGradients,
                         SmallVectorImpl<Value> &operandGradients);

double countResultElements(Operation *op);
double countOperandAndResultBytes(Operation *op);

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_SHARDINGRULE_H
