//===- Passes.td - Passes of Transforms/Local -------------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_LOCAL_PASSES_TD
#define DSHARD_TRANSFORMS_LOCAL_PASSES_TD

include "mlir/Pass/PassBase.td"

def FoldCollectivesPass : Pass<"dshard-fold-collectives", "::mlir::ModuleOp"> {
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

def BucketCollectivesPass : Pass<"dshard-bucket-collectives", "::mlir::ModuleOp"> {
  let summary = "merge the gathers and the gradient reductions of one unit into one op each";
  let description = [{
    All all_gathers of arguments with the same axes, path (`dshard-fully-shard`
    gives those of a unit the unit's) and part become one with N operands, at the
    place of the first; its why lists them, or counts five and more.

    all_reduces, reduce_scatters and all_gathers that only the optimizer waits for
    (gradients, norms, updated parameters) become one each for the same axes, path and part,
    at the place of the last: where its last operand is ready. all_reduces over axes that
    reduce nothing but vectors and scalars (gradients of norms over tp, squares of gradients)
    become one for all units.

    **Constraints**
    - (bucket_collectives_c1) of the forward part only gathers of function arguments are merged:
      what is computed is gathered where it is ready.
    - (bucket_collectives_c2) collectives that need each other's results are not merged.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def FormKernelsPass : Pass<"dshard-form-kernels", "::mlir::ModuleOp"> {
  let summary = "group ops into library calls and generated kernels";
  let description = [{
    Every compute op ends in a `dshard.fused` region. One with `dshard.call` is a library call
    (Calls.h): a matmul with its bias, activation and residual; an attention or its gradient; all with
    the transposes and reshapes around them that strides express. An optimizer step is one kernel
    with three results; a sum of everything is two, so that threads share the first. Any other is one generated kernel:
    producers join the kernel of their users as long as nothing expensive is computed twice,
    and values that others need as well become further results of it. A reshape between
    buffers stays outside: it is another name of the same bytes.

    For a GPU (`target` begins with `cuda`) attention and its gradient are kernels of their own, and
    a matmul takes in only what cuBLASLt's epilogues do: bias, then relu, tanh-gelu or the residual.

    Example: `add` and `rms_norm` of a residual stream become one region with two results.

    **Constraints**
    - (form_kernels_c1) an op without kernel or library call for its types is an error.
    - (form_kernels_c2) no kernel reads gathered parameters of two units: both would stay in memory.
  }];
  let options = [Option<"target", "target", "std::string", "\"\"", "what the plan is for, as --target; empty: a CPU">];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def SchedulePass : Pass<"dshard-schedule", "::mlir::ModuleOp"> {
  let summary = "order the ops of a local program so that little memory is live";
  let description = [{
    List scheduling: what frees memory goes as soon as it is ready, everything else keeps the
    program's order. Collectives and control keep their order, the same on all ranks. The new value
    of a state stays behind the reads of the old one, which it may overwrite.
  }];
}

def VerifySchedulePass : Pass<"dshard-verify-schedule", "::mlir::ModuleOp"> {
  let summary = "check what phase `schedule` may hold";
  let description = [{
    **Constraints**
    - (verify_schedule_c1) outside of fused regions there are only reshapes, collectives, local_slice,
      rank_index and control.
    - (verify_schedule_c2) a region with `dshard.call` is exactly such a call.
    - (verify_schedule_c3) any other region holds ops that the code generator knows.
  }];
}

#endif
