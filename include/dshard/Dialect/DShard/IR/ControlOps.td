//===- ControlOps.td - repeat, if and fused regions -------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_CONTROLOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_CONTROLOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_RepeatOp : DShard_Op<"repeat",
    (ins Variadic<DShard_Tensor>:$initial, I64Attr:$count), (outs Variadic<DShard_Tensor>:$results),
    [SingleBlockImplicitTerminator<"YieldOp">, RecursiveMemoryEffects]> {
  let summary = "run a region a fixed number of times, carrying values";
  let description = [{
    The region's first argument is the iteration, tensor<i64>; the others are the
    carried values (they may be partial), which `dshard.yield` hands on.

    **Constraints**
    - (repeat_c1) count >= 1; carried, yielded and result types agree.
  }];
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$count `init` `(` $initial `)` attr-dict `:` functional-type($initial, $results) $body";
  let hasVerifier = 1;
}
def DShard_IfOp : DShard_Op<"if",
    (ins DShard_Tensor:$condition), (outs Variadic<DShard_Tensor>:$results),
    [SingleBlockImplicitTerminator<"YieldOp">, NoRegionArguments, RecursiveMemoryEffects]> {
  let summary = "run one of two regions by a scalar that is uniform over every group used inside";
  let description = [{
    **Constraints**
    - (if_c1) condition is tensor<i1>; both regions yield the results' types.
  }];
  let regions = (region SizedRegion<1>:$then_region, SizedRegion<1>:$else_region);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
}
def DShard_FusedOp : DShard_Op<"fused",
    (ins Variadic<DShard_Tensor>:$inputs), (outs Variadic<DShard_Tensor>:$results),
    [SingleBlockImplicitTerminator<"YieldOp">, IsolatedFromAbove, Pure]> {
  let summary = "hold the ops of one generated kernel";
  let description = [{
    After kernel formation every op that is not a library call, a collective or
    control lies in such a region, in dshard ops on local types.

    **Constraints**
    - (fused_c1) region arguments have the inputs' types, yielded values the results'.
  }];
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$inputs attr-dict `:` functional-type($inputs, $results) $body";
  let hasVerifier = 1;
}
def DShard_YieldOp : Op<DShard_Dialect, "yield", [Pure, Terminator, ReturnLike,
    ParentOneOf<["RepeatOp", "IfOp", "FusedOp"]>]> {
  let summary = "hand values on from a region";
  let arguments = (ins Variadic<DShard_Tensor>:$values);
  let assemblyFormat = "($values^ `:` type($values))? attr-dict";
  let builders = [OpBuilder<(ins), [{ (void)$_state; }]>];
}

#endif
