//===- CollectiveOps.td - Reshard and the collectives it becomes -*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_COLLECTIVEOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_COLLECTIVEOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_ReshardOp : DShard_Op<"reshard",
    (ins DShard_Tensor:$input, DShard_ShardingAttr:$sharding, StrAttr:$why, UnitAttr:$regather),
    (outs DShard_Tensor:$result), [Pure, AllTypesMatch<["input", "result"]>,
      DeclareOpInterfaceMethods<DShard_EvaluateInterface>]> {
  let summary = "change the sharding of a global value";
  let description = [{
    `dshard.reshard %x to <[{}, {"tp"} ]> why "gather parameter mlp.w1" : tensor<...>`.
    `regather`: gather again in the backward pass (ZeRO-3). The value is the same.

    **Constraints**
    - (reshard_c1) the sharding suits the type (sharding_c1..c5).
    - (reshard_c2) `why` is not empty.
  }];
  let assemblyFormat = "$input `to` $sharding `why` $why (`regather` $regather^)? attr-dict `:` type($result)";
  let hasVerifier = 1;
}

class DShard_CollectiveOp<string mnemonic, dag inDag, dag outDag, list<Trait> traits = [Pure]>
    : DShard_Op<mnemonic, !con(inDag, (ins DShard_AxisListAttr:$axes, StrAttr:$why)), outDag, traits> {
  let hasVerifier = 1;
}

// Printed as `dshard.all_gather %a, %b dims [0, 1] over ["tp"] why "..." : (types) -> types`.
def DShard_AllGatherOp : DShard_CollectiveOp<"all_gather",
    (ins Variadic<DShard_Tensor>:$inputs, DenseI64ArrayAttr:$dims), (outs Variadic<DShard_Tensor>:$results)> {
  let summary = "concatenate the shards of a group along a dim, on every member";
  let description = [{
    ```
    rank 0: [A]        rank 0: [A B]
    rank 1: [B]   ->   rank 1: [A B]
    ```
    **Constraints**
    - (all_gather_c1) axes are not empty and no axis has size 1.
    - (all_gather_c2) one dim per operand; as many results as operands.
    - (all_gather_c3) a result's dim is the operand's times the group's size.
  }];
  let assemblyFormat = "$inputs `dims` $dims `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($inputs, $results)";
}
def DShard_AllReduceOp : DShard_CollectiveOp<"all_reduce",
    (ins Variadic<DShard_Tensor>:$inputs, DShard_ReductionKindAttr:$kind), (outs Variadic<DShard_Tensor>:$results)> {
  let summary = "reduce over a group, on every member, in rank order";
  let description = [{
    ```
    rank 0: [A]        rank 0: [A+B]
    rank 1: [B]   ->   rank 1: [A+B]
    ```
    **Constraints**
    - (all_reduce_c1) axes are not empty and no axis has size 1.
    - (all_reduce_c2) results have the operands' types.
  }];
  let assemblyFormat = "$kind $inputs `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($inputs, $results)";
}
def DShard_ReduceScatterOp : DShard_CollectiveOp<"reduce_scatter",
    (ins Variadic<DShard_Tensor>:$inputs, DShard_ReductionKindAttr:$kind, DenseI64ArrayAttr:$dims), (outs Variadic<DShard_Tensor>:$results)> {
  let summary = "reduce over a group and keep the own shard of a dim";
  let description = [{
    ```
    rank 0: [A0 A1]        rank 0: [A0+B0]
    rank 1: [B0 B1]   ->   rank 1: [A1+B1]
    ```
    **Constraints**
    - (reduce_scatter_c1) axes are not empty and no axis has size 1.
    - (reduce_scatter_c2) one dim per operand; a result's dim is the operand's divided by the group's size.
  }];
  let assemblyFormat = "$kind $inputs `dims` $dims `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($inputs, $results)";
}
def DShard_AllToAllOp : DShard_CollectiveOp<"all_to_all",
    (ins DShard_Tensor:$input, I64Attr:$split_dim, I64Attr:$concat_dim), (outs DShard_Tensor:$result)> {
  let summary = "move the sharding from concat_dim to split_dim";
  let description = [{
    ```
    rank 0: [A0 A1]        rank 0: [A0 B0]
    rank 1: [B0 B1]   ->   rank 1: [A1 B1]
    ```
    **Constraints**
    - (all_to_all_c1) axes are not empty and no axis has size 1.
    - (all_to_all_c2) split_dim is divided, concat_dim multiplied by the group's size; they differ.
  }];
  let assemblyFormat = "$input `split` $split_dim `concat` $concat_dim `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($input, $result)";
}
def DShard_BroadcastOp : DShard_CollectiveOp<"broadcast",
    (ins DShard_Tensor:$input, I64Attr:$root), (outs DShard_Tensor:$result)> {
  let summary = "give every member the root's value";
  let description = [{
    **Constraints**
    - (broadcast_c1) axes are not empty and no axis has size 1; 0 <= root < group size; types agree.
  }];
  let assemblyFormat = "$input `root` $root `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($input, $result)";
}
def DShard_PermuteOp : DShard_CollectiveOp<"permute",
    (ins Variadic<DShard_Tensor>:$inputs, I64Attr:$shift), (outs Variadic<DShard_Tensor>:$results)> {
  let summary = "pass values around the ring: member i sends to (i + shift) mod n";
  let description = [{
    ```
    rank 0: [A]        rank 0: [C]
    rank 1: [B]   ->   rank 1: [A]      (shift 1)
    rank 2: [C]        rank 2: [B]
    ```
    **Constraints**
    - (permute_c1) axes are not empty and no axis has size 1; results have the operands' types.
  }];
  let assemblyFormat = "$inputs `shift` $shift `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($inputs, $results)";
}
def DShard_SendOp : DShard_CollectiveOp<"send",
    (ins DShard_Tensor:$input, I64Attr:$to, I64Attr:$tag), (outs), []> {
  let summary = "send to the member `to` of the group (pipeline stages)";
  let assemblyFormat = "$input `to` $to `tag` $tag `over` custom<Axes>($axes) `why` $why attr-dict `:` type($input)";
}
def DShard_RecvOp : DShard_CollectiveOp<"recv",
    (ins I64Attr:$from, I64Attr:$tag), (outs DShard_Tensor:$result), []> {
  let summary = "receive from the member `from` of the group (pipeline stages)";
  let assemblyFormat = "`from` $from `tag` $tag `over` custom<Axes>($axes) `why` $why attr-dict `:` type($result)";
}
def DShard_LocalSliceOp : DShard_CollectiveOp<"local_slice",
    (ins DShard_Tensor:$input, I64Attr:$dim), (outs DShard_Tensor:$result)> {
  let summary = "keep this rank's shard of a dim of a replicated value; moves no data between ranks";
  let description = [{
    **Constraints**
    - (local_slice_c1) axes are not empty and no axis has size 1; the dim is divided by the group's size.
  }];
  let assemblyFormat = "$input `dim` $dim `over` custom<Axes>($axes) `why` $why attr-dict `:` functional-type($input, $result)";
}
def DShard_RankIndexOp : DShard_Op<"rank_index",
    (ins DShard_AxisListAttr:$axes), (outs DShard_Tensor:$result), [Pure]> {
  let summary = "give this rank's row-major index within axes, as tensor<i64>";
  let assemblyFormat = "`over` custom<Axes>($axes) attr-dict `:` type($result)";
  let hasVerifier = 1;
}

#endif
