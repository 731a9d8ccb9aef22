//===- RaiseRmsNorm.cpp - Find root-mean-square normalisations ------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISERMSNORMPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct RmsNorm {
  Value input, weight;
  double epsilon = 0;
};
} // namespace

/// x of pow(x, 2) or x * x.
static Value matchSquare(Value value) {
  if (auto pow = value.getDefiningOp<PowOp>())
    return isScalar(pow.getRhs(), 2.0) ? Value(pow.getLhs()) : Value();
  auto mul = value.getDefiningOp<MulOp>();
  return mul && mul.getLhs() == mul.getRhs() ? Value(mul.getLhs()) : Value();
}

/// `meanSquare` of the sum under the root: x and epsilon of mean(x^2) +
/// epsilon.
static bool matchMeanSquare(Value value, Value &x, double &epsilon) {
  return matchCommutative<AddOp>(value, [&](Value mean, Value small) {
    std::optional<double> number = matchScalar(small);
    auto reduce = mean.getDefiningOp<ReduceOp>();
    if (!number || !reduce || reduce.getKind() != ReductionKind::mean ||
        !reduce.getKeepDims() || reduce.getDims().size() != 1 ||
        reduce.getDims()[0] != reduce.getInput().getType().getRank() - 1)
      return false;
    x = matchSquare(reduce.getInput());
    epsilon = *number;
    return bool(x);
  });
}

/// The radicand of 1 / sqrt(...) in its forms.
static Value matchInverseRoot(Value value) {
  if (auto rsqrt = value.getDefiningOp<RsqrtOp>())
    return rsqrt.getInput();
  Value root;
  if (auto reciprocal = value.getDefiningOp<ReciprocalOp>())
    root = reciprocal.getInput();
  else if (auto div = value.getDefiningOp<DivOp>();
           div && isScalar(div.getLhs(), 1.0))
    root = div.getRhs();
  auto sqrt = root ? root.getDefiningOp<SqrtOp>() : SqrtOp();
  return sqrt ? Value(sqrt.getInput()) : Value();
}

/// x / sqrt(mean(x^2) + epsilon).
static bool matchNormalized(Value value, RmsNorm &norm) {
  auto matches = [&](Value x, Value radicand) {
    Value squared;
    return radicand && matchMeanSquare(radicand, squared, norm.epsilon) &&
           squared == x && (norm.input = x);
  };
  if (auto div = value.getDefiningOp<DivOp>())
    if (auto sqrt = div.getRhs().getDefiningOp<SqrtOp>())
      return matches(div.getLhs(), sqrt.getInput());
  return matchCommutative<MulOp>(value, [&](Value x, Value inverse) {
    return matches(x, matchInverseRoot(inverse));
  });
}

static std::optional<RmsNorm> detectRmsNorm(MulOp op) {
  RmsNorm norm;
  RankedTensorType type = op.getResult().getType();
  bool found = matchCommutative<MulOp>(op, [&](Value weight, Value y) {
    // The weight scales the last dim alone.
    if (typeOf(weight).getRank() < 1 ||
        typeOf(weight).getNumElements() != shapeOf(weight).back() ||
        type.getRank() < 1 || shapeOf(weight).back() != type.getShape().back())
      return false;
    // A 16-bit model normalises in f32 and casts back before the weight.
    if (!matchNormalized(skipCasts(y), norm))
      return false;
    norm.weight = weight;
    return true;
  });
  if (!found)
    return std::nullopt;
  Value input = skipCasts(norm.input);
  if (elementTypeOf(input) == type.getElementType())
    norm.input = input;
  if (norm.input.getType() != type)
    return std::nullopt;
  return norm;
}

static void applyRmsNorm(MulOp op, const RmsNorm &norm) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  Value weight = make.reshape(norm.weight, {shapeOf(norm.weight).back()});
  Value result = make.create<RmsNormOp>(op.getResult().getType(), norm.input,
                                        weight, llvm::APFloat(norm.epsilon));
  op.replaceAllUsesWith(result);
}

namespace {
struct RaiseRmsNormPass
    : mlir::dshard::impl::RaiseRmsNormPassBase<RaiseRmsNormPass> {
  void runOnOperation() override {
    SmallVector<MulOp> products;
    getOperation().walk([&](MulOp op) { products.push_back(op); });
    for (MulOp op : products)
      if (std::optional<RmsNorm> norm = detectRmsNorm(op))
        applyRmsNorm(op, *norm);
    eraseDeadOps(getOperation());
  }
};
} // namespace
