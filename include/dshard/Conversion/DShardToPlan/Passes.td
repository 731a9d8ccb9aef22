//===- Passes.td - From a scheduled program to a plan ----------*- tablegen -*-===//
#ifndef DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_TD
#define DSHARD_CONVERSION_DSHARDTOPLAN_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertToPlanPass : Pass<"dshard-convert-to-plan", "::mlir::ModuleOp"> {
  let summary = "decide buffers, memory, states, loading and code: the whole plan";
  let description = [{
    Turns the module's `dshard.spmd` functions (phase `schedule`) into the plan dialect, each into a
    program and an entry point of its name; stages of a pipeline are programs of one entry:

    - parameters become states, shared by their name (`dshard.state`, else the weight's). One that is
      only the rhs of packable matmuls is packed; one that is also used otherwise (tied embeddings)
      becomes two states. A state that any function writes (a result of the same `dshard.state`) is
      plain, and starts at zero if it has no weight;
    - an argument with `dshard.scalar` is the word of a scalar;
    - the `load` program reads every state's slice of its weight; packed ones in bands of at most
      4 MiB. Slices depend on the rank through tables; dims that were padded read as zeros;
    - `dshard.fused` regions become library calls (`dshard.call`) or launches of generated kernels;
      equal kernels are one;
    - reshapes are other names of the same bytes. A kernel, an all_reduce and the residual of a
      matmul work in place where the operand dies and every element depends on its own place;
    - what a `dshard.repeat` carries, a `dshard.if` gives and a state holds has one place. The new
      value is written there at once where nobody reads the old one any more, else copied at the
      end of the region or function, after all reads. The iteration is a buffer; the condition of
      an if is a number of the rank;
    - the arena is laid out by size, best fit, at multiples of 64 bytes. Inputs keep their bytes.

    For a GPU (`cuda:sm_NN`) no state is packed, no kernel works in place, buffers lie at multiples of
    256 bytes, and collectives run on streams of their own, ordered by events: those of group g on
    stream 1 + g, which waits for all that came before on stream 0; stream 0 waits for it where it
    touches the same bytes.

    **Constraints**
    - (convert_to_plan_c1) functions are of phase `schedule`, none is called `load`; the rank and
      constants alone decide every branch.
    - (convert_to_plan_c2) functions agree on the type, the sharding and the weight of a state; a
      function has one argument of a state that it reads or writes.
    - (convert_to_plan_c3) a function is one block that passes the gate of phase `schedule`, of
      tensors of known sizes.
  }];
  let dependentDialects = ["::mlir::plan::PlanDialect"];
  let options = [Option<"target", "target", "std::string", "\"cpu:native\"",
                        "cpu, cpu:native, cpu:x86-64-v3, cpu:x86-64-v4, "
                        "cuda:sm_80, cuda:sm_90 or cuda:sm_100">];
}

#endif
