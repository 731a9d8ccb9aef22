//===- RecurrentOps.cpp - ONNX RNN, GRU, LSTM -----------------------------===//
//
// Unrolled over the steps, whose number is known. The products with the inputs
// are one matmul for all steps; those with the state are one for each.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// More ops than people want to wait for.
static constexpr int64_t maxSteps = 512;

namespace {

enum class Kind { rnn, gru, lstm };

/// One direction's weights: w [G*H,I], r [G*H,H], biases [G*H] each,
/// peepholes [3*H]; biases and peepholes may be null.
struct Weights {
  Value w, r, inputBias, stateBias, peepholes;
};

struct State {
  Value h, c;
};

class Unroller {
public:
  Unroller(NodeImporter &n, Kind kind) : n(n), a(n), kind(kind) {}
  void run();

private:
  Value gate(Value x, int64_t i, int64_t dim) {
    return n.part(x, dim, i * hidden, hidden);
  }
  /// Clips, and applies activation `which` (f, g, h) of the direction.
  Value activate(int which, Value x);
  /// Reads `activations`: of each direction, those of the op.
  void readActivations();
  Value plus(Value x, Value bias) { return bias ? a.add(x, bias) : x; }
  State step(const Weights &weights, Value x, State state);
  /// Direction `d` of a parameter whose first dim counts directions.
  Value ofDirection(int input, int64_t d, ArrayRef<int64_t> shape);
  Value initial(int input, int64_t d);

