// The two-layer MLP, Megatron style: from annotations on its weights to the program
// of one rank, which equals the global one and communicates once.
// RUN: dshard-opt %s --dshard-verify-annotated --dshard-pad --dshard-propagate --dshard-insert-reshards --dshard-fully-shard --dshard-verify-partial --dshard-verify-resolved -o %t.resolved.mlir
// RUN: FileCheck %s --check-prefix=RESOLVED < %t.resolved.mlir
// RUN: dshard-opt %t.resolved.mlir --dshard-split-pipeline --dshard-decompose-reshards --dshard-partition --canonicalize --dshard-fold-collectives --dshard-bucket-collectives --dshard-verify-local -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=LOCAL < %t.local.mlir
// RUN: dshard-interpret %s --against %t.resolved.mlir --random-inputs=3
// RUN: dshard-interpret %s --against %t.local.mlir --random-inputs=3 --ranks 2

// RESOLVED: %[[P:.*]] = dshard.matmul
// RESOLVED: %[[P:.*]] = dshard.matmul {{.*}}partial = {"tp"}
// RESOLVED-NEXT: dshard.reshard %[[P]] to <[{}, {} ]> why "row-parallel output of down_proj"

// LOCAL-LABEL: func.func @run(
// LOCAL-SAME: %{{.*}}: tensor<128x64xf32> {dshard.global = tensor<256x64xf32>, dshard.name = "w1"
// LOCAL-SAME: -> (tensor<16x64xf32> {dshard.global = tensor<16x64xf32>
// LOCAL-SAME: attributes {dshard.spmd}
// LOCAL-NOT: all_
// LOCAL: dshard.gelu {{.*}} -> tensor<16x128xf32>
// LOCAL: %[[P:.*]] = dshard.matmul
// LOCAL-NEXT: dshard.all_reduce sum %[[P]] over ["tp"] why "row-parallel output of down_proj"
// LOCAL-NOT: all_

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(
    %x: tensor<16x64xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
    %w1: tensor<256x64xf32> {dshard.name = "w1", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %b1: tensor<256xf32> {dshard.name = "b1", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"} ]>},
    %w2: tensor<64x256xf32> {dshard.name = "w2", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %b2: tensor<64xf32> {dshard.name = "b2", dshard.role = #dshard.role<param>})
    -> (tensor<16x64xf32> {dshard.name = "y"}) {
  %0 = dshard.matmul %x, %w1 {transpose_rhs, path = "up_proj", part = #dshard.part<forward>} : (tensor<16x64xf32>, tensor<256x64xf32>) -> tensor<16x256xf32>
  %1 = dshard.add %0, %b1 {path = "up_proj", part = #dshard.part<forward>} : (tensor<16x256xf32>, tensor<256xf32>) -> tensor<16x256xf32>
  %2 = dshard.gelu %1 {path = "", part = #dshard.part<forward>} : (tensor<16x256xf32>) -> tensor<16x256xf32>
  %3 = dshard.matmul %2, %w2 {transpose_rhs, path = "down_proj", part = #dshard.part<forward>} : (tensor<16x256xf32>, tensor<64x256xf32>) -> tensor<16x64xf32>
  %4 = dshard.add %3, %b2 {path = "down_proj", part = #dshard.part<forward>} : (tensor<16x64xf32>, tensor<64xf32>) -> tensor<16x64xf32>
  return %4 : tensor<16x64xf32>
}
}
