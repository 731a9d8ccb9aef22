//===- DShardInterfaces.td - What every op must answer ----------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDINTERFACES_TD
#define DSHARD_DIALECT_DSHARD_IR_DSHARDINTERFACES_TD

include "mlir/IR/OpBase.td"

def DShard_ShardingRuleInterface : OpInterface<"ShardingRuleInterface"> {
  let cppNamespace = "::mlir::dshard";
  let description = [{The factor rule of an op on global types; it has no default (see ShardingRule.h).}];
  let methods = [InterfaceMethod<"factors of all operands and results", "::mlir::dshard::ShardingRule",
                                 "getShardingRule", (ins)>];
}

def DShard_PartitionInterface : OpInterface<"PartitionInterface"> {
  let cppNamespace = "::mlir::dshard";
  let description = [{
    Builds the local op(s) of one rank. All shardings are closed and agree with
    the rule; results may be partial as the resolved sharding says.
  }];
  let methods = [InterfaceMethod<
      "build the local form of this op", "::mlir::LogicalResult", "partition",
      (ins "::mlir::OpBuilder &":$builder, "::mlir::ValueRange":$operands,
           "const ::mlir::dshard::PartitionContext &":$context,
           "::llvm::SmallVectorImpl<::mlir::Value> &":$results),
      "", [{
        return ::mlir::dshard::partitionByCloning($_op.getOperation(), builder, operands, context, results);
      }]>];
}

def DShard_DecomposeInterface : OpInterface<"DecomposeInterface"> {
  let cppNamespace = "::mlir::dshard";
  let description = [{The op in simpler dshard ops; its value and its VJP are tested against that.}];
  let methods = [InterfaceMethod<
      "build the decomposition and give its results; failure for a primitive op",
      "::mlir::LogicalResult", "decompose",
      (ins "::mlir::OpBuilder &":$builder, "::mlir::ValueRange":$operands,
           "::llvm::SmallVectorImpl<::mlir::Value> &":$results),
      "", [{ return ::mlir::failure(); }]>];
}

def DShard_DifferentiableInterface : OpInterface<"DifferentiableInterface"> {
  let cppNamespace = "::mlir::dshard";
  let description = [{The vector-Jacobian product in dshard ops; the families' are in lib/.../IR/Vjp*.cpp.}];
  let methods = [InterfaceMethod<
      "build the gradients of the operands (null where none) from those of the results",
      "::mlir::LogicalResult", "buildVjp",
      (ins "::mlir::OpBuilder &":$builder, "::mlir::ValueRange":$resultGradients,
           "::llvm::SmallVectorImpl<::mlir::Value> &":$operandGradients),
      "", [{
        return ::mlir::dshard::buildVjpOf($_op.getOperation(), builder, resultGradients, operandGradients);
      }]>];
}

def DShard_CostInterface : OpInterface<"CostInterface"> {
  let cppNamespace = "::mlir::dshard";
  let description = [{Work of an op, read on local types.}];
  let methods = [
    InterfaceMethod<"floating-point operations", "double", "getFlops", (ins), "",
                    [{ return ::mlir::dshard::countResultElements($_op.getOperation()); }]>,
    InterfaceMethod<"bytes read and written", "double", "getBytes", (ins), "",
                    [{ return ::mlir::dshard::countOperandAndResultBytes($_op.getOperation()); }]>];
}

def DShard_EvaluateInterface : OpInterface<"EvaluateInterface"> {
  let cppNamespace = "::mlir::dshard";
  let description = [{
    The reference value, slow and readable. Works on whatever types the op has
    (global or local). Results come back unrounded; the interpreter rounds them.
  }];
  let methods = [InterfaceMethod<
      "compute the results", "::mlir::LogicalResult", "evaluate",
      (ins "::llvm::ArrayRef<::mlir::dshard::HostTensor>":$operands,
           "::llvm::SmallVectorImpl<::mlir::dshard::HostTensor> &":$results)>];
}

#endif
