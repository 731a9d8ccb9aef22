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
    | replicated | none | none | as it comes |
    | prepare_input, prepare_output | | | the module's input or output gets `in` or `out` |

    The pass only writes attributes: `dshard.sharding` and `dshard.origin` on
    parameters, `dshard.shardings` on the result of the module (its named dim
    closed, the others open). The output features are found from the product that
    uses the weight, so the storage order does not matter.

    Where a product makes the keys or values of an attention with fewer KV heads
    than ranks, its features are sharded by the major sub-axis of that size and
    replicated over the minor one.

    Without `plan` and with tp > 1 the built-in plan (llama, default) whose keys
    match most modules is used, and named in a remark.

    **Constraints**
    - (tensor_parallel_c1) the module has a mesh.
    - (tensor_parallel_c2) every key of a plan from a file matches a module; a
      built-in plan matches at least one.
    - (tensor_parallel_c3) colwise and rowwise are for modules with a Linear or an
      Embedding.
    - (tensor_parallel_c4) tp divides the query heads; it divides the KV heads or
      they divide tp.
    - (tensor_parallel_c5) tp divides the features (the vocabulary is padded by
      `dshard-pad` instead).
    - (tensor_parallel_c6) a weight of several modules is sharded alike by all.
    - (tensor_parallel_c7) sequence_parallel is refused: it is not built yet.
  }];
  let options = [Option<"plan", "plan", "std::string", /*default=*/"\"\"",
                        "name of a built-in plan, or a JSON file">];
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
    `dshard.dim_names`; it is followed through the program by the ops' rules.

    Example: the result of `model.layers.*.mlp.down_proj` goes from `[{?}, {?}, {} ]`
    to `[{?}, {"tp"}, {} ]`.

    **Constraints**
    - (sequence_parallel_c1) tp > 1.
    - (sequence_parallel_c2) the plan has a row-parallel module.
    - (sequence_parallel_c3) the output of each has a sequence dim.
    - (sequence_parallel_c4) tp divides the sequence.
  }];
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
