//===- Loss.cpp - Losses --------------------------------------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

static Type getLossType(CrossEntropyOp op) {
  Type type = op.getLogits().getType().getElementType();
  return type.isF64() ? type : Type(Float32Type::get(op.getContext()));
}

LogicalResult CrossEntropyOp::verify() {
  RankedTensorType logits = getLogits().getType(),
                   labels = getLabels().getType();
  // cross_entropy_c1
  if (logits.getRank() < 1)
    return emitOpError() << "logits have no dims, expected at least 1";
  if (!isa<FloatType>(logits.getElementType()))
    return emitOpError() << "logits have element type "
                         << logits.getElementType() << ", expected a float";
  if (!isa<IntegerType>(labels.getElementType()) ||
      labels.getElementType().isInteger(1))
    return emitOpError() << "labels have element type "
                         << labels.getElementType() << ", expected integers";
  if (labels.getShape() != logits.getShape().drop_back())
    return emitOpError() << "labels are " << labels
                         << ", expected the dims of the logits " << logits
                         << " but the last";
  // cross_entropy_c1: what is ignored is a label. It is compared with as a
  // constant of that type, which is written as a double.
  int64_t ignored = getIgnoreIndex();
  auto label = cast<IntegerType>(labels.getElementType());
  bool fits = label.isUnsigned()
                  ? ignored >= 0 && llvm::isUIntN(label.getWidth(), ignored)
                  : llvm::isIntN(label.getWidth(), ignored);
  if (!fits || std::abs(double(ignored)) > double(int64_t(1) << 53))
    return emitOpError() << "ignore_index " << ignored
                         << " is no value of labels of type " << label
                         << "; -100 is customary";
  // cross_entropy_c2
  auto expected = RankedTensorType::get(labels.getShape(), getLossType(*this));
  for (auto [name, value] : {std::pair<StringRef, Value>{"result", getResult()},
                             {"log_sum_exp", getLogSumExp()}})
    if (value.getType() != expected)
      return emitOpError() << name << " is " << value.getType() << ", expected "
                           << expected;
  return success();
}

ShardingRule CrossEntropyOp::getShardingRule() {
  ShardingRule rule;
  TensorFactors rows;
  for (int64_t size : getLabels().getType().getShape())
    rows.push_back({rule.addFactor(size)});
  TensorFactors logits = rows;
  logits.push_back({rule.addFactor(getLogits().getType().getShape().back(),
                                   FactorKind::gather)});
  rule.operands = {logits, rows};
  rule.results = {rows, rows};
  rule.linear = {false, false};
  return rule;
}

LogicalResult CrossEntropyOp::decompose(OpBuilder &builder, ValueRange operands,
                                        SmallVectorImpl<Value> &results) {
  DShardBuilder make(builder, *this);
  Type wide = getLossType(*this);
  Value logits = make.cast(operands[0], wide), labels = operands[1];
  RankedTensorType type = make.typeOf(logits);
  int64_t last = type.getRank() - 1;
  Type labelType = make.typeOf(labels).getElementType();
  ArrayRef<int64_t> rows = make.typeOf(labels).getShape();
  SmallVector<int64_t> column(rows);
  column.push_back(1);

  Value peak = make.reduce(logits, ReductionKind::max, {last}, true);
  Value sum = make.reduce(make.unary<ExpOp>(make.binary<SubOp>(logits, peak)),
                          ReductionKind::sum, {last}, /*keepDims=*/false);
  Value logSumExp =
      make.binary<AddOp>(make.unary<LogOp>(sum), make.reshape(peak, rows));
  // The logit of the label as a sum: a shard that does not hold it adds zero.
  Value index = make.create<IotaOp>(type.clone(labelType), uint64_t(last),
                                    llvm::APFloat(0.0), llvm::APFloat(1.0));
  Value isLabel =
      make.compare(index, make.reshape(labels, column), ComparePredicate::eq);
  Value picked = make.reduce(make.select(isLabel, logits, make.scalar(0, wide)),
                             ReductionKind::sum, {last}, /*keepDims=*/false);
  Value isIgnored = make.compare(
      labels, make.scalar(double(int64_t(getIgnoreIndex())), labelType),
      ComparePredicate::eq);
  results.push_back(make.select(isIgnored, make.scalar(0, wide),
                                make.binary<SubOp>(logSumExp, picked)));
  results.push_back(logSumExp);
  return success();
}
