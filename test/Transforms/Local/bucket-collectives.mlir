// The parameter gathers of one path (a unit's) and part become one op; another path,
// part or axis, and what is computed, stay.
// RUN: dshard-opt %s --dshard-bucket-collectives --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs=5 --ranks 2

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
// CHECK-LABEL: func.func @run(
// CHECK: %[[G:.*]]:2 = dshard.all_gather %arg0, %arg1 dims [0, 1] over ["dp_shard"] why "gather w1; gather w2" {part = #dshard.part<forward>, path = "model.layers.0"}
// CHECK: dshard.matmul %[[G]]#0, %[[G]]#1
// CHECK: dshard.all_gather %{{.*}} dims [0] over ["dp_shard"] why "gather output"
// CHECK: dshard.all_gather %arg0 dims [0] over ["dp_shard"] why "gather for layer 1" {{.*}}path = "model.layers.1.up"
func.func @run(%a: tensor<4x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
               %b: tensor<8x2xf32> {dshard.global = tensor<8x4xf32>, dshard.sharding = #dshard.sharding<[{}, {"dp_shard"} ]>})
    -> (tensor<16x4xf32> {dshard.global = tensor<16x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
        tensor<8x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_gather %a dims [0] over ["dp_shard"] why "gather w1" {path = "model.layers.0", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %1 = dshard.all_gather %b dims [1] over ["dp_shard"] why "gather w2" {path = "model.layers.0", part = #dshard.part<forward>} : (tensor<8x2xf32>) -> tensor<8x4xf32>
  %2 = dshard.matmul %0, %1 {path = "model.layers.0.down", part = #dshard.part<forward>} : (tensor<8x8xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %3 = dshard.all_gather %2 dims [0] over ["dp_shard"] why "gather output" {path = "model.layers.0.down", part = #dshard.part<forward>} : (tensor<8x4xf32>) -> tensor<16x4xf32>
  %4 = dshard.all_gather %a dims [0] over ["dp_shard"] why "gather for layer 1" {path = "model.layers.1.up", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  return %3, %4 : tensor<16x4xf32>, tensor<8x8xf32>
}
}
