//===- LinearAttentionOps.cpp - ONNX ops of linear-attention layers -------===//

#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// More steps than people want to wait for: each is a handful of ops.
static constexpr int64_t maxSteps = 512;

/// A depthwise convolution over the last positions, of which `past_state` has
/// those before the first.
void onnx::importCausalConvWithState(NodeImporter &n) {
  if (!n.expectInputs(2, 4))
    return;
  Value x = n.input(0), weight = n.input(1), bias = n.input(2),
        past = n.input(3);
  std::string activation = n.stringAttr("activation", "none");
  if (n.failed())
    return;
  if (activation != "none" && activation != "silu" && activation != "swish")
    return n.fail("activation is " + quote(activation) +
                  "; none, silu or swish is needed");
  if (n.rank(x) != 3 || n.rank(weight) != 3 || n.shape(weight)[1] != 1 ||
      n.shape(weight)[0] != n.shape(x)[1])
    return n.fail("the input must be [batch,channels,length], the weight "
                  "[channels,1,size]");
  int64_t batch = n.shape(x)[0], channels = n.shape(x)[1],
          length = n.shape(x)[2], size = n.shape(weight)[2];
  if (size < 1 || size > maxSteps)
    return n.fail("the weight has size " + Twine(size) + "; 1 to " +
                  Twine(maxSteps) + " are supported");
  SmallVector<int64_t> before = {batch, channels, size - 1};
  if (past && (n.shape(past) != ArrayRef<int64_t>(before) ||
               n.elementOf(past) != n.elementOf(x)))
    return n.fail("input 3 (past_state) must be the " + Twine(size - 1) +
                  " positions before the input");
  if (bias && (n.rank(bias) != 1 || n.shape(bias)[0] != channels))
    return n.fail("input 2 (bias) must have one number for each channel");
  if (!past)
    past = n.splat(n.type(before, n.elementOf(x)), 0);
  Value padded = size > 1 ? n.concat({past, x}, 2) : x;
  Arithmetic a(n);
  Value wide = a.wide(padded), factors = a.wide(weight), sum;
  for (int64_t i = 0; i < size && !n.failed(); ++i) {
    Value factor = n.reshape(n.part(factors, 2, i, 1), {channels, 1});
    Value term = a.mul(n.part(wide, 2, i, length), factor);
    sum = sum ? a.add(sum, term) : term;
  }
  if (bias)
    sum = a.add(sum, n.reshape(a.wide(bias), {channels, 1}));
  sum = a.narrow(sum, x);
  if (activation != "none")
    sum = n.pointwise<SiluOp>(sum);
  n.set(0, sum);
  if (n.hasOutput(1))
    n.set(1, n.part(padded, 2, length, size - 1));
}

/// [B,T,H*D] -> [B,H,T,D].
static Value splitPacked(NodeImporter &n, Value x, int64_t heads) {
  if (n.failed() || !x)
    return {};
  int64_t batch = n.shape(x)[0], steps = n.shape(x)[1],
          width = n.shape(x)[2] / heads;
  return n.transpose(n.reshape(x, {batch, steps, heads, width}), {0, 2, 1, 3});
}

