//===- LaneMath.h - Arithmetic on one or several lanes ----------*- C++ -*-===//
//
// The scalar functions of dshard ops, built as arith/math/vector ops on values
// that are either scalars or 1-d vectors ("lanes"). Mixed operands broadcast.
//
// Registers hold *compute types*: f32 for f16, bf16 and f32 (rounded to the
// element type after every op), f64, i1 for booleans, signless integers.
// Memory holds *storage types*: i16 for bf16, i8 for i1, else the same.
//
// No function here leaves a call behind: what upstream's polynomial
// approximations do not cover accurately (sine and cosine of large arguments,
// f64, pow, remainders) is expanded here, to about 1e-7 relative or better.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_CODEGEN_LANEMATH_H
#define DSHARD_CODEGEN_LANEMATH_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/Builders.h"

namespace mlir::dshard {

class LaneMath {
public:
  LaneMath(OpBuilder &builder, Location loc) : b(builder), loc(loc) {}

  /// The type that registers hold for elements of `element`.
  Type computeType(Type element) const;
  /// The type that memory holds.
  Type storageType(Type element) const;

  static int64_t lanes(Value value);
  Value splat(Value scalar, int64_t lanes);
  /// A scalar constant of a compute type.
  Value constant(Type type, double value);
  Value integer(int64_t value) { return integer(b.getI64Type(), value); }
  Value integer(Type type, int64_t value);

  /// Memory to register and back, `element` as the tensor says.
  Value fromStorage(Value stored, Type element);
  Value toStorage(Value value, Type element);
  /// Rounds a compute value to what `element` can hold.
  Value round(Value value, Type element);
  /// Converts between the compute types of two element types, and rounds.
  Value cast(Value value, Type from, Type to);

  // Floats and integers alike; `isUnsigned` matters for integers only.
  Value add(Value x, Value y);
  Value sub(Value x, Value y);
  Value mul(Value x, Value y);
  Value div(Value x, Value y, bool isUnsigned = false);
  Value max(Value x, Value y, bool isUnsigned = false);
  Value min(Value x, Value y, bool isUnsigned = false);
  Value neg(Value x);
  Value abs(Value x);
  Value select(Value condition, Value x, Value y);
  Value compareFloat(arith::CmpFPredicate predicate, Value x, Value y);
  Value compareInt(arith::CmpIPredicate predicate, Value x, Value y);
  Value isNonZero(Value x);
  Value logicalAnd(Value x, Value y);
  Value logicalOr(Value x, Value y);
  Value logicalXor(Value x, Value y);
  /// Of integers; by the width or more: what is left of an endless shift.
  Value shift(Value x, Value by, bool left, bool isUnsigned);
  /// The bits of an element of `from` as one of `to`, of the same width.
  Value bitCast(Value value, Type from, Type to);
  /// x * y + z, fused.
  Value fma(Value x, Value y, Value z);

  // Floats (f32 or f64).
  Value exp(Value x);
  Value log(Value x);
  Value sqrt(Value x);
  Value sin(Value x) { return sinOrCos(x, false); }
  Value cos(Value x) { return sinOrCos(x, true); }
  Value atan(Value x);
  Value tanh(Value x);
  Value erf(Value x);
  Value sigmoid(Value x);
  Value pow(Value x, Value y);
  /// Sign of the dividend when `truncated`, of the divisor otherwise.
  Value mod(Value x, Value y, bool truncated, bool isUnsigned = false);
  Value floor(Value x);
  Value ceil(Value x);
  Value trunc(Value x);
  Value roundEven(Value x);

  /// One scalar from all lanes, by halving: the order is fixed.
  Value reduceLanes(Value vector, function_ref<Value(Value, Value)> combine);

  OpBuilder &b;
  Location loc;

private:
  void match(Value &x, Value &y);
  Type sameShape(Value like, Type scalar);
  Value like(Value x, double value);
  Value likeInt(Value x, int64_t value);
  Value horner(Value x, ArrayRef<double> highToLow);
  Value toDouble(Value x);
  Value fromDouble(Value x, Type scalar);
  Value sinOrCos(Value x, bool cosine);
};

} // namespace mlir::dshard

#endif // DSHARD_CODEGEN_LANEMATH_H
