//===- MicrosoftOps.cpp - Ops of the domain com.microsoft -----------------===//
//
// What onnxruntime-genai's builder and transformers' fusions write. Semantics:
// docs/ContribOperators.md of onnxruntime.
//
//===----------------------------------------------------------------------===//

#include "AttentionOps.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

//===----------------------------------------------------------------------===//
// Norms, GELU, products
//===----------------------------------------------------------------------===//

/// norm(input + skip [+ bias]); output 3 is the sum.
static void importSkipNorm(NodeImporter &n, bool isRms) {
  if (!n.expectInputs(3, isRms ? 4 : 5))
    return;
  Value x = n.input(0), skip = n.input(1), weight = n.input(2);
  double epsilon = n.floatAttr("epsilon", 1e-12);
  int biasOfSum = isRms ? 3 : 4;
  for (int i : {1, 2})
    if (n.hasOutput(i))
      n.fail("output " + Twine(i) + " is not supported");
  Value sum = n.pointwise<AddOp>({x, skip});
  if (n.hasInput(biasOfSum))
    sum = n.pointwise<AddOp>({sum, n.input(biasOfSum)});
  if (n.failed())
    return;
  if (n.rank(sum) < 1 || n.rank(weight) != 1 ||
      n.shape(weight)[0] != n.shape(sum).back())
    return n.fail("the scale does not have the size of the last dim");
  SmallVector<Value> operands = {sum, weight};
  if (!isRms && n.hasInput(3))
    operands.push_back(n.input(3));
  if (n.failed())
    return;
  NamedAttribute attribute = n.attr("epsilon", epsilon);
  n.set(0, isRms ? n.build<RmsNormOp>(n.typeOf(sum), operands, attribute)
                 : n.build<LayerNormOp>(n.typeOf(sum), operands, attribute));
  if (n.hasOutput(3))
    n.set(3, sum);
}

void onnx::importSkipLayerNorm(NodeImporter &n) { importSkipNorm(n, false); }
void onnx::importSkipSimplifiedLayerNorm(NodeImporter &n) {
  importSkipNorm(n, true);
}

void onnx::importBiasGelu(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value sum = n.pointwise<AddOp>({n.input(0), n.input(1)});
  n.set(0, n.failed() ? Value() : n.build<GeluOp>(n.typeOf(sum), sum));
}

/// x sigmoid(alpha x).
void onnx::importQuickGelu(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  double alpha = n.floatAttr("alpha", 1.702);
  if (n.failed())
    return;
  Value scaled = n.pointwise<MulOp>({x, n.scalar(n.elementOf(x), alpha)});
  n.set(0, n.pointwise<MulOp>({x, n.pointwise<SigmoidOp>(scaled)}));
}

void onnx::importFusedMatMul(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  for (StringRef flag : {"transBatchA", "transBatchB"})
    if (n.intAttr(flag, 0))
      n.fail("attribute " + quote(flag) + " is not supported");
  bool transposeLhs = n.intAttr("transA", 0),
       transposeRhs = n.intAttr("transB", 0);
  double alpha = n.floatAttr("alpha", 1);
  Value product = n.matmul(n.input(0), n.input(1), transposeLhs, transposeRhs);
  if (!n.failed() && alpha != 1)
    product =
        n.pointwise<MulOp>({product, n.scalar(n.elementOf(product), alpha)});
  n.set(0, product);
}

//===----------------------------------------------------------------------===//
// Rotary embeddings
//===----------------------------------------------------------------------===//

/// x [B,H,S,D] rotated by caches [max, R/2] at `positions` [B or 1, S]; only
/// the first R entries of D.
static Value rotate(NodeImporter &n, Value x, Value cos, Value sin,
                    Value positions, bool interleaved) {
  if (n.failed())
    return {};
  if (n.rank(cos) != 2 || n.shape(cos) != n.shape(sin)) {
    n.fail("cos_cache and sin_cache are not two tables of one shape");
    return {};
  }
  int64_t size = n.shape(x)[3], rotated = 2 * n.shape(cos)[1];
  if (rotated == 0 || rotated > size) {
    n.fail("cannot rotate " + Twine(rotated) + " of " + Twine(size) +
           " entries");
    return {};
  }
  cos = n.cast(n.gather(cos, positions, 0), n.elementOf(x));
  sin = n.cast(n.gather(sin, positions, 0), n.elementOf(x));
  Value head = n.part(x, 3, 0, rotated);
  SmallVector<NamedAttribute> flags;
  if (interleaved)
    flags.push_back(n.unit("interleaved"));
  if (n.failed())
    return {};
  Value result = n.build<RotaryOp>(n.typeOf(head), {head, cos, sin}, flags);
  if (rotated < size)
    result = n.concat({result, n.part(x, 3, rotated, size - rotated)}, 3);
  return result;
}

