"""More small faults of a training step, in its local phase, where it is decided what each rank
adds up and stores: gradients, accumulators, micro-batches, moments.
"""

import re

from bases import PASSES
from mutations import DIFFERS, drop_op, mutation, sub

RANKS = "should hold the same values"  # of a group
EITHER = RANKS + "|" + DIFFERS


def step_only(edit):
    """The edit, in @train_step."""

    def within(text):
        start = text.index("func.func @train_step")
        return text[:start] + edit(text[start:])

    return within


def micro_batch(at):
    """The at-th gather by the iteration (0: ids, 1: mask, 2: labels) takes the first part in every round."""

    def edit(text):
        iteration = re.search(r"dshard\.repeat .*\n *\^bb0\((%arg\d+): tensor<i64>", text).group(1)
        step = re.search(r"(%arg\d+): tensor<i64> \{[^%]*dshard\.state = \"step\"", text).group(1)  # 0 in the first step
        return sub(rf"(dshard\.gather %\w+, ){iteration}\b", rf"\g<1>{step}", at=at)(text)

    return edit


mutation("gradients are reduced over another axis", "train", PASSES, step_only(sub(r'(reduce_scatter .*over \[)"dp_shard"(\] why "reduce the gradients of 9)', r'\1"tp"\2')), RANKS)
mutation("accumulators of two parameters are exchanged", "train", PASSES, step_only(sub(r"(reduce_scatter .*)(%\d+#5), (%\d+#4)", r"\1\3, \2")))
mutation("an accumulator forgets what it held", "train", PASSES, step_only(sub(r"(dshard\.add )%arg\d+, (%\d+)( \{part = #dshard\.part<backward>, path = \"model\.layers\.1\.mlp\.up_proj)", r"\1\2, \2\3")))
mutation("ids and labels are of different micro-batches", "train", PASSES, step_only(micro_batch(0)))
mutation("every round trains on the first labels", "train", PASSES, step_only(micro_batch(2)))
mutation("the loss is scaled by the rank's own count", "train", PASSES, step_only(drop_op(r'all_reduce +sum .*over \["dp_shard"\] why "partial output of loss"')), EITHER)
mutation("the loss forgets the logits of the other ranks", "train", PASSES, step_only(drop_op(r'all_reduce +max .*loss')), EITHER)
mutation("the backward attention is not causal", "train", PASSES, step_only(sub(r"(dshard\.attention_grad .*\{)causal, ", r"\1")))
mutation("the norm of gradients counts replicated ones twice", "train", PASSES, step_only(sub(r'(all_reduce .*over \[)"dp_shard"(\] why "\d+ values: partial output of model\.layers\.0\.input_layernorm)', r'\1"dp_shard", "tp"\2')))
mutation("a parameter is updated by another's gradient", "train", PASSES, step_only(sub(r"(dshard\.adamw %\w+, %\d+#)6(, .*)", r"\g<1>5\2")))
mutation("the moments of a parameter are exchanged", "train", PASSES, step_only(sub(r"(return .*%new_param_3), (%new_exp_avg_4), (%new_exp_avg_sq_5)", r"\1, \3, \2")))
mutation("the correction of the second moment is missing", "train", PASSES, step_only(sub(r"(dshard\.adamw %\w+, %[\w#]+, %\w+, %\w+, %\w+), (%\w+), %\w+,", r"\1, \2, \2,")))
mutation("parameters are gathered over tp", "train", PASSES, step_only(sub(r'(train_step(?:.*\n)*?.*all_gather .*over \[)"dp_shard"', r'\1"tp"')), EITHER)
