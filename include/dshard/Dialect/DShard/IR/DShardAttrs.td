//===- DShardAttrs.td - Mesh, shardings and their small change --*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_TD
#define DSHARD_DIALECT_DSHARD_IR_DSHARDATTRS_TD

include "dshard/Dialect/DShard/IR/DShardBase.td"

class DShard_Enum<string name, string summary, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::mlir::dshard";
  let genSpecializedAttr = 0;
}
// Printed as `#dshard.role<param>`.
class DShard_EnumAttr<EnumInfo info, string mnemonic> : EnumAttr<DShard_Dialect, info, mnemonic> {
  let assemblyFormat = "`<` $value `>`";
}

def DShard_ReductionKind : DShard_Enum<"ReductionKind", "how partial values combine", [
  I32EnumAttrCase<"sum", 0>, I32EnumAttrCase<"max", 1>, I32EnumAttrCase<"min", 2>,
  I32EnumAttrCase<"mean", 3>, I32EnumAttrCase<"product", 4>]>;
// Bare, so that collectives print `all_reduce sum`; elsewhere `#dshard<reduction sum>`.
def DShard_ReductionKindAttr : EnumAttr<DShard_Dialect, DShard_ReductionKind, "reduction">;

def DShard_Part : DShard_Enum<"Part", "the part of a step that an op belongs to", [
  I32EnumAttrCase<"forward", 1>, I32EnumAttrCase<"backward", 2>, I32EnumAttrCase<"optimizer", 3>]>;
def DShard_PartAttr : DShard_EnumAttr<DShard_Part, "part">;

def DShard_Role : DShard_Enum<"Role", "what a function argument or result is for", [
  I32EnumAttrCase<"param", 0>, I32EnumAttrCase<"grad", 1>, I32EnumAttrCase<"optimizer_state", 2>,
  I32EnumAttrCase<"activation", 3>, I32EnumAttrCase<"input", 4>, I32EnumAttrCase<"cache", 5>]>;
def DShard_RoleAttr : DShard_EnumAttr<DShard_Role, "role">;

def DShard_SequenceLayout : DShard_Enum<"SequenceLayout", "how a context-parallel sequence dim is dealt out", [
  I32EnumAttrCase<"contiguous", 0>, I32EnumAttrCase<"zigzag", 1>, I32EnumAttrCase<"striped", 2>]>;
def DShard_SequenceLayoutAttr : DShard_EnumAttr<DShard_SequenceLayout, "layout">;

def DShard_ComparePredicate : DShard_Enum<"ComparePredicate", "an ordered comparison", [
  I32EnumAttrCase<"eq", 0>, I32EnumAttrCase<"ne", 1>, I32EnumAttrCase<"lt", 2>,
  I32EnumAttrCase<"le", 3>, I32EnumAttrCase<"gt", 4>, I32EnumAttrCase<"ge", 5>]>;
def DShard_ComparePredicateAttr : DShard_EnumAttr<DShard_ComparePredicate, "predicate">;

def DShard_FullyMasked : DShard_Enum<"FullyMasked", "what attention gives for a row that attends nothing", [
  I32EnumAttrCase<"zero", 0>, I32EnumAttrCase<"uniform", 1>]>;
def DShard_FullyMaskedAttr : DShard_EnumAttr<DShard_FullyMasked, "fully_masked">;

def DShard_Link : DShard_Enum<"Link", "link class of a mesh axis", [
  I32EnumAttrCase<"none", 0>, I32EnumAttrCase<"intra", 1>, I32EnumAttrCase<"inter", 2>]>;

class DShard_Attr<string name, string attrMnemonic> : AttrDef<DShard_Dialect, name> {
  let mnemonic = attrMnemonic;
}

def DShard_AxisRefAttr : DShard_Attr<"AxisRef", "axis"> {
  let summary = "a mesh axis or a factor (sub-axis) of it";
  let description = [{
    `#dshard.axis<"tp">` is the whole axis; `#dshard.axis<"tp":(2)4>` is the
    factor of size 4 that starts after a major factor 2.

    **Constraints**
    - (axis_c1) pre >= 1; size >= 2 for a sub-axis, 0 for a whole axis.
    - (axis_c2) pre * size divides the axis' size (checked against the module's mesh).
  }];
  // pre = 1 and size = 0: the whole axis.
  let parameters = (ins "::mlir::StringAttr":$name, "int64_t":$pre, "int64_t":$size);
  let builders = [AttrBuilder<(ins "::llvm::StringRef":$name), [{
    return $_get($_ctxt, ::mlir::StringAttr::get($_ctxt, name), 1, 0);
  }]>];
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{ bool isWhole() const { return getSize() == 0; } }];
}
def DShard_AxisListAttr : TypedArrayAttrBase<DShard_AxisRefAttr, "axes, major to minor">;

def DShard_MeshAxisAttr : DShard_Attr<"MeshAxis", "mesh_axis"> {
  let summary = "one named axis of the mesh";
  let parameters = (ins "::mlir::StringAttr":$name, "int64_t":$size, "::mlir::dshard::Link":$link);
  let hasCustomAssemblyFormat = 1;
}

