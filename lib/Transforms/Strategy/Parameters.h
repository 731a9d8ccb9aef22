//===- Parameters.h - The parameters behind a value -------------*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_STRATEGY_PARAMETERS_H
#define DSHARD_LIB_TRANSFORMS_STRATEGY_PARAMETERS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// One dim of a parameter.
struct ParameterDim {
  BlockArgument argument;
  int64_t dim;
};

/// Whether a weight may go through the op on its way to a product: it changes
/// its layout or type, or is part of dequantising it.
bool isWeightOp(Operation *op);

/// The parameters that `value` is computed from, each with the dim that `dim`
/// of `value` comes from: through transposes, casts, reshapes (the major one of
/// the dims that are merged: the channels of a filter) and what dequantises
/// packed blocks (data, scales and zero points, in this order). Sharding those
/// dims shards `dim`; parameters in which it is no dim of its own are left out.
/// Empty if `value` is computed from anything else.
SmallVector<ParameterDim> findParameterDims(Value value, int64_t dim);

/// What an operand is computed from, along one dim of it.
struct WeightTrace {
  SmallVector<ParameterDim> parameters;
  /// Uses of constants whose elements differ along the dim, and their dim.
  SmallVector<std::pair<OpOperand *, int64_t>> constants;
  /// Nothing of it has the dim merged with another one as the minor of the two.
  bool isComplete = true;
};
/// Nothing if it is computed from more than parameters and constants.
std::optional<WeightTrace> traceWeight(OpOperand &use, int64_t dim);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_STRATEGY_PARAMETERS_H
