// Ops whose local form is more than a clone: the ranks together have the global
// value.
// RUN: dshard-opt %s --dshard-propagate --dshard-insert-reshards --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-6 --entry constant
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-6 --entry iota
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-6 --entry gather
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry mean
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-6 --entry boxes
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-6 --entry attention

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {

// A splat shrinks; another constant is cut by rank, over one dim after the other.
// CHECK-LABEL: func.func @constant
// CHECK: dshard.constant dense<2.000000e+00> : tensor<2x2xf32>
// CHECK: %[[C:.*]] = dshard.constant dense<{{.*}}> : tensor<4x2xf32>
// CHECK: %[[A:.*]] = dshard.local_slice %[[C]] dim 0 over ["dp_shard", "tp"] why "own shard of a constant" {part = #dshard.part<forward>, path = "c"} : (tensor<4x2xf32>) -> tensor<1x2xf32>
// CHECK: dshard.neg %[[A]]
func.func @constant() -> (tensor<4x4xf32>, tensor<4x2xf32>) {
  %0 = dshard.constant {dshard.shardings = [#dshard.sharding<[{"dp_shard"}, {"tp"} ]>]} dense<2.0> : tensor<4x4xf32>
  %1 = dshard.neg %0 {path = "s", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = dshard.constant {dshard.shardings = [#dshard.sharding<[{"dp_shard", "tp"}, {} ]>]} dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]> : tensor<4x2xf32>
  %3 = dshard.neg %2 {path = "c", part = #dshard.part<forward>} : (tensor<4x2xf32>) -> tensor<4x2xf32>
  return %1, %3 : tensor<4x4xf32>, tensor<4x2xf32>
}

// A shard of a count starts at its offset; along another dim nothing changes.
// CHECK-LABEL: func.func @iota
// CHECK: dshard.rank_index over ["dp_shard", "tp"]
// CHECK: dshard.iota {dim = 0 : i64{{.*}}} : () -> tensor<2x3xi64>
// CHECK: dshard.iota {dim = 1 : i64{{.*}}} : () -> tensor<2x3xi64>
func.func @iota() -> (tensor<8x3xf32>, tensor<8x3xi64>) {
  %0 = dshard.iota {dim = 0, start = 3.0 : f64, step = 0.5 : f64, path = "i", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_shard", "tp"}, {} ]>]} : () -> tensor<8x3xf32>
  %1 = dshard.iota {dim = 1, path = "i", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_shard", "tp"}, {} ]>]} : () -> tensor<8x3xi64>
  return %0, %1 : tensor<8x3xf32>, tensor<8x3xi64>
}

// A look-up in a sharded table is masked by an offset, and its partial sums joined;
// indices from the end count from the whole table's.
// CHECK-LABEL: func.func @gather
// CHECK: %[[R:.*]] = dshard.rank_index over ["tp"]
// CHECK: %[[O:.*]] = dshard.mul %[[R]]
// CHECK: dshard.gather %{{.*}}, %{{.*}}, %[[O]]
// CHECK: dshard.all_reduce sum
func.func @gather(%table: tensor<10x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}, %ids: tensor<2x3xi64>) -> (tensor<2x3x4xf32>, tensor<2x4xf32>) {
  %last = dshard.constant dense<[-1, -7]> : tensor<2xi64>
  %0 = dshard.gather %table, %ids {dim = 0, path = "e", part = #dshard.part<forward>} : (tensor<10x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
  %1 = dshard.gather %table, %last {dim = 0, path = "e", part = #dshard.part<forward>} : (tensor<10x4xf32>, tensor<2xi64>) -> tensor<2x4xf32>
  return %0, %1 : tensor<2x3x4xf32>, tensor<2x4xf32>
}

// Local means are divided by the number of shards, and summed.
// CHECK-LABEL: func.func @mean
// CHECK: dshard.constant dense<4.000000e+00> : tensor<f32>
// CHECK: dshard.div
// CHECK: dshard.all_reduce sum %{{.*}} over ["dp_shard", "tp"]
func.func @mean(%x: tensor<4x6x5xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}, {} ]>}) -> tensor<1x1x5xf32> {
  %0 = dshard.reduce %x {kind = #dshard<reduction mean>, dims = array<i64: 0, 1>, keep_dims, path = "m", part = #dshard.part<forward>} : (tensor<4x6x5xf32>) -> tensor<1x1x5xf32>
  return %0 : tensor<1x1x5xf32>
}

// Dims that are not cut may be sharded.
// CHECK-LABEL: func.func @boxes
// CHECK-NOT: all_
// CHECK: return
func.func @boxes(%x: tensor<4x6xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) -> (tensor<4x2xf32>, tensor<4x9xf32>, tensor<4x12xf32>) {
  %0 = dshard.slice %x {starts = array<i64: 0, 4>, strides = array<i64: 1, -3>, path = "s", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<4x2xf32>
  %1 = dshard.pad %x {low = array<i64: 0, 1>, high = array<i64: 0, 2>, value = 3.0 : f64, path = "p", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<4x9xf32>
  %2 = dshard.concat %x, %x {dim = 1, path = "c", part = #dshard.part<forward>} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x12xf32>
  return %0, %1, %2 : tensor<4x2xf32>, tensor<4x9xf32>, tensor<4x12xf32>
}

// Heads: four query heads over tp=2 have one KV head each, without communication.
// CHECK-LABEL: func.func @attention
// CHECK: dshard.attention {{.*}} : (tensor<1x2x5x8xf32>, tensor<1x1x5x8xf32>, tensor<1x1x5x8xf32>)
func.func @attention(%q: tensor<2x4x5x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}, {}, {} ]>}, %k: tensor<2x2x5x8xf32>, %v: tensor<2x2x5x8xf32>) -> tensor<2x4x5x8xf32> {
  %0:2 = dshard.attention %q, %k, %v {scale = 0.25 : f64, causal, path = "a", part = #dshard.part<forward>} : (tensor<2x4x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return %0#0 : tensor<2x4x5x8xf32>
}
}
