//===- NormOps.td - Normalisations and softmax ------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_NORMOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_NORMOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_RmsNormOp : DShard_ComputeOp<"rms_norm",
    (ins DShard_Tensor:$input, DShard_Tensor:$weight, F64Attr:$epsilon),
    (outs DShard_Tensor:$result), [], [], ["decompose"]> {
  let summary = "divide by the root mean square of the last dim and scale";
  let description = [{
    x / sqrt(mean(x^2, last dim) + epsilon) * weight, computed in f32. weight [D].

    **Constraints**
    - (rms_norm_c1) weight has one dim, the input's last.
  }];
}
def DShard_LayerNormOp : DShard_ComputeOp<"layer_norm",
    (ins DShard_Tensor:$input, DShard_Tensor:$weight, Optional<DShard_Tensor>:$bias, F64Attr:$epsilon),
    (outs DShard_Tensor:$result), [], [], ["decompose"]> {
  let summary = "normalise the last dim to mean 0 and variance 1, scale and shift";
  let description = [{
    **Constraints**
    - (layer_norm_c1) weight and bias have one dim, the input's last.
  }];
}
def DShard_SoftmaxOp : DShard_ComputeOp<"softmax",
    (ins DShard_Tensor:$input, I64Attr:$dim),
    (outs DShard_Tensor:$result), [], [], ["decompose"]> {
  let summary = "exponentiate and normalise along a dim";
  let description = [{
    **Constraints**
    - (softmax_c1) 0 <= dim < number of dims; types agree.
  }];
}

#endif
