// Weights from a byte range of a file: transposed, padded with zeros, sharded;
// and drawn from a seed, the same whatever the sharding.
// RUN: split-file %s %t
// RUN: dshard-interpret %t/global.mlir --weights %S/Inputs | FileCheck %s
// RUN: dshard-interpret %t/global.mlir --against %t/local.mlir --weights %S/Inputs
// RUN: dshard-interpret %t/global.mlir --against %t/local.mlir --random-weights=7 --rtol 0
// CHECK: w : {{.*}} = {{\[\[}}0, 2, 4, 6], [1, 3, 5, 7], [0, 0, 0, 0], [0, 0, 0, 0]]

//--- global.mlir
func.func @run(%w: tensor<4x4xf32> {dshard.weight = #dshard.weight<"w", "iota-4x2.npy", offset = 128, length = 32, type = tensor<4x2xf32>, fan_in = 4, transposed>})
    -> (tensor<4x4xf32> {dshard.name = "w"}) {
  return %w : tensor<4x4xf32>
}
//--- local.mlir
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(%w: tensor<2x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>,
    dshard.weight = #dshard.weight<"w", "iota-4x2.npy", offset = 128, length = 32, type = tensor<4x2xf32>, fan_in = 4, transposed>})
    -> (tensor<2x4xf32> {dshard.name = "w", dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) attributes {dshard.spmd} {
  return %w : tensor<2x4xf32>
}
}
