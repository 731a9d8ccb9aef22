//===- GroupQueryAttention.cpp - com.microsoft GroupQueryAttention --------===//
//
// Rotation, cache and attention in one node: what onnxruntime-genai's builder
// writes. Semantics: docs/ContribOperators.md of onnxruntime and its CPU kernel
// (softcap before attention_bias). One thing it refuses is taken here: several
// new tokens after a past in a batch of several rows, each behind its own past.
//
//===----------------------------------------------------------------------===//

#include "AttentionOps.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Keys and values of the past with the new ones after each row's own length:
/// element j of row b is past[b, j] for j < start[b], then new[b, j - start].
static Value appendToPast(NodeImporter &n, Value past, Value fresh,
                          Value starts) {
  if (n.failed())
    return {};
  int64_t P = n.shape(past)[2], B = n.shape(past)[0];
  Value both = n.concat({past, fresh}, 2);
  if (n.failed())
    return {};
  int64_t T = n.shape(both)[2];
  Type i64 = n.graph.builder().getI64Type();
  Value key = n.iota({1, T}, i64, 1), start = n.reshape(starts, {B, 1});
  Value moved =
      n.pointwise<AddOp>({n.pointwise<SubOp>({key, start}), n.scalar(i64, P)});
  Value last = n.pointwise<MinOp>({moved, n.scalar(i64, T - 1)});
  Value index = n.pointwise<SelectOp>(
      {n.compare(ComparePredicate::lt, key, start), key, last}, i64);
  if (n.failed())
    return {};
  Value rows = n.transpose(both, {0, 2, 1, 3}); // [B,T,H,D]
  SmallVector<int64_t> shape(n.shape(rows));
  rows = n.build<GatherNdOp>(n.type(shape, n.elementOf(rows)),
                             {rows, n.reshape(index, {B, T, 1})},
                             n.attr("batch_dims", int64_t(1)));
  return n.transpose(rows, {0, 2, 1, 3});
}

/// Where each row's S new tokens begin: they are the last valid ones, but of a
/// first prompt (then total_sequence_length is S) the padding is among them.
static Value firstOfNew(NodeImporter &n, Value lastKey, int64_t S) {
  Type i64 = n.graph.builder().getI64Type();
  Value behind =
      n.pointwise<SubOp>({lastKey, n.scalar(i64, static_cast<double>(S - 1))});
  if (S == 1 || !n.hasInput(6))
    return behind;
  Value total = n.input(6);
  if (n.failed() || n.typeOf(total).getNumElements() != 1) {
    n.fail("total_sequence_length is not one number");
    return {};
  }
  Value none = n.scalar(i64, 0);
  Value isFirst =
      n.compare(ComparePredicate::eq, n.cast(n.reshape(total, {1}), i64),
                n.scalar(i64, static_cast<double>(S)));
  if (auto known = n.knownInts(isFirst))
    return known->front() ? n.broadcastTo(none, n.shape(behind)) : behind;
  return n.pointwise<SelectOp>({isFirst, none, behind}, i64);
}

