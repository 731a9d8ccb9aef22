//===- Passes.td - Passes of Transforms/Local -------------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_LOCAL_PASSES_TD
#define DSHARD_TRANSFORMS_LOCAL_PASSES_TD

include "mlir/Pass/PassBase.td"

def FoldCollectivesPass : Pass<"dshard-fold-collectives", "::mlir::func::FuncOp"> {
  let summary = "drop, share and merge collectives";
  let description = [{
    - equal collectives on one value are one (`why` and `path` aside; their whys are joined);
    - a slice of an all_reduce over the same axes is a reduce_scatter;
    - a slice of a gather, and a gather of a slice, along one dim over the same axes is
      the value itself;
    - `all_reduce(a) + all_reduce(b)` is `all_reduce(a + b)` where both have no other use:
      half the bytes.

    Example: two `all_gather %x dims [1]` of one part become one.

    **Constraints**
    - (fold_collectives_c1) collectives of different parts are not shared: a gather of the
      backward part frees the memory in between.
    - (fold_collectives_c2) independent all_reduces stay: merging them is the scheduler's business.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def BucketCollectivesPass : Pass<"dshard-bucket-collectives", "::mlir::func::FuncOp"> {
  let summary = "merge the parameter gathers of one unit into one op";
  let description = [{
    All all_gathers of arguments with the same axes, unit (`path` up to the
    element of the longest numbered list) and part become one with N operands, at
    the place of the first.

    **Constraints**
    - (bucket_collectives_c1) operands are function arguments: what is computed is
      gathered where it is ready.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

#endif
