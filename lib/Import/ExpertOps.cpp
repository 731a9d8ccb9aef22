//===- ExpertOps.cpp - com.microsoft MoE and QMoE -------------------------===//
//
// A mixture of experts in one node (docs/ContribOperators.md of onnxruntime):
// a row is there k times, once for each of its experts, and grouped products
// multiply each with the matrix of its expert; their sum is weighted by the
// router.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "BlockQuantized.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

namespace {

enum class Activation { identity, relu, gelu, silu, swiglu, unknown };

/// Stacked matrices [E,out,in], and biases [E,out] that may be null.
struct Layer {
  Value weights, bias;
};

class Mixture {
public:
  explicit Mixture(NodeImporter &n) : n(n), a(n) {}
  /// Reads x, the router and the attributes; false after an error.
  bool read();
  /// Routing weights are of the chosen experts alone, whatever the node says.
  void normalizeAlways() { normalize = true; }
  void compute(Layer up, Layer down);

private:
  void route();
  Value apply(Value rows, const Layer &layer);
  Value activate(Value x);
  Value swiglu(Value gate, Value linear);
  void expect(const Layer &layer, int64_t out, int64_t in, StringRef what);

  NodeImporter &n;
  Arithmetic a;
  Value x, router;
  Value ids;     ///< [R * k] expert of each copy of a row
  Value counted; ///< [R * k,1] what its result counts
  SmallVector<int64_t> shape;
  int64_t rows = 0, hidden = 0, experts = 0, k = 1, fusion = 0;
  bool normalize = false;
  Activation activation = Activation::relu;
  double alpha = 1, beta = 0, limit = 0;
};

bool Mixture::read() {
  x = n.input(0);
  router = n.input(1);
  k = n.intAttr("k", 1);
  normalize = n.intAttr("normalize_routing_weights", 0) != 0;
  fusion = n.intAttr("swiglu_fusion", 0);
  alpha = n.floatAttr("activation_alpha", 1);
  beta = n.floatAttr("activation_beta", 0);
  limit = n.floatAttr("swiglu_limit", std::numeric_limits<double>::infinity());
  std::string name = n.stringAttr("activation_type", "relu");
  activation = llvm::StringSwitch<Activation>(name)
                   .Case("identity", Activation::identity)
                   .Case("relu", Activation::relu)
                   .Case("gelu", Activation::gelu)
                   .Case("silu", Activation::silu)
                   .Case("swiglu", Activation::swiglu)
                   .Default(Activation::unknown);
  if (activation == Activation::unknown)
    n.fail("activation_type is " + quote(name) +
           "; identity, relu, gelu, silu and swiglu are supported");
  if (n.intAttr("use_sparse_mixer", 0))
    n.fail("use_sparse_mixer is not supported");
  if (n.failed())
    return false;
  shape.assign(n.shape(x).begin(), n.shape(x).end());
  if (shape.size() != 2 && shape.size() != 3)
    n.fail("the input has " + Twine(shape.size()) + " dims, not 2 or 3");
  if (n.rank(router) != 2)
    n.fail("router_probs has " + Twine(n.rank(router)) + " dims, not 2");
  if (n.failed())
    return false;
  hidden = shape.back();
  rows = n.shape(router)[0];
  experts = n.shape(router)[1];
  if (rows * hidden != n.typeOf(x).getNumElements())
    n.fail("router_probs has " + Twine(rows) + " rows, the input has " +
           Twine(n.typeOf(x).getNumElements() / std::max<int64_t>(hidden, 1)));
  if (k < 1 || k > experts)
    n.fail("k is " + Twine(k) + " of " + Twine(experts) + " experts");
  x = n.reshape(x, {rows, hidden});
  return !n.failed();
}

/// Finds the k experts of each row, of equals the first ones, and what their
/// results count.
void Mixture::route() {
  Type i64 = n.graph.builder().getI64Type();
  Value logits = a.wide(router);
  Value own = n.reshape(logits, {rows, experts, 1}),
        other = n.reshape(logits, {rows, 1, experts});
  Value earlier =
      a.less(n.iota({1, 1, experts}, i64, 2), n.iota({1, experts, 1}, i64, 1));
  Value better = n.compare(ComparePredicate::gt, other, own);
  Value tie = n.pointwise<AndOp>({a.equal(other, own), earlier});
  Value before = n.cast(n.pointwise<OrOp>({better, tie}), i64);
  Value place = n.reduce(ReductionKind::sum, before, {2}, false); // [R,E]
  Value isHere = a.equal(n.reshape(place, {rows, 1, experts}),
                         n.iota({1, k, 1}, i64, 1)); // [R,k,E]
  auto take = [&](Value of) {
    Value all = a.select(isHere, of, a.number(of, 0.0));
    return n.reduce(ReductionKind::sum, all, {2}, false);
  };
  Value found = take(n.iota({1, 1, experts}, i64, 2));
  auto softmax = [&](Value x) {
    return n.failed()
               ? Value()
               : n.build<SoftmaxOp>(n.typeOf(x), x, n.attr("dim", int64_t(1)));
  };
  // Of the k experts alone, or those of all.
  if (!normalize)
    logits = softmax(logits);
  Value scores = take(n.reshape(logits, {rows, 1, experts})); // [R,k]
  ids = n.reshape(found, {rows * k});
  if (normalize)
    scores = softmax(scores);
  counted = n.reshape(scores, {rows * k, 1});
}

/// [R * k,in] -> [R * k,out].
Value Mixture::apply(Value from, const Layer &layer) {
  if (n.failed())
    return {};
  Value weights = n.cast(layer.weights, n.elementOf(from));
  Value result = n.build<GroupedMatMulOp>(
      n.type({rows * k, n.shape(weights)[1]}, n.elementOf(from)),
      {from, weights, ids}, n.unit("transpose_weights"));
  if (!layer.bias || n.failed())
    return result;
  Value bias = n.reshape(layer.bias, {experts, n.shape(weights)[1]});
  return a.add(result, n.gather(bias, ids, 0));
}

/// gate sigmoid(alpha gate) (linear + beta), both within the limit.
Value Mixture::swiglu(Value gate, Value linear) {
  if (std::isfinite(limit)) {
    gate = a.min(gate, limit);
    linear = a.max(a.min(linear, limit), -limit);
  }
  Value opened = a.mul(gate, n.pointwise<SigmoidOp>(a.mul(gate, alpha)));
  return a.mul(opened, a.add(linear, beta));
}

Value Mixture::activate(Value value) {
  switch (activation) {
  case Activation::relu:
    return n.pointwise<ReluOp>(value);
  case Activation::gelu:
    return n.failed() ? Value()
                      : n.build<GeluOp>(n.typeOf(value), value,
                                        n.unit("tanh_approximation"));
  case Activation::silu:
    return a.mul(value, n.pointwise<SigmoidOp>(value));
  default:
    return value;
  }
}

void Mixture::expect(const Layer &layer, int64_t out, int64_t in,
                     StringRef what) {
  if (n.failed())
    return;
  SmallVector<int64_t> wanted = {experts, out, in};
  if (n.shape(layer.weights) != ArrayRef<int64_t>(wanted))
    n.fail(
        what + " has the shape [" +
        llvm::join(llvm::map_range(n.shape(layer.weights),
                                   [](int64_t s) { return std::to_string(s); }),
                   ",") +
        "], expected [" + Twine(experts) + "," + Twine(out) + "," + Twine(in) +
        "]");
  else if (layer.bias && n.typeOf(layer.bias).getNumElements() != experts * out)
    n.fail("the bias of " + what + " has " +
           Twine(n.typeOf(layer.bias).getNumElements()) + " elements; " +
           Twine(experts * out) + " are needed");
}

void Mixture::compute(Layer up, Layer down) {
  if (n.failed())
    return;
  bool gated = activation == Activation::swiglu;
  if (fusion < 0 || fusion > 2 || gated != (fusion > 0))
    return n.fail("activation_type and swiglu_fusion " + Twine(fusion) +
                  " do not suit each other");
  if (n.rank(down.weights) != 3)
    return n.fail("fc2 has " + Twine(n.rank(down.weights)) + " dims, not 3");
  int64_t inner = n.shape(down.weights)[2];
  expect(up, fusion ? 2 * inner : inner, hidden, "fc1");
  expect(down, hidden, inner, "fc2");
  route();
  if (n.failed())
    return;
  Value from = n.reshape(
      n.broadcastTo(n.reshape(x, {rows, 1, hidden}), {rows, k, hidden}),
      {rows * k, hidden});
  Value first = apply(from, up);
  if (fusion == 1) { // gate and linear take turns
    Value pairs = n.reshape(first, {rows * k, inner, 2});
    auto half = [&](int64_t i) {
      return n.reshape(n.part(pairs, 2, i, 1), {rows * k, inner});
    };
    first = swiglu(half(0), half(1));
  } else if (fusion == 2) {
    first = swiglu(n.part(first, 1, 0, inner), n.part(first, 1, inner, inner));
  } else {
    first = activate(first);
  }
  Value second = apply(first, down); // [R * k,hidden]
  if (n.failed())
    return;
  second = a.mul(second, n.cast(counted, n.elementOf(second)));
  second = n.reshape(second, {rows, k, hidden});
  n.set(0, n.reshape(n.reduce(ReductionKind::sum, second, {1}, false), shape));
}

} // namespace

