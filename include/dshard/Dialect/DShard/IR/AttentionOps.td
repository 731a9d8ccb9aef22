//===- AttentionOps.td - Attention and rotary embedding ---------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_ATTENTIONOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_ATTENTIONOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

def DShard_AttentionOp : DShard_ComputeOp<"attention",
    (ins DShard_Tensor:$query, DShard_Tensor:$key, DShard_Tensor:$value,
         Optional<DShard_Tensor>:$key_padding, Optional<DShard_Tensor>:$query_offset,
         Optional<DShard_Tensor>:$bias,
         F64Attr:$scale, UnitAttr:$causal, DefaultValuedAttr<I64Attr, "0">:$offset,
         DefaultValuedAttr<I64Attr, "-1">:$window, DefaultValuedAttr<F64Attr, "0.0">:$softcap,
         DefaultValuedAttr<DShard_FullyMaskedAttr, "::mlir::dshard::FullyMasked::zero">:$fully_masked,
         DefaultValuedAttr<DShard_SequenceLayoutAttr, "::mlir::dshard::SequenceLayout::contiguous">:$layout,
         DefaultValuedAttr<I64Attr, "1">:$parts),
    (outs DShard_Tensor:$result, DShard_Tensor:$log_sum_exp), [AttrSizedOperandSegments],
    ["partition"], ["decompose"], ["getFlops"]> {
  let summary = "scaled dot-product attention that never forms the scores";
  let description = [{
    query [B,H,S,D], key [B,Hkv,T,D], value [B,Hkv,T,Dv] -> result [B,H,S,Dv] and
    log_sum_exp [B,H,S] f32 (natural log of the sum of exp of the scaled, masked
    scores; -inf for a row that attends nothing). Query head h reads KV head h / (H / Hkv).
    key_padding [B,T] i1: true where a key may be attended.
    causal: query i attends key j <= i + offset. window >= 0: and j > i + offset - window.
    softcap c > 0: score = c tanh(score / c).
    bias [B or 1, H or 1, S or 1, T or 1], of the query's element type: added to the
    scaled (and capped) scores, before masks hide any. Its rows lie as the query's; its
    keys lie in natural order, whole, where parts > 1.
    fully_masked: a row that attends nothing is zero, or the mean of value over
    all T keys (uniform: what adding a finite mask value gives).
    layout, parts: rows and keys lie in the order that `dshard.reorder` with the same
    attributes gives; masks go by the positions before it. With parts > 1 rows and keys
    are one sequence and one factor, which may be sharded: `dshard.cp_method` (ring,
    all_gather, all_to_all, hierarchical) says how the local form lets keys meet rows.
    query_offset (tensor<i64>, local phase only) is added to `offset`: the rank's queries
    are a later part of the sequence.

    **Constraints**
    - (attention_c1) ranks 4; B, T, D agree; Hkv divides H.
    - (attention_c2) key_padding is [B,T] of i1.
    - (attention_c3) log_sum_exp is [B,H,S] of f32.
    - (attention_c4) parts > 1 needs S = T, divided by what reorder_c1 says.
    - (attention_c5) query_offset is tensor<i64>.
    - (attention_c6) bias has 4 dims, each 1 or that of the scores [B,H,S,T], and the
      query's element type.
  }];
  // As every op prints. Of the optional operands the key_padding has 2 dims, the
  // query_offset none, the bias 4.
  let assemblyFormat = ?;
  let hasCustomAssemblyFormat = 1;
}

def DShard_AttentionGradOp : DShard_ComputeOp<"attention_grad",
    (ins DShard_Tensor:$query, DShard_Tensor:$key, DShard_Tensor:$value, DShard_Tensor:$result,
         DShard_Tensor:$log_sum_exp, DShard_Tensor:$result_grad, Optional<DShard_Tensor>:$key_padding,
         Optional<DShard_Tensor>:$bias,
         F64Attr:$scale, UnitAttr:$causal, DefaultValuedAttr<I64Attr, "0">:$offset,
         DefaultValuedAttr<I64Attr, "-1">:$window, DefaultValuedAttr<F64Attr, "0.0">:$softcap,
         DefaultValuedAttr<DShard_FullyMaskedAttr, "::mlir::dshard::FullyMasked::zero">:$fully_masked),
    (outs DShard_Tensor:$query_grad, DShard_Tensor:$key_grad, DShard_Tensor:$value_grad),
    [AttrSizedOperandSegments], ["partition"], ["decompose"], ["getFlops"]> {
  let summary = "gradients of attention, which forms the scores tile by tile again";
  let description = [{
    The forward's operands, its result [B,H,S,Dv] and log_sum_exp [B,H,S], and the gradient of
    the result, give those of query, key and value. With P = exp(score - log_sum_exp):
    dV = P^T dO, dS = P (dO V^T - rowsum(dO * O)), dQ = scale dS K, dK = scale dS^T Q; a softcap
    multiplies dS by its derivative. A row that attends nothing gives nothing (zero), or
    dO / T to every value (uniform). The bias is the forward's; its own gradient is dS
    before the scale, summed over the dims that it repeats: single ops, as it has the size
    of the scores.
    Source: Dao, FlashAttention-2, arXiv 2307.08691, algorithm 2.

    **Constraints**
    - (attention_grad_c1) shapes are those of the attention; gradients have the shapes of their values.
  }];
  // As attention.
  let assemblyFormat = ?;
  let hasCustomAssemblyFormat = 1;
}

def DShard_RotaryOp : DShard_ComputeOp<"rotary",
    (ins DShard_Tensor:$input, DShard_Tensor:$cos, DShard_Tensor:$sin, UnitAttr:$interleaved),
    (outs DShard_Tensor:$result), [], [], ["decompose"]> {
  let summary = "rotate pairs of the last dim (rotary position embedding)";
  let description = [{
    input [B,H,S,D]; cos, sin [B or 1, S, D/2]. Halves style: pairs (i, i + D/2);
    interleaved: pairs (2i, 2i + 1). (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).
    Source: Su et al., RoFormer, arXiv 2104.09864.

    **Constraints**
    - (rotary_c1) D is even and twice the last dim of cos and sin; S agrees.
  }];
}

#endif