  NodeImporter &n;
  Arithmetic a;
  Kind kind;
  int64_t steps = 0, batch = 0, hidden = 0, gates = 0, directions = 0;
  bool batchFirst = false, linearBeforeReset = false;
  std::vector<std::string> activations; ///< lower case; of all directions
  int64_t direction = 0;                ///< the one that is unrolled
  double clip = 0;                      ///< of what activations read; 0: none
};

Value Unroller::activate(int which, Value x) {
  // Of gates only: onnxruntime does not clip a cell that is the output's.
  if (clip > 0 && which < 2)
    x = a.max(a.min(x, clip), -clip);
  size_t perDirection = activations.size() / directions;
  const std::string &name = activations[direction * perDirection + which];
  if (name == "sigmoid")
    return n.pointwise<SigmoidOp>(x);
  return name == "relu" ? n.pointwise<ReluOp>(x) : n.pointwise<TanhOp>(x);
}

void Unroller::readActivations() {
  std::vector<std::string> each = {"sigmoid", "tanh", "tanh"};
  if (kind == Kind::rnn)
    each = {"tanh"};
  else if (kind == Kind::gru)
    each.pop_back();
  for (int64_t d = 0; d < directions; ++d)
    llvm::append_range(activations, each);
  clip = n.floatAttr("clip", 0);
  const pb::AttributeProto *given = n.find("activations");
  if (n.failed() || !given || given->strings_size() == 0)
    return;
  if (given->strings_size() != static_cast<int>(activations.size()))
    return n.fail("has " + Twine(given->strings_size()) + " activations; " +
                  Twine(activations.size()) + " are needed");
  for (auto [i, name] : llvm::enumerate(given->strings())) {
    activations[i] = StringRef(name).lower();
    if (activations[i] != "sigmoid" && activations[i] != "tanh" &&
        activations[i] != "relu")
      return n.fail("the activation " + quote(name) +
                    " is not supported; Sigmoid, Tanh and Relu are");
  }
}

/// x is [B,G*H]: the inputs' part of all gates, with its bias.
State Unroller::step(const Weights &weights, Value x, State state) {
  auto recurrent = [&](Value h, int64_t first, int64_t count) {
    Value rows = n.part(weights.r, 0, first * hidden, count * hidden);
    return n.matmul(h, rows, false, true);
  };
  auto bias = [&](int64_t first, int64_t count) {
    return weights.stateBias
               ? n.part(weights.stateBias, 0, first * hidden, count * hidden)
               : Value();
  };
  switch (kind) {
  case Kind::rnn:
    return {activate(0, plus(a.add(x, recurrent(state.h, 0, 1)), bias(0, 1))),
            {}};
  case Kind::gru: {
    Value both =
        plus(a.add(n.part(x, 1, 0, 2 * hidden), recurrent(state.h, 0, 2)),
             bias(0, 2));
    Value z = activate(0, gate(both, 0, 1)), r = activate(0, gate(both, 1, 1));
    Value inner = linearBeforeReset
                      ? a.mul(r, plus(recurrent(state.h, 2, 1), bias(2, 1)))
                      : plus(recurrent(a.mul(r, state.h), 2, 1), bias(2, 1));
    Value candidate = activate(1, a.add(gate(x, 2, 1), inner));
    Value rest = a.sub(a.number(z, 1.0), z);
    return {a.add(a.mul(rest, candidate), a.mul(z, state.h)), {}};
  }
  case Kind::lstm: {
    Value all = plus(a.add(x, recurrent(state.h, 0, 4)), bias(0, 4));
    auto peep = [&](Value value, int64_t i, Value cell) {
      return weights.peepholes
                 ? a.add(value, a.mul(cell, gate(weights.peepholes, i, 0)))
                 : value;
    };
    // Gates: input, output, forget, cell; peepholes: input, output, forget.
    Value in = activate(0, peep(gate(all, 0, 1), 0, state.c)),
          forget = activate(0, peep(gate(all, 2, 1), 2, state.c));
    Value cell =
        a.add(a.mul(forget, state.c), a.mul(in, activate(1, gate(all, 3, 1))));
    Value out = activate(0, peep(gate(all, 1, 1), 1, cell));
    return {a.mul(out, activate(2, cell)), cell};
  }
  }
  return {};
}

Value Unroller::ofDirection(int input, int64_t d, ArrayRef<int64_t> shape) {
  Value value = n.input(input);
  if (n.failed() || !value)
    return {};
  SmallVector<int64_t> whole = {directions};
  llvm::append_range(whole, shape);
  if (n.shape(value) != ArrayRef<int64_t>(whole) ||
      n.elementOf(value) != n.elementOf(n.input(0))) {
    n.fail("input " + Twine(input) +
           " has not the shape or the element type "
           "that the other inputs ask for");
    return {};
  }
  return n.reshape(n.part(value, 0, d, 1), shape);
}

Value Unroller::initial(int input, int64_t d) {
  Value value = n.input(input);
  if (!value)
    return n.splat(n.type({batch, hidden}, n.elementOf(n.input(0))), 0);
  SmallVector<int64_t> needed = {directions, batch, hidden};
  if (batchFirst)
    std::swap(needed[0], needed[1]);
  if (n.failed() || n.shape(value) != ArrayRef<int64_t>(needed)) {
    n.fail("input " + Twine(input) + " has not the shape of a state");
    return {};
  }
  return n.reshape(n.part(value, batchFirst ? 1 : 0, d, 1), {batch, hidden});
}

void Unroller::run() {
  if (!n.expectInputs(3, kind == Kind::lstm ? 8 : 6))
    return;
  Value x = n.input(0), w = n.input(1), lengths = n.input(4);
  std::string order = n.stringAttr("direction", "forward");
  batchFirst = n.intAttr("layout", 0) != 0;
  linearBeforeReset =
      kind == Kind::gru && n.intAttr("linear_before_reset", 0) != 0;
  if (kind == Kind::lstm && n.intAttr("input_forget", 0) != 0)
    return n.fail("input_forget is not supported");
  if (n.opset() < 7)
    (void)n.intAttr("output_sequence", 0);
  if (n.failed())
    return;
  if (order != "forward" && order != "reverse" && order != "bidirectional")
    return n.fail("direction is " + quote(order) +
                  "; forward, reverse or bidirectional is needed");
  directions = order == "bidirectional" ? 2 : 1;
  readActivations();
  gates = kind == Kind::rnn ? 1 : kind == Kind::gru ? 3 : 4;
  if (n.rank(x) != 3 || n.rank(w) != 3 || n.rank(n.input(2)) != 3)
    return n.fail("inputs 0 to 2 need 3 dims each");
  if (!isa<FloatType>(n.elementOf(x)))
    return n.fail("the input must hold floating-point numbers");
  hidden = n.shape(n.input(2))[2];
  if (int64_t given = n.intAttr("hidden_size", hidden); given != hidden)
    return n.fail("hidden_size is " + Twine(given) + ", the weights have " +
                  Twine(hidden));
  if (batchFirst)
    x = n.transpose(x, {1, 0, 2});
  steps = n.shape(x)[0];
  batch = n.shape(x)[1];
  int64_t features = n.shape(x)[2];
  if (steps < 1 || steps > maxSteps)
    return n.fail("has " + Twine(steps) + " steps; 1 to " + Twine(maxSteps) +
                  " are supported");
  if (lengths && order != "forward")
    return n.fail("sequence_lens is supported for direction forward only");
  if (lengths && (n.rank(lengths) != 1 || n.shape(lengths)[0] != batch))
    return n.fail("input 4 (sequence_lens) must have one dim of " +
                  Twine(batch) + " elements");
  if (lengths)
    lengths =
        n.cast(n.reshape(lengths, {batch, 1}), n.graph.builder().getI64Type());

  std::vector<SmallVector<Value>> outputs(steps);
  SmallVector<Value> lastH, lastC;
  for (int64_t d = 0; d < directions && !n.failed(); ++d) {
    Weights weights;
    weights.w = ofDirection(1, d, {gates * hidden, features});
    weights.r = ofDirection(2, d, {gates * hidden, hidden});
    if (Value both = ofDirection(3, d, {2 * gates * hidden})) {
      weights.inputBias = n.part(both, 0, 0, gates * hidden);
      weights.stateBias = n.part(both, 0, gates * hidden, gates * hidden);
    }
    if (kind == Kind::lstm && n.hasInput(7))
      weights.peepholes = ofDirection(7, d, {3 * hidden});
    State state = {initial(5, d), {}};
    if (kind == Kind::lstm)
      state.c = initial(6, d);
    Value all = plus(n.matmul(x, weights.w, false, true), weights.inputBias);
    bool reverse = order == "reverse" || d == 1;
    direction = d;
    for (int64_t i = 0; i < steps && !n.failed(); ++i) {
      int64_t t = reverse ? steps - 1 - i : i;
      Value now = n.reshape(n.part(all, 0, t, 1), {batch, gates * hidden});
      State next = step(weights, now, state);
      Value output = next.h;
      if (lengths) {
        // Behind its end a sequence keeps its state and gives zeros.
        Value inside = a.greater(lengths, double(t));
        output = a.select(inside, next.h, a.number(next.h, 0.0));
        next.h = a.select(inside, next.h, state.h);
        if (next.c)
          next.c = a.select(inside, next.c, state.c);
      }
      outputs[t].push_back(n.reshape(output, {1, 1, batch, hidden}));
      state = next;
    }
    lastH.push_back(n.reshape(state.h, {1, batch, hidden}));
    if (state.c)
      lastC.push_back(n.reshape(state.c, {1, batch, hidden}));
  }
  if (n.failed())
    return;
  if (n.hasOutput(0)) {
    SmallVector<Value> rows;
    for (auto &each : outputs)
      rows.push_back(n.concat(each, 1));
    Value y = n.concat(rows, 0);
    n.set(0, batchFirst ? n.transpose(y, {2, 0, 1, 3}) : y);
  }
  auto last = [&](ArrayRef<Value> states) {
    Value y = n.concat(states, 0);
    return batchFirst ? n.transpose(y, {1, 0, 2}) : y;
  };
  if (n.hasOutput(1))
    n.set(1, last(lastH));
  if (kind == Kind::lstm && n.hasOutput(2))
    n.set(2, last(lastC));
}
} // namespace

void onnx::importRnn(NodeImporter &n) { Unroller(n, Kind::rnn).run(); }
void onnx::importGru(NodeImporter &n) { Unroller(n, Kind::gru).run(); }
void onnx::importLstm(NodeImporter &n) { Unroller(n, Kind::lstm).run(); }
