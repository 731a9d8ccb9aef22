// A pending sum with one user stays pending through what is linear in it, and is reduced once.
// RUN: dshard-opt %s --split-input-file --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved 2> /dev/null | FileCheck %s

// The gradients of one input through q, k and v: one reduction, which says so.
// CHECK-LABEL: func.func @added(
// CHECK-NOT: dshard.reshard
// CHECK: dshard.add {{.*}}partial = {"tp"}
// CHECK-NEXT: dshard.matmul
// CHECK-NEXT: dshard.add {{.*}}partial = {"tp"}
// CHECK-NEXT: dshard.reshard %{{.*}} to <[{}, {} ]> why "gradient of the input of q; gradient of the input of k; gradient of the input of v"
// CHECK-NEXT: return
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @added(%q: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %k: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %v: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x4xf32> {
  %0 = dshard.matmul %q, %w {path = "q", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.matmul %k, %w {path = "k", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = dshard.add %0, %1 {path = "a", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = dshard.matmul %v, %w {path = "v", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %4 = dshard.add %2, %3 {path = "a", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %4 : tensor<4x4xf32>
}
}

// -----

// Through a transpose to where a shard is enough: reduced to shards.
// CHECK-LABEL: func.func @transposed(
// CHECK: %[[T:.*]] = dshard.transpose {{.*}}partial = {"tp"}
// CHECK: dshard.reshard %[[T]] to <[{"tp"}, {} ]> why "row-parallel output of a"
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @transposed(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>})
    -> (tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) {
  %0 = dshard.matmul %x, %w {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.transpose %0 {permutation = array<i64: 1, 0>, path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  return %1 : tensor<4x4xf32>
}
}

// -----

// Not through a bias, which would count once per rank, and not with two users, which would reduce twice.
// CHECK-LABEL: func.func @at_once(
// CHECK: %[[P:.*]] = dshard.matmul {{.*}}path = "a"
// CHECK: %[[R:.*]] = dshard.reshard %[[P]] to <[{}, {} ]>
// CHECK: dshard.add %[[R]], %arg2
// CHECK: %[[Q:.*]] = dshard.matmul {{.*}}path = "b"
// CHECK: %[[S:.*]] = dshard.reshard %[[Q]] to <[{}, {} ]>
// CHECK: dshard.neg %[[S]]
// CHECK: dshard.transpose %[[S]]
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @at_once(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %b: tensor<4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) {
  %0 = dshard.matmul %x, %w {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.add %0, %b {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4xf32>) -> tensor<4x4xf32>
  %2 = dshard.matmul %x, %w {path = "b", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = dshard.neg %2 {path = "b", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %4 = dshard.transpose %2 {permutation = array<i64: 1, 0>, path = "b", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  return %1, %3, %4 : tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>
}
}
