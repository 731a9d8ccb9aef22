//===- ReduceOps.td - Reductions --------------------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_REDUCEOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_REDUCEOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_ReduceOp : DShard_ComputeOp<"reduce",
    (ins DShard_Tensor:$input, DShard_ReductionKindAttr:$kind, DenseI64ArrayAttr:$dims, UnitAttr:$keep_dims),
    (outs DShard_Tensor:$result), [], ["partition"]> {
  let summary = "reduce over dims";
  let description = [{
    kind: sum, max, min, mean or product. Accumulates in f32 (f64 for f64).
    The rule of mean is that of sum; its local form divides by the global count.

    **Constraints**
    - (reduce_c1) dims are sorted, unique and in range.
    - (reduce_c2) the result drops them, or keeps them with size 1.
    - (reduce_c3) mean is not for integers.
  }];
}

#endif
