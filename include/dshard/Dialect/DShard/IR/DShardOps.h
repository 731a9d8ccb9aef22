//===- DShardOps.h - The ops of the dshard dialect --------------*- C++ -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDOPS_H
#define DSHARD_DIALECT_DSHARD_IR_DSHARDOPS_H

#include "dshard/Dialect/DShard/IR/DShardAttrs.h"
#include "dshard/Dialect/DShard/IR/HostTensor.h"
#include "dshard/Dialect/DShard/IR/ShardingRule.h"
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "dshard/Dialect/DShard/IR/DShardInterfaces.h.inc"

namespace mlir::dshard {

/// Elementwise with numpy broadcasting: the rule comes from the shapes.
template <typename ConcreteType>
class Pointwise : public OpTrait::TraitBase<ConcreteType, Pointwise> {};

LogicalResult verifyPointwise(Operation *op);
LogicalResult
evaluatePointwise(Operation *op, ArrayRef<HostTensor> operands,
                  SmallVectorImpl<HostTensor> &results,
                  llvm::function_ref<double(ArrayRef<double>)> apply);
double divide(Operation *op, double x, double y);
/// Whether a cast of a sum is the sum of the casts, up to rounding: not where
/// it truncates to an integer or tests for zero.
bool isLinearCast(RankedTensorType from, RankedTensorType to);
bool compare(ComparePredicate predicate, double x, double y);
/// x modulo y; `truncated`: with the sign of x, else with that of y.
double remainder(double x, double y, bool truncated);
/// bit_and, bit_or, bit_xor, shift_left or shift_right of two integers.
double applyBits(Operation *op, double x, double y);
double reinterpretBits(double x, Type from, Type to);
/// The value that a reduction starts from; reductions of `dshard.reduce` and of
/// collectives share these two. mean is a sum here: its caller divides.
double getReductionIdentity(ReductionKind kind);
double reduceTwo(ReductionKind kind, double x, double y);
/// reorder_c1: whether `parts` parts of this layout can be dealt out of `size`.
LogicalResult verifySequenceLayout(Operation *op, SequenceLayout layout,
                                   int64_t parts, int64_t size);
/// The natural position of element `index` of a dim that lies in the layout's
/// order.
int64_t getNaturalPosition(SequenceLayout layout, int64_t parts, int64_t size,
                           int64_t index);
/// An operand that must be tensor<i64>.
LogicalResult verifyIndexScalar(Operation *op, StringRef name, Value value);
/// The elements of a constant: dense, splat or a dense_resource.
LogicalResult readElements(ElementsAttr attr, HostTensor &result,
                           llvm::function_ref<InFlightDiagnostic()> emitError);

} // namespace mlir::dshard

#define GET_OP_CLASSES
#include "dshard/Dialect/DShard/IR/DShardOps.h.inc"

#endif // DSHARD_DIALECT_DSHARD_IR_DSHARDOPS_H
