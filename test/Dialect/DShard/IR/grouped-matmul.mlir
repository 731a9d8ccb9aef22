// The local forms of products by group, and their decompositions: the ranks together have the global value.
// RUN: dshard-opt %s --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry tensor_parallel
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry expert_parallel
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry weight_grad
// RUN: dshard-opt %s --dshard-decompose -o %t.simple.mlir
// RUN: FileCheck %s --check-prefix=SIMPLE < %t.simple.mlir
// RUN: dshard-interpret %s --against %t.simple.mlir --random-inputs --entry tensor_parallel
// RUN: dshard-interpret %s --against %t.simple.mlir --random-inputs --entry weight_grad

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=4>} {

// Columns, then rows of each expert's matrices; tokens of each data-parallel rank, in whatever order they are.
// SIMPLE-NOT: grouped
// CHECK-LABEL: func.func @tensor_parallel
// CHECK: %[[UP:.*]] = dshard.grouped_matmul %{{.*}}, %{{.*}}, %{{.*}} {{.*}} : (tensor<3x8xf32>, tensor<5x8x3xf32>, tensor<3xi64>) -> tensor<3x3xf32>
// CHECK: %[[DOWN:.*]] = dshard.grouped_matmul %[[UP]], %{{.*}}, %{{.*}} {{.*}}transpose_weights} : (tensor<3x3xf32>, tensor<5x8x3xf32>, tensor<3xi64>) -> tensor<3x8xf32>
// CHECK: dshard.all_reduce sum %[[DOWN]] over ["tp"]
// CHECK-NOT: dshard.all_
// CHECK: return
func.func @tensor_parallel(%x: tensor<6x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
                           %up: tensor<5x8x12xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"tp"} ]>},
                           %down: tensor<5x8x12xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"tp"} ]>})
    -> (tensor<6x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) {
  %groups = dshard.constant dense<[4, 0, 3, 3, 4, 1]> : tensor<6xi64>
  %0 = dshard.grouped_matmul %x, %up, %groups {path = "up", part = #dshard.part<forward>} : (tensor<6x8xf32>, tensor<5x8x12xf32>, tensor<6xi64>) -> tensor<6x12xf32>
  %1 = dshard.grouped_matmul %0, %down, %groups {transpose_weights, path = "down", part = #dshard.part<forward>} : (tensor<6x12xf32>, tensor<5x8x12xf32>, tensor<6xi64>) -> tensor<6x8xf32>
  return %1 : tensor<6x8xf32>
}

// A rank has two of eight experts, and zeros for the rows of the others.
// CHECK-LABEL: func.func @expert_parallel
// CHECK: %[[R:.*]] = dshard.rank_index over ["tp"]
// CHECK: %[[O:.*]] = dshard.mul %[[R]]
// CHECK: %[[P:.*]] = dshard.grouped_matmul %{{.*}}, %{{.*}}, %{{.*}}, %[[O]] {{.*}} : (tensor<2x3x4xf32>, tensor<2x4x6xf32>, tensor<2x3xi32>, tensor<i64>) -> tensor<2x3x6xf32>
// CHECK: dshard.all_reduce sum %[[P]] over ["tp"]
func.func @expert_parallel(%x: tensor<2x3x4xf32>, %w: tensor<8x4x6xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {}, {} ]>}) -> (tensor<2x3x6xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {} ]>}) {
  %groups = dshard.constant dense<[[7, 0, 3], [3, 5, 1]]> : tensor<2x3xi32>
  %0 = dshard.grouped_matmul %x, %w, %groups {path = "w", part = #dshard.part<forward>} : (tensor<2x3x4xf32>, tensor<8x4x6xf32>, tensor<2x3xi32>) -> tensor<2x3x6xf32>
  return %0 : tensor<2x3x6xf32>
}

// What tokens add is summed over the ranks that have them; experts may be sharded, with no sum over those.
// CHECK-LABEL: func.func @weight_grad
// CHECK: %[[O:.*]] = dshard.mul
// CHECK: %[[G:.*]] = dshard.grouped_weight_grad %{{.*}}, %{{.*}}, %{{.*}}, %[[O]] {{.*}} : (tensor<1x3x4xf32>, tensor<1x3x6xf32>, tensor<1x3xi64>, tensor<i64>) -> tensor<2x4x6xf32>
// CHECK: dshard.all_reduce sum %[[G]] over ["dp_shard"]
// CHECK-NOT: dshard.all_
// CHECK: return
func.func @weight_grad(%x: tensor<2x3x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {}, {} ]>},
                       %g: tensor<2x3x6xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {}, {} ]>}) -> (tensor<8x4x6xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {}, {} ]>}) {
  %groups = dshard.constant dense<[[7, 0, 3], [3, 5, 1]]> : tensor<2x3xi64>
  %0 = dshard.grouped_weight_grad %x, %g, %groups {path = "w", part = #dshard.part<backward>, dshard.shardings = [#dshard.sharding<[{"tp"}, {}, {} ]>]} : (tensor<2x3x4xf32>, tensor<2x3x6xf32>, tensor<2x3xi64>) -> tensor<8x4x6xf32>
  %1 = dshard.gradient %0 {of = "w", path = "w", part = #dshard.part<backward>} : (tensor<8x4x6xf32>) -> tensor<8x4x6xf32>
  return %1 : tensor<8x4x6xf32>
}
}
