//===- ActivationOps.cpp - ONNX activations as formulas -------------------===//

#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

Value Arithmetic::wide(Value x) {
  Type element = n.elementOf(x);
  if (element && (element.isF16() || element.isBF16()))
    return n.cast(x, n.graph.builder().getF32Type());
  return x;
}

/// tanh(x / 2) (exp(x) + 1): nothing cancels. Where exp overflows, so does it.
Value Arithmetic::expMinusOne(Value x) {
  return mul(n.pointwise<TanhOp>(mul(x, 0.5)), add(exp(x), 1.0));
}

/// Kahan's: with u = 1 + x rounded, log(u) x / (u - 1); x where u is 1.
Value Arithmetic::logOnePlus(Value x) {
  Value u = add(x, 1.0), rest = sub(u, 1.0);
  Value small = equal(rest, 0.0);
  Value safe = select(small, number(x, 1.0), rest);
  return select(small, x, mul(log(u), div(x, safe)));
}

/// max(x, 0) + log(1 + exp(-|x|)).
Value Arithmetic::softplus(Value x) {
  return add(n.pointwise<ReluOp>(x), logOnePlus(exp(neg(abs(x)))));
}

/// One input of floats, `formula` on it.
static void
importFormula(NodeImporter &n,
              llvm::function_ref<Value(Arithmetic &, Value)> formula) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  if (n.failed())
    return;
  if (!isa<FloatType>(n.elementOf(x)))
    return n.fail("the input must hold floating-point numbers");
  Arithmetic a(n);
  n.set(0, a.narrow(formula(a, a.wide(x)), x));
}

void onnx::importElu(NodeImporter &n) {
  double alpha = n.floatAttr("alpha", 1.0);
  importFormula(n, [&](Arithmetic &a, Value x) {
    return a.select(a.less(x, 0.0), a.mul(a.expMinusOne(a.min(x, 0.0)), alpha),
                    x);
  });
}

void onnx::importSelu(NodeImporter &n) {
  double alpha = n.floatAttr("alpha", 1.67326319217681884765625),
         gamma = n.floatAttr("gamma", 1.05070102214813232421875);
  importFormula(n, [&](Arithmetic &a, Value x) {
    Value below = a.mul(a.expMinusOne(a.min(x, 0.0)), alpha);
    return a.mul(a.select(a.less(x, 0.0), below, x), gamma);
  });
}

void onnx::importCelu(NodeImporter &n) {
  double alpha = n.floatAttr("alpha", 1.0);
  if (alpha == 0)
    return n.fail("alpha is 0");
  importFormula(n, [&](Arithmetic &a, Value x) {
    Value below = a.mul(a.expMinusOne(a.div(a.min(x, 0.0), alpha)), alpha);
    return a.add(a.max(x, 0.0), a.min(below, 0.0));
  });
}

static Value hardSigmoid(Arithmetic &a, Value x, double alpha, double beta) {
  return a.max(a.min(a.add(a.mul(x, alpha), beta), 1.0), 0.0);
}
void onnx::importHardSigmoid(NodeImporter &n) {
  double alpha = n.floatAttr("alpha", 0.2), beta = n.floatAttr("beta", 0.5);
  importFormula(n, [&](Arithmetic &a, Value x) {
    return hardSigmoid(a, x, alpha, beta);
  });
}
void onnx::importHardSwish(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) {
    return a.mul(x, hardSigmoid(a, x, 1.0 / 6, 0.5));
  });
}

void onnx::importMish(NodeImporter &n) {
  importFormula(n, [&](Arithmetic &a, Value x) {
    return a.mul(x, n.pointwise<TanhOp>(a.softplus(x)));
  });
}

/// Rounds once: x * slope in the input's own type.
void onnx::importLeakyRelu(NodeImporter &n) {
  double alpha = n.floatAttr("alpha", 0.01);
  importFormula(n, [&](Arithmetic &a, Value x) {
    return a.select(a.less(x, 0.0), a.mul(x, alpha), x);
  });
}

void onnx::importThresholdedRelu(NodeImporter &n) {
  double alpha = n.floatAttr("alpha", 1.0);
  importFormula(n, [&](Arithmetic &a, Value x) {
    return a.select(a.greater(x, alpha), x, a.number(x, 0.0));
  });
}

void onnx::importSoftsign(NodeImporter &n) {
  importFormula(
      n, [](Arithmetic &a, Value x) { return a.div(x, a.add(a.abs(x), 1.0)); });
}

/// The slope is broadcast to x, never x to the slope.
void onnx::importPRelu(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), slope = n.input(1);
  if (n.failed())
    return;
  if (n.elementOf(x) != n.elementOf(slope))
    return n.fail("element types of the input and the slope differ");
  // Before opset 7 a slope of one dim belongs to dim 1.
  if (n.opset() < 7 && n.rank(slope) == 1 && n.rank(x) > 2 &&
      n.shape(slope)[0] != 1) {
    SmallVector<int64_t> shape(n.rank(x) - 1, 1);
    shape[0] = n.shape(slope)[0];
    slope = n.reshape(slope, shape);
  }
  Arithmetic a(n);
  Value scaled = a.mul(x, slope);
  if (scaled && n.shape(scaled) != n.shape(x))
    return n.fail("the slope does not broadcast to the input");
  n.set(0, a.select(a.less(x, 0.0), scaled, x));
}

