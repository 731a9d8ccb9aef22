//===- LayoutOps.td - Constants and ops that only move elements -*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_LAYOUTOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_LAYOUTOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_ConstantOp : Op<DShard_Dialect, "constant", [
    Pure, ConstantLike, AllTypesMatch<["value", "result"]>,
    DeclareOpInterfaceMethods<DShard_ShardingRuleInterface>,
    DeclareOpInterfaceMethods<DShard_PartitionInterface, ["partition"]>,
    DeclareOpInterfaceMethods<DShard_DecomposeInterface>,
    DeclareOpInterfaceMethods<DShard_DifferentiableInterface>,
    DeclareOpInterfaceMethods<DShard_CostInterface>,
    DeclareOpInterfaceMethods<DShard_EvaluateInterface>]> {
  let summary = "hold a small value known at compile time";
  let description = [{The one op without `path` and `part`. Its local form slices the value.}];
  let arguments = (ins ElementsAttr:$value);
  let results = (outs DShard_Tensor:$result);
  let assemblyFormat = "attr-dict $value";
  let hasFolder = 1;
  let hasVerifier = 1;
}
def DShard_ReshapeOp : DShard_ComputeOp<"reshape", (ins DShard_Tensor:$input), (outs DShard_Tensor:$result)> {
  let summary = "regroup dims without moving elements";
  let description = [{
    The rule factors runs of dims: a split dim is sharded by its major factors,
    a merged one by the major part of the first.

    **Constraints**
    - (reshape_c1) element counts and types agree.
  }];
  let hasFolder = 1;
}
def DShard_TransposeOp : DShard_ComputeOp<"transpose",
    (ins DShard_Tensor:$input, DenseI64ArrayAttr:$permutation), (outs DShard_Tensor:$result)> {
  let summary = "permute dims: result dim i is input dim permutation[i]";
  let description = [{
    **Constraints**
    - (transpose_c1) permutation is one of the dims, and the shapes agree.
  }];
  let hasFolder = 1;
}
def DShard_BroadcastToOp : DShard_ComputeOp<"broadcast_to", (ins DShard_Tensor:$input), (outs DShard_Tensor:$result)> {
  let summary = "repeat size-1 and missing leading dims (numpy broadcast_to)";
  let description = [{
    **Constraints**
    - (broadcast_to_c1) aligned from the right, each input dim is 1 or the result's.
  }];
}
def DShard_ConcatOp : DShard_ComputeOp<"concat", (ins Variadic<DShard_Tensor>:$inputs, I64Attr:$dim), (outs DShard_Tensor:$result)> {
  let summary = "join along a dim";
  let description = [{
    **Constraints**
    - (concat_c1) at least one input; other dims agree; the dim's sizes sum up.
  }];
}
def DShard_SliceOp : DShard_ComputeOp<"slice",
    (ins DShard_Tensor:$input, DenseI64ArrayAttr:$starts, DenseI64ArrayAttr:$strides),
    (outs DShard_Tensor:$result), [], ["partition"]> {
  let summary = "take a strided box";
  let description = [{
    Element i of a result dim is element start + i * stride of the input's
    (stride may be negative). The result's shape gives the sizes.

    **Constraints**
    - (slice_c1) one start and one non-zero stride per dim; the box lies inside.
  }];
}
def DShard_PadOp : DShard_ComputeOp<"pad",
    (ins DShard_Tensor:$input, DenseI64ArrayAttr:$low, DenseI64ArrayAttr:$high, F64Attr:$value),
    (outs DShard_Tensor:$result), [], ["partition"]> {
  let summary = "surround with a constant";
  let description = [{
    **Constraints**
    - (pad_c1) low and high have one non-negative number per dim; sizes add up.
  }];
}
def DShard_ReorderOp : DShard_ComputeOp<"reorder",
    (ins DShard_Tensor:$input, I64Attr:$dim, DShard_SequenceLayoutAttr:$layout, I64Attr:$parts, UnitAttr:$inverse),
    (outs DShard_Tensor:$result)> {
  let summary = "put a sequence dim into the order that context parallelism deals out";
  let description = [{
    Part r of `parts` equal parts of the result is what rank r holds. zigzag: of 2 parts chunks,
    chunk r and then chunk 2 parts - 1 - r (causal work is balanced); striped: the elements
    r, r + parts, ...; contiguous: as it is. `inverse` goes back to the natural order.

    **Constraints**
    - (reorder_c1) zigzag: 2 parts divide the dim; striped, contiguous: parts do. parts >= 1.
    - (reorder_c2) types agree.
  }];
}

#endif
