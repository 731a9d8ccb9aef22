//===- Attention.cpp - Attention and rotary embedding ---------------------===//

#include "ContextAttention.h"
#include "Vjp.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

//===----------------------------------------------------------------------===//
// attention
//===----------------------------------------------------------------------===//

/// What decides which keys a row attends.
namespace {
struct AttentionMask {
  int64_t B, S, T;
  bool causal;
  int64_t offset, window;
  SequenceLayout layout;
  int64_t parts;
};

struct AttentionSizes {
  int64_t B, H, S, D, Hkv, T, Dv;
  template <typename OpT> explicit AttentionSizes(OpT op) {
    ArrayRef<int64_t> query = op.getQuery().getType().getShape(),
                      key = op.getKey().getType().getShape();
    B = query[0], H = query[1], S = query[2], D = query[3];
    Hkv = key[1], T = key[2];
    Dv = op.getValue().getType().getDimSize(3);
  }
};
} // namespace

/// True where a row may attend a key, broadcastable to [B,H,S,T]; null where
/// every row attends every key.
static Value buildAttentionMask(DShardBuilder &make, const AttentionMask &n,
                                Value keyPadding, Value queryOffset) {
  Value mask;
  auto restrict = [&](Value more) {
    mask = mask ? make.binary<AndOp>(mask, more) : more;
  };
  Type i64 = make.builder.getI64Type();
  // Positions before the sequence was put into the layout's order.
  auto positions = [&](int64_t dim, int64_t size, int64_t start) {
    SmallVector<int64_t> shape(2, 1);
    shape[dim] = size;
    auto type = RankedTensorType::get(shape, i64);
    Value index = make.create<IotaOp>(
        type, uint64_t(dim), llvm::APFloat(double(start)), llvm::APFloat(1.0));
    if (n.layout == SequenceLayout::contiguous)
      return index;
    return Value(make.create<ReorderOp>(type, index, uint64_t(dim), n.layout,
                                        uint64_t(n.parts), false));
  };
  if (n.causal || n.window >= 0) {
    Value row = positions(0, n.S, n.offset), column = positions(1, n.T, 0);
    if (queryOffset)
      row = make.binary<AddOp>(row, queryOffset);
    if (n.causal)
      restrict(make.compare(column, row, ComparePredicate::le));
    if (n.window >= 0)
      restrict(make.compare(
          column, make.binary<SubOp>(row, make.scalar(double(n.window), i64)),
          ComparePredicate::gt));
  }
  if (keyPadding)
    restrict(make.reshape(keyPadding, {n.B, 1, 1, n.T}));
  return mask;
}

static LogicalResult expectShape(Operation *op, StringRef name, Value value,
                                 ArrayRef<int64_t> expected) {
  ArrayRef<int64_t> shape = cast<RankedTensorType>(value.getType()).getShape();
  if (shape == expected)
    return success();
  auto text = [](ArrayRef<int64_t> sizes) {
    std::string list;
    for (int64_t size : sizes)
      list += (list.empty() ? "" : "x") + std::to_string(size);
    return list;
  };
  return op->emitOpError() << name << " has shape " << text(shape)
                           << ", expected " << text(expected);
}

/// 4 dims, floats, the query's element type; key, value and padding fit.
static LogicalResult
verifyAttentionOperands(Operation *op,
                        ArrayRef<std::pair<StringRef, Value>> values) {
  Type element =
      cast<RankedTensorType>(values[0].second.getType()).getElementType();
  for (auto [name, value] : values) {
    auto type = cast<RankedTensorType>(value.getType());
    if (type.getRank() != 4)
      return op->emitOpError()
             << name << " has " << type.getRank() << " dims, expected 4";
    if (type.getElementType() != element)
      return op->emitOpError()
             << name << " has element type " << type.getElementType()
             << ", query " << element;
    if (!isa<FloatType>(element))
      return op->emitOpError()
             << name << " has element type " << element << ", expected a float";
  }
  return success();
}

/// What attention and its gradient have in common, once all have 4 dims.
template <typename OpT> static LogicalResult verifyAttentionShapes(OpT op) {
  AttentionSizes n(op);
  if (failed(expectShape(op, "key", op.getKey(), {n.B, n.Hkv, n.T, n.D})) ||
      failed(
          expectShape(op, "value", op.getValue(), {n.B, n.Hkv, n.T, n.Dv})) ||
      failed(expectShape(op, "result", op.getResult(), {n.B, n.H, n.S, n.Dv})))
    return failure();
  if (n.Hkv == 0 || n.H % n.Hkv != 0)
    return op.emitOpError()
           << n.Hkv << " KV heads do not divide " << n.H << " query heads";
  return success();
}

