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

#endif
