//===- Collectives.h - Reference values of collectives ----------*- C++ -*-===//
//
// Every collective as a function of the values of one group, in group order.
// All reductions go in group order, as the runtimes do.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_REFERENCE_COLLECTIVES_H
#define DSHARD_REFERENCE_COLLECTIVES_H

#include "dshard/Reference/Distribute.h"

namespace mlir::dshard {

/// Values of the members of a group, in group order.
using GroupValues = SmallVector<SharedTensor>;

SharedTensor reduceGroup(const GroupValues &values, ReductionKind kind);
SharedTensor concatGroup(const GroupValues &values, int64_t dim);
/// `count` equal pieces along `dim`.
GroupValues splitEvenly(const SharedTensor &value, int64_t dim, int64_t count);

/// True for ops that evaluateCollective understands.
bool isCollective(Operation *op);

/// Results of a collective: operands[operand][member] ->
/// results[result][member].
LogicalResult evaluateCollective(Operation *op, ArrayRef<GroupValues> operands,
                                 SmallVectorImpl<GroupValues> &results);

/// The axes of a collective, local_slice or rank_index.
SmallVector<AxisRefAttr> getAxesOf(Operation *op);

} // namespace mlir::dshard

#endif // DSHARD_REFERENCE_COLLECTIVES_H
