//===- OptimizerStep.cpp - Norm, clipping, AdamW --------------------------===//

#include "OptimizerStep.h"
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

/// Added to the norm before dividing, as in PyTorch's clip_grad_norm_.
static constexpr double clipEpsilon = 1e-6;

StringAttr mlir::dshard::getModulePath(MLIRContext *context,
                                       StringRef parameter) {
  return StringAttr::get(
      context, parameter.contains('.') ? parameter.rsplit('.').first : "");
}

static PartAttr getOptimizerPart(MLIRContext *context) {
  return PartAttr::get(context, Part::optimizer);
}

/// Sum of squares, as tensor<1xf32>.
static Value buildSumOfSquares(OpBuilder &builder,
                               const TrainedParameter &parameter) {
  DShardBuilder make(builder, parameter.gradient.getLoc(),
                     getModulePath(builder.getContext(), parameter.name),
                     getOptimizerPart(builder.getContext()));
  Value squares = make.binary<MulOp>(parameter.gradient, parameter.gradient);
  int64_t rank = DShardBuilder::typeOf(squares).getRank();
  SmallVector<int64_t> dims = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  Value sum = dims.empty() ? squares
                           : make.reduce(squares, ReductionKind::sum, dims,
                                         /*keepDims=*/false);
  return make.reshape(sum, {1});
}

/// 1 - beta^step in f64, as f32: beta2 = 0.999 in f32 would lose four digits of
/// the first steps.
static Value buildCorrection(DShardBuilder &make, Value stepsDone,
                             double beta) {
  Type f64 = make.builder.getF64Type();
  Value power = make.binary<PowOp>(make.scalar(beta, f64), stepsDone);
  return make.cast(make.binary<SubOp>(make.scalar(1, f64), power),
                   make.builder.getF32Type());
}

OptimizerResults mlir::dshard::buildOptimizerStep(
    OpBuilder &builder, Location loc, ArrayRef<TrainedParameter> parameters,
    Value step, Value learningRate, const TrainConfig &config) {
  MLIRContext *context = builder.getContext();
  Type f32 = builder.getF32Type(), i64 = builder.getI64Type();
  PartAttr part = getOptimizerPart(context);
  DShardBuilder make(builder, loc, StringAttr::get(context, ""), part);
  OptimizerResults results;

  SmallVector<Value> sums;
  for (const TrainedParameter &parameter : parameters)
    sums.push_back(buildSumOfSquares(builder, parameter));
  results.squares = sums.size() == 1 ? sums.front() : make.concat(sums, 0);
  Value total = make.reduce(results.squares, ReductionKind::sum, {0}, false);
  results.norm = make.unary<SqrtOp>(total);

  // A sum of squares is finite where it is at most the largest float; NaN is
  // not.
  Value enabled =
      make.compare(total, make.scalar(std::numeric_limits<float>::max(), f32),
                   ComparePredicate::le);
  Value scale = make.scalar(1, f32);
  if (config.clipNorm) {
    Value divisor =
        make.binary<AddOp>(results.norm, make.scalar(clipEpsilon, f32));
    scale = make.binary<MinOp>(
        scale, make.binary<DivOp>(make.scalar(*config.clipNorm, f32), divisor));
  }

  results.step = make.binary<AddOp>(step, make.cast(enabled, i64));
  Value stepsDone = make.cast(make.binary<AddOp>(step, make.scalar(1, i64)),
                              builder.getF64Type());
  Value correction1 = buildCorrection(make, stepsDone, config.beta1);
  Value correction2 = buildCorrection(make, stepsDone, config.beta2);

  for (const TrainedParameter &parameter : parameters) {
    DShardBuilder own(builder, parameter.value.getLoc(),
                      getModulePath(context, parameter.name), part);
    Type type = parameter.value.getType();
    auto update = own.create<AdamWOp>(
        TypeRange{type, type, type}, parameter.value, parameter.gradient,
        parameter.expAvg, parameter.expAvgSq, learningRate, correction1,
        correction2, scale, enabled, APFloat(config.beta1),
        APFloat(config.beta2), APFloat(config.epsilon),
        APFloat(parameter.weightDecay));
    results.params.push_back(update.getNewParam());
    results.expAvgs.push_back(update.getNewExpAvg());
    results.expAvgSqs.push_back(update.getNewExpAvgSq());
  }
  return results;
}
