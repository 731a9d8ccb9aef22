//===- Passes.td - Passes of Transforms/Graph -------------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_GRAPH_PASSES_TD
#define DSHARD_TRANSFORMS_GRAPH_PASSES_TD

include "mlir/Pass/PassBase.td"

class DShard_GraphPass<string flag> : Pass<flag, "::mlir::ModuleOp"> {
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def CanonicalizeGraphPass : DShard_GraphPass<"dshard-canonicalize-graph"> {
  let summary = "fold reshapes and transposes, drop what nobody reads";
  let description = [{
    Two reshapes in a row become one, a transpose of a transpose their
    composition, one that does nothing its operand. An op with a sharding is left
    alone.

    Example: `reshape (reshape %x : 2x8 -> 16) : 16 -> 4x4` is `reshape %x : 2x8 -> 4x4`.
  }];
}

def CsePass : DShard_GraphPass<"dshard-cse"> {
  let summary = "compute equal values once";
  let description = [{
    Upstream CSE compares inherent attributes, so `path` and `why` block it. This
    one ignores `path`, `why` and `dshard.origin`: the op that stays takes the
    longest module path that both lie in and all the whys. Ops of different `part`
    stay apart.

    Example: a cosine of one table in `model.layers.0` and in `model.layers.1` is
    computed once, in `model.layers`.
  }];
}

def FoldConstantsPass : DShard_GraphPass<"dshard-fold-constants"> {
  let summary = "evaluate ops on constants, within a budget";
  let description = [{
    By the reference semantics (EvaluateInterface), every result rounded to its
    element type: index ranges, rotary tables, mask grids. A result larger than
    `max-elements` stays an op, and so does everything once the new constants
    hold `total-elements`.

    **Constraints**
    - (fold_constants_c1) integers above 2^53 are not computed with.
  }];
  let options = [
    Option<"maxElements", "max-elements", "int64_t", "65536", "largest result in elements">,
    Option<"totalElements", "total-elements", "int64_t", "4194304", "all results together">];
}

def SinkTransposesPass : DShard_GraphPass<"dshard-sink-transposes"> {
  let summary = "move transposes behind elementwise ops";
  let description = [{
    Where all large operands of an elementwise op are transposed alike, the op
    works on what they were, and its result is transposed; other operands with one
    dim are reshaped, with more they keep the op where it is. So the transposes
    behind a convolution (it computes with the channels last) move on to the next
    one, which undoes them. A transpose that with reshapes around it moves nothing
    is a reshape. An op with a sharding is left alone.

    Example: `relu (transpose %x [0, 2, 1])` is `transpose (relu %x) [0, 2, 1]`.
  }];
}

def UnflattenRowsPass : DShard_GraphPass<"dshard-unflatten-rows"> {
  let summary = "compute row by row on [batch, seq, h] instead of [rows, h]";
  let description = [{
    Some exporters reshape to two dims around a product (GPT-2, OPT). A product
    with a matrix, a norm and an elementwise op do the same on the value before
    the reshape; the reshape moves behind them, until another one undoes it. Batch
    and sequence stay dims of their own, and can be sharded.

    A norm between two reshapes works on the shape of the second, if the last dim
    is the same.

    Example: `matmul (reshape %x : 2x8x64 -> 16x64), %w : 64x32` is
    `reshape (matmul %x, %w : 2x8x32) -> 16x32`.
  }];
}

def RaiseRmsNormPass : DShard_GraphPass<"dshard-raise-rms-norm"> {
  let summary = "find root-mean-square normalisations";
  let description = [{
    `weight * (x * 1/sqrt(mean(x^2, last dim) + epsilon))` becomes
    `dshard.rms_norm`, with the root as `rsqrt`, `reciprocal(sqrt)`, a division by
    `sqrt` or a quotient `1 / sqrt`, the square as `pow` or `mul`, the operands of
    products in either order. Casts around it to f32 and back (16-bit models)
    disappear: the op computes in f32.
  }];
}

def RaiseRotaryPass : DShard_GraphPass<"dshard-raise-rotary"> {
  let summary = "find rotary position embeddings";
  let description = [{
    `x * cos + concat(-x[D/2:], x[:D/2]) * sin` becomes `dshard.rotary`. Its tables
    have half the width: those of the model are the same half twice, which is
    checked by following them to the concat (or to a constant of equal halves).
  }];
}

def RaiseGroupedMatmulPass : DShard_GraphPass<"dshard-raise-grouped-matmul"> {
  let summary = "find products of rows with matrices that are looked up";
  let description = [{
    `matmul(gather(weights, groups), row)`, a matrix for every row as mixtures of experts are
    exported ("batched"), becomes `dshard.grouped_matmul`: no copies of matrices are left. The look-up is
    a gather along dim 0 or a gather_nd of one number, the row stands on either side.
  }];
}

def RaiseSwigluPass : DShard_GraphPass<"dshard-raise-swiglu"> {
  let summary = "find silu and silu(gate) * up";
  let description = [{
    `x * sigmoid(x)` becomes `dshard.silu`, and that times another value
    `dshard.swiglu`. A silu that is read more than once stays.
  }];
}

def RaiseGeluPass : DShard_GraphPass<"dshard-raise-gelu"> {
  let summary = "find Gaussian error linear units";
  let description = [{
    `x * 0.5 * (1 + erf(x / sqrt(2)))` and
    `0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`, factors in any order,
    become `dshard.gelu`.
  }];
}

def RaiseAttentionPass : DShard_GraphPass<"dshard-raise-attention"> {
  let summary = "find attention, and what its mask says";
  let description = [{
    `softmax(scale * q k^T [softcap] + bias + mask) v` becomes `dshard.attention`: no value
    of the size of the scores is left.
    - The transposed key is any chain of reshapes, transposes and broadcasts that
      amounts to it; a repetition of KV heads in that chain becomes grouped heads.
    - The scale is the product of all scalar factors of query, key and scores.
    - The mask is taken apart: a comparison of index grids is `causal` (with offset)
      or `window`, what depends on batch and key alone is `key_padding`; a look-up
      (gather_nd) of a padding mask on its own index grid is that mask.
    - A mask that is added as a finite number leaves a row that attends nothing
      uniform; with -inf, or chosen away after a test for not-a-number, it is zero.
    - What else is added (ALiBi, relative positions) is the bias.
    - Batch and heads may be one dim around the products.

    **Constraints**
    - (raise_attention_c1) scores that are no product of one query and one key leave the
      ops as they are, with a remark that says what was not understood.
    - (raise_attention_c2) the query has the batch and the heads of the scores.
    - (raise_attention_c3) a mask that is none of these becomes a bias, with a remark.
  }];
}

def DecomposePass : DShard_GraphPass<"dshard-decompose"> {
  let summary = "replace ops by their decomposition into simpler ones";
  let description = [{
    For tests: an op's value and its gradient are compared with those of its
    decomposition. `ops` names the ops to replace, all that have one by default.
  }];
  let options = [ListOption<"ops", "ops", "std::string", "mnemonics, such as rms_norm">];
}

def PrintShardingRulesPass : DShard_GraphPass<"dshard-print-sharding-rules"> {
  let summary = "say the factor rule of every op in a remark";
  let description = [{
    `([i, k], [k, j])->([i, j]) {i=4, j=8, k=16 reduce sum}`: dims as lists of
    factors, major to minor (`ij` is a dim of two factors, `_` one of none), then
    each factor's size and kind unless it is parallel, then the operands in which
    the op is linear.
  }];
}

def VerifyGraphPass : DShard_GraphPass<"dshard-verify-graph"> {
  let summary = "check what the graph phase leaves";
  let description = [{
    The gate of the graph phase. Changes nothing.

    **Constraints**
    - (graph_c1) only functions and ops of the dshard dialect, no collectives.
    - (graph_c2) every dshard op but `dshard.constant` has `path` and `part`.
    - (graph_c3) every tensor has static dims.
    - (graph_c4) every compute op has a sound sharding rule.
  }];
}

#endif
