//===- DShardAttrs.h - Mesh, axes, shardings --------------------*- C++ -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_H
#define DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_H

#include "mlir/IR/Attributes.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpImplementation.h"

#include "dshard/Dialect/DShard/IR/DShardDialect.h.inc"
#include "dshard/Dialect/DShard/IR/DShardEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dshard/Dialect/DShard/IR/DShardAttrs.h.inc"

namespace mlir::dshard {

/// Names of the discardable attributes, in one place.
inline constexpr llvm::StringLiteral meshAttrName = "dshard.mesh";
inline constexpr llvm::StringLiteral modelAttrName = "dshard.model";
inline constexpr llvm::StringLiteral phaseAttrName = "dshard.phase";
inline constexpr llvm::StringLiteral shardingAttrName = "dshard.sharding";
inline constexpr llvm::StringLiteral shardingsAttrName = "dshard.shardings";
inline constexpr llvm::StringLiteral roleAttrName = "dshard.role";
inline constexpr llvm::StringLiteral weightAttrName = "dshard.weight";
inline constexpr llvm::StringLiteral globalAttrName = "dshard.global";
inline constexpr llvm::StringLiteral stateAttrName = "dshard.state";
inline constexpr llvm::StringLiteral nameAttrName = "dshard.name";
inline constexpr llvm::StringLiteral dimNamesAttrName = "dshard.dim_names";
inline constexpr llvm::StringLiteral originAttrName = "dshard.origin";
inline constexpr llvm::StringLiteral spmdAttrName = "dshard.spmd";
inline constexpr llvm::StringLiteral callAttrName = "dshard.call";

/// Sub-axes that continue each other become one: tp:(1)2, tp:(2)2 is tp:(1)4.
SmallVector<AxisRefAttr> mergeAdjacentAxes(ArrayRef<AxisRefAttr> axes);
/// For messages: `dp_shard,tp:(1)2`.
std::string toString(ArrayRef<AxisRefAttr> axes);
/// `"dp_shard", "tp":(1)2`, without brackets.
void printAxisList(AsmPrinter &printer, ArrayRef<AxisRefAttr> axes);
ParseResult parseAxisList(AsmParser &parser, AsmParser::Delimiter delimiter,
                          SmallVectorImpl<AxisRefAttr> &axes);
/// Emits which of `axes` the mesh does not have, which does not divide its
/// axis, which are used twice. `what` opens the message.
LogicalResult verifyAxes(ArrayRef<AxisRefAttr> axes, MeshAttr mesh,
                         StringRef what,
                         llvm::function_ref<InFlightDiagnostic()> emitError);

/// verifyFor without sharding_c3: `dshard-pad` may still make the sizes divide.
LogicalResult
verifyShardingBeforePadding(ShardingAttr sharding, RankedTensorType type,
                            MeshAttr mesh, StringRef what,
                            llvm::function_ref<InFlightDiagnostic()> emitError);

/// The module's mesh, or null.
MeshAttr getMesh(Operation *op);
/// The sharding of a value: of a function argument, or of an op's result; null
/// if none.
ShardingAttr getSharding(Value value);
void setSharding(Value value, ShardingAttr sharding);

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_H
