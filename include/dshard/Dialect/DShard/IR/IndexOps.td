//===- IndexOps.td - Look-ups and index grids -------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_INDEXOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_INDEXOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_GatherOp : DShard_ComputeOp<"gather",
    (ins DShard_Tensor:$input, DShard_Tensor:$indices, Optional<DShard_Tensor>:$offset, I64Attr:$dim),
    (outs DShard_Tensor:$result), [], ["partition"]> {
  let summary = "take slices along a dim by index (embedding look-up)";
  let description = [{
    result[a..., i..., b...] = input[a..., indices[i...], b...]; negative indices count from the end.
    With `offset` (tensor<i64>, local phase only) the index is reduced by it, and one
    outside the dim gives zeros: the masked look-up of a sharded dim, partial over its axes.

    **Constraints**
    - (gather_c1) dim in range; integer indices; result dims are input dims with `dim` replaced by the indices'.
    - (gather_c2) offset is tensor<i64>.
  }];
}
def DShard_GatherNdOp : DShard_ComputeOp<"gather_nd",
    (ins DShard_Tensor:$input, DShard_Tensor:$indices, DefaultValuedAttr<I64Attr, "0">:$batch_dims),
    (outs DShard_Tensor:$result)> {
  let summary = "take slices by index tuples (ONNX GatherND)";
  let description = [{
    **Constraints**
    - (gather_nd_c1) the last dim of indices has at most as many entries as input has dims after batch_dims.
  }];
}
def DShard_ScatterAddOp : DShard_ComputeOp<"scatter_add",
    (ins DShard_Tensor:$indices, DShard_Tensor:$updates, Optional<DShard_Tensor>:$offset, I64Attr:$dim),
    (outs DShard_Tensor:$result), [], ["partition"]> {
  let summary = "sum slices into zeros by index: the gradient of gather";
  let description = [{
    result[a..., v, b...] = sum of updates[a..., i..., b...] over all i with indices[i...] = v, in
    the order of i; `updates` is shaped as gather's result. Accumulates in the result's type.
    `offset` and negative indices as in `gather`; an index outside the dim adds nothing.

    **Constraints**
    - (scatter_add_c1) updates' dims are the result's with `dim` replaced by the indices'; integer indices.
    - (scatter_add_c2) offset is tensor<i64>.
  }];
}
def DShard_IotaOp : DShard_ComputeOp<"iota",
    (ins I64Attr:$dim, DefaultValuedAttr<F64Attr, "0.0">:$start, DefaultValuedAttr<F64Attr, "1.0">:$step),
    (outs DShard_Tensor:$result), [], ["partition"]> {
  let summary = "count along a dim: start + i * step";
  let description = [{
    **Constraints**
    - (iota_c1) dim in range.
  }];
}

#endif
