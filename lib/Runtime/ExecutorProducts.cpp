//===- ExecutorProducts.cpp - Arguments of matrix products ----------------===//

#include "ExecutorCursor.h"

using namespace dshard;
using plan::InstructionKind;

MatmulArguments Executor::matmulOperands(const plan::Program &program,
                                         const plan::Instruction &instruction,
                                         uint32_t firstOptional) const {
  Operand lhs = operand(program, instruction, 0);
  Operand rhs = operand(program, instruction, 1);
  Operand bias = operand(program, instruction, firstOptional);
  Operand residual = operand(program, instruction, firstOptional + 1);
  Operand out = operand(program, instruction, firstOptional + 2);
  MatmulArguments g;
  g.lhs = lhs.data;
  g.rhs = rhs.data;
  g.bias = bias.data;
  g.residual = residual.data;
  g.out = out.data;
  g.lhsType = lhs.type;
  g.rhsType = rhs.type;
  g.biasType = bias.type;
  g.residualType = residual.type;
  g.outType = out.type;
  return g;
}

MatmulArguments
Executor::matmulArguments(const plan::Program &program,
                          const plan::Instruction &instruction) const {
  MatmulArguments g = matmulOperands(program, instruction, 2);
  Cursor values{*this, program, instruction.values_begin()};
  g.batch = values.next();
  g.m = values.next();
  g.n = values.next();
  g.k = values.next();
  g.lda = values.next();
  g.ldb = values.next();
  g.ldc = values.next();
  g.ldr = values.next();
  g.strideLhs = values.next();
  g.strideRhs = values.next();
  g.strideOut = values.next();
  g.strideResidual = values.next();
  g.transposeLhs = values.flag();
  g.transposeRhs = values.flag();
  g.packed = values.flag();
  g.activation = static_cast<plan::Activation>(values.next());
  return g;
}

MatmulArguments
Executor::matmulNBitsArguments(const plan::Program &program,
                               const plan::Instruction &instruction) const {
  MatmulArguments g = matmulOperands(program, instruction, 4);
  g.scales =
      reinterpret_cast<const float *>(operand(program, instruction, 2).data);
  g.zeroPoints =
      reinterpret_cast<const uint8_t *>(operand(program, instruction, 3).data);
  Cursor values{*this, program, instruction.values_begin()};
  g.m = values.next();
  g.n = values.next();
  g.k = values.next();
  g.lda = values.next();
  g.ldc = values.next();
  g.ldr = values.next();
  g.block = values.next();
  g.bits = static_cast<int>(values.next());
  g.int8 = values.flag();
  g.activation = static_cast<plan::Activation>(values.next());
  return g;
}

GroupedArguments
Executor::groupedArguments(const plan::Program &program,
                           const plan::Instruction &instruction) const {
  GroupedArguments g;
  g.isGradient = static_cast<InstructionKind>(instruction.kind()) ==
                 InstructionKind::GROUPED_WEIGHT_GRAD;
  Operand lhs = operand(program, instruction, 0);
  Operand rhs = operand(program, instruction, 1);
  Operand groups = operand(program, instruction, 2);
  Operand out = operand(program, instruction, 3);
  Operand workspace = operand(program, instruction, 4);
  g.lhs = lhs.data;
  g.rhs = rhs.data;
  g.groups = groups.data;
  g.out = out.data;
  g.workspace = workspace.data;
  g.workspaceBytes = workspace.bytes;
  g.lhsType = lhs.type;
  g.rhsType = rhs.type;
  g.groupsType = groups.type;
  g.outType = out.type;
  Cursor values{*this, program, instruction.values_begin()};
  g.count = values.next();
  g.rows = values.next();
  (g.isGradient ? g.m : g.n) = values.next();
  (g.isGradient ? g.n : g.k) = values.next();
  g.first = values.next();
  if (g.isGradient)
    return g;
  g.transposeRhs = values.flag();
  g.packed = values.flag();
  return g;
}
