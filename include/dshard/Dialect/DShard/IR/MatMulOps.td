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

def DShard_GroupedMatMulOp : DShard_ComputeOp<"grouped_matmul",
    (ins DShard_Tensor:$rows, DShard_Tensor:$weights, DShard_Tensor:$groups, Optional<DShard_Tensor>:$offset,
         UnitAttr:$transpose_weights),
    (outs DShard_Tensor:$result), [], ["partition"], ["decompose"], ["getFlops", "getBytes"]> {
  let summary = "multiply every row with the matrix of its group (experts of a mixture)";
  let description = [{
    rows [..., k] x weights [e, k, n] by groups [...] -> [..., n]:
    result[i...] = rows[i...] weights[groups[i...]]. The flag says that the last two dims of the
    weights lie transposed, [e, n, k]. Rows may come in any order; how many belong to a group is
    known at run time only, and no row is dropped: work is that of one product per row, however
    many groups there are. Accumulates as matmul does.
    With `offset` (tensor<i64>, local phase only) the weights are those of the groups
    [offset, offset + e) and rows of other groups give zeros: partial over the axes of e.
    Without it, groups are in [0, e).

    **Constraints**
    - (grouped_matmul_c1) weights have 3 dims; rows, weights and result have one element type.
    - (grouped_matmul_c2) groups are integers with the leading dims of rows.
    - (grouped_matmul_c3) k agrees; the result is [..., n].
    - (grouped_matmul_c4) offset is tensor<i64>.
  }];
}

def DShard_GroupedWeightGradOp : DShard_ComputeOp<"grouped_weight_grad",
    (ins DShard_Tensor:$lhs, DShard_Tensor:$rhs, DShard_Tensor:$groups, Optional<DShard_Tensor>:$offset),
    (outs DShard_Tensor:$result), [], ["partition"], ["decompose"], ["getFlops"]> {
  let summary = "contract the rows of each group: the gradient of a grouped matmul's weights";
  let description = [{
    lhs [..., m], rhs [..., n], groups [...] -> [e, m, n]: result[g] is the sum of the outer products
    of lhs[i...] and rhs[i...] over all i with groups[i...] = g, zeros for a group without rows.
    `offset` as in `grouped_matmul`: the result's groups are [offset, offset + e), rows of other
    groups add nothing.

    **Constraints**
    - (grouped_weight_grad_c1) lhs and rhs have at least 2 dims, equal leading dims and, as the result, one element type.
    - (grouped_weight_grad_c2) groups are integers with the leading dims of lhs.
    - (grouped_weight_grad_c3) the result is [e, m, n].
    - (grouped_weight_grad_c4) offset is tensor<i64>.
  }];
}

#endif