template <typename OpT> static LogicalResult verifyAttentionPadding(OpT op) {
  AttentionSizes n(op);
  if (Value padding = op.getKeyPadding()) {
    if (failed(expectShape(op, "key_padding", padding, {n.B, n.T})))
      return failure();
    Type element = cast<RankedTensorType>(padding.getType()).getElementType();
    if (!element.isInteger(1))
      return op.emitOpError()
             << "key_padding has element type " << element << ", expected i1";
  }
  return success();
}

template <typename OpT> static LogicalResult verifyAttentionBias(OpT op) {
  Value bias = op.getBias();
  if (!bias)
    return success();
  AttentionSizes n(op);
  auto type = cast<RankedTensorType>(bias.getType());
  if (type.getRank() != 4)
    return op.emitOpError()
           << "bias has " << type.getRank() << " dims, expected 4";
  for (auto [dim, size] :
       llvm::enumerate(SmallVector<int64_t>{n.B, n.H, n.S, n.T}))
    if (type.getDimSize(dim) != 1 && type.getDimSize(dim) != size)
      return op.emitOpError()
             << "bias has size " << type.getDimSize(dim) << " in dim " << dim
             << ", expected 1 or " << size;
  Type element = op.getQuery().getType().getElementType();
  if (type.getElementType() != element)
    return op.emitOpError() << "bias has element type " << type.getElementType()
                            << ", query " << element;
  return success();
}

/// The factors of a bias [B,H,S,T] by its dims; those of size 1 have none.
static TensorFactors biasFactors(Value bias, TensorFactors dims) {
  for (auto [own, size] :
       llvm::zip_equal(dims, cast<RankedTensorType>(bias.getType()).getShape()))
    if (size == 1)
      own.clear();
  return dims;
}

template <typename OpT> static LogicalResult verifyLogSumExp(OpT op) {
  AttentionSizes n(op);
  if (failed(
          expectShape(op, "log_sum_exp", op.getLogSumExp(), {n.B, n.H, n.S})))
    return failure();
  Type element =
      cast<RankedTensorType>(op.getLogSumExp().getType()).getElementType();
  if (!element.isF32())
    return op.emitOpError()
           << "log_sum_exp has element type " << element << ", expected f32";
  return success();
}

/// The first `required` operands, then optional ones told by their number of
/// dims: those of `optional`, in order.
template <typename OpT>
static ParseResult parseAttention(OpAsmParser &parser, OperationState &result,
                                  size_t required, ArrayRef<int64_t> optional) {
  SmallVector<OpAsmParser::UnresolvedOperand> operands;
  FunctionType type;
  SMLoc where = parser.getCurrentLocation();
  if (parser.parseOperandList(operands) ||
      parser.parseOptionalAttrDict(result.attributes) ||
      failed(
          OpT::verifyInherentAttrs(result.name, result.attributes,
                                   [&] { return parser.emitError(where); })) ||
      parser.parseColonType(type) ||
      parser.resolveOperands(operands, type.getInputs(), where,
                             result.operands))
    return failure();
  if (operands.size() < required ||
      operands.size() > required + optional.size())
    return parser.emitError(where)
           << "has " << operands.size() << " operands, expected " << required
           << " to " << required + optional.size();
  SmallVector<int32_t> segments(required, 1);
  size_t next = required;
  for (int64_t rank : optional) {
    auto own = next < operands.size()
                   ? dyn_cast<RankedTensorType>(type.getInput(next))
                   : RankedTensorType();
    bool isHere = own && own.getRank() == rank;
    segments.push_back(isHere);
    next += isHere;
  }
  if (next < operands.size())
    return parser.emitError(where)
           << "operand " << next << " is " << type.getInput(next)
           << ", which no optional operand here may be";
  llvm::copy(segments, result.getOrAddProperties<typename OpT::Properties>()
                           .operandSegmentSizes.begin());
  result.addTypes(type.getResults());
  return success();
}

template <typename OpT>
static void
printAttention(OpT op, OpAsmPrinter &printer,
               ArrayRef<std::pair<StringAttr, Attribute>> defaults) {
  SmallVector<StringRef> elided = {op.getOperandSegmentSizesAttrName()};
  Builder builder(op.getContext());
  SmallVector<std::pair<StringAttr, Attribute>> all(defaults);
  all.append({{op.getOffsetAttrName(), builder.getI64IntegerAttr(0)},
              {op.getWindowAttrName(), builder.getI64IntegerAttr(-1)},
              {op.getSoftcapAttrName(), builder.getF64FloatAttr(0)},
              {op.getFullyMaskedAttrName(),
               FullyMaskedAttr::get(op.getContext(), FullyMasked::zero)}});
  for (auto [name, value] : all)
    if (op->getAttr(name) == value)
      elided.push_back(name);
  printer << ' ' << op->getOperands();
  printer.printOptionalAttrDict(op->getAttrs(), elided);
  printer << " : ";
  printer.printFunctionalType(op->getOperandTypes(), op->getResultTypes());
}

