//===- PlanPrinter.h - A plan as text ---------------------------*- C++ -*-===//
//
// The whole plan as stable text for people and FileCheck. One line per fact and
// per instruction, names in quotes, values by their names in Instructions.def:
//
//   program 0 "run" stage 0 arena 24576 thread_scratch 0 streams 1 events 0
//     %0 "x" f32[16x64] arena @0 +4096 live 0..1
//     block 0:
//       0: matmul(%0 f32[16x64] @0, %1 f32[64x128] @w+0, none, none ->
//          %2 f32[16x128] @4096) batch=1 m=16 ... (one line in truth)
//       1: all_reduce(...) group=0{tp} operands=1 reduction=sum why="..."
//
// An operand is %buffer, type, and @offset in the arena or @state+offset; a
// flag is named when it is set.
//
// The plan must have been accepted by the reader.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_PLANPRINTER_H
#define DSHARD_PLAN_PLANPRINTER_H

#include "dshard/Plan/plan_generated.h"

#include <string>

namespace dshard::plan {

std::string printPlan(const Plan &plan);
/// One instruction of a program, without its number and indentation.
std::string printInstruction(const Plan &plan, uint32_t program,
                             uint32_t instruction);
/// "7", "table2(tp)", "scalar(lr)", "loop0".
std::string printValue(const Plan &plan, const Value &value);
/// "f32[16x64]".
std::string printType(const TensorType &type);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANPRINTER_H
