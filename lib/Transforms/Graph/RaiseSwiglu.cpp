//===- RaiseSwiglu.cpp - Find silu and silu(gate) * up --------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISESWIGLUPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// x of x * sigmoid(x); null if it is none.
static Value detectSilu(MulOp op) {
  Value input;
  matchCommutative<MulOp>(op, [&](Value x, Value gate) {
    auto sigmoid = gate.getDefiningOp<SigmoidOp>();
    return sigmoid && sigmoid.getInput() == x && (input = x);
  });
  return input;
}

static void applySilu(MulOp op, Value input) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  op.replaceAllUsesWith(make.unary<SiluOp>(input));
}

/// gate and up of silu(gate) * up; nulls if it is none.
static std::pair<Value, Value> detectSwiglu(MulOp op) {
  std::pair<Value, Value> found;
  matchCommutative<MulOp>(op, [&](Value left, Value up) {
    auto silu = left.getDefiningOp<SiluOp>();
    if (!silu || !silu->hasOneUse() || silu.getType() != up.getType())
      return false;
    found = {silu.getInput(), up};
    return true;
  });
  return found;
}

static void applySwiglu(MulOp op, Value gate, Value up) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  op.replaceAllUsesWith(make.binary<SwigluOp>(gate, up));
}

namespace {
struct RaiseSwigluPass
    : mlir::dshard::impl::RaiseSwigluPassBase<RaiseSwigluPass> {
  void runOnOperation() override {
    SmallVector<MulOp> products;
    getOperation().walk([&](MulOp op) { products.push_back(op); });
    for (MulOp op : products)
      if (Value input = detectSilu(op))
        applySilu(op, input);
    eraseDeadOps(getOperation());
    products.clear();
    getOperation().walk([&](MulOp op) { products.push_back(op); });
    for (MulOp op : products)
      if (auto [gate, up] = detectSwiglu(op); gate)
        applySwiglu(op, gate, up);
    eraseDeadOps(getOperation());
  }
};
} // namespace
