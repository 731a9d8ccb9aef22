//===- ContextAttention.cpp - Attention over a sharded sequence -----------===//

#include "ContextAttention.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// What one block of keys gives the rows: result [B,H,S,Dv] in f32 (f64) and
/// log_sum_exp [B,H,S,1]; -inf and 0 where a row attends nothing.
struct BlockResult {
  Value result, logSumExp;
};

/// Keys and values of one rank, with what of the padding and of the bias, for
/// the rows at hand, belongs to them.
struct KeyBlock {
  Value key, value, padding, bias;
};

struct ContextAttention {
  AttentionOp op;
  DShardBuilder make;
  const PartitionContext &context;
  SmallVector<AxisRefAttr> axes; ///< of the sequence, sizes > 1
  int64_t ranks = 1;             ///< over which `axes` shard it
  int64_t parts = 1;             ///< of `layout`
  SequenceLayout layout;
  Type wide; ///< f32 (f64): results of blocks are merged in it
  Value query;
  KeyBlock own;

  LogicalResult verify(StringRef method);
  void whole(SmallVectorImpl<Value> &results);
  void ring(SmallVectorImpl<Value> &results);
  void gather(SmallVectorImpl<Value> &results);
  void exchange(SmallVectorImpl<Value> &results);
  void exchangeAndRing(SmallVectorImpl<Value> &results);

private:
  std::pair<Value, Value> attend(Value queries, const KeyBlock &keys,
                                 bool causal, int64_t offset, Value queryOffset,
                                 FullyMasked fullyMasked);
  BlockResult attendBlock(Value queries, const KeyBlock &keys, bool causal,
                          int64_t offset = 0);
  BlockResult merge(const BlockResult &a, const BlockResult &b);
  BlockResult mergeStep(int64_t step, const BlockResult &sum,
                        const KeyBlock &keys);
  BlockResult branch(Value condition, const BlockResult &like,
                     llvm::function_ref<BlockResult()> thenBody,
                     llvm::function_ref<BlockResult()> elseBody);
  Value sumOfValues(Value values);
  Value fillEmptyRows(const BlockResult &sum, Value valueSum);
  Value half(Value value, int64_t dim, int64_t index);
  KeyBlock firstHalf(const KeyBlock &keys);
  KeyBlock halfRows(const KeyBlock &keys, int64_t index);
  Value biasOfStep(Value bias, int64_t step);
  Value toOrder(Value value, int64_t dim, bool inverse);
  Value gatherSequence(Value value, int64_t dim, StringRef what);
  Value exchangeBias(Value bias);
  void exchangeIn();
  void exchangeOut(ArrayRef<Value> given, SmallVectorImpl<Value> &results);
  Value exchangeDims(Value value, int64_t split, int64_t concat,
                     StringRef what);
  ArrayAttr axesAttr() {
    SmallVector<Attribute> list(axes.begin(), axes.end());
    return make.builder.getArrayAttr(list);
  }
  StringAttr why(const Twine &text) {
    StringRef path = make.path ? make.path.getValue() : "";
    return make.builder.getStringAttr(
        text + (path.empty() ? "" : " of " + path.str()));
  }
  Value index(int64_t value) {
    return make.scalar(double(value), make.builder.getI64Type());
  }
  Value rankIndex() { return context.buildRankIndex(make.builder, op, axes); }
  bool isPositional() { return op.getCausal() || int64_t(op.getWindow()) >= 0; }
  static int64_t size(Value value, int64_t dim) {
    return DShardBuilder::typeOf(value).getDimSize(dim);
  }
};
} // namespace

