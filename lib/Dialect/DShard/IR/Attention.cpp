//===- Attention.cpp - Attention and rotary embedding ---------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

//===----------------------------------------------------------------------===//
// attention
//===----------------------------------------------------------------------===//

namespace {
struct AttentionSizes {
  int64_t B, H, S, D, Hkv, T, Dv;
  explicit AttentionSizes(AttentionOp op) {
    ArrayRef<int64_t> query = op.getQuery().getType().getShape(),
                      key = op.getKey().getType().getShape();
    B = query[0], H = query[1], S = query[2], D = query[3];
    Hkv = key[1], T = key[2];
    Dv = op.getValue().getType().getDimSize(3);
  }
};
} // namespace

LogicalResult AttentionOp::verify() {
  // attention_c1
  for (auto [name, value] : {std::pair<StringRef, Value>{"query", getQuery()},
                             {"key", getKey()},
                             {"value", getValue()},
                             {"result", getResult()}}) {
    auto type = cast<RankedTensorType>(value.getType());
    if (type.getRank() != 4)
      return emitOpError() << name << " has " << type.getRank()
                           << " dims, expected 4";
    if (type.getElementType() != getQuery().getType().getElementType())
      return emitOpError() << name << " has element type "
                           << type.getElementType() << ", query "
                           << getQuery().getType().getElementType();
    if (!isa<FloatType>(type.getElementType()))
      return emitOpError() << name << " has element type "
                           << type.getElementType() << ", expected a float";
  }
  AttentionSizes n(*this);
  auto expectShape = [&](StringRef name, Value value,
                         ArrayRef<int64_t> expected) -> LogicalResult {
    ArrayRef<int64_t> shape =
        cast<RankedTensorType>(value.getType()).getShape();
    if (shape == expected)
      return success();
    auto text = [](ArrayRef<int64_t> sizes) {
      std::string list;
      for (int64_t size : sizes)
        list += (list.empty() ? "" : "x") + std::to_string(size);
      return list;
    };
    return emitOpError() << name << " has shape " << text(shape)
                         << ", expected " << text(expected);
  };
  if (failed(expectShape("key", getKey(), {n.B, n.Hkv, n.T, n.D})) ||
      failed(expectShape("value", getValue(), {n.B, n.Hkv, n.T, n.Dv})) ||
      failed(expectShape("result", getResult(), {n.B, n.H, n.S, n.Dv})))
    return failure();
  if (n.Hkv == 0 || n.H % n.Hkv != 0)
    return emitOpError() << n.Hkv << " KV heads do not divide " << n.H
                         << " query heads";
  // attention_c2
  if (Value padding = getKeyPadding()) {
    if (failed(expectShape("key_padding", padding, {n.B, n.T})))
      return failure();
    if (!getKeyPadding().getType().getElementType().isInteger(1))
      return emitOpError() << "key_padding has element type "
                           << getKeyPadding().getType().getElementType()
                           << ", expected i1";
  }
  // attention_c3
  if (failed(expectShape("log_sum_exp", getLogSumExp(), {n.B, n.H, n.S})))
    return failure();
  if (!getLogSumExp().getType().getElementType().isF32())
    return emitOpError() << "log_sum_exp has element type "
                         << getLogSumExp().getType().getElementType()
                         << ", expected f32";
  return success();
}

ShardingRule AttentionOp::getShardingRule() {
  AttentionSizes n(*this);
  ShardingRule rule;
  int64_t b = rule.addFactor(n.B);
  // Head h reads KV head h / repeat: the major part of the heads is the KV
  // head.
  int64_t kvHead = rule.addFactor(n.Hkv);
  SmallVector<int64_t, 1> heads = {kvHead};
  if (n.H != n.Hkv)
    heads.push_back(rule.addFactor(n.H / n.Hkv));
  // Under a causal mask or a window the shards of the queries differ in their
  // offset: only a pass that deals with it may shard them.
  bool positional = getCausal() || int64_t(getWindow()) >= 0;
  int64_t s =
      rule.addFactor(n.S, positional ? FactorKind::ring : FactorKind::parallel);
  int64_t t = rule.addFactor(n.T, FactorKind::ring);
  int64_t d = rule.addFactor(n.D, FactorKind::gather);
  int64_t dv = rule.addFactor(n.Dv, FactorKind::gather);
  rule.operands = {{{b}, heads, {s}, {d}},
                   {{b}, {kvHead}, {t}, {d}},
                   {{b}, {kvHead}, {t}, {dv}}};
  // The result is linear in the value, the log-sum-exp is not; linearity is of
  // all results.
  rule.linear = {false, false, false};
  if (getKeyPadding()) {
    rule.operands.push_back({{b}, {t}});
    rule.linear.push_back(false);
  }
  rule.results = {{{b}, heads, {s}, {dv}}, {{b}, heads, {s}}};
  return rule;
}

