//===- MatMulOps.td - Matrix products ---------------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_MATMULOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_MATMULOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_MatMulOp : DShard_ComputeOp<"matmul",
    (ins DShard_Tensor:$lhs, DShard_Tensor:$rhs, UnitAttr:$transpose_lhs, UnitAttr:$transpose_rhs),
    (outs DShard_Tensor:$result), [], [], [], ["getFlops"]> {
  let summary = "multiply (batches of) matrices";
  let description = [{
    [..., m, k] x [..., k, n] -> [..., m, n]; leading dims broadcast as in
    numpy. A flag says that the last two dims of an operand lie transposed.
    Accumulates in f32 (f64 for f64) and rounds once.

    **Constraints**
    - (matmul_c1) both operands have at least 2 dims and one element type, the result's.
    - (matmul_c2) the contracted sizes agree.
    - (matmul_c3) batch dims broadcast to the result's.
  }];
}

def DShard_WeightGradOp : DShard_ComputeOp<"weight_grad",
    (ins DShard_Tensor:$lhs, DShard_Tensor:$rhs), (outs DShard_Tensor:$result), [],
    ["partition"], ["decompose"], ["getFlops"]> {
  let summary = "contract all leading dims: the gradient of a matmul's weight";
  let description = [{
    [..., m] x [..., n] -> [m, n], summed over all leading dims, each of which may be sharded
    for itself (a reshape to one dim could not say that). Accumulates as matmul does; its local
    form is a matmul of the flattened operands.

    **Constraints**
    - (weight_grad_c1) at least 2 dims, equal leading dims, one element type.
    - (weight_grad_c2) the result is [m, n].
  }];
}

#endif