LogicalResult ContextAttention::verify(StringRef method) {
  if (ranks > 1 && ranks != parts && layout != SequenceLayout::contiguous)
    return op.emitOpError()
           << "its sequence lies in " << stringifySequenceLayout(layout)
           << " order of " << parts << " parts, but is sharded over "
           << toString(axes) << " of " << ranks
           << " ranks; use --cp-layout=contiguous";
  if ((method == "ring" || method == "hierarchical") &&
      int64_t(op.getWindow()) >= 0)
    return op.emitOpError()
           << "a sliding window of " << int64_t(op.getWindow())
           << " and --cp-method=" << method
           << " do not go together; use all_gather or all_to_all";
  if ((method == "all_gather" || method == "hierarchical") &&
      layout == SequenceLayout::striped && isPositional())
    return op.emitOpError() << "--cp-method=" << method
                            << " and --cp-layout=striped do not go together; "
                               "use zigzag or contiguous";
  if ((method == "ring" || method == "hierarchical") && op.getCausal() &&
      ranks > 1 && int64_t(op.getOffset()) != 0)
    return op.emitOpError()
           << "a causal offset of " << int64_t(op.getOffset())
           << " and --cp-method=" << method
           << " do not go together; use all_gather or all_to_all";
  if (method == "hierarchical" && own.bias && ranks > 1)
    return op.emitOpError()
           << "a bias of the scores and --cp-method=hierarchical do not go "
              "together; use ring, all_gather or all_to_all";
  if (method == "hierarchical" && axes.size() > 1)
    return op.emitOpError() << "--cp-method=hierarchical splits one axis, but "
                               "the sequence is sharded over "
                            << toString(axes) << "; use ring";
  int64_t heads = size(query, 1), keyHeads = size(own.key, 1);
  if (method == "all_to_all" && (heads % ranks != 0 || keyHeads % ranks != 0))
    return op.emitOpError()
           << "--cp-method=all_to_all exchanges the sequence for heads, but "
           << ranks << " ranks do not divide its " << heads
           << " query heads and " << keyHeads
           << " KV heads on a rank; use ring or all_gather";
  return success();
}

//===----------------------------------------------------------------------===//
// Parts
//===----------------------------------------------------------------------===//

std::pair<Value, Value> ContextAttention::attend(Value queries,
                                                 const KeyBlock &keys,
                                                 bool causal, int64_t offset,
                                                 Value queryOffset,
                                                 FullyMasked fullyMasked) {
  RankedTensorType type = make.typeOf(queries);
  SmallVector<int64_t> shape(type.getShape());
  shape[3] = size(keys.value, 3);
  auto logSumExp = RankedTensorType::get(ArrayRef(shape).drop_back(),
                                         make.builder.getF32Type());
  auto local = make.create<AttentionOp>(
      TypeRange{type.clone(shape), logSumExp}, queries, keys.key, keys.value,
      keys.padding, queryOffset, keys.bias, op.getScale(), causal,
      static_cast<uint64_t>(offset), op.getWindow(), op.getSoftcap(),
      fullyMasked, SequenceLayout::contiguous, uint64_t(1));
  return {local.getResult(), local.getLogSumExp()};
}

BlockResult ContextAttention::attendBlock(Value queries, const KeyBlock &keys,
                                          bool causal, int64_t offset) {
  auto [result, logSumExp] = attend(queries, keys, causal, offset,
                                    /*queryOffset=*/Value(), FullyMasked::zero);
  SmallVector<int64_t> column(make.typeOf(logSumExp).getShape());
  column.push_back(1);
  return {make.cast(result, wide),
          make.cast(make.reshape(logSumExp, column), wide)};
}

/// Both as one softmax over all their keys:
/// out = (out_a exp(lse_a - m) + out_b exp(lse_b - m)) / s, lse = m + log s.
BlockResult ContextAttention::merge(const BlockResult &a,
                                    const BlockResult &b) {
  Value peak = make.binary<MaxOp>(a.logSumExp, b.logSumExp);
  // A row that attends nothing yet: -inf - -inf would be NaN.
  Value nothing = make.compare(
      peak, make.scalar(-std::numeric_limits<double>::infinity(), wide),
      ComparePredicate::eq);
  Value shift = make.select(nothing, make.scalar(0, wide), peak);
  Value weightA = make.unary<ExpOp>(make.binary<SubOp>(a.logSumExp, shift));
  Value weightB = make.unary<ExpOp>(make.binary<SubOp>(b.logSumExp, shift));
  Value sum = make.binary<AddOp>(weightA, weightB);
  Value safe = make.select(nothing, make.scalar(1, wide), sum);
  Value result = make.binary<AddOp>(
      make.binary<MulOp>(a.result, make.binary<DivOp>(weightA, safe)),
      make.binary<MulOp>(b.result, make.binary<DivOp>(weightB, safe)));
  return {result, make.binary<AddOp>(make.unary<LogOp>(sum), shift)};
}

