//===- Match.cpp - Reading small structures in a graph --------------------===//

#include "Match.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

std::optional<double> mlir::dshard::matchSplat(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return std::nullopt;
  if (isa<ReshapeOp, BroadcastToOp, CastOp>(op)) {
    // A cast to fewer bits would change the number.
    if (isa<CastOp>(op) && !isa<FloatType>(elementTypeOf(value)))
      return std::nullopt;
    return matchSplat(op->getOperand(0));
  }
  auto constant = dyn_cast<ConstantOp>(op);
  auto elements =
      constant ? dyn_cast<DenseElementsAttr>(constant.getValue()) : nullptr;
  if (!elements || !elements.isSplat())
    return std::nullopt;
  if (isa<FloatType>(elements.getElementType())) {
    APFloat number = elements.getSplatValue<APFloat>();
    bool lost;
    number.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &lost);
    return number.convertToDouble();
  }
  APInt number = elements.getSplatValue<APInt>();
  if (elements.getElementType().isInteger(1))
    return number.isZero() ? 0.0 : 1.0;
  return static_cast<double>(number.getSExtValue());
}

std::optional<double> mlir::dshard::matchScalar(Value value) {
  if (typeOf(value).getNumElements() != 1)
    return std::nullopt;
  return matchSplat(value);
}

bool mlir::dshard::isScalar(Value value, double expected, double tolerance) {
  std::optional<double> number = matchScalar(value);
  return number &&
         std::fabs(*number - expected) <= tolerance * std::fabs(expected);
}

Value mlir::dshard::skipCasts(Value value) {
  while (auto cast = value.getDefiningOp<CastOp>())
    value = cast.getInput();
  return value;
}

std::optional<std::pair<Value, double>> mlir::dshard::matchScaled(Value value) {
  std::optional<std::pair<Value, double>> found;
  // A scalar of more dims than the other operand would add dims.
  auto take = [&](Value x, Value scalar, bool inverse) {
    std::optional<double> number = matchScalar(scalar);
    if (!number || x.getType() != value.getType() || (inverse && *number == 0))
      return false;
    found = {x, inverse ? 1.0 / *number : *number};
    return true;
  };
  if (auto div = value.getDefiningOp<DivOp>())
    take(div.getLhs(), div.getRhs(), true);
  else
    matchCommutative<MulOp>(
        value, [&](Value x, Value scalar) { return take(x, scalar, false); });
  return found;
}

Value mlir::dshard::skipScales(Value value, double &scale) {
  while (auto scaled = matchScaled(value)) {
    scale *= scaled->second;
    value = scaled->first;
  }
  return value;
}

void mlir::dshard::eraseDeadOps(Operation *root) {
  SmallVector<Operation *> ops;
  root->walk([&](Operation *op) { ops.push_back(op); });
  // Users before producers.
  for (Operation *op : llvm::reverse(ops))
    if (op != root && isOpTriviallyDead(op))
      op->erase();
}
