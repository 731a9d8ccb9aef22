//===- KernelCases.h - Cases for generated kernels, CPU and CUDA -*- C++
//-*-===//
//
// Every op, over odd and even shapes and all element types. A case is one
// function: interpreted for what is expected, wrapped as one kernel.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_CODEGEN_KERNELCASES_H
#define DSHARD_TEST_CODEGEN_KERNELCASES_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Reference/Interpreter.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"

#include <string>
#include <vector>

namespace mlir::dshard::testing {

struct Case {
  std::string name;
  std::vector<std::string> arguments; // types
  std::string result;                 // types, comma separated
  std::string body;                   // defines %r (and %s ...)
  double low = -3, high = 3;
  std::string results = "%r";
  /// The results are differences of values of about this size.
  double scale = 0;
};

/// `dshard.OP %0, %1 {attrs}`.
Case op(std::string name, std::vector<std::string> arguments,
        std::string result, std::string attributes = "", double low = -3,
        double high = 3);

std::vector<Case> pointwiseCases();
std::vector<Case> otherCases();
std::vector<Case> trainingCases();
std::vector<Case> fusedCases();

/// Bytes of an element in memory.
unsigned bytesOf(Type type);
void write(char *at, Type type, double value);

/// A case with its arguments drawn, its results interpreted, and its body in
/// one fused op.
struct Prepared {
  OwningOpRef<ModuleOp> module;
  FusedOp fused;
  SmallVector<HostTensor> arguments, expected;
};
/// False after a test failure.
bool prepare(const Case &test, MLIRContext &context, Prepared &prepared);

/// Fails where the bytes at `memory` are not the result `want` of `test`.
void compare(const Case &test, size_t result, const HostTensor &want,
             const char *memory);

} // namespace mlir::dshard::testing

#endif // DSHARD_TEST_CODEGEN_KERNELCASES_H