ParseResult AttentionOp::parse(OpAsmParser &parser, OperationState &result) {
  return parseAttention<AttentionOp>(parser, result, 3, {2, 0, 4});
}

void AttentionOp::print(OpAsmPrinter &printer) {
  printAttention(
      *this, printer,
      {{getLayoutAttrName(),
        SequenceLayoutAttr::get(getContext(), SequenceLayout::contiguous)},
       {getPartsAttrName(), Builder(getContext()).getI64IntegerAttr(1)}});
}

LogicalResult AttentionOp::verify() {
  // attention_c1
  if (failed(verifyAttentionOperands(*this, {{"query", getQuery()},
                                             {"key", getKey()},
                                             {"value", getValue()},
                                             {"result", getResult()}})) ||
      failed(verifyAttentionShapes(*this)))
    return failure();
  // attention_c2
  if (failed(verifyAttentionPadding(*this)))
    return failure();
  // attention_c3
  if (failed(verifyLogSumExp(*this)))
    return failure();
  AttentionSizes n(*this);
  // attention_c4
  int64_t parts = getParts();
  if (parts > 1 && n.S != n.T)
    return emitOpError() << "a sequence of " << parts << " parts in layout "
                         << stringifySequenceLayout(getLayout())
                         << " needs as many rows as keys: " << n.S
                         << " != " << n.T;
  if (failed(verifySequenceLayout(*this, getLayout(), parts, n.S)))
    return failure();
  // attention_c5
  if (Value offset = getQueryOffset())
    if (failed(verifyIndexScalar(*this, "query_offset", offset)))
      return failure();
  // attention_c6
  return verifyAttentionBias(*this);
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
  // `parts` says that one did: rows and keys are one sequence then, dealt out
  // alike, and `partition` brings each part of the keys to all rows.
  bool isDealtOut = getParts() > 1;
  int64_t s = rule.addFactor(
      n.S, positional && !isDealtOut ? FactorKind::ring : FactorKind::parallel);
  int64_t t = isDealtOut ? s : rule.addFactor(n.T, FactorKind::ring);
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
  if (getQueryOffset()) {
    rule.operands.emplace_back();
    rule.linear.push_back(false);
  }
  if (Value bias = getBias()) {
    // Each rank needs what its rows have with all keys, which come by.
    bool repeats = cast<RankedTensorType>(bias.getType()).getDimSize(3) == 1;
    int64_t keys =
        isDealtOut && !repeats ? rule.addFactor(n.T, FactorKind::gather) : t;
    rule.operands.push_back(biasFactors(bias, {{b}, heads, {s}, {keys}}));
    rule.linear.push_back(false);
  }
  rule.results = {{{b}, heads, {s}, {dv}}, {{b}, heads, {s}}};
  return rule;
}

