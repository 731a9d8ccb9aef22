// The local forms of the ops of training: the ranks together have the global value.
// RUN: dshard-opt %s --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry weight_grad
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry scatter_add
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry attention_grad
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry loss
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry step

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "cp"=2, "tp"=4>} {

// Batch and sequence are sharded each for itself: one product of what a rank holds, one reduction of the weight's size.
// CHECK-LABEL: func.func @weight_grad
// CHECK-DAG: %[[X:.*]] = dshard.reshape %{{.*}} : (tensor<1x3x4xf32>) -> tensor<3x4xf32>
// CHECK-DAG: %[[G:.*]] = dshard.reshape %{{.*}} : (tensor<1x3x2xf32>) -> tensor<3x2xf32>
// CHECK: %[[W:.*]] = dshard.matmul %[[X]], %[[G]] {{.*}}transpose_lhs} : (tensor<3x4xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
// CHECK: dshard.all_reduce sum %[[W]] over ["cp", "dp_shard"]
// CHECK-NOT: dshard.all_
// CHECK: return
func.func @weight_grad(%x: tensor<2x6x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"cp"}, {} ]>},
                       %g: tensor<2x6x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"cp"}, {"tp"} ]>})
    -> (tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) {
  %0 = dshard.weight_grad %x, %g {path = "w", part = #dshard.part<backward>} : (tensor<2x6x4xf32>, tensor<2x6x8xf32>) -> tensor<4x8xf32>
  %1 = dshard.gradient %0 {of = "w", path = "w", part = #dshard.part<backward>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %1 : tensor<4x8xf32>
}

// A rank adds what falls into its rows of the table, of the tokens that it holds; an index from the end counts from the whole table's.
// CHECK-LABEL: func.func @scatter_add
// CHECK: %[[R:.*]] = dshard.rank_index over ["tp"]
// CHECK: %[[O:.*]] = dshard.mul %[[R]]
// CHECK: dshard.scatter_add %{{.*}}, %{{.*}}, %[[O]] {{.*}} : (tensor<1x3xi64>, tensor<1x3x4xf32>, tensor<i64>) -> tensor<3x4xf32>
// CHECK: dshard.all_reduce sum %{{.*}} over ["dp_shard"]
func.func @scatter_add(%g: tensor<2x3x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {}, {} ]>}) -> (tensor<12x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) {
  %ids = dshard.constant dense<[[0, -1, 5], [5, 11, -12]]> : tensor<2x3xi64>
  %0 = dshard.scatter_add %ids, %g {dim = 0, path = "e", part = #dshard.part<backward>, dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]} : (tensor<2x3xi64>, tensor<2x3x4xf32>) -> tensor<12x4xf32>
  %1 = dshard.gradient %0 {of = "e", path = "e", part = #dshard.part<backward>} : (tensor<12x4xf32>) -> tensor<12x4xf32>
  return %1 : tensor<12x4xf32>
}

// Eight query heads, two KV heads, tp=4: two ranks share a KV head, and its gradients are their sums.
// CHECK-LABEL: func.func @attention_grad
// CHECK: %[[D:.*]], %[[K:.*]], %[[V:.*]] = dshard.attention_grad {{.*}} -> (tensor<1x2x5x8xf32>, tensor<1x1x5x8xf32>, tensor<1x1x5x8xf32>)
// CHECK-DAG: dshard.all_reduce sum %[[K]] over ["tp":(2)2]
// CHECK-DAG: dshard.all_reduce sum %[[V]] over ["tp":(2)2]
// CHECK-NOT: dshard.all_
// CHECK: return
func.func @attention_grad(%q: tensor<2x8x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}, {}, {} ]>},
    %k: tensor<2x2x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp":(1)2}, {}, {} ]>},
    %g: tensor<2x8x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}, {}, {} ]>})
    -> (tensor<2x8x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}, {}, {} ]>},
        tensor<2x2x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp":(1)2}, {}, {} ]>},
        tensor<2x2x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp":(1)2}, {}, {} ]>}) {
  %0:2 = dshard.attention %q, %k, %k {scale = 0.25 : f64, causal, path = "a", part = #dshard.part<forward>} : (tensor<2x8x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>) -> (tensor<2x8x5x8xf32>, tensor<2x8x5xf32>)
  %1:3 = dshard.attention_grad %q, %k, %k, %0#0, %0#1, %g {scale = 0.25 : f64, causal, path = "a", part = #dshard.part<backward>} : (tensor<2x8x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x8x5x8xf32>, tensor<2x8x5xf32>, tensor<2x8x5x8xf32>) -> (tensor<2x8x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>)
  return %1#0, %1#1, %1#2 : tensor<2x8x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>
}