/// x - bias above lambd, x + bias below -lambd, else 0.
void onnx::importShrink(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  double bias = n.floatAttr("bias", 0.0), lambda = n.floatAttr("lambd", 0.5);
  Value x = n.input(0);
  if (n.failed())
    return;
  bool whole = !isa<FloatType>(n.elementOf(x));
  Arithmetic a(n);
  // An integer is compared with lambd as a real number.
  Type f64 = n.graph.builder().getF64Type();
  Value y = whole ? n.cast(x, f64) : x;
  Value result = a.select(
      a.less(y, -lambda), a.add(y, bias),
      a.select(a.greater(y, lambda), a.sub(y, bias), a.number(y, 0.0)));
  n.set(0, a.narrow(result, x));
}

void onnx::importSwiGlu(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value gate = n.input(0), up = n.input(1);
  double alpha = n.floatAttr("alpha", 1.0);
  if (n.failed())
    return;
  if (n.typeOf(gate) != n.typeOf(up))
    return n.fail("shapes or element types of the two inputs differ");
  if (alpha == 1.0)
    return n.set(0, n.pointwise<SwigluOp>({gate, up}));
  Arithmetic a(n);
  Value x = a.wide(gate);
  Value gated = a.mul(x, n.pointwise<SigmoidOp>(a.mul(x, alpha)));
  n.set(0, a.narrow(a.mul(gated, a.wide(up)), gate));
}

/// log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|)).
void onnx::importSoftplus(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) { return a.softplus(x); });
}

//===----------------------------------------------------------------------===//
// Trigonometric and hyperbolic functions
//===----------------------------------------------------------------------===//

void onnx::importTan(NodeImporter &n) {
  importFormula(n, [&](Arithmetic &a, Value x) {
    return a.div(n.pointwise<SinOp>(x), n.pointwise<CosOp>(x));
  });
}

/// Halves of exp(|x|), made by shifting the exponent: the sum overflows only
/// where the result does.
static Value halfExp(Arithmetic &a, Value x) {
  return a.exp(a.sub(x, 0.6931471805599453));
}
/// With e = exp(|x|) - 1: (e + e / (e + 1)) / 2 is exact for small x too.
void onnx::importSinh(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) {
    Value size = a.abs(x), e = a.expMinusOne(a.min(size, 1.0));
    Value small = a.mul(a.add(e, a.div(e, a.add(e, 1.0))), 0.5);
    Value large = a.sub(halfExp(a, size), halfExp(a, a.neg(size)));
    return a.mul(a.sign(x), a.select(a.less(size, 1.0), small, large));
  });
}
void onnx::importCosh(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) {
    Value size = a.abs(x);
    return a.add(halfExp(a, size), halfExp(a, a.neg(size)));
  });
}

/// sign(x) log(|x| + sqrt(x^2 + 1)), as log(1 + y) with
/// y = |x| + x^2 / (1 + sqrt(x^2 + 1)).
void onnx::importAsinh(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) {
    Value size = a.abs(x), square = a.mul(x, x);
    Value root = a.add(a.sqrt(a.add(square, 1.0)), 1.0);
    Value small = a.logOnePlus(a.add(size, a.div(square, root)));
    // Of large ones the square would overflow.
    Value large = a.add(a.log(size), 0.6931471805599453);
    return a.mul(a.sign(x), a.select(a.greater(size, 1e9), large, small));
  });
}
/// log(x + sqrt(x^2 - 1)), with t = x - 1 as log(1 + t + sqrt(2 t + t^2)).
void onnx::importAcosh(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) {
    Value t = a.sub(x, 1.0);
    Value root = a.sqrt(a.add(a.mul(t, 2.0), a.mul(t, t)));
    Value large = a.add(a.log(x), 0.6931471805599453);
    return a.select(a.greater(x, 1e9), large, a.logOnePlus(a.add(t, root)));
  });
}
/// log((1 + x) / (1 - x)) / 2 = log(1 + 2 x / (1 - x)) / 2.
void onnx::importAtanh(NodeImporter &n) {
  importFormula(n, [](Arithmetic &a, Value x) {
    Value size = a.abs(x);
    Value ratio = a.div(a.mul(size, 2.0), a.sub(a.number(x, 1.0), size));
    return a.mul(a.mul(a.sign(x), a.logOnePlus(ratio)), 0.5);
  });
}

/// arctan(x / sqrt(1 - x^2)); 1 - x and 1 + x lose nothing near 1.
void onnx::importAsin(NodeImporter &n) {
  importFormula(n, [&](Arithmetic &a, Value x) {
    Value one = a.number(x, 1.0);
    Value rest = a.sqrt(a.mul(a.sub(one, x), a.add(x, 1.0)));
    return n.pointwise<AtanOp>(a.div(x, rest));
  });
}
/// 2 arctan(sqrt((1 - x) / (1 + x))).
void onnx::importAcos(NodeImporter &n) {
  importFormula(n, [&](Arithmetic &a, Value x) {
    Value ratio = a.div(a.sub(a.number(x, 1.0), x), a.add(x, 1.0));
    return a.mul(n.pointwise<AtanOp>(a.sqrt(ratio)), 2.0);
  });
}
