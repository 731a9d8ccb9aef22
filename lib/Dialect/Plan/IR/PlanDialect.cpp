//===- PlanDialect.cpp - The plan dialect ---------------------------------===//

#include "dshard/Dialect/Plan/IR/PlanOps.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::plan;

#include "dshard/Dialect/Plan/IR/PlanDialect.cpp.inc"

#define GET_TYPEDEF_CLASSES
#include "dshard/Dialect/Plan/IR/PlanTypes.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "dshard/Dialect/Plan/IR/PlanAttrs.cpp.inc"

#define GET_OP_CLASSES
#include "dshard/Dialect/Plan/IR/PlanOps.cpp.inc"

void PlanDialect::initialize() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "dshard/Dialect/Plan/IR/PlanTypes.cpp.inc"
      >();
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dshard/Dialect/Plan/IR/PlanAttrs.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dshard/Dialect/Plan/IR/PlanOps.cpp.inc"
      >();
}