/// onnxruntime's CPU kernels refuse it as well.
static void refuseThird(NodeImporter &n, ArrayRef<int> inputs) {
  for (int i : inputs)
    if (n.hasInput(i))
      n.fail("input " + Twine(i) + " (of fc3) is not supported");
}

void onnx::importMoe(NodeImporter &n) {
  if (!n.expectInputs(3, 8))
    return;
  refuseThird(n, {6, 7});
  Mixture mixture(n);
  if (!mixture.read())
    return;
  if (!n.hasInput(4))
    return n.fail("input 4 (fc2_experts_weights) is missing");
  mixture.compute({n.input(2), n.input(3)}, {n.input(4), n.input(5)});
}

/// Weights of 4 or 8 bits [E,out,in * bits / 8]; scales [E,out], or
/// [E,out,in / block_size].
void onnx::importQuantizedMoe(NodeImporter &n) {
  if (!n.expectInputs(4, 14))
    return;
  refuseThird(n, {8, 9, 10, 13});
  Mixture mixture(n);
  int64_t bits = n.intAttr("expert_weight_bits", 4),
          block = n.intAttr("block_size", 0);
  if (std::string type = n.stringAttr("quant_type", "int"); type != "int")
    n.fail("quant_type " + quote(type) + " is not supported; int is");
  if (bits != 4 && bits != 8)
    n.fail("expert_weight_bits is " + Twine(bits) + "; 4 and 8 are supported");
  if (!mixture.read())
    return;
  // onnxruntime's CPU kernel of QMoE, unlike that of MoE, does not ask
  // normalize_routing_weights.
  mixture.normalizeAlways();
  auto layer = [&](int first, int zeros) -> Layer {
    if (!n.hasInput(first))
      return {};
    Value data = n.input(first), scales = n.input(first + 1),
          zero = n.input(zeros);
    if (n.failed())
      return {};
    if (n.rank(data) != 3 || !scales ||
        (n.rank(scales) != 2 && n.rank(scales) != 3)) {
      n.fail("input " + Twine(first) + " needs 3 dims, its scales need 2 or 3");
      return {};
    }
    SmallVector<int64_t> whole(n.shape(data));
    whole[2] = whole[2] * 8 / bits;
    return {dequantizeBlocks(n, data, scales, zero, bits,
                             n.rank(scales) == 3 ? block : whole[2], whole,
                             bits == 4 ? 8 : 128),
            n.input(first + 2)};
  };
  Layer up = layer(2, 11), down = layer(5, 12);
  if (!n.failed() && !down.weights)
    return n.fail("input 5 (fc2_experts_weights) is missing");
  mixture.compute(up, down);
}
