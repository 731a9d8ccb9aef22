//===- OptimizerOps.td - Gradients and optimizer steps ----------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_OPTIMIZEROPS_TD
#define DSHARD_DIALECT_DSHARD_IR_OPTIMIZEROPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_GradientOp : DShard_ComputeOp<"gradient",
    (ins DShard_Tensor:$input, StrAttr:$of), (outs DShard_Tensor:$result), [DShard_Pointwise], ["partition"]> {
  let summary = "name the finished gradient of a parameter";
  let description = [{
    The value itself. It takes no partial value, so the reduction of the parameter `of` ends here,
    in the sharding that the parameter is stored with: all_reduce (replicated storage),
    reduce_scatter (sharded storage) and both (hybrid) follow from that alone. Gone in the local phase.

    **Constraints**
    - (gradient_c1) types agree; `of` is the state name of a parameter.
  }];
}

def DShard_AdamWOp : DShard_ComputeOp<"adamw",
    (ins DShard_Tensor:$param, DShard_Tensor:$grad, DShard_Tensor:$exp_avg, DShard_Tensor:$exp_avg_sq,
         DShard_Tensor:$learning_rate, DShard_Tensor:$correction1, DShard_Tensor:$correction2,
         DShard_Tensor:$scale, DShard_Tensor:$enabled,
         F64Attr:$beta1, F64Attr:$beta2, F64Attr:$epsilon, F64Attr:$weight_decay),
    (outs DShard_Tensor:$new_param, DShard_Tensor:$new_exp_avg, DShard_Tensor:$new_exp_avg_sq), [],
    [], ["decompose"]> {
  let summary = "update a parameter by AdamW with decoupled weight decay";
  let description = [{
    With g = scale grad: m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) g^2;
    param' = param - lr weight_decay param - lr (m' / correction1) / (sqrt(v' / correction2) + epsilon).
    correction_i = 1 - beta_i^step. Where `enabled` (tensor<i1>) is false the three come back unchanged.
    Source: Loshchilov and Hutter, arXiv 1711.05101; the order of operations is PyTorch's.

    **Constraints**
    - (adamw_c1) the four tensors and three results have one float type and shape.
    - (adamw_c2) the scalars have no dims and that element type; enabled is tensor<i1>.
  }];
}

#endif
