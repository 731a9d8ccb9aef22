//===- EvaluateLoss.cpp - Reference values of losses and the optimizer ----===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

LogicalResult CrossEntropyOp::evaluate(ArrayRef<HostTensor> operands,
                                       SmallVectorImpl<HostTensor> &results) {
  const HostTensor &logits = operands[0], &labels = operands[1];
  HostTensor result(cast<RankedTensorType>(getResult().getType()));
  HostTensor logSumExp(result.type);
  int64_t classes = logits.shape().back();
  for (int64_t row = 0; row < labels.size(); ++row) {
    const double *in = logits.data.data() + row * classes;
    double largest = getReductionIdentity(ReductionKind::max), sum = 0;
    for (int64_t i = 0; i < classes; ++i)
      largest = reduceTwo(ReductionKind::max, largest, in[i]);
    for (int64_t i = 0; i < classes; ++i)
      sum += std::exp(in[i] - largest);
    logSumExp.data[row] = largest + std::log(sum);
    auto label = static_cast<int64_t>(labels.data[row]);
    if (label == static_cast<int64_t>(getIgnoreIndex()))
      continue;
    if (label < 0 || label >= classes)
      return emitOpError() << "label " << label << " is none of " << classes
                           << " classes and not the ignored "
                           << static_cast<int64_t>(getIgnoreIndex());
    result.data[row] = logSumExp.data[row] - in[label];
  }
  results.push_back(std::move(result));
  results.push_back(std::move(logSumExp));
  return success();
}

LogicalResult GradientOp::evaluate(ArrayRef<HostTensor> operands,
                                   SmallVectorImpl<HostTensor> &results) {
  results.push_back(operands[0]); // a name, no computation
  return success();
}

/// A constant of the op as its decomposition has it: in the element type.
static double roundTo(Type element, double value) {
  llvm::APFloat number(value);
  bool losesInfo = false;
  number.convert(cast<FloatType>(element).getFloatSemantics(),
                 llvm::APFloat::rmNearestTiesToEven, &losesInfo);
  return number.convertToDouble();
}

LogicalResult AdamWOp::evaluate(ArrayRef<HostTensor> operands,
                                SmallVectorImpl<HostTensor> &results) {
  HostTensor param = operands[0], m = operands[2], v = operands[3];
  const HostTensor &grad = operands[1];
  double rate = operands[4].data[0], correction1 = operands[5].data[0],
         correction2 = operands[6].data[0], scale = operands[7].data[0];
  auto constant = [&](double value) {
    return roundTo(getParam().getType().getElementType(), value);
  };
  double beta1 = getBeta1().convertToDouble(),
         beta2 = getBeta2().convertToDouble();
  double rest1 = constant(1 - beta1), rest2 = constant(1 - beta2);
  beta1 = constant(beta1), beta2 = constant(beta2);
  double epsilon = constant(getEpsilon().convertToDouble()),
         decay = constant(getWeightDecay().convertToDouble());
  if (operands[8].data[0] != 0)
    for (int64_t i = 0; i < param.size(); ++i) {
      double g = scale * grad.data[i];
      m.data[i] = beta1 * m.data[i] + rest1 * g;
      v.data[i] = beta2 * v.data[i] + rest2 * g * g;
      param.data[i] -= rate * decay * param.data[i];
      param.data[i] -= rate * (m.data[i] / correction1) /
                       (std::sqrt(v.data[i] / correction2) + epsilon);
    }
  results.push_back(std::move(param));
  results.push_back(std::move(m));
  results.push_back(std::move(v));
  return success();
}