/// Here position_ids is input 1, and x is [B,S,H*D] or [B,H,S,D].
void onnx::importMicrosoftRotaryEmbedding(NodeImporter &n) {
  if (!n.expectInputs(4, 4))
    return;
  Value x = n.input(0), positions = n.input(1), cos = n.input(2),
        sin = n.input(3);
  bool interleaved = n.intAttr("interleaved", 0);
  int64_t heads = n.intAttr("num_heads", 0),
          width = n.intAttr("rotary_embedding_dim", 0);
  if (n.intAttr("is_packed_batching", 0) || n.floatAttr("scale", 1) != 1)
    n.fail("is_packed_batching and scale are not supported");
  if (n.failed())
    return;
  bool merged = n.rank(x) == 3;
  if (!merged && n.rank(x) != 4)
    return n.fail("input 0 has " + Twine(n.rank(x)) +
                  " dims; 3 or 4 are needed");
  if (merged && heads == 0 && width == 0 && n.rank(cos) == 2 &&
      n.shape(cos)[1] > 0)
    heads = n.shape(x)[2] / (2 * n.shape(cos)[1]);
  if (merged)
    x = splitHeads(n, x, heads, "input 0");
  if (n.failed())
    return;
  int64_t B = n.shape(x)[0], S = n.shape(x)[2];
  if (n.rank(positions) == 1 && n.typeOf(positions).getNumElements() == 1)
    // The first position of all rows.
    positions = n.pointwise<AddOp>({n.reshape(positions, {1, 1}),
                                    n.iota({1, S}, n.elementOf(positions), 1)});
  if (n.failed())
    return;
  if (n.rank(positions) != 2 || n.shape(positions)[1] != S ||
      (n.shape(positions)[0] != B && n.shape(positions)[0] != 1))
    return n.fail("position_ids need the shape [" + Twine(B) + "," + Twine(S) +
                  "] or [1]");
  Value result = rotate(n, x, cos, sin, positions, interleaved);
  n.set(0, merged ? mergeHeads(n, result) : result);
}

//===----------------------------------------------------------------------===//
// GroupQueryAttention
//===----------------------------------------------------------------------===//

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
  for (int i : {9, 10, 11})
    if (n.hasInput(i))
      return n.fail("input " + Twine(i) + " (" + inputs[i] +
                    ") is not supported");
  for (int i : {0, 5})
    if (!n.hasInput(i))
      return n.fail("input " + Twine(i) + " (" + inputs[i] + ") is missing");
  Value q = n.input(0), k, v;
  int64_t heads = n.intAttr("num_heads", 0), kv = n.intAttr("kv_num_heads", 0);
  int64_t window = n.intAttr("local_window_size", -1);
  double softcap = n.floatAttr("softcap", 0), scale = n.floatAttr("scale", 0);
  bool rotary = n.intAttr("do_rotary", 0),
       interleaved = n.intAttr("rotary_interleaved", 0);
  for (StringRef flag : {"smooth_softmax", "qk_output", "sliding_window_cache"})
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
  if (P > 0 && S > 1 && B > 1)
    return n.fail("several new tokens after a past of " + Twine(P) +
                  " need a batch of 1, it is " + Twine(B));

  // The last valid key of each row. After a past, which may be a buffer with
  // room, the new tokens are the last of them.
  OpBuilder &builder = n.graph.builder();
  Type i64 = builder.getI64Type();
  Value lastKey = n.cast(n.reshape(n.input(5), {B}), i64);
  Value starts;
  if (P > 0)
    starts = n.pointwise<SubOp>(
        {lastKey, n.scalar(i64, static_cast<double>(S - 1))});
  Value query = n.iota({1, 1, S, 1}, i64, 2);
  if (starts)
    query = n.pointwise<AddOp>({query, n.reshape(starts, {B, 1, 1, 1})});
  if (rotary) {
    if (!n.hasInput(7) || !n.hasInput(8))
      return n.fail("do_rotary needs cos_cache and sin_cache");
    Value cos = n.input(7), sin = n.input(8);
    Value positions = n.reshape(query, {starts ? B : 1, S});
    q = rotate(n, q, cos, sin, positions, interleaved);
    k = rotate(n, k, cos, sin, positions, interleaved);
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
  if (scale == 0)
    scale = 1.0 / std::sqrt(static_cast<double>(d));
  Value result =
      n.failed() ? Value()
                 : decomposedAttention(n, q, k, v, mask, false, scale, softcap);
  n.set(0, mergeHeads(n, result));
  if (n.hasOutput(1))
    n.set(1, k);
  if (n.hasOutput(2))
    n.set(2, v);
}