void onnx::importGroupQueryAttention(NodeImporter &n) {
  if (!n.expectInputs(1, 12))
    return;
  static constexpr StringRef inputs[] = {"query",
                                         "key",
                                         "value",
                                         "past_key",
                                         "past_value",
                                         "seqlens_k",
                                         "total_sequence_length",
                                         "cos_cache",
                                         "sin_cache",
                                         "position_ids",
                                         "attention_bias",
                                         "head_sink"};
  // onnxruntime's CPU kernel does not read them.
  if (n.hasInput(9))
    return n.fail("input 9 (position_ids) is not supported");
  for (int i : {0, 5})
    if (!n.hasInput(i))
      return n.fail("input " + Twine(i) + " (" + inputs[i] + ") is missing");
  Value q = n.input(0), k, v;
  int64_t heads = n.intAttr("num_heads", 0), kv = n.intAttr("kv_num_heads", 0);
  int64_t window = n.intAttr("local_window_size", -1);
  double softcap = n.floatAttr("softcap", 0), scale = n.floatAttr("scale", 0);
  bool rotary = n.intAttr("do_rotary", 0),
       interleaved = n.intAttr("rotary_interleaved", 0);
  bool smooth = n.intAttr("smooth_softmax", 0) > 0;
  for (StringRef flag : {"qk_output", "sliding_window_cache"})
    if (n.intAttr(flag, 0) > 0)
      n.fail("attribute " + quote(flag) + " is not supported");
  for (StringRef flag : {"k_quant_type", "v_quant_type"})
    if (n.stringAttr(flag, "NONE") != "NONE")
      n.fail("attribute " + quote(flag) + " is not supported");
  if (n.intAttr("kv_cache_bit_width", 0))
    n.fail("a quantised cache is not supported");
  if (n.failed())
    return;
  if (heads < 1 || kv < 1 || heads % kv != 0)
    return n.fail("kv_num_heads " + Twine(kv) + " does not divide num_heads " +
                  Twine(heads));
  if (n.rank(q) != 3)
    return n.fail("the query has " + Twine(n.rank(q)) + " dims, not 3");
  if (n.hasInput(1)) {
    k = splitHeads(n, n.input(1), kv, "the key");
    v = splitHeads(n, n.input(2), kv, "the value");
    q = splitHeads(n, q, heads, "the query");
  } else {
    int64_t all = heads + 2 * kv, width = n.shape(q)[2];
    if (width % all != 0)
      return n.fail("the packed query, key and value have a last dim of " +
                    Twine(width) + ", not divisible into " + Twine(all) +
                    " heads");
    int64_t d = width / all;
    k = splitHeads(n, n.part(q, 2, heads * d, kv * d), kv, "the key");
    v = splitHeads(n, n.part(q, 2, (heads + kv) * d, kv * d), kv, "the value");
    q = splitHeads(n, n.part(q, 2, 0, heads * d), heads, "the query");
  }
  if (n.failed())
    return;
  int64_t B = n.shape(q)[0], S = n.shape(q)[2], d = n.shape(q)[3], P = 0;
  Value pastKey, pastValue;
  if (n.hasInput(3) && n.hasInput(4)) {
    pastKey = n.input(3);
    pastValue = n.input(4);
    if (n.failed())
      return;
    for (Value past : {pastKey, pastValue})
      if (n.rank(past) != 4 || n.shape(past)[0] != B ||
          n.shape(past)[1] != kv || n.shape(past)[3] != d)
        return n.fail("the past has not the shape [" + Twine(B) + "," +
                      Twine(kv) + ",past," + Twine(d) + "]");
    P = n.shape(pastKey)[2];
    if (n.shape(pastValue)[2] != P)
      return n.fail("the pasts of key and value differ in length: " + Twine(P) +
                    " != " + Twine(n.shape(pastValue)[2]));
  }
  // The last valid key of each row. After a past, which may be a buffer with
  // room, the new tokens are the last of them.
  OpBuilder &builder = n.graph.builder();
  Type i64 = builder.getI64Type();
  Value lastKey = n.cast(n.reshape(n.input(5), {B}), i64);
  Value starts;
  if (P > 0)
    starts = firstOfNew(n, lastKey, S);
  Value query = n.iota({1, 1, S, 1}, i64, 2);
  if (starts)
    query = n.pointwise<AddOp>({query, n.reshape(starts, {B, 1, 1, 1})});
  if (rotary) {
    if (!n.hasInput(7) || !n.hasInput(8))
      return n.fail("do_rotary needs cos_cache and sin_cache");
    Value cos = n.input(7), sin = n.input(8);
    Value positions = n.reshape(query, {starts ? B : 1, S});
    q = rotateByTable(n, q, cos, sin, positions, interleaved);
    k = rotateByTable(n, k, cos, sin, positions, interleaved);
  }
  if (P > 0) {
    k = appendToPast(n, pastKey, k, starts);
    v = appendToPast(n, pastValue, v, starts);
  }
  if (n.failed())
    return;
  int64_t T = n.shape(k)[2];
  // Up to the query itself, and to the row's end: right padding.
  Value key = n.iota({1, 1, 1, T}, i64, 3);
  Value mask =
      n.compare(ComparePredicate::le, key, n.reshape(lastKey, {B, 1, 1, 1}));
  if (S > 1) { // one query sees all up to the row's end
    Value causal = n.compare(ComparePredicate::le, key, query);
    mask = n.pointwise<AndOp>({causal, mask});
  }
  if (window > 0) {
    Value first = n.pointwise<SubOp>({query, n.scalar(i64, window)});
    Value inside = n.compare(ComparePredicate::gt, key, first);
    mask = n.pointwise<AndOp>({inside, mask});
  }
  if (n.hasInput(10)) {
    // It may be longer than the keys are.
    Value bias = n.input(10);
    if (!n.failed() && (n.rank(bias) != 4 || n.shape(bias)[3] < T))
      n.fail("attention_bias needs 4 dims, the last of at least " + Twine(T));
    if (n.failed())
      return;
    bias = n.part(bias, 3, 0, T);
    Type element = n.elementOf(bias);
    mask = n.pointwise<SelectOp>(
        {mask, bias,
         n.scalar(element, -std::numeric_limits<double>::infinity())},
        element);
  }
  Value sinks;
  if (n.hasInput(11)) {
    sinks = n.input(11);
    if (!n.failed() && n.typeOf(sinks).getNumElements() != heads)
      n.fail("head_sink has " + Twine(n.typeOf(sinks).getNumElements()) +
             " elements; " + Twine(heads) + " are needed");
  } else if (smooth) {
    sinks = n.splat(n.type({heads}, n.elementOf(q)), 0);
  }
  if (scale == 0)
    scale = 1.0 / std::sqrt(static_cast<double>(d));
  Value result = n.failed() ? Value()
                            : decomposedAttention(n, q, k, v, mask, false,
                                                  scale, softcap, sinks);
  n.set(0, mergeHeads(n, result));
  if (n.hasOutput(1))
    n.set(1, k);
  if (n.hasOutput(2))
    n.set(2, v);
}
