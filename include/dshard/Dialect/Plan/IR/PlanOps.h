//===- PlanOps.h - The plan dialect -----------------------------*- C++ -*-===//
//
// The plan as IR, 1:1 with plan.fbs; see PlanOps.td. Instructions share one
// form, read from Plan/Instructions.def.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_DIALECT_PLAN_IR_PLANOPS_H
#define DSHARD_DIALECT_PLAN_IR_PLANOPS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Plan/Instructions.h"
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OpImplementation.h"

#include "dshard/Dialect/Plan/IR/PlanDialect.h.inc"

#define GET_TYPEDEF_CLASSES
#include "dshard/Dialect/Plan/IR/PlanTypes.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dshard/Dialect/Plan/IR/PlanAttrs.h.inc"

namespace mlir::plan {

/// The table entry of an instruction op; null for any other op.
const ::dshard::plan::InstructionInfo *getInstructionInfo(Operation *op);

ParseResult parseInstruction(OpAsmParser &parser, OperationState &result);
void printInstruction(OpAsmPrinter &printer, Operation *op);
LogicalResult verifyInstruction(Operation *op);
/// What no op can see alone, for modules that people write: the constraints
/// plan_ir_c1 to c6 of PlanOps.td. Errors are diagnostics.
LogicalResult verifyReferences(ModuleOp module);

/// Where an instruction comes from.
struct Origin {
  StringAttr path, node, why;
  dshard::PartAttr part;
};

/// Creates the instruction `kind`. One list of buffers per use of the table;
/// values in the order of the table.
Operation *createInstruction(OpBuilder &builder, Location loc,
                             ::dshard::plan::InstructionKind kind,
                             ArrayRef<SmallVector<Value>> uses,
                             ArrayRef<Attribute> values, const Origin &origin);

} // namespace mlir::plan

#define GET_OP_CLASSES
#include "dshard/Dialect/Plan/IR/PlanOps.h.inc"

#endif // DSHARD_DIALECT_PLAN_IR_PLANOPS_H