/// A value that is the same all along the dim has no halves.
Value ContextAttention::half(Value value, int64_t dim, int64_t index) {
  if (!value || size(value, dim) == 1)
    return value;
  int64_t middle = size(value, dim) / 2;
  return make.sliceDim(value, dim, index * middle, middle);
}

KeyBlock ContextAttention::firstHalf(const KeyBlock &keys) {
  return {half(keys.key, 2, 0), half(keys.value, 2, 0),
          half(keys.padding, 1, 0), half(keys.bias, 3, 0)};
}

KeyBlock ContextAttention::halfRows(const KeyBlock &keys, int64_t index) {
  return {keys.key, keys.value, keys.padding, half(keys.bias, 2, index)};
}

/// A `dshard.if` whose branches give what `like` is.
BlockResult
ContextAttention::branch(Value condition, const BlockResult &like,
                         llvm::function_ref<BlockResult()> thenBody,
                         llvm::function_ref<BlockResult()> elseBody) {
  auto branches = make.create<IfOp>(
      TypeRange{like.result.getType(), like.logSumExp.getType()}, condition);
  OpBuilder::InsertionGuard guard(make.builder);
  for (auto [region, body] : {std::pair(&branches.getThenRegion(), thenBody),
                              std::pair(&branches.getElseRegion(), elseBody)}) {
    // Regions may come with a block that only has its terminator.
    region->getBlocks().clear();
    make.builder.createBlock(region);
    BlockResult given = body();
    YieldOp::create(make.builder, make.loc,
                    ValueRange{given.result, given.logSumExp});
  }
  return {branches.getResult(0), branches.getResult(1)};
}

//===----------------------------------------------------------------------===//
// ring
//===----------------------------------------------------------------------===//

/// Merges what the keys of rank (r - step) mod n give into `sum`. Causal work,
/// with the rank r of the queries:
///
///   zigzag      step <= r: all rows attend the first chunk of the keys, and
///               none the second; else the second chunk of rows attends all
///   contiguous  step <= r: all attend all; else the keys come later: nothing
///   striped     row i attends keys up to i, or up to i - 1 where step > r
BlockResult ContextAttention::mergeStep(int64_t step, const BlockResult &sum,
                                        const KeyBlock &keys) {
  if (!op.getCausal())
    return merge(sum, attendBlock(query, keys, /*causal=*/false));
  Value isEarlier =
      make.compare(rankIndex(), index(step), ComparePredicate::ge);
  switch (layout) {
  case SequenceLayout::zigzag:
    return branch(
        isEarlier, sum,
        [&] {
          return merge(sum,
                       attendBlock(query, firstHalf(keys), /*causal=*/false));
        },
        [&]() -> BlockResult {
          BlockResult later = {half(sum.result, 2, 1),
                               half(sum.logSumExp, 2, 1)};
          later = merge(later, attendBlock(half(query, 2, 1), halfRows(keys, 1),
                                           /*causal=*/false));
          return {make.concat({half(sum.result, 2, 0), later.result}, 2),
                  make.concat({half(sum.logSumExp, 2, 0), later.logSumExp}, 2)};
        });
  case SequenceLayout::contiguous:
    return branch(
        isEarlier, sum,
        [&] { return merge(sum, attendBlock(query, keys, /*causal=*/false)); },
        [&] { return sum; });
  case SequenceLayout::striped:
    break;
  }
  return branch(
      isEarlier, sum,
      [&] { return merge(sum, attendBlock(query, keys, /*causal=*/true)); },
      [&] {
        return merge(sum, attendBlock(query, keys, /*causal=*/true, -1));
      });
}

/// [B,Hkv,T,Dv] -> [B,Hkv,1,Dv].
Value ContextAttention::sumOfValues(Value values) {
  return make.reduce(make.cast(values, wide), ReductionKind::sum, {2},
                     /*keepDims=*/true);
}

