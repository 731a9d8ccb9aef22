// The batch of every input is sharded over dp_replicate and dp_shard: dim 0, or the
// dim that is called batch; a batch of one beside larger ones is broadcast.
// RUN: dshard-opt %s --split-input-file --dshard-data-parallel | FileCheck %s -enable-var-scope
// RUN: dshard-opt %s --split-input-file --dshard-data-parallel --dshard-propagate | FileCheck %s --check-prefix=OUT

// CHECK-LABEL: func.func @run(
// CHECK-SAME: %arg0: tensor<4x6xi64> {{[^%]*}}dshard.origin = #dshard.origin<"data parallel: batch dim 0">{{.*}}dshard.sharding = #dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>
// CHECK-SAME: %arg1: tensor<6x8x8xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {"dp_replicate", "dp_shard"}, {} ]>
// CHECK-SAME: %arg2: tensor<1x6xi64> {dshard.name = "positions", dshard.role = #dshard.role<input>}
// CHECK-SAME: %arg3: tensor<6xf32> {dshard.dim_names = ["seq"], dshard.role = #dshard.role<input>}
// CHECK-SAME: %arg4: tensor<8x8xf32> {dshard.dim_names = ["none", ""], dshard.role = #dshard.role<input>}
// CHECK-SAME: %arg5: tensor<f32> {dshard.role = #dshard.role<input>}
// CHECK-SAME: %arg6: tensor<8x4xf32> {dshard.role = #dshard.role<param>}
// The output's batch stays sharded.
// OUT-LABEL: func.func @run(
// OUT-SAME: -> (tensor<6x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"dp_replicate", "dp_shard"}, {} ]>}
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "dp_shard"=2, "tp"=2>} {
func.func @run(%ids: tensor<4x6xi64> {dshard.name = "ids", dshard.role = #dshard.role<input>},
               %x: tensor<6x8x8xf32> {dshard.dim_names = ["seq", "batch", ""], dshard.role = #dshard.role<input>},
               %positions: tensor<1x6xi64> {dshard.name = "positions", dshard.role = #dshard.role<input>},
               %scale: tensor<6xf32> {dshard.dim_names = ["seq"], dshard.role = #dshard.role<input>},
               %table: tensor<8x8xf32> {dshard.dim_names = ["none", ""], dshard.role = #dshard.role<input>},
               %step: tensor<f32> {dshard.role = #dshard.role<input>},
               %w: tensor<8x4xf32> {dshard.role = #dshard.role<param>}) -> tensor<6x8x4xf32> {
  %0 = dshard.matmul %x, %w {path = "up", part = #dshard.part<forward>} : (tensor<6x8x8xf32>, tensor<8x4xf32>) -> tensor<6x8x4xf32>
  return %0 : tensor<6x8x4xf32>
}
}

// -----

// Without data axes nothing is written.
// CHECK-LABEL: func.func @tensor_only(
// CHECK-SAME: %arg0: tensor<3x6xf32>) -> tensor<3x6xf32> {
// OUT-LABEL: func.func @tensor_only(
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @tensor_only(%x: tensor<3x6xf32>) -> tensor<3x6xf32> {
  return %x : tensor<3x6xf32>
}
}