LogicalResult AttentionOp::partition(OpBuilder &builder, ValueRange operands,
                                     const PartitionContext &context,
                                     SmallVectorImpl<Value> &results) {
  AttentionSizes n(*this);
  auto localSize = [&](Value value, int64_t dim) {
    return cast<RankedTensorType>(value.getType()).getDimSize(dim);
  };
  if (localSize(operands[1], 2) != n.T)
    return emitOpError()
           << "the key sequence of size " << n.T
           << " is sharded; that takes context parallelism (a cp axis)";
  bool positional = getCausal() || int64_t(getWindow()) >= 0;
  if (positional && localSize(operands[0], 2) != n.S)
    return emitOpError()
           << "the query sequence of size " << n.S
           << " is sharded under a causal mask; that takes context "
              "parallelism (a cp axis)";
  return partitionByCloning(*this, builder, operands, context, results);
}

LogicalResult AttentionOp::decompose(OpBuilder &builder, ValueRange operands,
                                     SmallVectorImpl<Value> &results) {
  AttentionSizes n(*this);
  DShardBuilder make(builder, *this);
  Type elementType = getQuery().getType().getElementType();
  // Scores and probabilities in f32, as the op accumulates.
  Type wide = elementType.isF64() ? elementType : Type(builder.getF32Type());
  auto repeatHeads = [&](Value kv, int64_t last) {
    kv = make.cast(kv, wide);
    if (n.H == n.Hkv)
      return kv;
    kv = make.reshape(kv, {n.B, n.Hkv, 1, n.T, last});
    kv = make.broadcastTo(kv, {n.B, n.Hkv, n.H / n.Hkv, n.T, last});
    return make.reshape(kv, {n.B, n.H, n.T, last});
  };
  Value query = make.cast(operands[0], wide);
  Value key = repeatHeads(operands[1], n.D);
  Value value = repeatHeads(operands[2], n.Dv);
  Value scores = make.matmul(query, key, false, /*transposeRhs=*/true);
  scores = make.binary<MulOp>(scores,
                              make.scalar(getScale().convertToDouble(), wide));
  if (double cap = getSoftcap().convertToDouble(); cap > 0) {
    Value c = make.scalar(cap, wide);
    scores = make.binary<MulOp>(
        make.unary<TanhOp>(make.binary<DivOp>(scores, c)), c);
  }
  // mask: true where a query may attend a key; broadcasts to [B,H,S,T].
  Value mask;
  auto restrict = [&](Value more) {
    mask = mask ? make.binary<AndOp>(mask, more) : more;
  };
  Type i64 = builder.getI64Type();
  int64_t offset = getOffset(), window = getWindow();
  if (getCausal() || window >= 0) {
    Value row =
        make.create<IotaOp>(RankedTensorType::get({n.S, 1}, i64), uint64_t(0),
                            llvm::APFloat(double(offset)), llvm::APFloat(1.0));
    Value column =
        make.create<IotaOp>(RankedTensorType::get({1, n.T}, i64), uint64_t(1),
                            llvm::APFloat(0.0), llvm::APFloat(1.0));
    if (getCausal())
      restrict(make.compare(column, row, ComparePredicate::le));
    if (window >= 0)
      restrict(make.compare(
          column, make.binary<SubOp>(row, make.scalar(double(window), i64)),
          ComparePredicate::gt));
  }
  if (getKeyPadding())
    restrict(make.reshape(operands[3], {n.B, 1, 1, n.T}));
  double infinity = std::numeric_limits<double>::infinity();
  if (mask)
    scores = make.select(mask, scores, make.scalar(-infinity, wide));
  Value peak = make.reduce(scores, ReductionKind::max, {3}, /*keepDims=*/true);
  // A row that attends nothing has the peak -inf; subtracting it gives NaN.
  Value nothing =
      make.compare(peak, make.scalar(-infinity, wide), ComparePredicate::eq);
  Value shift = make.select(nothing, make.scalar(0, wide), peak);
  Value weights = make.unary<ExpOp>(make.binary<SubOp>(scores, shift));
  Value sum = make.reduce(weights, ReductionKind::sum, {3}, true);
  Value safeSum = make.select(nothing, make.scalar(1, wide), sum);
  Value probabilities = make.binary<DivOp>(weights, safeSum);
  if (getFullyMasked() == FullyMasked::uniform) {
    // A quotient of ops: 1 / T rounded to a constant would not be exact.
    Value even = make.binary<DivOp>(make.scalar(1, wide),
                                    make.scalar(double(n.T), wide));
    probabilities = make.select(nothing, even, probabilities);
  }
  Value result = make.matmul(probabilities, value);
  Value logSumExp = make.binary<AddOp>(make.unary<LogOp>(sum), shift);
  results.push_back(make.cast(result, elementType));
  results.push_back(make.cast(make.reshape(logSumExp, {n.B, n.H, n.S}),
                              builder.getF32Type()));
  return success();
}

