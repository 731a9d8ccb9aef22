//===- Passes.td - Passes of Transforms/Train -------------*- tablegen -*-===//
#ifndef DSHARD_TRANSFORMS_TRAIN_PASSES_TD
#define DSHARD_TRANSFORMS_TRAIN_PASSES_TD

include "mlir/Pass/PassBase.td"

def DifferentiatePass : Pass<"dshard-differentiate", "::mlir::ModuleOp"> {
  let summary = "add the vector-Jacobian product of every function";
  let description = [{
    Beside each function `@NAME` it makes `@NAME_vjp`: the arguments of `@NAME`, then one cotangent
    per float result, give one gradient per float argument (zeros where none flows). This is what
    the finite-difference tests run; `dshard-build-train-step` uses the same machinery.

    **Constraints**
    - (differentiate_c1) every op between a float argument and a float result has a gradient.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def BuildTrainStepPass : Pass<"dshard-build-train-step", "::mlir::ModuleOp"> {
  let summary = "add the entry point train_step: loss, gradients, clipping and AdamW";
  let description = [{
    `config` is a JSON file (all keys are optional):

    ```
    { "loss": "cross_entropy", "logits": "logits", "labels": "labels",
      "ignore_index": -100, "shift_labels": false, "trainable": ["*.weight", "*.bias"],
      "optimizer": {"name": "adamw", "betas": [0.9, 0.999], "eps": 1e-8,
                    "weight_decay": 0.01, "no_decay": ["*norm.weight", "*.bias"]},
      "clip_norm": 1.0, "nonfinite": "stop",
      "outputs": ["loss", "grad_norm", "gradients"] }
    ```

    The loss is the sum of cross-entropies divided by the number of labels that are not
    `ignore_index` (at least 1), over all micro-batches and ranks. `shift_labels`: position i is
    trained on label i + 1. `trainable`: the weights to train, by glob; by default those that the
    file calls parameters (`dshard.is_parameter`) or, where it does not say, whose name reads like
    the path of one, never one without dims. `no_decay`: parameters, by glob, without weight decay. `clip_norm`
    (default: none) bounds the norm of all gradients together. `outputs` defaults to loss and
    grad_norm (the norm before clipping). With `nonfinite` = "stop" a gradient that is not finite
    ends the run, with "skip" the step is left out with a warning; neither writes any state.

    `@train_step` takes the inputs of the model, the labels, the parameters, their moments
    `NAME.exp_avg` and `NAME.exp_avg_sq`, the number of steps done (`step`) and the scalar `lr`. It
    gives what `outputs` asks for (gradients are called `NAME.grad`), the sum of squares of each
    gradient, checked to be finite, and the new values of the states.

    With `micro-batches` = k > 1 the module holds `@train_step` already: the model on one of k
    parts of the batch, with `dshard.micro_batches = k`. It becomes the body of a `dshard.repeat`
    that accumulates loss and gradients; part i holds the samples i, i + k, ... of the batch.

    **Constraints**
    - (build_train_step_c1) the configuration has no unknown key and no value out of range.
    - (build_train_step_c2) `logits` is an output of the model with at least 2 dims, `labels` no
      input of it and no name of the step's own.
    - (build_train_step_c3) every float parameter with a gradient is f32, and there is one.
    - (build_train_step_c4) a glob of `trainable` or `no_decay` matches a float weight.
    - (build_train_step_c5) inputs of one micro-batch are the k-th part of the whole on dim 0, or
      the same.
  }];
  let options = [
    Option<"config", "config", "std::string", /*default=*/"\"\"", "training configuration, a JSON file">,
    Option<"microBatches", "micro-batches", "int64_t", /*default=*/"1", "parts of the batch per step">];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def VerifyTrainPass : Pass<"dshard-verify-train", "::mlir::ModuleOp"> {
  let summary = "check the global program after the train phase";
  let description = [{
    The gate of the phase `train`.

    **Constraints**
    - (verify_train_c1) no cross_entropy is left, and no function whose loop was not built.
    - (verify_train_c2) every op but a constant has path and part and (control aside) a sharding rule.
    - (verify_train_c3) a result that is a state has the argument of that state, and its type.
    - (verify_train_c4) gradient names a parameter of the function.
    - (verify_train_c5) backward ops never feed forward ones, optimizer ops never feed either.
    - (verify_train_c6) `dshard.finite` has one name per element; a scalar is an argument without dims.
  }];
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

#endif
