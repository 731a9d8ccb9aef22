//===- Optimizer.cpp - Finished gradients and optimizer steps -------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

//===----------------------------------------------------------------------===//
// gradient
//===----------------------------------------------------------------------===//

LogicalResult GradientOp::verify() {
  // gradient_c1
  if (getResult().getType() != getInput().getType())
    return emitOpError() << "result is " << getResult().getType()
                         << ", expected " << getInput().getType();
  if (getOf().empty())
    return emitOpError() << "names no parameter";
  return success();
}

ShardingRule GradientOp::getShardingRule() {
  // Not linear on purpose: a partial sum ends here.
  return getPointwiseRule(*this);
}

LogicalResult GradientOp::partition(OpBuilder &, ValueRange operands,
                                    const PartitionContext &,
                                    SmallVectorImpl<Value> &results) {
  results.push_back(operands[0]);
  return success();
}

//===----------------------------------------------------------------------===//
// adamw
//===----------------------------------------------------------------------===//

LogicalResult AdamWOp::verify() {
  RankedTensorType type = getParam().getType();
  // adamw_c1
  if (!isa<FloatType>(type.getElementType()))
    return emitOpError() << "param has element type " << type.getElementType()
                         << ", expected a float";
  for (auto [name, value] : {std::pair<StringRef, Value>{"grad", getGrad()},
                             {"exp_avg", getExpAvg()},
                             {"exp_avg_sq", getExpAvgSq()},
                             {"new_param", getNewParam()},
                             {"new_exp_avg", getNewExpAvg()},
                             {"new_exp_avg_sq", getNewExpAvgSq()}})
    if (value.getType() != type)
      return emitOpError() << name << " is " << value.getType() << ", param "
                           << type;
  // adamw_c2
  auto scalar = RankedTensorType::get({}, type.getElementType());
  for (auto [name, value] :
       {std::pair<StringRef, Value>{"learning_rate", getLearningRate()},
        {"correction1", getCorrection1()},
        {"correction2", getCorrection2()},
        {"scale", getScale()}})
    if (value.getType() != scalar)
      return emitOpError() << name << " is " << value.getType() << ", expected "
                           << scalar;
  auto boolean = RankedTensorType::get({}, IntegerType::get(getContext(), 1));
  if (getEnabled().getType() != boolean)
    return emitOpError() << "enabled is " << getEnabled().getType()
                         << ", expected " << boolean;
  return success();
}

ShardingRule AdamWOp::getShardingRule() {
  ShardingRule rule;
  TensorFactors dims;
  for (int64_t size : getParam().getType().getShape())
    dims.push_back({rule.addFactor(size)});
  rule.operands.assign(4, dims);
  rule.operands.resize(getNumOperands()); // scalars have no dims
  rule.results.assign(3, dims);
  rule.linear.assign(getNumOperands(), false);
  return rule;
}

LogicalResult AdamWOp::decompose(OpBuilder &builder, ValueRange operands,
                                 SmallVectorImpl<Value> &results) {
  DShardBuilder make(builder, *this);
  Type type = getParam().getType().getElementType();
  auto constant = [&](double value) { return make.scalar(value, type); };
  auto mul = [&](Value x, Value y) { return make.binary<MulOp>(x, y); };
  Value param = operands[0], m = operands[2], v = operands[3];
  Value rate = operands[4], enabled = operands[8];
  double beta1 = getBeta1().convertToDouble(),
         beta2 = getBeta2().convertToDouble(),
         decay = getWeightDecay().convertToDouble();
  Value g = mul(operands[1], operands[7]);
  Value newM =
      make.binary<AddOp>(mul(m, constant(beta1)), mul(g, constant(1 - beta1)));
  Value newV = make.binary<AddOp>(mul(v, constant(beta2)),
                                  mul(mul(g, g), constant(1 - beta2)));
  Value newParam = param;
  if (decay != 0)
    newParam =
        make.binary<SubOp>(param, mul(mul(rate, constant(decay)), param));
  Value root = make.unary<SqrtOp>(make.binary<DivOp>(newV, operands[6]));
  Value denominator =
      make.binary<AddOp>(root, constant(getEpsilon().convertToDouble()));
  Value step =
      make.binary<DivOp>(make.binary<DivOp>(newM, operands[5]), denominator);
  newParam = make.binary<SubOp>(newParam, mul(rate, step));
  results.push_back(make.select(enabled, newParam, param));
  results.push_back(make.select(enabled, newM, m));
  results.push_back(make.select(enabled, newV, v));
  return success();
}