/// Rows that attend nothing get the mean of all values.
Value ContextAttention::fillEmptyRows(const BlockResult &sum, Value valueSum) {
  int64_t batch = size(query, 0), heads = size(query, 1),
          keyHeads = size(own.key, 1), last = size(valueSum, 3);
  Value mean = make.binary<DivOp>(
      valueSum, make.scalar(double(ranks * size(own.key, 2)), wide));
  if (heads != keyHeads) {
    mean = make.reshape(mean, {batch, keyHeads, 1, 1, last});
    mean = make.broadcastTo(mean, {batch, keyHeads, heads / keyHeads, 1, last});
    mean = make.reshape(mean, {batch, heads, 1, last});
  }
  Value nothing =
      make.compare(sum.logSumExp,
                   make.scalar(-std::numeric_limits<double>::infinity(), wide),
                   ComparePredicate::eq);
  return make.select(nothing, mean, sum.result);
}

/// What a bias, whose keys lie in the layout's order, has for the keys of rank
/// (r - step) mod n.
Value ContextAttention::biasOfStep(Value bias, int64_t step) {
  if (!bias || size(bias, 3) == 1 || ranks == 1)
    return bias;
  ArrayRef<int64_t> shape = make.typeOf(bias).getShape();
  SmallVector<int64_t> blocks(shape), block(shape);
  blocks[3] = ranks;
  block[3] /= ranks;
  blocks.push_back(block[3]);
  // An index below 0 counts from the end.
  Value rank = make.binary<SubOp>(rankIndex(), index(step));
  return make.create<GatherOp>(make.typeOf(bias).clone(block),
                               make.reshape(bias, blocks), rank,
                               /*offset=*/Value(), uint64_t(3));
}

void ContextAttention::ring(SmallVectorImpl<Value> &results) {
  // Rows without keys get the mean over the keys of all ranks, whose values
  // come by.
  bool fills =
      (own.padding || own.bias) && op.getFullyMasked() == FullyMasked::uniform;
  BlockResult sum;
  Value valueSum;
  KeyBlock keys = own;
  Value bias = toOrder(own.bias, 3, /*inverse=*/false);
  for (int64_t step = 0; step < ranks; ++step) {
    KeyBlock next;
    keys.bias = biasOfStep(bias, step);
    // Before this step's work, which may hide it.
    if (step + 1 < ranks) {
      SmallVector<Value> sent = {keys.key, keys.value};
      if (keys.padding)
        sent.push_back(keys.padding);
      auto permute = make.create<PermuteOp>(
          ValueRange(sent).getTypes(), sent, uint64_t(1), axesAttr(),
          why("pass keys and values around the ring, step " + Twine(step + 1) +
              " of " + Twine(ranks - 1) + ","));
      next = {permute.getResult(0), permute.getResult(1),
              keys.padding ? permute.getResult(2) : Value(), Value()};
    }
    if (step == 0)
      // In every layout a rank's own rows and keys are in natural order.
      sum = attendBlock(query, keys, op.getCausal());
    else
      sum = mergeStep(step, sum, keys);
    if (fills) {
      Value own = sumOfValues(keys.value);
      valueSum = valueSum ? make.binary<AddOp>(valueSum, own) : own;
    }
    keys = next;
  }
  Value result = fills ? fillEmptyRows(sum, valueSum) : sum.result;
  results.push_back(make.cast(result, make.typeOf(query).getElementType()));
  results.push_back(
      make.cast(make.reshape(sum.logSumExp,
                             make.typeOf(sum.logSumExp).getShape().drop_back()),
                make.builder.getF32Type()));
}

//===----------------------------------------------------------------------===//
// all_gather, all_to_all
//===----------------------------------------------------------------------===//

Value ContextAttention::toOrder(Value value, int64_t dim, bool inverse) {
  if (!value || layout == SequenceLayout::contiguous || size(value, dim) == 1)
    return value;
  return make.create<ReorderOp>(value.getType(), value, uint64_t(dim), layout,
                                uint64_t(parts), inverse);
}