LogicalResult AttentionOp::partition(OpBuilder &builder, ValueRange operands,
                                     const PartitionContext &context,
                                     SmallVectorImpl<Value> &results) {
  if (getParts() > 1)
    return partitionContextAttention(*this, builder, operands, context,
                                     results);
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
  Value padding, queryOffset;
  size_t next = 3;
  if (getKeyPadding())
    padding = operands[next++];
  if (getQueryOffset())
    queryOffset = operands[next++];
  if (getBias()) {
    Value bias = make.cast(operands[next++], wide);
    if (getParts() > 1 && getLayout() != SequenceLayout::contiguous &&
        make.typeOf(bias).getDimSize(3) != 1) // its keys lie in natural order
      bias = make.create<ReorderOp>(bias.getType(), bias, uint64_t(3),
                                    getLayout(), getParts(), false);
    scores = make.binary<AddOp>(scores, bias);
  }
  Value mask = buildAttentionMask(make,
                                  {n.B, n.S, n.T, getCausal(),
                                   int64_t(getOffset()), int64_t(getWindow()),
                                   getLayout(), int64_t(getParts())},
                                  padding, queryOffset);
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
// attention_grad
//===----------------------------------------------------------------------===//

ParseResult AttentionGradOp::parse(OpAsmParser &parser,
                                   OperationState &result) {
  return parseAttention<AttentionGradOp>(parser, result, 6, {2, 4});
}

void AttentionGradOp::print(OpAsmPrinter &printer) {
  printAttention(*this, printer, {});
}

LogicalResult AttentionGradOp::verify() {
  // attention_grad_c1
  if (failed(
          verifyAttentionOperands(*this, {{"query", getQuery()},
                                          {"key", getKey()},
                                          {"value", getValue()},
                                          {"result", getResult()},
                                          {"result_grad", getResultGrad()},
                                          {"query_grad", getQueryGrad()},
                                          {"key_grad", getKeyGrad()},
                                          {"value_grad", getValueGrad()}})) ||
      failed(verifyAttentionShapes(*this)) ||
      failed(verifyAttentionPadding(*this)) || failed(verifyLogSumExp(*this)) ||
      failed(verifyAttentionBias(*this)))
    return failure();
  for (auto [name, gradient, value] :
       {std::tuple<StringRef, Value, Value>{"result_grad", getResultGrad(),
                                            getResult()},
        {"query_grad", getQueryGrad(), getQuery()},
        {"key_grad", getKeyGrad(), getKey()},
        {"value_grad", getValueGrad(), getValue()}})
    if (failed(expectShape(*this, name, gradient,
                           cast<RankedTensorType>(value.getType()).getShape())))
      return failure();
  return success();
}

ShardingRule AttentionGradOp::getShardingRule() {
  AttentionSizes n(*this);
  ShardingRule rule;
  int64_t b = rule.addFactor(n.B);
  int64_t kvHead = rule.addFactor(n.Hkv);
  SmallVector<int64_t, 1> heads = {kvHead};
  // The query heads of a group all add to their KV head's gradient: where the
  // group is sharded, that gradient is a partial sum.
  if (n.H != n.Hkv)
    heads.push_back(rule.addFactor(n.H / n.Hkv));
  rule.missingFactorsSum = true;
  // A sharded S would leave key and value gradients partial, a sharded T the
  // query's: training under context parallelism needs another op than this.
  int64_t s = rule.addFactor(n.S, FactorKind::gather);
  int64_t t = rule.addFactor(n.T, FactorKind::gather);
  int64_t d = rule.addFactor(n.D, FactorKind::gather);
  int64_t dv = rule.addFactor(n.Dv, FactorKind::gather);
  TensorFactors query = {{b}, heads, {s}, {d}}, key = {{b}, {kvHead}, {t}, {d}},
                value = {{b}, {kvHead}, {t}, {dv}},
                result = {{b}, heads, {s}, {dv}};
  rule.operands = {query, key, value, result, {{b}, heads, {s}}, result};
  if (getKeyPadding())
    rule.operands.push_back({{b}, {t}});
  if (Value bias = getBias())
    rule.operands.push_back(biasFactors(bias, {{b}, heads, {s}, {t}}));
  rule.linear.assign(rule.operands.size(), false);
  rule.results = {query, key, value};
  return rule;
}

LogicalResult AttentionGradOp::partition(OpBuilder &builder,
                                         ValueRange operands,
                                         const PartitionContext &context,
                                         SmallVectorImpl<Value> &results) {
  AttentionSizes n(*this);
  auto localSize = [&](Value value) {
    return cast<RankedTensorType>(value.getType()).getDimSize(2);
  };
  for (auto [what, local, whole] :
       {std::tuple("query", localSize(operands[0]), n.S),
        std::tuple("key", localSize(operands[1]), n.T)})
    if (local != whole)
      return emitOpError() << "the " << what << " sequence of size " << whole
                           << " is sharded; training with a sharded attention "
                              "sequence (a cp axis) is not supported";
  return partitionByCloning(*this, builder, operands, context, results);
}

namespace {
/// What the gradients are products of. Rows of all heads that read one KV head
/// lie behind each other, [B,Hkv,G*S,..], so that the products over rows also
/// sum over the group.
struct ScoreGradients {
  Value query, key, resultGrad;
  Value weights; ///< of the values
  Value added;   ///< of what is added to the scores
  Value scores;  ///< of the product of query and key
};
} // namespace

static ScoreGradients buildScoreGradients(AttentionGradOp op,
                                          DShardBuilder &make,
                                          ValueRange operands) {
  AttentionSizes n(op);
  Type elementType = op.getQuery().getType().getElementType();
  Type wide =
      elementType.isF64() ? elementType : Type(make.builder.getF32Type());
  int64_t G = n.H / n.Hkv;
  auto rows = [&](Value value, int64_t last) {
    return make.reshape(make.cast(value, wide), {n.B, n.Hkv, G * n.S, last});
  };
  auto apart = [&](Value value) {
    return make.reshape(value, {n.B, n.Hkv * G, n.S, n.T});
  };
  auto together = [&](Value value) {
    return make.reshape(value, {n.B, n.Hkv, G * n.S, n.T});
  };
  ScoreGradients given;
  given.query = rows(operands[0], n.D);
  given.key = make.cast(operands[1], wide);
  given.resultGrad = rows(operands[5], n.Dv);
  Value value = make.cast(operands[2], wide), result = rows(operands[3], n.Dv);
  Value logSumExp =
      make.reshape(make.cast(operands[4], wide), {n.B, n.H, n.S, 1});
  Value scale = make.scalar(op.getScale().convertToDouble(), wide);

  Value scores = make.binary<MulOp>(
      make.matmul(given.query, given.key, false, true), scale);
  Value bend; // the derivative of the softcap
  if (double cap = op.getSoftcap().convertToDouble(); cap > 0) {
    Value c = make.scalar(cap, wide);
    Value tanh = make.unary<TanhOp>(make.binary<DivOp>(scores, c));
    scores = make.binary<MulOp>(tanh, c);
    bend = make.binary<SubOp>(make.scalar(1, wide),
                              make.binary<MulOp>(tanh, tanh));
  }
  Value mask = buildAttentionMask(
      make,
      {n.B, n.S, n.T, op.getCausal(), int64_t(op.getOffset()),
       int64_t(op.getWindow()), SequenceLayout::contiguous, 1},
      op.getKeyPadding() ? operands[6] : Value(), {});
  double infinity = std::numeric_limits<double>::infinity();
  Value lowest = make.scalar(-infinity, wide), zero = make.scalar(0, wide);
  scores = apart(scores);
  if (op.getBias())
    scores = make.binary<AddOp>(scores, make.cast(operands.back(), wide));
  Value nothing = make.compare(logSumExp, lowest, ComparePredicate::eq);
  Value probabilities = make.unary<ExpOp>(
      make.binary<SubOp>(scores, make.select(nothing, zero, logSumExp)));
  if (op.getBias()) // of -inf everywhere, it hides all keys of a row
    probabilities = make.select(nothing, zero, probabilities);
  if (mask)
    probabilities = make.select(mask, probabilities, zero);
  given.weights = probabilities;
  if (op.getFullyMasked() == FullyMasked::uniform) {
    Value even = make.binary<DivOp>(make.scalar(1, wide),
                                    make.scalar(double(n.T), wide));
    given.weights = make.select(nothing, even, probabilities);
  }
  given.weights = together(given.weights);
  Value delta = make.reduce(make.binary<MulOp>(given.resultGrad, result),
                            ReductionKind::sum, {3}, /*keepDims=*/true);
  given.scores = make.binary<MulOp>(
      together(probabilities),
      make.binary<SubOp>(make.matmul(given.resultGrad, value, false, true),
                         delta));
  if (op.getBias())
    given.added = apart(given.scores);
  if (bend)
    given.scores = make.binary<MulOp>(given.scores, bend);
  given.scores = make.binary<MulOp>(given.scores, scale);
  return given;
}

Value mlir::dshard::buildAttentionBiasGrad(AttentionGradOp op,
                                           DShardBuilder &make) {
  return make.cast(buildScoreGradients(op, make, op->getOperands()).added,
                   op.getQuery().getType().getElementType());
}

LogicalResult AttentionGradOp::decompose(OpBuilder &builder,
                                         ValueRange operands,
                                         SmallVectorImpl<Value> &results) {
  AttentionSizes n(*this);
  DShardBuilder make(builder, *this);
  ScoreGradients given = buildScoreGradients(*this, make, operands);
  Value valueGrad = make.matmul(given.weights, given.resultGrad, true, false);
  Value queryGrad = make.matmul(given.scores, given.key);
  Value keyGrad = make.matmul(given.scores, given.query, true, false);
  queryGrad = make.reshape(queryGrad, {n.B, n.H, n.S, n.D});
  for (Value gradient : {queryGrad, keyGrad, valueGrad})
    results.push_back(
        make.cast(gradient, getQuery().getType().getElementType()));
  return success();
}

double AttentionGradOp::getFlops() {
  AttentionSizes n(*this);
  double pairs = double(n.B) * double(n.H) * double(n.S) * double(n.T);
  if (getCausal() && n.S == n.T)
    pairs *= 0.5;
  // Scores, dQ and dK over D; dP and dV over Dv.
  return 2.0 * pairs * double(3 * n.D + 2 * n.Dv);
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
