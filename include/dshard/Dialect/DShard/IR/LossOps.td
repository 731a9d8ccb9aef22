//===- LossOps.td - Losses --------------------------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_LOSSOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_LOSSOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_CrossEntropyOp : DShard_ComputeOp<"cross_entropy",
    (ins DShard_Tensor:$logits, DShard_Tensor:$labels, DefaultValuedAttr<I64Attr, "-100">:$ignore_index),
    (outs DShard_Tensor:$result, DShard_Tensor:$log_sum_exp), [], [], ["decompose"]> {
  let summary = "negative log-likelihood of a label under softmax, per row";
  let description = [{
    logits [..., V], labels [...] -> result [...] f32 and log_sum_exp [...] f32:
    log_sum_exp - logits[label], and 0 where the label is `ignore_index`.
    The train phase replaces it by its decomposition, whose reductions over V may be sharded
    (vocabulary-parallel loss: one max and two sums travel, never the logits).

    **Constraints**
    - (cross_entropy_c1) labels are integers with the logits' dims but the last; ignore_index is of their type.
    - (cross_entropy_c2) results are f32 (f64 for f64 logits) with the labels' dims.
  }];
}

#endif