Value ContextAttention::gatherSequence(Value value, int64_t dim,
                                       StringRef what) {
  if (!value || axes.empty())
    return value;
  SmallVector<int64_t> shape(make.typeOf(value).getShape());
  shape[dim] *= ranks;
  return make
      .create<AllGatherOp>(TypeRange{make.typeOf(value).clone(shape)}, value,
                           ArrayRef<int64_t>{dim}, axesAttr(),
                           why("gather " + what))
      .getResult(0);
}

/// The sequence is one rank's: natural order, and back.
void ContextAttention::whole(SmallVectorImpl<Value> &results) {
  Value queries = query;
  KeyBlock keys = own;
  bool reorders = isPositional();
  if (reorders) {
    queries = toOrder(query, 2, /*inverse=*/true);
    keys = {toOrder(own.key, 2, true), toOrder(own.value, 2, true),
            toOrder(own.padding, 1, true), toOrder(own.bias, 2, true)};
  } else {
    keys.bias = toOrder(own.bias, 3, false);
  }
  auto [result, logSumExp] =
      attend(queries, keys, op.getCausal(), op.getOffset(), Value(),
             op.getFullyMasked());
  results.push_back(reorders ? toOrder(result, 2, false) : result);
  results.push_back(reorders ? toOrder(logSumExp, 2, false) : logSumExp);
}

void ContextAttention::gather(SmallVectorImpl<Value> &results) {
  KeyBlock keys = {gatherSequence(own.key, 2, "the keys"),
                   gatherSequence(own.value, 2, "the values"),
                   gatherSequence(own.padding, 1, "the padding of keys"),
                   own.bias};
  if (!isPositional()) {
    keys.bias = toOrder(own.bias, 3, false);
    auto [result, logSumExp] = attend(query, keys, false, op.getOffset(),
                                      Value(), op.getFullyMasked());
    results.append({result, logSumExp});
    return;
  }
  keys = {toOrder(keys.key, 2, true), toOrder(keys.value, 2, true),
          toOrder(keys.padding, 1, true), own.bias};
  auto attendFrom = [&](Value queries, const KeyBlock &keys, Value start) {
    return attend(queries, keys, op.getCausal(), op.getOffset(), start,
                  op.getFullyMasked());
  };
  int64_t rows = size(query, 2);
  if (layout == SequenceLayout::contiguous) {
    auto [result, logSumExp] =
        attendFrom(query, keys, make.binary<MulOp>(rankIndex(), index(rows)));
    results.append({result, logSumExp});
    return;
  }
  // zigzag: chunk r, then chunk 2n - 1 - r.
  int64_t chunk = rows / 2;
  Value first = make.binary<MulOp>(rankIndex(), index(chunk));
  Value second = make.binary<SubOp>(index((2 * ranks - 1) * chunk), first);
  auto [early, earlySum] =
      attendFrom(half(query, 2, 0), halfRows(keys, 0), first);
  auto [late, lateSum] =
      attendFrom(half(query, 2, 1), halfRows(keys, 1), second);
  results.push_back(make.concat({early, late}, 2));
  results.push_back(make.concat({earlySum, lateSum}, 2));
}

Value ContextAttention::exchangeDims(Value value, int64_t split, int64_t concat,
                                     StringRef what) {
  SmallVector<int64_t> shape(make.typeOf(value).getShape());
  shape[split] /= ranks;
  shape[concat] *= ranks;
  return make.create<AllToAllOp>(make.typeOf(value).clone(shape), value,
                                 uint64_t(split), uint64_t(concat), axesAttr(),
                                 why(what));
}

/// What a bias has for all rows and the heads that this rank gets.
Value ContextAttention::exchangeBias(Value bias) {
  if (!bias || size(bias, 1) == 1)
    return bias && size(bias, 2) != 1
               ? gatherSequence(bias, 2, "the rows of the bias")
               : bias;
  if (size(bias, 2) != 1)
    return exchangeDims(bias, 1, 2, "exchange the rows of the bias for heads");
  SmallVector<int64_t> shape(make.typeOf(bias).getShape());
  shape[1] /= ranks;
  return make.create<LocalSliceOp>(make.typeOf(bias).clone(shape), bias,
                                   uint64_t(1), axesAttr(),
                                   why("keep the bias of this rank's heads"));
}

