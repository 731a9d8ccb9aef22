//===- VjpElementwise.cpp - Gradients of pointwise ops --------------------===//
//
// In primitives of the saved inputs (or of the result, where that is cheaper),
// so that kernel formation can join them to their neighbours.
//
//===----------------------------------------------------------------------===//

#include "Vjp.h"
#include "llvm/ADT/TypeSwitch.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

static bool isFloat(Value value) {
  return isa<FloatType>(getElementTypeOrSelf(value.getType()));
}

/// d silu(x) / dx = s (1 + x (1 - s)) with s = sigmoid(x).
static Value buildSiluSlope(Vjp &vjp, Value x, Value sigmoid) {
  Value one = vjp.number(1, x);
  return vjp.mul(sigmoid, vjp.add(vjp.mul(x, vjp.sub(one, sigmoid)), one));
}

static Value buildGeluSlope(Vjp &vjp, Value x, bool tanhApproximation) {
  auto number = [&](double value) { return vjp.number(value, x); };
  if (!tanhApproximation) {
    // cdf(x) + x pdf(x)
    Value erf = vjp.make.unary<ErfOp>(vjp.mul(x, number(0.7071067811865476)));
    Value cdf = vjp.mul(vjp.add(erf, number(1)), number(0.5));
    Value density =
        vjp.mul(vjp.make.unary<ExpOp>(vjp.mul(vjp.mul(x, x), number(-0.5))),
                number(0.3989422804014327)); // 1 / sqrt(2 pi)
    return vjp.add(cdf, vjp.mul(x, density));
  }
  // 0.5 (1 + t) + 0.5 x (1 - t^2) u' with t = tanh(u), u = k (x + a x^3).
  constexpr double k = 0.7978845608028654, a = 0.044715;
  Value square = vjp.mul(x, x);
  Value inner = vjp.mul(
      vjp.mul(vjp.add(vjp.mul(square, number(a)), number(1)), x), number(k));
  Value t = vjp.make.unary<TanhOp>(inner);
  Value slope =
      vjp.mul(vjp.add(vjp.mul(square, number(3 * a)), number(1)), number(k));
  Value bend = vjp.mul(vjp.mul(vjp.sub(number(1), vjp.mul(t, t)), slope), x);
  return vjp.mul(vjp.add(vjp.add(t, number(1)), bend), number(0.5));
}

/// Where both are equal each takes half: the mean of the two one-sided slopes.
static void buildExtremeVjp(Operation *op, Vjp &vjp, ComparePredicate wins) {
  Value lhs = op->getOperand(0), rhs = op->getOperand(1), g = vjp.given[0];
  Value zero = vjp.number(0, g);
  Value half = vjp.make.select(vjp.make.compare(lhs, rhs, ComparePredicate::eq),
                               vjp.mul(g, vjp.number(0.5, g)), zero);
  vjp.wanted[0] = vjp.make.select(vjp.make.compare(lhs, rhs, wins), g, half);
  vjp.wanted[1] = vjp.make.select(vjp.make.compare(rhs, lhs, wins), g, half);
}

static void buildPowVjp(PowOp op, Vjp &vjp) {
  Value x = op.getLhs(), y = op.getRhs(), g = vjp.given[0];
  Value zero = vjp.number(0, g), one = vjp.number(1, g);
  // x^0 is constant, also at 0, where x^-1 is infinite.
  Value slope = vjp.mul(y, vjp.make.binary<PowOp>(x, vjp.sub(y, one)));
  Value flat = vjp.make.compare(y, zero, ComparePredicate::eq);
  vjp.wanted[0] = vjp.mul(g, vjp.make.select(flat, zero, slope));
  // 0^y is flat in y.
  Value isZero = vjp.make.compare(x, zero, ComparePredicate::eq);
  Value log = vjp.make.select(isZero, zero, vjp.make.unary<LogOp>(x));
  vjp.wanted[1] = vjp.mul(g, vjp.mul(op.getResult(), log));
}

static void buildModVjp(ModOp op, Vjp &vjp) {
  Value g = vjp.given[0];
  Value quotient = vjp.div(op.getLhs(), op.getRhs());
  Value whole = vjp.make.unary<FloorOp>(quotient);
  if (op.getFmod()) // towards zero
    whole = vjp.mul(vjp.make.unary<SignOp>(quotient),
                    vjp.make.unary<FloorOp>(vjp.make.unary<AbsOp>(quotient)));
  vjp.wanted[0] = g;
  vjp.wanted[1] = vjp.make.unary<NegOp>(vjp.mul(g, whole));
}

