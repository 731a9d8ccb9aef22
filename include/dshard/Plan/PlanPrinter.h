//===- PlanPrinter.h - A plan as text ---------------------------*- C++ -*-===//
//
// The whole plan as stable text for people and FileCheck. One line per
// instruction, blocks indented below what enters them for the first time:
//
//   program 0 "run" stage 0, arena 24576, scratch 0 per thread, ...
//     buffers:
//       %0 "x" f32[16x64] arena 0 +4096, live 0..1
//     block 0:
//       0: matmul(%0 f32[16x64] @0, %1 ... -> %2 ...) batch=1 m=16 ...
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
/// "7", "table2[0,1]", "scalar lr", "loop0".
std::string printValue(const Plan &plan, const Value &value);
/// "f32[16x64]".
std::string printType(const TensorType &type);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANPRINTER_H