def DShard_MeshAttr : DShard_Attr<"Mesh", "mesh"> {
  let summary = "named axes of the device mesh, slowest first";
  let description = [{
    `#dshard.mesh<"dp_shard"=2, "tp"=4 intra>`. A rank is the row-major index
    of its coordinates.

    **Constraints**
    - (mesh_c1) names are unique and known: pp, dp_replicate, dp_shard, cp, tp, in this order.
    - (mesh_c2) every size >= 1; at most 2^20 ranks.
  }];
  let parameters = (ins ArrayRefParameter<"::mlir::dshard::MeshAxisAttr">:$axes);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Number of ranks.
    int64_t getNumRanks() const;
    /// Size of an axis; 1 for a known axis that the mesh leaves out.
    int64_t getAxisSize(::llvm::StringRef name) const;
    /// Size of a whole axis or sub-axis; product over a list.
    int64_t getSize(::mlir::dshard::AxisRefAttr axis) const;
    int64_t getSize(::llvm::ArrayRef<::mlir::dshard::AxisRefAttr> axes) const;
    bool hasAxis(::llvm::StringRef name) const;
    /// Coordinates of a rank, in the order of getAxes().
    ::llvm::SmallVector<int64_t> getCoordinates(int64_t rank) const;
    /// Row-major index of a rank within `axes` (major to minor).
    int64_t getIndexIn(int64_t rank, ::llvm::ArrayRef<::mlir::dshard::AxisRefAttr> axes) const;
    /// The ranks of the group of `rank` over `axes`, ordered by their index in `axes`.
    ::llvm::SmallVector<int64_t> getGroup(int64_t rank, ::llvm::ArrayRef<::mlir::dshard::AxisRefAttr> axes) const;
  }];
}

def DShard_DimShardingAttr : DShard_Attr<"DimSharding", "dim_sharding"> {
  let summary = "the axes that shard one dim, major to minor";
  let description = [{`{"tp"}`, `{}` (replicated), `{"tp", ?}` (open: propagation may add axes), `{?}`.}];
  let parameters = (ins ArrayRefParameter<"::mlir::dshard::AxisRefAttr">:$axes, "bool":$isOpen);
  let hasCustomAssemblyFormat = 1;
}

def DShard_ShardingAttr : DShard_Attr<"Sharding", "sharding"> {
  let summary = "how a tensor is laid out over the mesh";
  let description = [{
    Per dim a list of axes, major to minor, and axes over which the value is
    still to be reduced:
    `#dshard.sharding<[{"dp_shard"}, {"tp"} ], partial = {"cp"}, kind = sum>`.

    **Constraints**
    - (sharding_c1) as many dims as the tensor.
    - (sharding_c2) an axis (counting sub-axes) is used once per value.
    - (sharding_c3) the product of a dim's axes divides its size.
    - (sharding_c4) `pp` shards no tensor.
    - (sharding_c5) kind mean is not for integers.
  }];
  let parameters = (ins ArrayRefParameter<"::mlir::dshard::DimShardingAttr">:$dims,
                        ArrayRefParameter<"::mlir::dshard::AxisRefAttr">:$partial,
                        "::mlir::dshard::ReductionKind":$kind);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Replicated on every dim, nothing partial.
    static ShardingAttr getReplicated(::mlir::MLIRContext *context, int64_t numDims);
    /// Every dim open and without axes.
    static ShardingAttr getOpen(::mlir::MLIRContext *context, int64_t numDims);
    bool isReplicated() const;
    bool isPartial() const { return !getPartial().empty(); }
    bool hasOpenDim() const;
    ShardingAttr closed() const;
    /// The local shape; failure if a dim does not divide.
    ::mlir::FailureOr<::mlir::RankedTensorType> getLocalType(::mlir::RankedTensorType global, ::mlir::dshard::MeshAttr mesh) const;
    /// Emits what sharding_c1..c5 say is wrong for `type` named `what`.
    ::mlir::LogicalResult verifyFor(::mlir::RankedTensorType type, ::mlir::dshard::MeshAttr mesh,
                                    ::llvm::StringRef what, ::llvm::function_ref<::mlir::InFlightDiagnostic()> emitError) const;
  }];
}

def DShard_WeightAttr : DShard_Attr<"Weight", "weight"> {
  let summary = "where the bytes of a parameter lie";
  let description = [{
    `#dshard.weight<"model.norm.weight", "model.onnx.data", offset = 0, length = 256, type = tensor<64xf32>, fan_in = 0>`.
    `file` is relative to the model's folder. `type` is the stored type; `transposed` says that the
    file holds [in,out] where the module has [out,in]. `file_size` and `identity`
    (0 when the file was absent at compile time) are what the loader checks.
  }];
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::StringAttr":$file,
                        "uint64_t":$offset, "uint64_t":$length,
                        "::mlir::RankedTensorType":$type, "bool":$transposed,
                        "uint64_t":$fanIn, "uint64_t":$fileSize, "uint64_t":$identity,
                        "bool":$hasIdentity);
  let hasCustomAssemblyFormat = 1;
}

def DShard_OriginAttr : DShard_Attr<"Origin", "origin"> {
  let summary = "who decided a sharding, in the user's words";
  let parameters = (ins "::mlir::StringAttr":$text);
  let assemblyFormat = "`<` $text `>`";
}

#endif