/// d result / d x; null where it is zero almost everywhere.
static FailureOr<Value> buildSlope(Operation *op, Vjp &vjp) {
  using Slope = FailureOr<Value>;
  Value x = op->getOperand(0), y = op->getResult(0);
  DShardBuilder &make = vjp.make;
  auto number = [&](double value) { return vjp.number(value, x); };
  return llvm::TypeSwitch<Operation *, Slope>(op)
      .Case<NegOp>([&](auto) -> Slope { return number(-1); })
      .Case<AbsOp>([&](auto) -> Slope { return make.unary<SignOp>(x); })
      .Case<ExpOp>([&](auto) -> Slope { return y; })
      .Case<LogOp>([&](auto) -> Slope { return make.unary<ReciprocalOp>(x); })
      .Case<SqrtOp>([&](auto) -> Slope { return vjp.div(number(0.5), y); })
      .Case<RsqrtOp>([&](auto) -> Slope {
        return vjp.mul(vjp.mul(y, number(-0.5)), vjp.mul(y, y));
      })
      .Case<ReciprocalOp>(
          [&](auto) -> Slope { return make.unary<NegOp>(vjp.mul(y, y)); })
      .Case<SinOp>([&](auto) -> Slope { return make.unary<CosOp>(x); })
      .Case<CosOp>([&](auto) -> Slope {
        return make.unary<NegOp>(make.unary<SinOp>(x));
      })
      .Case<AtanOp>([&](auto) -> Slope {
        return make.unary<ReciprocalOp>(vjp.add(number(1), vjp.mul(x, x)));
      })
      .Case<TanhOp>(
          [&](auto) -> Slope { return vjp.sub(number(1), vjp.mul(y, y)); })
      .Case<ErfOp>([&](auto) -> Slope {
        // 2 / sqrt(pi) exp(-x^2)
        return vjp.mul(make.unary<ExpOp>(make.unary<NegOp>(vjp.mul(x, x))),
                       number(1.1283791670955126));
      })
      .Case<SigmoidOp>(
          [&](auto) -> Slope { return vjp.mul(y, vjp.sub(number(1), y)); })
      .Case<SiluOp>([&](auto) -> Slope {
        return buildSiluSlope(vjp, x, make.unary<SigmoidOp>(x));
      })
      .Case<GeluOp>([&](GeluOp gelu) -> Slope {
        return buildGeluSlope(vjp, x, gelu.getTanhApproximation());
      })
      .Case<FloorOp, CeilOp, RoundOp, SignOp, IsNanOp, NotOp>(
          [&](auto) -> Slope { return Value(); })
      .Default([](Operation *) -> Slope { return failure(); });
}

/// The gradients in the dims of the result, before the sums over what was
/// repeated.
static LogicalResult buildUnsummed(Operation *op, Vjp &vjp) {
  Value g = vjp.given[0];
  if (isa<CompareOp, AndOp, OrOp, XorOp>(op))
    return success();
  if (auto cast = dyn_cast<CastOp>(op)) {
    if (isFloat(cast.getInput()) && isFloat(cast.getResult()))
      vjp.wanted[0] =
          vjp.make.cast(g, cast.getInput().getType().getElementType());
    return success();
  }
  // Integers have no gradient, and none asks for it.
  if (!isFloat(op->getResult(0)))
    return success();
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case<NegOp>([&](auto) {
        vjp.wanted[0] = vjp.make.unary<NegOp>(g);
        return success();
      })
      .Case<LogOp>([&](LogOp log) {
        vjp.wanted[0] = vjp.div(g, log.getInput());
        return success();
      })
      .Case<ReluOp>([&](ReluOp relu) {
        Value zero = vjp.number(0, g);
        vjp.wanted[0] = vjp.make.select(
            vjp.make.compare(relu.getInput(), zero, ComparePredicate::gt), g,
            zero);
        return success();
      })
      .Case<AddOp>([&](auto) {
        vjp.wanted[0] = vjp.wanted[1] = g;
        return success();
      })
      .Case<SubOp>([&](auto) {
        vjp.wanted[0] = g;
        vjp.wanted[1] = vjp.make.unary<NegOp>(g);
        return success();
      })
      .Case<MulOp>([&](MulOp mul) {
        vjp.wanted[0] = vjp.mul(g, mul.getRhs());
        vjp.wanted[1] = vjp.mul(g, mul.getLhs());
        return success();
      })
      .Case<DivOp>([&](DivOp div) {
        vjp.wanted[0] = vjp.div(g, div.getRhs());
        vjp.wanted[1] =
            vjp.make.unary<NegOp>(vjp.mul(vjp.wanted[0], div.getResult()));
        return success();
      })
      .Case<PowOp>([&](PowOp pow) {
        buildPowVjp(pow, vjp);
        return success();
      })
      .Case<ModOp>([&](ModOp mod) {
        buildModVjp(mod, vjp);
        return success();
      })
      .Case<MaxOp>([&](auto) {
        buildExtremeVjp(op, vjp, ComparePredicate::gt);
        return success();
      })
      .Case<MinOp>([&](auto) {
        buildExtremeVjp(op, vjp, ComparePredicate::lt);
        return success();
      })
      .Case<SelectOp>([&](SelectOp select) {
        Value zero = vjp.number(0, g);
        vjp.wanted[1] = vjp.make.select(select.getCondition(), g, zero);
        vjp.wanted[2] = vjp.make.select(select.getCondition(), zero, g);
        return success();
      })
      .Case<SwigluOp>([&](SwigluOp swiglu) {
        Value gate = swiglu.getLhs();
        Value sigmoid = vjp.make.unary<SigmoidOp>(gate);
        vjp.wanted[0] = vjp.mul(vjp.mul(g, swiglu.getRhs()),
                                buildSiluSlope(vjp, gate, sigmoid));
        vjp.wanted[1] = vjp.mul(g, vjp.mul(gate, sigmoid));
        return success();
      })
      .Default([&](Operation *) -> LogicalResult {
        FailureOr<Value> slope = buildSlope(op, vjp);
        if (failed(slope))
          return failure();
        if (*slope)
          vjp.wanted[0] = vjp.mul(g, *slope);
        return success();
      });
}

LogicalResult mlir::dshard::buildPointwiseVjp(Operation *op, Vjp &vjp) {
  if (op->getNumResults() != 1 || failed(buildUnsummed(op, vjp)))
    return failure();
  for (auto [operand, gradient] :
       llvm::zip_equal(op->getOperands(), vjp.wanted))
    if (gradient)
      gradient = vjp.sumTo(gradient, vjp.make.typeOf(operand));
  return success();
}
