//===- AttentionOps.cpp - ONNX Attention and RotaryEmbedding --------------===//

#include "AttentionOps.h"
#include "AttentionCache.h"
#include "llvm/ADT/STLExtras.h"
#include <cmath>
#include <limits>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

Value onnx::splitHeads(NodeImporter &n, Value x, int64_t heads,
                       StringRef what) {
  if (n.failed())
    return {};
  int64_t width = n.shape(x)[2];
  if (heads < 1 || width % heads != 0) {
    n.fail(what + " has a last dim of " + Twine(width) +
           ", not divisible into " + Twine(heads) + " heads");
    return {};
  }
  return n.transpose(
      n.reshape(x, {n.shape(x)[0], n.shape(x)[1], heads, width / heads}),
      {0, 2, 1, 3});
}

Value onnx::mergeHeads(NodeImporter &n, Value x) {
  if (n.failed())
    return {};
  ArrayRef<int64_t> s = n.shape(x);
  return n.reshape(n.transpose(x, {0, 2, 1, 3}), {s[0], s[2], s[1] * s[3]});
}

//===----------------------------------------------------------------------===//
// RotaryEmbedding
//===----------------------------------------------------------------------===//

void onnx::importRotaryEmbedding(NodeImporter &n) {
  if (!n.expectInputs(3, 4))
    return;
  Value x = n.input(0), cos = n.input(1), sin = n.input(2);
  int64_t width = n.intAttr("rotary_embedding_dim", 0);
  bool interleaved = n.intAttr("interleaved", 0) != 0;
  int64_t heads = n.intAttr("num_heads", 0);
  if (n.failed())
    return;
  bool merged = n.rank(x) == 3;
  if (!merged && n.rank(x) != 4)
    return n.fail("input 0 has " + Twine(n.rank(x)) +
                  " dims; 3 or 4 are needed");
  if (merged)
    x = splitHeads(n, x, heads, "input 0");
  if (n.hasInput(3)) {
    // Caches [max, D/2] and positions [B,S] or [1].
    Value positions = n.input(3);
    if (n.failed())
      return;
    if (n.rank(cos) != 2 || n.rank(sin) != 2 || n.rank(positions) != 2)
      return n.fail(
          "with position_ids the caches and position_ids need 2 dims");
    cos = n.gather(cos, positions, 0);
    sin = n.gather(sin, positions, 0);
  }
  if (n.failed())
    return;
  int64_t size = n.shape(x)[3], rotated = width ? width : size;
  if (rotated < 2 || rotated > size || rotated % 2)
    return n.fail("cannot rotate " + Twine(rotated) + " of " + Twine(size) +
                  " entries");
  SmallVector<int64_t> wanted = {n.shape(x)[0], n.shape(x)[2], rotated / 2};
  for (Value *cache : {&cos, &sin}) {
    ArrayRef<int64_t> shape = n.shape(*cache);
    // Exporters leave a batch of 1.
    if (shape.size() != 3 || (shape[0] != wanted[0] && shape[0] != 1) ||
        shape[1] != wanted[1] || shape[2] != wanted[2])
      return n.fail("cos and sin need the shape [" + Twine(wanted[0]) +
                    " or 1," + Twine(wanted[1]) + "," + Twine(wanted[2]) + "]");
    *cache = n.cast(*cache, n.elementOf(x));
  }
  Value head = n.part(x, 3, 0, rotated);
  SmallVector<NamedAttribute> flags;
  if (interleaved)
    flags.push_back(n.unit("interleaved"));
  Value result = n.build<RotaryOp>(n.typeOf(head), {head, cos, sin}, flags);
  if (rotated < size)
    result = n.concat({result, n.part(x, 3, rotated, size - rotated)}, 3);
  n.set(0, merged ? mergeHeads(n, result) : result);
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// [B,Hkv,T,D] -> [B,H,T,D].
static Value repeatHeads(NodeImporter &n, Value x, int64_t heads) {
  if (n.failed() || n.shape(x)[1] == heads)
    return x;
  ArrayRef<int64_t> s = n.shape(x);
  int64_t b = s[0], kv = s[1], t = s[2], d = s[3];
  x = n.broadcastTo(n.reshape(x, {b, kv, 1, t, d}), {b, kv, heads / kv, t, d});
  return n.reshape(x, {b, heads, t, d});
}

/// True where attended, for masks of booleans; else added to the scores. A mask
/// may be shorter than the keys: the rest is not attended.
static Value padMask(NodeImporter &n, Value mask, int64_t keys) {
  if (n.failed())
    return {};
  int64_t have = n.rank(mask) ? n.shape(mask).back() : 0;
  if (have == keys || have == 1)
    return mask;
  if (have > keys || n.rank(mask) > 4) {
    n.fail("the mask's last dim is " + Twine(have) + ", there are " +
           Twine(keys) + " keys");
    return {};
  }
  SmallVector<int64_t> low(n.rank(mask), 0), high(n.rank(mask), 0),
      shape(n.shape(mask));
  high.back() = keys - have;
  shape.back() = keys;
  double fill = n.elementOf(mask).isInteger(1)
                    ? 0
                    : -std::numeric_limits<double>::infinity();
  return n.build<PadOp>(
      n.type(shape, n.elementOf(mask)), mask,
      {n.attr("low", low), n.attr("high", high), n.attr("value", fill)});
}

Value onnx::decomposedAttention(NodeImporter &n, Value q, Value k, Value v,
                                Value mask, bool causal, double scale,
                                double softcap, Value sinks) {
  int64_t heads = n.shape(q)[1], queries = n.shape(q)[2], keys = n.shape(k)[2];
  Type element = n.elementOf(q);
  k = repeatHeads(n, k, heads);
  v = repeatHeads(n, v, heads);
  Value scores = n.matmul(q, k, false, true);
  scores = n.pointwise<MulOp>({scores, n.scalar(element, scale)});
  if (softcap > 0) {
    Value cap = n.scalar(element, softcap);
    scores = n.pointwise<MulOp>(
        {n.pointwise<TanhOp>(n.pointwise<DivOp>({scores, cap})), cap});
  }
  Value never = n.scalar(element, -std::numeric_limits<double>::infinity());
  if (causal) {
    Type i64 = n.graph.builder().getI64Type();
    Value visible =
        n.compare(ComparePredicate::le, n.iota({1, 1, 1, keys}, i64, 3),
                  n.iota({1, 1, queries, 1}, i64, 2));
    scores = n.pointwise<SelectOp>({visible, scores, never}, element);
  }
  bool boolean = mask && n.elementOf(mask).isInteger(1);
  if (mask) {
    SmallVector<int64_t> shape(n.shape(scores));
    scores = boolean ? n.pointwise<SelectOp>({mask, scores, never}, element)
                     : n.pointwise<AddOp>({scores, n.cast(mask, element)});
    if (!n.failed() && n.shape(scores) != ArrayRef(shape))
      n.fail("the mask does not broadcast to the scores");
  }
  if (sinks && !n.failed()) {
    SmallVector<int64_t> column(n.shape(scores));
    column[3] = 1;
    sinks = n.cast(n.reshape(sinks, {1, heads, 1, 1}), element);
    scores = n.concat({scores, n.broadcastTo(sinks, column)}, 3);
  }
  Value weights = n.failed() ? Value()
                             : n.build<SoftmaxOp>(n.typeOf(scores), scores,
                                                  n.attr("dim", int64_t(3)));
  if (sinks) // never nothing to attend
    return n.failed() ? Value()
                      : n.matmul(n.part(weights, 3, 0, keys), v, false, false);
  // A row that attends nothing is zero.
  Value lost = n.pointwise<IsNanOp>(weights, n.graph.builder().getI1Type());
  weights =
      n.pointwise<SelectOp>({lost, n.scalar(element, 0), weights}, element);
  return n.matmul(weights, v, false, false);
}

void onnx::importAttention(NodeImporter &n) {
  if (!n.expectInputs(3, 7))
    return;
  Value q = n.input(0), k = n.input(1), v = n.input(2);
  AttentionForm form;
  form.causal = n.intAttr("is_causal", 0) != 0;
  form.softcap = n.floatAttr("softcap", 0);
  form.left = n.intAttr("left_window_size", -1);
  form.right = n.intAttr("right_window_size", -1);
  form.shown = n.intAttr("qk_matmul_output_mode", 0);
  form.lengths = n.input(6);
  int64_t queryHeads = n.intAttr("q_num_heads", 0),
          keyHeads = n.intAttr("kv_num_heads", 0);
  if (form.left < -1 || form.right < -1)
    n.fail("a window is -1 or not negative");
  if (form.shown < 0 || form.shown > 3)
    n.fail("qk_matmul_output_mode is " + Twine(form.shown) +
           "; 0 to 3 are possible");
  if (n.hasInput(4) != n.hasInput(5))
    n.fail("past_key and past_value belong together");
  if (n.hasInput(4) && form.lengths)
    n.fail("nonpad_kv_seqlen and past_key exclude each other");
  if (n.failed())
    return;
  bool merged = n.rank(q) == 3;
  if (merged && n.rank(k) == 3 && n.rank(v) == 3) {
    q = splitHeads(n, q, queryHeads, "the query");
    k = splitHeads(n, k, keyHeads, "the key");
    v = splitHeads(n, v, keyHeads, "the value");
  }
  if (n.failed())
    return;
  if (n.rank(q) != 4 || n.rank(k) != 4 || n.rank(v) != 4)
    return n.fail("query, key and value need 4 dims, or 3 each");
  auto join = [&](int i, Value now) {
    Value past = n.input(i);
    if (!past || n.failed())
      return now;
    ArrayRef<int64_t> a = n.shape(past), b = n.shape(now);
    if (a.size() != 4 || a[0] != b[0] || a[1] != b[1] || a[3] != b[3] ||
        n.elementOf(past) != n.elementOf(now)) {
      n.fail("input " + Twine(i) + " does not suit what comes behind it");
      return now;
    }
    form.past = a[2];
    return n.concat({past, now}, 2);
  };
  k = join(4, k);
  v = join(5, v);
  n.set(1, k);
  n.set(2, v);
  if (n.failed())
    return;
  ArrayRef<int64_t> qs = n.shape(q), ks = n.shape(k), vs = n.shape(v);
  if (qs[0] != ks[0] || qs[0] != vs[0] || ks[2] != vs[2] || qs[3] != ks[3] ||
      ks[1] != vs[1] || ks[1] == 0 || qs[1] % ks[1] != 0)
    return n.fail("shapes of query, key and value do not agree");
  double scale =
      n.floatAttr("scale", 1.0 / std::sqrt(static_cast<double>(qs[3])));
  if (form.lengths &&
      (n.rank(form.lengths) != 1 || n.shape(form.lengths)[0] != qs[0]))
    return n.fail("input 6 (nonpad_kv_seqlen) must have one number for each "
                  "batch");
  form.scale = scale;
  Value mask = n.hasInput(3) ? padMask(n, n.input(3), ks[2]) : Value();
  mask = combineMasks(n, form, mask, qs[2], ks[2]);
  bool causal = form.causal;
  double softcap = form.softcap;
  Value result;
  if (n.hasOutput(3)) {
    Value shown;
    std::tie(result, shown) = showAttention(
        n, form, q, repeatHeads(n, k, qs[1]), repeatHeads(n, v, qs[1]), mask);
    n.set(3, shown);
  } else if (mask) {
    result = n.failed() ? Value()
                        : decomposedAttention(n, q, k, v, mask, causal, scale,
                                              softcap);
  } else {
    OpBuilder &builder = n.graph.builder();
    SmallVector<NamedAttribute> attributes = {n.attr("scale", scale),
                                              n.attr("softcap", softcap)};
    if (causal)
      attributes.push_back(n.unit("causal"));
    auto type = n.type({qs[0], qs[1], qs[2], vs[3]}, n.elementOf(q));
    auto sums = n.type({qs[0], qs[1], qs[2]}, builder.getF32Type());
    result = n.buildAttention(type, sums, {q, k, v}, attributes);
  }
  n.set(0, merged ? mergeHeads(n, result) : result);
}
