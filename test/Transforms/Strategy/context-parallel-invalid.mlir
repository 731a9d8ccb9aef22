// What context parallelism refuses: one line each, with the numbers and a way out.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-context-parallel
// RUN: not dshard-opt %S/Inputs/one-sequence.mlir --dshard-context-parallel=method=spiral 2>&1 | FileCheck %s --check-prefix=METHOD
// RUN: not dshard-opt %S/Inputs/one-sequence.mlir --dshard-context-parallel=layout=spiral 2>&1 | FileCheck %s --check-prefix=LAYOUT
// RUN: not dshard-opt %S/Inputs/one-sequence.mlir '--dshard-context-parallel=method=all_gather layout=striped' 2>&1 | FileCheck %s --check-prefix=STRIPED
// METHOD: error: unknown --cp-method 'spiral'; the methods are ring, all_gather, all_to_all, hierarchical
// LAYOUT: error: unknown --cp-layout 'spiral'; the layouts are zigzag, contiguous, striped
// STRIPED: error: model.attn is causal: --cp-method=all_gather does not take --cp-layout=striped; use zigzag or contiguous

// context_parallel_c1: contiguous (nothing is causal) needs cp, ...
// expected-error@unknown {{input 'ids': sequence dim 1 of size 6 is not divisible by 4 (cp=4, layout contiguous); sizes that divide: 4, 8}}
module attributes {dshard.mesh = #dshard.mesh<"cp"=4>} {
func.func @sizes(%ids: tensor<2x6xi64> {dshard.name = "ids", dshard.role = #dshard.role<input>}) -> tensor<2x6xi64> {
  return %ids : tensor<2x6xi64>
}
}

// -----

// ... zigzag 2 cp.
// expected-error@unknown {{argument 0: sequence dim 2 of size 6 is not divisible by 4 (2 * cp=2, layout zigzag); sizes that divide: 4, 8}}
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @chunks(%q: tensor<1x2x6x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>}) -> tensor<1x2x6x4xf32> {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, path = "a", part = #dshard.part<forward>} : (tensor<1x2x6x4xf32>, tensor<1x2x6x4xf32>, tensor<1x2x6x4xf32>) -> (tensor<1x2x6x4xf32>, tensor<1x2x6xf32>)
  return %0#0 : tensor<1x2x6x4xf32>
}
}

// -----

// expected-error@unknown {{mesh axis cp=2 shards the sequence, but no input has a sequence dim longer than 1; name one with --dims INPUT=batch,seq}}
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @none(%x: tensor<2x6xf32> {dshard.role = #dshard.role<input>}) -> tensor<2x6xf32> {
  return %x : tensor<2x6xf32>
}
}

// -----

// context_parallel_c4
// expected-error@unknown {{model.attn has a sliding window of 4, which --cp-method=ring does not take; use all_gather or all_to_all}}
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @window(%q: tensor<1x2x8x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>}) -> tensor<1x2x8x4xf32> {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, window = 4, path = "model.attn", part = #dshard.part<forward>} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}
}

// -----

// context_parallel_c5
// expected-error@unknown {{--mesh=cp=2: 'backward' is a training step, and context parallelism is for forward programs so far; leave cp out of the mesh}}
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @backward(%x: tensor<2x8xf32> {dshard.dim_names = ["batch", "seq"], dshard.role = #dshard.role<input>}) -> tensor<2x8xf32> {
  %0 = dshard.neg %x {path = "a", part = #dshard.part<backward>} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  return %0 : tensor<2x8xf32>
}
}
