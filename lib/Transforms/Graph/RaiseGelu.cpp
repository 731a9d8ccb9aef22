//===- RaiseGelu.cpp - Find Gaussian error linear units -------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"
#include <cmath>

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISEGELUPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct Gelu {
  Value input;
  bool tanhApproximation = false;
};
} // namespace

static bool isNear(double a, double b) {
  // Exporters write the constants in f32 or bf16.
  return std::fabs(a - b) <= 1e-5 * std::fabs(b);
}

/// The factors of a product and, apart, their scalar.
static void collectFactors(Value value, SmallVectorImpl<Value> &factors,
                           double &scale) {
  if (auto scaled = matchScaled(value)) {
    scale *= scaled->second;
    return collectFactors(scaled->first, factors, scale);
  }
  if (auto mul = value.getDefiningOp<MulOp>();
      mul && mul.getLhs().getType() == mul.getRhs().getType()) {
    collectFactors(mul.getLhs(), factors, scale);
    return collectFactors(mul.getRhs(), factors, scale);
  }
  factors.push_back(value);
}

/// x of x + 0.044715 x^3.
static Value matchCubic(Value value) {
  Value input;
  matchCommutative<AddOp>(value, [&](Value x, Value rest) {
    double scale = 1;
    Value cube = skipScales(rest, scale);
    if (!isNear(scale, 0.044715))
      return false;
    bool isCube;
    if (auto pow = cube.getDefiningOp<PowOp>()) {
      isCube = pow.getLhs() == x && isScalar(pow.getRhs(), 3.0);
    } else {
      SmallVector<Value> factors;
      double one = 1;
      collectFactors(cube, factors, one);
      isCube = factors.size() == 3 && one == 1 &&
               llvm::all_of(factors, [&](Value f) { return f == x; });
    }
    if (isCube)
      input = x;
    return isCube;
  });
  return input;
}

/// The gelu of which `value` is the factor 1 + erf(...) or 1 + tanh(...).
static std::optional<Gelu> matchGate(Value value) {
  std::optional<Gelu> gelu;
  matchCommutative<AddOp>(value, [&](Value curve, Value one) {
    if (!isScalar(one, 1.0))
      return false;
    double scale = 1;
    if (auto erf = curve.getDefiningOp<ErfOp>()) {
      Value x = skipScales(erf.getInput(), scale);
      if (isNear(scale, std::sqrt(0.5)))
        gelu = Gelu{x, false};
    } else if (auto tanh = curve.getDefiningOp<TanhOp>()) {
      Value cubic = skipScales(tanh.getInput(), scale);
      if (Value x = matchCubic(cubic); x && isNear(scale, std::sqrt(M_2_PI)))
        gelu = Gelu{x, true};
    }
    return gelu.has_value();
  });
  return gelu;
}

static std::optional<Gelu> detectGelu(MulOp op) {
  SmallVector<Value> factors;
  double scale = 1;
  collectFactors(op, factors, scale);
  if (factors.size() != 2 || !isNear(scale, 0.5))
    return std::nullopt;
  for (int i : {0, 1})
    if (std::optional<Gelu> gelu = matchGate(factors[i]))
      if (gelu->input == factors[1 - i])
        return gelu;
  return std::nullopt;
}

static void applyGelu(MulOp op, const Gelu &gelu) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  Value result = make.create<GeluOp>(gelu.input.getType(), gelu.input,
                                     gelu.tanhApproximation);
  op.replaceAllUsesWith(result);
}

namespace {
struct RaiseGeluPass : mlir::dshard::impl::RaiseGeluPassBase<RaiseGeluPass> {
  void runOnOperation() override {
    SmallVector<MulOp> products;
    getOperation().walk([&](MulOp op) { products.push_back(op); });
    // The last factor first: an inner product of the same chain is not the
    // gelu.
    for (MulOp op : llvm::reverse(products))
      if (std::optional<Gelu> gelu = detectGelu(op))
        applyGelu(op, *gelu);
    eraseDeadOps(getOperation());
  }
};
} // namespace
