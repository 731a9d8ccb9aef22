//===- Steps.h - Run a function step by step --------------------*- C++ -*-===//
//
// What `dshard-run --steps` does, in the interpreter: a result with
// `dshard.state` is the argument of that state in the next step.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_REFERENCE_STEPS_H
#define DSHARD_REFERENCE_STEPS_H

#include "dshard/Reference/Interpreter.h"

namespace mlir::dshard {

/// Runs `function` `steps` times. Arguments that are neither state, weight nor
/// scalar have a leading step dim, and so have results that are no state; a
/// state comes back as the last step left it.
LogicalResult interpretSteps(func::FuncOp function,
                             ArrayRef<HostTensor> arguments, int64_t steps,
                             Precision precision,
                             SmallVectorImpl<HostTensor> &results);

} // namespace mlir::dshard

#endif // DSHARD_REFERENCE_STEPS_H
