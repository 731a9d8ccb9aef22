//===- OptimizerStep.h - Norm, clipping, AdamW ------------------*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_TRAIN_OPTIMIZERSTEP_H
#define DSHARD_LIB_TRANSFORMS_TRAIN_OPTIMIZERSTEP_H

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Train/TrainConfig.h"

namespace mlir::dshard {

/// A parameter that is trained, and its values in @train_step.
struct TrainedParameter {
  std::string name; ///< of the weight
  Value value, expAvg, expAvgSq;
  Value gradient; ///< finished: the result of a dshard.gradient
  double weightDecay = 0;
};

/// What the optimizer makes of the gradients.
struct OptimizerResults {
  Value norm;    ///< tensor<f32>: of all gradients, before clipping
  Value squares; ///< tensor<nxf32>: sum of squares of each gradient
  Value step;    ///< tensor<i64>
  SmallVector<Value> params, expAvgs, expAvgSqs; ///< by parameter
};

/// The module path of a parameter: its name less the last part.
StringAttr getModulePath(MLIRContext *context, StringRef parameter);

/// Appends norm, clipping and AdamW at the builder's insertion point. Nothing
/// changes in a step with a gradient that is not finite.
OptimizerResults buildOptimizerStep(OpBuilder &builder, Location loc,
                                    ArrayRef<TrainedParameter> parameters,
                                    Value step, Value learningRate,
                                    const TrainConfig &config);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_TRAIN_OPTIMIZERSTEP_H
