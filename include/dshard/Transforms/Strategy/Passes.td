//===- Passes.td - Passes of Transforms/Strategy ----------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_STRATEGY_PASSES_TD
#define DSHARD_TRANSFORMS_STRATEGY_PASSES_TD

include "mlir/Pass/PassBase.td"

def TensorParallelPass : Pass<"dshard-tensor-parallel", "::mlir::ModuleOp"> {
  let summary = "write the shardings that a tensor-parallel plan asks for";
  let description = [{
    A plan says per module how its Linear or Embedding is split over `tp`. Keys
    are module paths, `*` stands for one component; a value is a style or
    `{"style", "in", "out"}` with the layouts `replicate` and `shard(DIM)`:

    ```
    { "model.layers.*.mlp.up_proj": "colwise",
      "model.layers.*.mlp.down_proj": "rowwise",
      "lm_head": {"style": "colwise", "out": "shard(-1)"} }
    ```

    | style | weight (Linear) | weight (Embedding) | output |
    |---|---|---|---|
    | colwise | output features | hidden | shard(-1) |
    | colwise_rep | output features | hidden | replicate |
    | rowwise, rowwise_rep | input features | vocabulary | replicate |
    | expert_parallel | which matrices of a mixture of experts | | replicate |
    | replicated | none | none | as it comes |
    | prepare_input, prepare_output | | | the module's input or output gets `in` or `out` |

    The pass writes attributes: `dshard.sharding` and `dshard.origin` on
    parameters, `dshard.shardings` on the result of the module (its named dim
    closed, the others open). The output features are found from the product that
    uses the weight, so the storage order does not matter. Only the product of a
    rowwise convolution is rewritten: it contracts channels before taps, so that a
    shard of the contracted dim is one of the channels.

    Where a product makes the keys or values of an attention with fewer KV heads
    than ranks, its features are sharded by the major sub-axis of that size and
    replicated over the minor one.

    In a key `*` is one component of a module's path, `**.` at its front any
    number of them.

    Without `plan` and with tp > 1 the built-in plan (llama, default, gpt2, neox,
    opt, bert, t5, vit, resnet, resnet-bottleneck, genai) whose keys match most
    modules is used, and named in a remark.

    A convolution is a product, too: colwise shards its output channels, rowwise
    its input channels, both the groups of one in groups. Of a block-quantised
    weight (MatMulNBits) data, scales and zero points are sharded together:
    colwise by columns, rowwise by whole blocks.

    The matrices of a mixture of experts (grouped_matmul) are parameters of one
    module: a key names the parameter (`model.layers.*.mlp.experts.gate_up_proj`), or
    what it would be called where its name says less. colwise and rowwise shard each
    expert's matrix, expert_parallel deals the experts out: a rank computes the rows of
    its own, and a sum over tp brings them together.

    A built-in plan leaves the projections of an attention whose heads tp does not
    divide whole, with a remark, if it divides those of another one (SegFormer).

    **Constraints**
    - (tensor_parallel_c1) the module has a mesh.
    - (tensor_parallel_c2) every key of a plan from a file matches a module; a
      built-in plan matches at least one.
    - (tensor_parallel_c3) colwise and rowwise are for modules with a Linear or an
      Embedding.
    - (tensor_parallel_c4) tp divides the query heads; it divides the KV heads or
      they divide tp.
    - (tensor_parallel_c5) tp divides the features, channels, groups or blocks (the
      vocabulary is padded by `dshard-pad` instead; a quantised one stays whole
      under a built-in plan).
    - (tensor_parallel_c6) a weight of several modules is sharded alike by all.
    - (tensor_parallel_c7) sequence_parallel is refused: it is not built yet.
  }];
  let options = [Option<"plan", "plan", "std::string", /*default=*/"\"\"",
                        "name of a built-in plan, or a JSON file">];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def InterleaveProjectionsPass
    : Pass<"dshard-interleave-projections", "::mlir::ModuleOp"> {
  let summary = "deal out the segments of fused projections by rank";
  let description = [{
    Runs after `dshard-tensor-parallel`. A column-parallel product whose result is
    only cut into slices of its last dim is several projections side by side: GPT-2's
    [q | k | v], Phi-3's [gate | up]. Even shards of it would hold one rank's q and
    another's k, and be gathered. So the weight and the bias are given the order
    [q0 k0 v0 | q1 k1 v1] for tp=2, which `load` reads them in
    (`dshard.interleave = {dim, parts, sizes}` on the argument: the sizes of the
    file's segments, of which each rank has a part), and the slices are taken of
    each part:

    ```
    %r = dshard.reshape %qkv : tensor<2x12x192xf32> to tensor<2x12x2x96xf32>
    %s = dshard.slice %r     : the k of each part,     tensor<2x12x2x32xf32>
    %k = dshard.reshape %s   : tensor<2x12x64xf32>
    ```

    The program means the same; no collective is left between the product and the
    attention. What is no such product stays as it is: one whose weight something
    else reads (a training step: its gradient and update keep the file's order, and
    the product is gathered), or whose segments or heads tp does not divide.

    **Constraints**
    - (interleave_projections_c1) all entry points that hold the weight use it so.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def SequenceParallelPass : Pass<"dshard-sequence-parallel", "::mlir::ModuleOp"> {
  let summary = "shard the residual stream on the sequence over tp";
  let description = [{
    Runs after `dshard-tensor-parallel`, for built-in and own plans. The result of
    every row-parallel product and of a vocabulary-parallel look-up is sharded on
    its sequence dim over `tp`: their pending sum becomes a reduce_scatter instead
    of an all_reduce. By propagation the residual stream and the norms stay on the
    shard, and the next column-parallel product gathers its input: one all_gather
    for all the products that share it.

    The sequence dim is dim 1 of an integer input, or the one called `seq` in
    `dshard.dim_names`; where no input has one (pictures, sounds) it is the rows of
    the attentions: patches, frames. It is followed through the program by the ops'
    rules. Outputs without one (of convolutions, of a pooled token) stay whole, as
    without the flag; a remark says how many and names some. A length that no input
    has and tp does not divide (197 tokens) is padded with zeros between the
    row-parallel products and the next column-parallel ones, and cropped where it
    is read otherwise.

    Example: the result of `model.layers.*.mlp.down_proj` goes from `[{?}, {?}, {} ]`
    to `[{?}, {"tp"}, {} ]`.

    **Constraints**
    - (sequence_parallel_c1) tp > 1.
    - (sequence_parallel_c2) the plan has a row-parallel module.
    - (sequence_parallel_c4) tp divides a sequence whose length an input has.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def ContextParallelPass : Pass<"dshard-context-parallel", "::mlir::ModuleOp"> {
  let summary = "shard the sequence of every input over cp";
  let description = [{
    The sequence dim of every input (dim 1 of an integer input, or the one called
    `seq` in `dshard.dim_names`) is sharded over `cp`, and lies in the order of
    `layout`: zigzag deals out 2 cp chunks, so that causal work is balanced (the
    default with a causal attention), contiguous cp parts, striped single elements.

    The order is part of what the program means: arguments and results whose
    sequence dim lies so say it (`dshard.layout`, `dshard.layout_dim`), and whoever
    gives or takes global tensors reorders there. Inside, the order is followed by
    the ops' rules. An op to which all elements of the dim are alike (one parallel
    or reduce factor) takes all its operands in that order: constants, and what is
    computed from them (position ids, rotary tables), are permuted at compile time;
    other values get a `dshard.reorder`. An op that reads positions off the dim (a
    slice or concatenation along it, a look-up in it, a reshape that merges it) gets
    its operand back in natural order by an inverse `dshard.reorder`, for which the
    dim is gathered, with a remark. So nothing has to be known of an op but its
    rule, and the program is equal before and after. Self-attention is the one op
    that is positional and follows: `layout` and `parts` say how its rows and keys
    lie, make the two one factor, and `dshard.cp_method` says how partition lets
    keys meet queries.

    Example: on cp=2 `%ids: tensor<4x16xi64>` gets `[{}, {"cp"} ]` and
    `dshard.layout = #dshard.layout<zigzag>`.

    **Constraints**
    - (context_parallel_c1) the module has a mesh; some input has a sequence dim, and
      2 cp (zigzag) or cp divides it.
    - (context_parallel_c2) method is ring (default), all_gather, all_to_all or
      hierarchical.
    - (context_parallel_c3) layout is zigzag, contiguous or striped; neither option is
      given without an axis cp > 1.
    - (context_parallel_c4) no sliding window with ring and hierarchical; no causal
      attention with striped and all_gather or hierarchical.
    - (context_parallel_c5) no op of a backward pass, and no op with regions.
  }];
  let options = [
    Option<"method", "method", "std::string", /*default=*/"\"\"",
           "ring (default), all_gather, all_to_all or hierarchical">,
    Option<"layout", "layout", "std::string", /*default=*/"\"\"",
           "zigzag (default where an attention is causal), contiguous or striped">];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def DataParallelPass : Pass<"dshard-data-parallel", "::mlir::ModuleOp"> {
  let summary = "shard the batch of every input";
  let description = [{
    The batch dim of every input is sharded over `dp_replicate` and `dp_shard`, as
    far as the mesh has them. It is the dim called `batch` in `dshard.dim_names`
    (which `--dims` sets), else dim 0, unless that is called `seq` or `none`.
    Outputs follow by propagation: their batch stays sharded, and the runtime
    gathers it.

    Example: `%ids: tensor<8x16xi64>` on dp_replicate=2, dp_shard=2 gets
    `[{"dp_replicate", "dp_shard"}, {} ]`.

    **Constraints**
    - (data_parallel_c1) some input has a batch dim.
    - (data_parallel_c2) the axes divide every batch dim; one of size 1 beside a
      larger one is broadcast and stays whole.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

#endif
