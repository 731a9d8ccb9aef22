//===- Match.h - Reading small structures in a graph ------------*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_GRAPH_MATCH_H
#define DSHARD_LIB_TRANSFORMS_GRAPH_MATCH_H

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include <optional>
#include <utility>

namespace mlir::dshard {

inline RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}
inline ArrayRef<int64_t> shapeOf(Value value) {
  return typeOf(value).getShape();
}
inline Type elementTypeOf(Value value) {
  return typeOf(value).getElementType();
}

/// The one number a constant holds (splat), through reshapes, broadcasts and
/// casts; nothing for any other value.
std::optional<double> matchSplat(Value value);
/// As matchSplat, for a value whose dims all have size 1, so that it changes no
/// shape where it broadcasts.
std::optional<double> matchScalar(Value value);
/// True if `value` is a scalar within a relative 1e-6 of `expected`.
bool isScalar(Value value, double expected, double tolerance = 1e-6);

/// `value` without the casts that made it.
Value skipCasts(Value value);

/// The operands of a product in both orders: calls `match(a, b)` until it
/// holds.
template <typename OpT, typename Match>
bool matchCommutative(Value value, Match match) {
  auto op = value.getDefiningOp<OpT>();
  return op &&
         (match(op.getLhs(), op.getRhs()) || match(op.getRhs(), op.getLhs()));
}

/// `x` and the scalar s of x * s, s * x or x / s (as 1/s); else nothing.
std::optional<std::pair<Value, double>> matchScaled(Value value);
/// Takes all scalar factors off; `scale` is multiplied by them.
Value skipScales(Value value, double &scale);

/// Erases every op of the module whose results nobody reads.
void eraseDeadOps(Operation *root);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_GRAPH_MATCH_H
