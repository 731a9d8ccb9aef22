// No kernel reads gathered parameters of two units: the first unit could not be freed
// before the second is gathered. Within one unit they fuse.
// RUN: dshard-opt %s --dshard-form-kernels | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
// CHECK-LABEL: func.func @run(
// CHECK: %[[A:.*]]:2 = dshard.all_gather
// CHECK: dshard.fused {{.*}}%[[A]]#0
// CHECK: dshard.mul
// CHECK: dshard.add
// CHECK: %[[B:.*]] = dshard.all_gather
// CHECK: dshard.fused {{.*}}%[[B]]
// CHECK-NOT: dshard.fused
func.func @run(%x: tensor<4x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
               %a: tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>},
               %b: tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>},
               %c: tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>})
    -> (tensor<4x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) attributes {dshard.spmd} {
  %0:2 = dshard.all_gather %a, %b dims [0, 0] over ["dp_shard"] why "gather parameters of layers.0: a, b" {path = "layers.0", part = #dshard.part<forward>} : (tensor<4xf32>, tensor<4xf32>) -> (tensor<8xf32>, tensor<8xf32>)
  %1 = dshard.mul %x, %0#0 {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %2 = dshard.add %1, %0#1 {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %3 = dshard.all_gather %c dims [0] over ["dp_shard"] why "gather parameter c" {path = "layers.1", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<8xf32>
  %4 = dshard.mul %2, %3 {path = "layers.1", part = #dshard.part<forward>} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  return %4 : tensor<4x8xf32>
}
}
