// A function without a body is left alone by every pass.
// RUN: dshard-opt %s --dshard-decompose --dshard-raise-grouped-matmul --dshard-unflatten-rows --dshard-raise-rms-norm --dshard-raise-rotary --dshard-raise-swiglu --dshard-raise-gelu --dshard-raise-attention --dshard-fold-constants --dshard-sink-transposes --dshard-canonicalize-graph --dshard-cse --dshard-verify-graph --dshard-differentiate --dshard-verify-train -o %t.train.mlir
// RUN: dshard-opt %t.train.mlir --dshard-interleave-projections --dshard-data-parallel --dshard-context-parallel --dshard-verify-annotated --dshard-pad --dshard-fully-shard --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved -o %t.resolved.mlir
// RUN: dshard-opt %t.resolved.mlir --dshard-split-pipeline --dshard-decompose-reshards --dshard-partition --canonicalize --dshard-fold-collectives --dshard-bucket-collectives --dshard-verify-local --dshard-form-kernels --dshard-schedule --dshard-verify-schedule | FileCheck %s
// RUN: dshard-interpret %s --against %t.train.mlir --against %t.resolved.mlir --entry run --random-inputs

// CHECK: func.func private @elsewhere(tensor<4xf32>) -> tensor<4xf32>
// CHECK: func.func @run(
// CHECK-SAME: dshard.spmd
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
func.func private @elsewhere(tensor<4xf32>) -> tensor<4xf32>
func.func @run(%x: tensor<4xf32> {dshard.dim_names = ["batch"], dshard.name = "x", dshard.role = #dshard.role<input>}) -> (tensor<4xf32> {dshard.name = "y"}) {
  %0 = dshard.exp %x {path = "m", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}
