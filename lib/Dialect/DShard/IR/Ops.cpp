//===- Ops.cpp - What TableGen made of the op families --------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/IR/OpImplementation.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

/// `over ["tp", "dp":(1)2]`
static ParseResult parseAxes(OpAsmParser &parser, ArrayAttr &axes) {
  SmallVector<AxisRefAttr> list;
  if (parseAxisList(parser, AsmParser::Delimiter::Square, list))
    return failure();
  axes = parser.getBuilder().getArrayAttr(
      SmallVector<Attribute>(list.begin(), list.end()));
  return success();
}

static void printAxes(OpAsmPrinter &printer, Operation *, ArrayAttr axes) {
  SmallVector<AxisRefAttr> list(axes.getAsRange<AxisRefAttr>());
  printer << "[";
  printAxisList(printer, list);
  printer << "]";
}

#include "dshard/Dialect/DShard/IR/DShardInterfaces.cpp.inc"
#define GET_OP_CLASSES
#include "dshard/Dialect/DShard/IR/DShardOps.cpp.inc"

void DShardDialect::registerOps() {
  addOperations<
#define GET_OP_LIST
#include "dshard/Dialect/DShard/IR/DShardOps.cpp.inc"
      >();
}
