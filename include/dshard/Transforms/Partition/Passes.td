//===- Passes.td - Passes of Transforms/Partition ---------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_PARTITION_PASSES_TD
#define DSHARD_TRANSFORMS_PARTITION_PASSES_TD

include "mlir/Pass/PassBase.td"

class DShard_PartitionPass<string flag> : Pass<flag, "::mlir::ModuleOp"> {
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def SplitPipelinePass : DShard_PartitionPass<"dshard-split-pipeline"> {
  let summary = "split the global program into pipeline stages";
  let description = [{
    With one stage there is nothing to split.

    **Constraints**
    - (split_pipeline_c1) `pp` has size 1: pipeline parallelism is not built yet.
  }];
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
    attributes, for the loader; the function gets `dshard.spmd`.

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
    - (local_c6) every send has its recv.
    - (local_c7) every dshard op but `dshard.constant` has `path` and `part`.
  }];
}

#endif
