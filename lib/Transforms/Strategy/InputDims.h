//===- InputDims.h - What the dims of an input are --------------*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_STRATEGY_INPUTDIMS_H
#define DSHARD_LIB_TRANSFORMS_STRATEGY_INPUTDIMS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::dshard {

/// True for arguments that a run is given: no parameter, no optimizer state.
bool isInput(func::FuncOp function, unsigned argument);

/// The dim that counts independent samples, nothing if there is none. A dim
/// that `dshard.dim_names` (of the model's file, or of --dims) calls `batch` is
/// it; else dim 0, unless that is called `seq` or `none`.
std::optional<int64_t> findBatchDim(func::FuncOp function, unsigned argument);

/// The dim that counts positions: the one called `seq`; else dim 1 of an
/// integer input, unless that is called `batch` or `none`.
std::optional<int64_t> findSequenceDim(func::FuncOp function,
                                       unsigned argument);

/// "input input_ids", for messages.
std::string describeInput(func::FuncOp function, unsigned argument);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_STRATEGY_INPUTDIMS_H
