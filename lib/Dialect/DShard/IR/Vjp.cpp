//===- Vjp.cpp - Which family builds an op's gradient ---------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult
mlir::dshard::buildVjpOf(Operation *op, OpBuilder &builder,
                         ValueRange resultGradients,
                         SmallVectorImpl<Value> &operandGradients) {
  return op->emitOpError("has no gradient; training through it is refused");
}
