//===- MicroBatches.h - The model on a part of the batch --------*- C++ -*-===//
#ifndef DSHARD_LIB_PIPELINES_MICROBATCHES_H
#define DSHARD_LIB_PIPELINES_MICROBATCHES_H

#include "dshard/Import/Import.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace mlir::dshard {

/// The entry point that training adds.
inline constexpr llvm::StringLiteral trainStepName = "train_step";

/// Imports the model at `path` again, with every symbolic batch dim bound to
/// the `count`-th part of what `options` says, and adds it to `module` (the
/// whole batch) as @train_step with `dshard.micro_batches`. Importing twice
/// gives exact types where the batch went through shape arithmetic. Errors:
/// `count` does not divide a batch, or a batch is not symbolic; the output
/// `logits` does not have the batch in dim 0, or its rows mix (`graphPasses`
/// simplify a copy of the model before that is proved).
LogicalResult addMicroBatch(ModuleOp module, StringRef path,
                            const ImportOptions &options, int64_t count,
                            StringRef logits, StringRef graphPasses);

/// Puts the model on one of `count` parts of the batch in the place of
/// `module`, the model on the whole batch: its function gets
/// `dshard.micro_batches`, and what has the batch in dim 0
/// `dshard.micro_batched`. `graphPasses` simplify the whole model before it is
/// proved that its rows are independent. Errors: those of addMicroBatch; an
/// output whose batch is not dim 0; rows that mix.
LogicalResult divideIntoMicroBatches(OwningOpRef<ModuleOp> &module,
                                     StringRef path,
                                     const ImportOptions &options,
                                     int64_t count, StringRef graphPasses);

} // namespace mlir::dshard

#endif // DSHARD_LIB_PIPELINES_MICROBATCHES_H
