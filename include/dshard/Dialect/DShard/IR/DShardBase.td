//===- DShardBase.td - The dialect and what every op shares -----*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDBASE_TD
#define DSHARD_DIALECT_DSHARD_IR_DSHARDBASE_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def DShard_Dialect : Dialect {
  let name = "dshard";
  let cppNamespace = "::mlir::dshard";
  let summary = "Tensor programs on a device mesh, with explicit sharding and collectives";
  let description = [{
    One dialect for three sharding phases: *annotated* (strategies wrote
    shardings on some values, dims may be open), *resolved* (every value closed,
    every change of sharding an explicit `dshard.reshard`), *local* (one SPMD
    function with local types and explicit collectives).

    Discardable attributes:
    - `dshard.mesh` on the module: `#dshard.mesh<...>`, one per module.
    - `dshard.model` on the module: the path of the .onnx, as given; weights lie beneath its folder.
    - `dshard.phase` on the module: the last phase whose gate passed.
    - `dshard.shardings` on an op: one `#dshard.sharding` per result.
    - `dshard.sharding`, `dshard.role`, `dshard.weight`, `dshard.global`,
      `dshard.state`, `dshard.name`, `dshard.dim_names`, `dshard.origin` on
      arguments and results of functions.
    - `dshard.spmd` (unit) on a function of the local phase.
    - `dshard.call` on a `dshard.fused` that is one library call: "matmul" or "attention".
  }];
  let useDefaultAttributePrinterParser = 1;
  let hasConstantMaterializer = 1;
  let hasOperationAttrVerify = 1;
  let hasRegionArgAttrVerify = 1;
  let hasRegionResultAttrVerify = 1;
  let dependentDialects = ["::mlir::func::FuncDialect"];
  let extraClassDeclaration = [{
    void registerAttributes();
    void registerOps();
  }];
}

// Shapes are static per entry point, so no op has to handle a dynamic dim.
def DShard_Tensor : RankedTensorOf<[AnyFloat, AnyInteger], [HasStaticShapePred],
                                   "statically shaped tensor">;

#endif
