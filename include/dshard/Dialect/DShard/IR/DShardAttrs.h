//===- DShardAttrs.h - Mesh, axes, shardings --------------------*- C++ -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_H
#define DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_H

#include "mlir/IR/Attributes.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpImplementation.h"
#include <optional>

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
/// On an argument: the scalar of the plan that it holds (set by the host).
inline constexpr llvm::StringLiteral scalarAttrName = "dshard.scalar";
/// On an optimizer state: the name of the parameter's state.
inline constexpr llvm::StringLiteral stateOfAttrName = "dshard.state_of";
/// On a one-dim result: names of its elements, each of which must be finite.
inline constexpr llvm::StringLiteral finiteAttrName = "dshard.finite";
/// On an integer argument: [min, max] or [min, max, also allowed].
inline constexpr llvm::StringLiteral rangeAttrName = "dshard.range";
/// On an argument or result: the order in which its sequence dim lies inside
/// the function, dealt out to the ranks of `cp`, and which dim that is.
inline constexpr llvm::StringLiteral layoutAttrName = "dshard.layout";
inline constexpr llvm::StringLiteral layoutDimAttrName = "dshard.layout_dim";
/// On an attention whose sequence `cp` shards: how keys meet queries ("ring",
/// "all_gather", "all_to_all" or "hierarchical").
inline constexpr llvm::StringLiteral contextMethodAttrName = "dshard.cp_method";
/// On a function: how many pieces the batch goes through a pipeline in.
inline constexpr llvm::StringLiteral microBatchesAttrName =
    "dshard.micro_batches";
/// On a function after the pipeline split: its virtual stage.
inline constexpr llvm::StringLiteral stageAttrName = "dshard.stage";
/// On an entry point without a body, after the pipeline split: the names of its
/// stage functions, first to last.
inline constexpr llvm::StringLiteral stagesAttrName = "dshard.stages";
/// On an argument or result of a stage function: its position in the entry
/// point's signature.
inline constexpr llvm::StringLiteral indexAttrName = "dshard.index";
/// On an argument or result of a function with micro-batches: its dim 0 is the
/// batch, of one micro-batch; outside it is `dshard.micro_batches` times
/// longer.
inline constexpr llvm::StringLiteral microBatchedAttrName =
    "dshard.micro_batched";
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
/// What layoutAttrName and layoutDimAttrName among an argument's or result's
/// attributes say: dim `dim` lies as `dshard.reorder` with `parts` leaves it.
struct BoundaryLayout {
  SequenceLayout layout = SequenceLayout::contiguous;
  int64_t dim = 0;
  int64_t parts = 1; ///< the size of the mesh's `cp`
};
/// Nothing without attributes, or where the order is the natural one.
std::optional<BoundaryLayout> getBoundaryLayout(DictionaryAttr attributes,
                                                MeshAttr mesh);
/// The sharding of a value: of a function argument, or of an op's result; null
/// if none.
ShardingAttr getSharding(Value value);
void setSharding(Value value, ShardingAttr sharding);

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_H