/// A state [B,Hkv,Dk,Dv] that every step decays, corrects and adds to.
void onnx::importLinearAttention(NodeImporter &n) {
  if (!n.expectInputs(3, 6))
    return;
  Value q = n.input(0), k = n.input(1), v = n.input(2), past = n.input(3),
        decay = n.input(4), beta = n.input(5);
  std::string rule = n.stringAttr("update_rule", "gated_delta");
  int64_t heads = n.intAttr("q_num_heads", 0),
          keyHeads = n.intAttr("kv_num_heads", 0);
  double scale = n.floatAttr("scale", 0);
  (void)n.intAttr("chunk_size", 0); // how, not what
  if (n.failed())
    return;
  bool gated = rule == "gated" || rule == "gated_delta",
       corrected = rule == "delta" || rule == "gated_delta";
  if (!gated && !corrected && rule != "linear")
    return n.fail("update_rule is " + quote(rule) +
                  "; linear, gated, delta or gated_delta is needed");
  if (gated != bool(decay) || corrected != bool(beta))
    return n.fail("update_rule " + quote(rule) + " needs " +
                  (gated ? "decay" : "no decay") + " and " +
                  (corrected ? "beta" : "no beta"));
  if (heads < 1 || keyHeads < 1 || heads % keyHeads)
    return n.fail("q_num_heads " + Twine(heads) +
                  " is no multiple of kv_num_heads " + Twine(keyHeads));
  if (n.rank(q) != 3 || n.rank(k) != 3 || n.rank(v) != 3)
    return n.fail("query, key and value need 3 dims each");
  int64_t batch = n.shape(q)[0], steps = n.shape(q)[1];
  auto fits = [&](Value x, int64_t parts) {
    return n.rank(x) == 3 && n.shape(x)[0] == batch && n.shape(x)[1] == steps &&
           n.shape(x)[2] % parts == 0;
  };
  if (!fits(q, heads) || !fits(k, keyHeads) || !fits(v, keyHeads) ||
      n.shape(q)[2] / heads != n.shape(k)[2] / keyHeads)
    return n.fail("shapes of query, key and value do not agree");
  if (steps < 1 || steps > maxSteps)
    return n.fail("has " + Twine(steps) + " steps; 1 to " + Twine(maxSteps) +
                  " are supported");
  int64_t keyWidth = n.shape(q)[2] / heads,
          valueWidth = n.shape(v)[2] / keyHeads, group = heads / keyHeads;
  int64_t decayWidth = decay && n.rank(decay) == 3 ? n.shape(decay)[2] : 0,
          betaWidth = beta && n.rank(beta) == 3 ? n.shape(beta)[2] : 0;
  if (decay && (!fits(decay, keyHeads) ||
                (decayWidth != keyHeads && decayWidth != keyHeads * keyWidth)))
    return n.fail("decay needs one number for each head, or for each of a "
                  "key's entries");
  if (beta && (!fits(beta, 1) || (betaWidth != keyHeads && betaWidth != 1)))
    return n.fail("beta needs one number for each head, or one");
  SmallVector<int64_t> stateShape = {batch, keyHeads, keyWidth, valueWidth};
  if (past && n.shape(past) != ArrayRef<int64_t>(stateShape))
    return n.fail("past_state has another shape than [" + Twine(batch) + "," +
                  Twine(keyHeads) + "," + Twine(keyWidth) + "," +
                  Twine(valueWidth) + "]");
  if (scale == 0)
    scale = 1.0 / std::sqrt(static_cast<double>(keyWidth));

  Arithmetic a(n);
  OpBuilder &builder = n.graph.builder();
  Type stateType = past ? n.elementOf(past) : n.elementOf(q);
  Type work = n.elementOf(q).isF64() ? Type(builder.getF64Type())
                                     : builder.getF32Type();
  Value q4 = n.cast(splitPacked(n, q, heads), work),
        k4 = n.cast(splitPacked(n, k, keyHeads), work),
        v4 = n.cast(splitPacked(n, v, keyHeads), work);
  Value decay4, beta4;
  if (decay)
    decay4 = a.exp(n.cast(splitPacked(n, decay, keyHeads), work));
  if (beta)
    beta4 = n.cast(splitPacked(n, beta, betaWidth), work);
  Value state =
      past ? n.cast(past, work) : n.splat(n.type(stateShape, work), 0);
  SmallVector<Value> outputs;
  for (int64_t t = 0; t < steps && !n.failed(); ++t) {
    auto at = [&](Value x) { return n.part(x, 2, t, 1); }; // [B,H,1,D]
    Value key = at(k4), value = at(v4);
    if (gated)
      state = a.mul(state, n.transposeLast(at(decay4)));
    if (corrected)
      value =
          a.mul(a.sub(value, n.matmul(key, state, false, false)), at(beta4));
    state = a.add(state, a.mul(n.transposeLast(key), value));
    // The query heads of a group read one state.
    Value query = n.reshape(at(q4), {batch, keyHeads, group, keyWidth});
    Value output = a.mul(n.matmul(query, state, false, false), scale);
    outputs.push_back(n.reshape(output, {batch, 1, heads * valueWidth}));
  }
  if (n.failed())
    return;
  n.set(0, n.cast(n.concat(outputs, 1), n.elementOf(q)));
  if (n.hasOutput(1))
    n.set(1, n.cast(state, stateType));
}