double AttentionOp::getFlops() {
  AttentionSizes n(*this);
  double pairs = double(n.B) * double(n.H) * double(n.S) * double(n.T);
  if (getCausal() && n.S == n.T)
    pairs *= 0.5;
  return 2.0 * pairs * double(n.D + n.Dv);
}

//===----------------------------------------------------------------------===//
// rotary
//===----------------------------------------------------------------------===//

LogicalResult RotaryOp::verify() {
  RankedTensorType input = getInput().getType();
  if (input.getRank() != 4)
    return emitOpError() << "input has " << input.getRank()
                         << " dims, expected 4";
  if (getResult().getType() != input)
    return emitOpError() << "result is " << getResult().getType()
                         << ", expected " << input;
  int64_t D = input.getDimSize(3);
  if (D % 2 != 0)
    return emitOpError() << "rotates pairs of the last dim, its size " << D
                         << " is odd";
  // rotary_c1
  for (auto [name, value] :
       {std::pair<StringRef, Value>{"cos", getCos()}, {"sin", getSin()}}) {
    auto type = cast<RankedTensorType>(value.getType());
    if (type.getElementType() != input.getElementType())
      return emitOpError() << name << " has element type "
                           << type.getElementType() << ", input "
                           << input.getElementType();
    if (type.getRank() != 3)
      return emitOpError() << name << " has " << type.getRank()
                           << " dims, expected 3";
    if (type.getDimSize(0) != 1 && type.getDimSize(0) != input.getDimSize(0))
      return emitOpError() << name << " has batch " << type.getDimSize(0)
                           << ", expected 1 or " << input.getDimSize(0);
    if (type.getDimSize(1) != input.getDimSize(2))
      return emitOpError() << name << " has sequence " << type.getDimSize(1)
                           << ", expected " << input.getDimSize(2);
    if (type.getDimSize(2) != D / 2)
      return emitOpError() << name << " has last dim " << type.getDimSize(2)
                           << ", expected " << D / 2;
  }
  return success();
}

ShardingRule RotaryOp::getShardingRule() {
  ArrayRef<int64_t> shape = getInput().getType().getShape();
  ShardingRule rule;
  int64_t b = rule.addFactor(shape[0]);
  int64_t h = rule.addFactor(shape[1]);
  int64_t s = rule.addFactor(shape[2]);
  int64_t d = rule.addFactor(shape[3], FactorKind::gather);
  int64_t half = rule.addFactor(shape[3] / 2, FactorKind::gather);
  rule.operands.push_back({{b}, {h}, {s}, {d}});
  for (Value table : {getCos(), getSin()}) {
    TensorFactors dims = {{b}, {s}, {half}};
    if (cast<RankedTensorType>(table.getType()).getDimSize(0) != shape[0])
      dims[0].clear();
    rule.operands.push_back(dims);
  }
  rule.results.push_back({{b}, {h}, {s}, {d}});
  rule.linear = {true, false, false};
  return rule;
}

LogicalResult RotaryOp::decompose(OpBuilder &builder, ValueRange operands,
                                  SmallVectorImpl<Value> &results) {
  DShardBuilder make(builder, *this);
  SmallVector<int64_t> shape(getInput().getType().getShape());
  int64_t half = shape[3] / 2;
  auto table = [&](Value value) {
    auto type = make.typeOf(value);
    return make.reshape(value, {type.getDimSize(0), 1, shape[2], half});
  };
  Value cos = table(operands[1]), sin = table(operands[2]);
  Value x1, x2;
  if (getInterleaved()) {
    x1 = make.sliceDim(operands[0], 3, 0, half, 2);
    x2 = make.sliceDim(operands[0], 3, 1, half, 2);
  } else {
    x1 = make.sliceDim(operands[0], 3, 0, half);
    x2 = make.sliceDim(operands[0], 3, half, half);
  }
  Value y1 = make.binary<SubOp>(make.binary<MulOp>(x1, cos),
                                make.binary<MulOp>(x2, sin));
  Value y2 = make.binary<AddOp>(make.binary<MulOp>(x2, cos),
                                make.binary<MulOp>(x1, sin));
  if (!getInterleaved()) {
    results.push_back(make.concat({y1, y2}, 3));
    return success();
  }
  SmallVector<int64_t> column(shape);
  column[3] = half;
  column.push_back(1);
  Value pairs =
      make.concat({make.reshape(y1, column), make.reshape(y2, column)}, 4);
  results.push_back(make.reshape(pairs, shape));
  return success();
}
