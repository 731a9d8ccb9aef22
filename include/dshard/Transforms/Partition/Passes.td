//===- Passes.td - Passes of Transforms/Partition ---------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_PARTITION_PASSES_TD
#define DSHARD_TRANSFORMS_PARTITION_PASSES_TD

include "mlir/Pass/PassBase.td"

class DShard_PartitionPass<string flag> : Pass<flag, "::mlir::ModuleOp"> {
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def VerifyRowsPass : DShard_PartitionPass<"dshard-verify-rows"> {
  let summary = "check that a batch may go through in parts";
  let description = [{
    For functions with `dshard.micro_batches` > 1, whose arguments and results with
    `dshard.micro_batched` have the batch in dim 0. Follows the batch through the
    factors of every op. Changes nothing.

    **Constraints**
    - (rows_c1) no op reduces, gathers or splits the batch: a row of a result
      depends on the same row of the inputs only.
    - (rows_c2) what meets the batch is the same for all rows.
    - (rows_c3) a result with `dshard.micro_batched` has the batch in dim 0; one
      without does not depend on it.
  }];
}

def SplitPipelinePass : DShard_PartitionPass<"dshard-split-pipeline"> {
  let summary = "split the global program into pipeline stages";
  let description = [{
    With one stage (mesh axis `pp`) there is nothing to split. Else @NAME becomes the
    functions @NAME.0, @NAME.1, ..., one per stage (`dshard.stage`), and keeps its
    signature, without a body, and their names in `dshard.stages`.

    By `layers`: the elements of the longest numbered list of module paths are divided
    evenly, the first stages get one more; what comes before (the embedding) lies on the
    first stage, what comes after (norm, head) on the last. By `cost`: modules in program
    order, such that the dearest stage has as few FLOPs as can be.
    What depends on inputs alone (masks, positions) or on parameters alone is computed on
    every stage that needs it; every other value that a later stage reads is sent to the
    next stage (`dshard.send`, `dshard.recv` over `pp`) and from there on. A parameter is
    an argument of the stages that use it, so it is held there only.

    Example: two layers on pp=2.
    `func @run(%x, %w0, %w1)` becomes `func @run.0(%x, %w0)`, which ends in
    `dshard.send %h to 1 tag 0`, and `func @run.1(%w1) -> ...`, which begins with
    `%h = dshard.recv from 0 tag 0`.

    **Constraints**
    - (split_pipeline_c1) the function keeps no state.
    - (split_pipeline_c2) by layers: there is a numbered list of layers.
    - (split_pipeline_c3) there are at least as many layers (modules) as stages.
    - (split_pipeline_c4) no layer reads a value of a later stage.
  }];
  let options = [
    Option<"split", "split", "std::string", "\"layers\"", "layers or cost">,
  ];
}

def DecomposeReshardsPass : DShard_PartitionPass<"dshard-decompose-reshards"> {
  let summary = "rewrite each reshard into reshards of one collective each";
  let description = [{
    Still on global types. partial -> replicated is an all_reduce, partial -> sharded
    a reduce_scatter, sharded -> replicated an all_gather, dim i -> dim j an
    all_to_all, replicated -> sharded a local_slice. Whatever no single sequence of
    these does without moving an axis twice is gathered and sliced, with a remark.

    Example: `[{"tp"}, {} ], partial = {"cp"}` to `[{}, {} ]` becomes
    `[{"tp"}, {} ]` (all_reduce over cp), then `[{}, {} ]` (all_gather over tp).

    **Constraints**
    - (decompose_c1) a reshard introduces no partial axis.
  }];
}

def PartitionPass : DShard_PartitionPass<"dshard-partition"> {
  let summary = "rewrite the global program into the program of one rank";
  let description = [{
    Types become local, reshards become collectives with their `why` and
    location, every other op its local form (PartitionInterface). Arguments and
    results keep `dshard.global`, `dshard.sharding` and all their other
    attributes, for the loader; the function gets `dshard.spmd`. The regions of
    `dshard.repeat` and `dshard.if` are converted with the rest.

    Example: `reshard %p to <[{}, {} ]>` of a value partial over tp becomes
    `dshard.all_reduce sum %p over ["tp"]`.

    **Constraints**
    - (partition_c1) the module is resolved, and each reshard is one collective.
    - (partition_c2) every sharded dim divides.
  }];
}

def VerifyLocalPass : DShard_PartitionPass<"dshard-verify-local"> {
  let summary = "check the program of one rank";
  let description = [{
    The gate of the local phase. Changes nothing.

    **Constraints**
    - (local_c1) every function is `dshard.spmd`, without reshards or sharding
      attributes inside.
    - (local_c2) collectives name known axes of size > 1, and their results have the
      local size that the group gives.
    - (local_c3) an argument's or result's local type is its global type divided by
      its sharding.
    - (local_c4) a stored weight has its argument's global shape, or a smaller one
      (padded by `dshard-pad`).
    - (local_c5) collectives come in one order on all ranks: none lies in a region
      whose condition could differ.
    - (local_c6) every send has its recv, of the same type, at the peer: in the function of the stage
      that it names, or in the same function where there are no stages.
    - (local_c7) every dshard op but `dshard.constant` has `path` and `part`.
  }];
}

#endif
