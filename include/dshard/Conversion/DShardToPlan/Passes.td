//===- Passes.td - From a scheduled program to a plan ----------*- tablegen -*-===//
#ifndef DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_TD
#define DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertToPlanPass : Pass<"dshard-convert-to-plan", "::mlir::ModuleOp"> {
  let summary = "decide buffers, memory, states, loading and code: the whole plan";
  let description = [{
    Turns the module's one `dshard.spmd` function (phase `schedule`) into the plan dialect:

    - parameters become states. One that is only the rhs of packable matmuls is packed; one that is
      also used otherwise (tied embeddings) becomes two states;
    - the `load` program reads every state's slice of its weight; packed ones in bands of at most
      4 MiB. Slices depend on the rank through tables; dims that were padded read as zeros;
    - `dshard.fused` regions become library calls (`dshard.call`) or launches of generated kernels;
      equal kernels are one;
    - reshapes are other names of the same bytes. A kernel, an all_reduce and the residual of a
      matmul work in place where the operand dies and every element depends on its own place;
    - the arena is laid out by size, best fit, at multiples of 64 bytes. Inputs keep their bytes.

    **Constraints**
    - (convert_to_plan_c1) one function, of one pipeline stage, without control ops.
    - (convert_to_plan_c2) no argument is a state that the program keeps.
    - (convert_to_plan_c3) the function is one block that passes the gate of phase `schedule`, of
      tensors of known sizes.
  }];
  let dependentDialects = ["::mlir::plan::PlanDialect"];
  let options = [Option<"target", "target", "std::string", "\"cpu:native\"",
                        "cpu, cpu:native, cpu:x86-64-v3 or cpu:x86-64-v4">];
}

#endif
