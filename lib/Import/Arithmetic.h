//===- Arithmetic.h - Formulas over values ----------------------*- C++ -*-===//
//
// For operators that are compositions: short names for pointwise ops, and the
// functions that lose digits when they are written down naively.
//
//   Arithmetic a(n);
//   Value x = a.wide(n.input(0));             // f16 and bf16 compute in f32
//   n.set(0, a.narrow(a.mul(x, a.add(x, 1.0)), n.input(0)));
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_IMPORT_ARITHMETIC_H
#define DSHARD_LIB_IMPORT_ARITHMETIC_H

#include "NodeImporter.h"

namespace mlir::dshard::onnx {

class Arithmetic {
public:
  explicit Arithmetic(NodeImporter &n) : n(n) {}

  /// f16 and bf16 as f32, so that a formula rounds once; others as they are.
  Value wide(Value x);
  /// As the element type of `like`.
  Value narrow(Value x, Value like) { return n.cast(x, n.elementOf(like)); }
  Value number(Value like, double value) {
    return n.scalar(n.elementOf(like), value);
  }

  Value add(Value x, Value y) { return n.pointwise<AddOp>({x, y}); }
  Value sub(Value x, Value y) { return n.pointwise<SubOp>({x, y}); }
  Value mul(Value x, Value y) { return n.pointwise<MulOp>({x, y}); }
  Value div(Value x, Value y) { return n.pointwise<DivOp>({x, y}); }
  Value max(Value x, Value y) { return n.pointwise<MaxOp>({x, y}); }
  Value min(Value x, Value y) { return n.pointwise<MinOp>({x, y}); }
  Value add(Value x, double y) { return add(x, number(x, y)); }
  Value sub(Value x, double y) { return sub(x, number(x, y)); }
  Value mul(Value x, double y) { return mul(x, number(x, y)); }
  Value div(Value x, double y) { return div(x, number(x, y)); }
  Value max(Value x, double y) { return max(x, number(x, y)); }
  Value min(Value x, double y) { return min(x, number(x, y)); }
  Value neg(Value x) { return n.pointwise<NegOp>(x); }
  Value abs(Value x) { return n.pointwise<AbsOp>(x); }
  Value exp(Value x) { return n.pointwise<ExpOp>(x); }
  Value log(Value x) { return n.pointwise<LogOp>(x); }
  Value sqrt(Value x) { return n.pointwise<SqrtOp>(x); }
  Value sign(Value x) { return n.pointwise<SignOp>(x); }

  Value less(Value x, Value y) { return n.compare(ComparePredicate::lt, x, y); }
  Value less(Value x, double y) { return less(x, number(x, y)); }
  Value greater(Value x, double y) {
    return n.compare(ComparePredicate::gt, x, number(x, y));
  }
  Value equal(Value x, Value y) {
    return n.compare(ComparePredicate::eq, x, y);
  }
  Value equal(Value x, double y) { return equal(x, number(x, y)); }
  /// Elementwise `condition` ? x : y.
  Value select(Value condition, Value x, Value y) {
    return n.pointwise<SelectOp>({condition, x, y}, n.elementOf(x));
  }

  /// exp(x) - 1, also of small x.
  Value expMinusOne(Value x);
  /// log(1 + x), also of small x.
  Value logOnePlus(Value x);
  /// log(1 + exp(x)) without overflow.
  Value softplus(Value x);

private:
  NodeImporter &n;
};

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_ARITHMETIC_H
