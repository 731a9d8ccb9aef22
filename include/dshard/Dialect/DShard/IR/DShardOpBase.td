//===- DShardOpBase.td - Classes that op families share ---------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDOPBASE_TD
#define DSHARD_DIALECT_DSHARD_IR_DSHARDOPBASE_TD

include "dshard/Dialect/DShard/IR/DShardAttrs.td"
include "dshard/Dialect/DShard/IR/DShardInterfaces.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"

// Every op carries `path` (module path) and `part`; gates reject one without.
class DShard_Op<string mnemonic, dag inDag, dag outDag, list<Trait> traits = []>
    : Op<DShard_Dialect, mnemonic, traits> {
  let arguments = !con(inDag, (ins OptionalAttr<StrAttr>:$path, OptionalAttr<DShard_PartAttr>:$part));
  let results = outDag;
}

// Overridden interface methods are named in the lists; the rest is default.
class DShard_ComputeOp<string mnemonic, dag inDag, dag outDag, list<Trait> traits = [],
                       list<string> partition = [], list<string> decompose = [],
                       list<string> cost = [], list<string> vjp = []>
    : DShard_Op<mnemonic, inDag, outDag, traits # [
        Pure,
        DeclareOpInterfaceMethods<DShard_ShardingRuleInterface>,
        DeclareOpInterfaceMethods<DShard_PartitionInterface, partition>,
        DeclareOpInterfaceMethods<DShard_DecomposeInterface, decompose>,
        DeclareOpInterfaceMethods<DShard_DifferentiableInterface, vjp>,
        DeclareOpInterfaceMethods<DShard_CostInterface, cost>,
        DeclareOpInterfaceMethods<DShard_EvaluateInterface>]> {
  let assemblyFormat = "operands attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

// Elementwise with numpy broadcasting: gives the sharding rule.
def DShard_Pointwise : NativeOpTrait<"Pointwise"> { let cppNamespace = "::mlir::dshard"; }

// `expr` is the value in C++ over double x, y, z.
class DShard_PointwiseOp<string mnemonic, dag inDag, string expr, string linearOperands, bit joint = 0,
                         list<string> partition = []>
    : DShard_ComputeOp<mnemonic, inDag, (outs DShard_Tensor:$result), [DShard_Pointwise], partition> {
  let extraClassDeclaration = [{
    /// The scalar function, in double.
    double applyScalar(::llvm::ArrayRef<double> args);
  }];
  let extraClassDefinition = [{
    double $cppClass::applyScalar(::llvm::ArrayRef<double> args) {
      double x = args[0], y = args.size() > 1 ? args[1] : 0, z = args.size() > 2 ? args[2] : 0;
      (void)x; (void)y; (void)z;
      return }] # expr # [{;
    }
    ::mlir::dshard::ShardingRule $cppClass::getShardingRule() {
      ::mlir::dshard::ShardingRule rule = ::mlir::dshard::getPointwiseRule(getOperation());
      rule.linear = }] # linearOperands # [{;
      rule.jointlyLinear = }] # !cast<string>(joint) # [{;
      return rule;
    }
    ::mlir::LogicalResult $cppClass::evaluate(::llvm::ArrayRef<::mlir::dshard::HostTensor> operands,
        ::llvm::SmallVectorImpl<::mlir::dshard::HostTensor> &results) {
      return ::mlir::dshard::evaluatePointwise(
          getOperation(), operands, results,
          [this](::llvm::ArrayRef<double> args) { return applyScalar(args); });
    }
    ::mlir::LogicalResult $cppClass::verify() { return ::mlir::dshard::verifyPointwise(getOperation()); }
  }];
}

#endif
