//===- Passes.td - Passes of Transforms/Propagate ---------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_PROPAGATE_PASSES_TD
#define DSHARD_TRANSFORMS_PROPAGATE_PASSES_TD

include "mlir/Pass/PassBase.td"

class DShard_ModulePass<string flag> : Pass<flag, "::mlir::ModuleOp"> {
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def VerifyAnnotatedPass : DShard_ModulePass<"dshard-verify-annotated"> {
  let summary = "check the shardings that the strategies wrote";
  let description = [{
    The gate of the annotate phase. Changes nothing.

    **Constraints**
    - (annotated_c1) the module has one `dshard.mesh`, and `pp` shards no tensor.
    - (annotated_c2) every tensor has static dims.
    - (annotated_c3) every sharding suits its tensor (sharding_c1..c5); a dim of a
      parameter that does not divide is left to `dshard-pad`.
    - (annotated_c4) every dshard op but `dshard.constant` has `path` and `part`.
    - (annotated_c5) every op has a sharding rule, and the rule is sound (rule_c1..).
  }];
}

def PadPass : DShard_ModulePass<"dshard-pad"> {
  let summary = "pad the vocabulary to a multiple of its axes";
  let description = [{
    A parameter whose sharded vocabulary dim does not divide grows: its argument
    type takes the next multiple, `#dshard.weight` keeps the stored type (the
    loader fills with zeros). A look-up wraps negative indices first, so that
    they still count from the model's own end. A product with it gets zero
    columns, which are cropped from the result; a remark names the cost.

    Example: `gather %table[250, h]` sharded over tp=4 on dim 0 becomes
    `gather %table[252, h]`.

    **Constraints**
    - (pad_pass_c1) only the dim that a `dshard.gather` looks up in, or that a
      `dshard.matmul` keeps, can be padded; any other dim that does not divide is
      an error that names the sizes that do.
  }];
}

def PropagatePass : DShard_ModulePass<"dshard-propagate"> {
  let summary = "give every value one closed sharding";
  let description = [{
    Spreads the annotated shardings along the ops' factors, forward and backward,
    until nothing changes. An argument without annotation is replicated. Where two
    shardings meet on one factor, or two factors want one axis, the candidate that
    moves the fewest bytes (times the link's cost) wins, in a stable order; a
    remark names the loser. Open dims are closed at the end, and results of
    functions get the sharding of what they return unless they declare one.

    Example: with `%w [{}, {"tp"} ]` alone annotated, `%h = matmul %x, %w` gets
    `[{}, {"tp"} ]`.

    **Constraints**
    - (propagate_c1) closed dims never change.
    - (propagate_c2) no reduce, gather or ring factor shards a result.
  }];
}

def InsertReshardsPass : DShard_ModulePass<"dshard-insert-reshards"> {
  let summary = "make every change of sharding an op";
  let description = [{
    After it every op's operands agree factor by factor with its rule, and every
    result has the sharding that follows from them: where that is not the one
    wanted (a partial product, say) a `dshard.reshard` with `why` follows: at once, or, where
    the only user is linear in it and no larger, behind that, so that sums of partial values
    (input gradients of q, k and v) are reduced once. A repeat's accumulator that starts at
    zero and adds a partial value stays partial until after the loop.

    Example: `%p = matmul %h, %w2` over a sharded contraction is partial over tp;
    `dshard.reshard %p to <[{}, {} ]> why "row-parallel output of mlp.w2"`.

    **Constraints**
    - (insert_reshards_c1) every value has a closed sharding (`dshard-propagate`).
    - (insert_reshards_c2) a partial value reaches only ops that are linear in it.
  }];
}

def FullyShardPass : DShard_ModulePass<"dshard-fully-shard"> {
  let summary = "decide the storage sharding of parameters";
  let description = [{
    Runs before `dshard-propagate`, which does the rest: it only says how parameters,
    gradients and optimizer states are stored. The modes, over (dp_shard, cp):
    - `none`: storage = compute.
    - `optimizer`: storage = compute; optimizer states and the update are sharded, and
      the updated parameter is gathered ("gather updated parameter NAME").
    - `gradients`: every parameter is stored sharded beside its compute sharding, on the
      first dim that they divide after it, else on dim 0, padded, and the gather crops. A
      `dshard.reshard` with the why "gather parameter NAME" leads from storage to
      compute before the first use; its path is the unit's. It is kept for the step.
    - `parameters` (default): the same, but gathered again for the uses of the backward
      part, except in the last unit and the root, which it needs at once.
    dp_replicate does not shard storage. `dshard.gradient` gets the storage sharding,
    through a reshard "reduce gradient of NAME" with the unit's path; what it reduces has
    the compute sharding, as a cotangent has its primal's. A padded parameter's
    gradient is padded with zeros before it.

    Example: on dp_shard=2, tp=2 `%w2 [{"tp"}, {} ]` becomes
    `%w2 [{"tp", "dp_shard"}, {} ]` and a reshard to `[{"tp"}, {} ]`.

    A unit is an element of the longest numbered list of module paths, or what
    `unit` matches; the rest, and what two units use, is the root unit (path "").
    `parameters` marks the reshards `regather`, but those of the last unit and of
    the root.

    **Constraints**
    - (fully_shard_c2) mode is none, optimizer, gradients or parameters.
    - (fully_shard_c3) `unit` matches a module.
    - (fully_shard_c4) a parameter that no dim can be divided for (a scalar; tp on
      every dim) keeps storage = compute, with a remark.
  }];
  let options = [
    Option<"mode", "mode", "std::string", /*default=*/"\"\"",
           "none, optimizer, gradients or parameters (default)">,
    Option<"unit", "unit", "std::string", /*default=*/"\"\"",
           "module paths that are units, * for one component">];
}

def VerifyPartialPass : DShard_ModulePass<"dshard-verify-partial"> {
  let summary = "check that partial values are only used where that is right";
  let description = [{
    **Constraints**
    - (partial_c1) an op that consumes a partial value is linear in it.
    - (partial_c2) add and sub take both operands partial over the same axes, or none.
    - (partial_c3) no product of two partial values.
    - (partial_c4) partial axes are neither dropped nor introduced without a reshard:
      a result is partial over its operands' axes and its sharded reduce factors.
    - (partial_c5) the kinds of what comes together agree.
    - (partial_c6) a function returns no partial value unless its result declares it.
    - (partial_c7) initial, carried, yielded and result values of a repeat (and a branch's)
      are partial over the same axes; zeros may be declared partial over any.
  }];
}

def VerifyResolvedPass : DShard_ModulePass<"dshard-verify-resolved"> {
  let summary = "check that every value has one sharding and every op agrees";
  let description = [{
    The gate of the resolve phase. Changes nothing.

    **Constraints**
    - (resolved_c1) every value has a sharding, and no dim is open.
    - (resolved_c2) a factor is sharded alike on all operands and results.
    - (resolved_c3) an axis shards one factor of an op.
    - (resolved_c4) no gather factor is sharded.
    - (resolved_c5) a function returns what its results declare.
    - (resolved_c6) a gradient has the sharding of its parameter's storage.
    - (resolved_c7) state is written only where an argument declares it.
    - (resolved_c9) initial, carried, yielded and result values of a repeat (and a branch's)
      have one sharding.
    - (resolved_c8) every dshard op but `dshard.constant` has `path` and `part`;
      shardings suit their tensors (sharding_c1..c5).
  }];
}

#endif