// The classes are whole in cross_entropy itself (its decomposition may shard them); reorder needs its dim.
// CHECK-LABEL: func.func @loss
// CHECK: dshard.all_gather %{{.*}} dims [2] over ["tp"]
// CHECK: dshard.cross_entropy %{{.*}} : (tensor<1x2x8xf32>, tensor<1x2xi64>) -> (tensor<1x2xf32>, tensor<1x2xf32>)
// CHECK: dshard.all_gather %{{.*}} dims [1] over ["cp"]
// CHECK: dshard.reorder {{.*}} : (tensor<1x4xf32>) -> tensor<1x4xf32>
func.func @loss(%x: tensor<2x4x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"cp"}, {"tp"} ]>}) -> (tensor<2x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) {
  %labels = dshard.constant dense<[[0, 4, -100, 3], [2, -100, 1, 7]]> : tensor<2x4xi64>
  %0:2 = dshard.cross_entropy %x, %labels {path = "l", part = #dshard.part<forward>} : (tensor<2x4x8xf32>, tensor<2x4xi64>) -> (tensor<2x4xf32>, tensor<2x4xf32>)
  %1 = dshard.reorder %0#0 {dim = 1, layout = #dshard.layout<zigzag>, parts = 2, path = "l", part = #dshard.part<forward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return %1 : tensor<2x4xf32>
}

// A pending sum ends in gradient, in the parameter's sharding; the step needs no communication.
// CHECK-LABEL: func.func @step
// CHECK: dshard.reduce_scatter sum %{{.*}} dims [0] over ["dp_shard"]
// CHECK-NOT: dshard.gradient
// CHECK: dshard.adamw {{.*}} -> (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>)
// CHECK-NOT: dshard.all_
// CHECK: return
func.func @step(%x: tensor<2x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}, %g: tensor<2x3xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
                %w: tensor<4x3xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}, %m: tensor<4x3xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>})
    -> (tensor<4x3xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}, tensor<4x3xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) {
  %half = dshard.constant dense<0.5> : tensor<f32>
  %yes = dshard.constant dense<true> : tensor<i1>
  %0 = dshard.weight_grad %x, %g {path = "w", part = #dshard.part<backward>} : (tensor<2x4xf32>, tensor<2x3xf32>) -> tensor<4x3xf32>
  %1 = dshard.gradient %0 {of = "w", path = "w", part = #dshard.part<backward>, dshard.shardings = [#dshard.sharding<[{"dp_shard"}, {} ]>]} : (tensor<4x3xf32>) -> tensor<4x3xf32>
  %v = dshard.mul %m, %m {path = "w", part = #dshard.part<optimizer>} : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
  %2:3 = dshard.adamw %w, %1, %m, %v, %half, %half, %half, %half, %yes {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-2 : f64, weight_decay = 0.1 : f64, path = "w", part = #dshard.part<optimizer>} : (tensor<4x3xf32>, tensor<4x3xf32>, tensor<4x3xf32>, tensor<4x3xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<4x3xf32>, tensor<4x3xf32>, tensor<4x3xf32>)
  return %2#0, %2#1 : tensor<4x3xf32>, tensor<4x3xf32>
}
}