void ContextAttention::exchangeIn() {
  auto toHeads = [&](Value value, StringRef what) {
    return exchangeDims(value, 1, 2, what);
  };
  query = toHeads(query, "exchange the sequence of the queries for heads");
  own = {toHeads(own.key, "exchange the sequence of the keys for heads"),
         toHeads(own.value, "exchange the sequence of the values for heads"),
         gatherSequence(own.padding, 1, "the padding of keys"),
         exchangeBias(own.bias)};
}

void ContextAttention::exchangeOut(ArrayRef<Value> given,
                                   SmallVectorImpl<Value> &results) {
  results.push_back(
      exchangeDims(given[0], 2, 1, "exchange heads for the sequence"));
  // Mostly nobody reads it.
  results.push_back(op.getLogSumExp().use_empty()
                        ? make.splat(0, context.localResultTypes[1])
                        : exchangeDims(given[1], 2, 1,
                                       "exchange heads for the sequence of "
                                       "the log-sum-exp"));
}

void ContextAttention::exchange(SmallVectorImpl<Value> &results) {
  exchangeIn();
  SmallVector<Value> given;
  whole(given);
  exchangeOut(given, results);
}

/// An exchange inside groups of neighbours, as large as the heads allow, and a
/// ring over the groups. Together the neighbours hold what one rank would of a
/// ring of groups, in zigzag order of their own.
void ContextAttention::exchangeAndRing(SmallVectorImpl<Value> &results) {
  int64_t heads = size(query, 1), keyHeads = size(own.key, 1), inner = ranks;
  while (ranks % inner != 0 || heads % inner != 0 || keyHeads % inner != 0)
    --inner;
  AxisRefAttr axis = axes[0];
  int64_t outer = ranks / inner;
  auto part = [&](int64_t pre, int64_t size) {
    return AxisRefAttr::get(op.getContext(), axis.getName(), pre, size);
  };
  if (inner == 1)
    return ring(results);
  if (outer == 1)
    return exchange(results);
  bool reorders = isPositional();
  axes = {part(axis.getPre() * outer, inner)};
  ranks = parts = inner;
  exchangeIn();
  if (reorders) {
    query = toOrder(query, 2, /*inverse=*/true);
    own = {toOrder(own.key, 2, true), toOrder(own.value, 2, true),
           toOrder(own.padding, 1, true)};
  }
  axes = {part(axis.getPre(), outer)};
  ranks = parts = outer;
  SmallVector<Value> given;
  ring(given);
  axes = {part(axis.getPre() * outer, inner)};
  ranks = parts = inner;
  if (reorders)
    for (Value &value : given)
      value = toOrder(value, 2, /*inverse=*/false);
  exchangeOut(given, results);
}

//===----------------------------------------------------------------------===//

LogicalResult mlir::dshard::partitionContextAttention(
    AttentionOp op, OpBuilder &builder, ValueRange operands,
    const PartitionContext &context, SmallVectorImpl<Value> &results) {
  if (op.getQueryOffset())
    return op.emitOpError() << "has a query_offset, which only a local one has";
  Type element = op.getQuery().getType().getElementType();
  ContextAttention attention{
      op,
      DShardBuilder(builder, op),
      context,
      {},
      1,
      int64_t(op.getParts()),
      op.getLayout(),
      element.isF64() ? element : Type(builder.getF32Type()),
      operands[0],
      {operands[1], operands[2], op.getKeyPadding() ? operands[3] : Value(),
       op.getBias() ? operands.back() : Value()}};
  for (AxisRefAttr axis : context.operandShardings[0].getDims()[2].getAxes())
    if (int64_t size = context.mesh.getSize(axis); size > 1) {
      attention.axes.push_back(axis);
      attention.ranks *= size;
    }
  auto method = op->getAttrOfType<StringAttr>(contextMethodAttrName);
  StringRef name = method ? method.getValue() : "ring";
  if (failed(attention.verify(name)))
    return failure();
  if (attention.axes.empty())
    attention.whole(results);
  else if (name == "ring")
    attention.ring(results);
  else if (name == "all_gather")
    attention.gather(results);
  else if (name == "hierarchical")
    attention.exchangeAndRing(results);
  else
    attention.exchange(results);
  return success();
}
