// What every collective gives on four ranks. Each rank starts with
// [rank, 10 + rank], and its results are rows of the outputs.
// RUN: dshard-interpret %s | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @run() -> (
    tensor<1x2xi64> {dshard.name = "own", dshard.global = tensor<4x2xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x4xi64> {dshard.name = "all_gather", dshard.global = tensor<4x4xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x4xi64> {dshard.name = "all_gather_swapped", dshard.global = tensor<4x4xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x2xi64> {dshard.name = "all_reduce_sum", dshard.global = tensor<4x2xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x2xi64> {dshard.name = "all_reduce_max", dshard.global = tensor<4x2xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x1xi64> {dshard.name = "reduce_scatter", dshard.global = tensor<4x1xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<2x1xi64> {dshard.name = "all_to_all", dshard.global = tensor<8x1xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x2xi64> {dshard.name = "broadcast", dshard.global = tensor<4x2xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x2xi64> {dshard.name = "permute", dshard.global = tensor<4x2xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    tensor<1x1xi64> {dshard.name = "local_slice", dshard.global = tensor<4x1xi64>, dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>})
    attributes {dshard.spmd} {
  %c = dshard.constant dense<[[0, 10]]> : tensor<1x2xi64>
  %r = dshard.rank_index over ["dp_shard", "tp"] : tensor<i64>
  %x = dshard.add %c, %r : (tensor<1x2xi64>, tensor<i64>) -> tensor<1x2xi64>
  // CHECK: own : {{.*}} = {{\[\[}}0, 10], [1, 11], [2, 12], [3, 13]]
  %g = dshard.all_gather %x dims [1] over ["tp"] why "test" : (tensor<1x2xi64>) -> tensor<1x4xi64>
  // CHECK: all_gather : {{.*}} = {{\[\[}}0, 10, 1, 11], [0, 10, 1, 11], [2, 12, 3, 13], [2, 12, 3, 13]]
  %s, %k = dshard.all_gather %x, %c dims [1, 1] over ["dp_shard"] why "test" : (tensor<1x2xi64>, tensor<1x2xi64>) -> (tensor<1x4xi64>, tensor<1x4xi64>)
  %sk = dshard.add %s, %k : (tensor<1x4xi64>, tensor<1x4xi64>) -> tensor<1x4xi64>
  // CHECK: all_gather_swapped : {{.*}} = {{\[\[}}0, 20, 2, 22], [1, 21, 3, 23], [0, 20, 2, 22], [1, 21, 3, 23]]
  %a = dshard.all_reduce sum %x over ["dp_shard", "tp"] why "test" : (tensor<1x2xi64>) -> tensor<1x2xi64>
  // CHECK: all_reduce_sum : {{.*}} = {{\[\[}}6, 46], [6, 46], [6, 46], [6, 46]]
  %m = dshard.all_reduce max %x over ["dp_shard"] why "test" : (tensor<1x2xi64>) -> tensor<1x2xi64>
  // CHECK: all_reduce_max : {{.*}} = {{\[\[}}2, 12], [3, 13], [2, 12], [3, 13]]
  %q = dshard.reduce_scatter sum %x dims [1] over ["tp"] why "test" : (tensor<1x2xi64>) -> tensor<1x1xi64>
  // CHECK: reduce_scatter : {{.*}} = {{\[\[}}1], [21], [5], [25]]
  %t = dshard.all_to_all %x split 1 concat 0 over ["tp"] why "test" : (tensor<1x2xi64>) -> tensor<2x1xi64>
  // CHECK: all_to_all : {{.*}} = {{\[\[}}0], [1], [10], [11], [2], [3], [12], [13]]
  %b = dshard.broadcast %x root 1 over ["tp"] why "test" : (tensor<1x2xi64>) -> tensor<1x2xi64>
  // CHECK: broadcast : {{.*}} = {{\[\[}}1, 11], [1, 11], [3, 13], [3, 13]]
  %p = dshard.permute %x shift 1 over ["dp_shard", "tp"] why "test" : (tensor<1x2xi64>) -> tensor<1x2xi64>
  // CHECK: permute : {{.*}} = {{\[\[}}3, 13], [0, 10], [1, 11], [2, 12]]
  %l = dshard.local_slice %c dim 1 over ["tp"] why "test" : (tensor<1x2xi64>) -> tensor<1x1xi64>
  // CHECK: local_slice : {{.*}} = {{\[\[}}0], [10], [0], [10]]
  return %x, %g, %sk, %a, %m, %q, %t, %b, %p, %l : tensor<1x2xi64>, tensor<1x4xi64>, tensor<1x4xi64>, tensor<1x2xi64>, tensor<1x2xi64>, tensor<1x1xi64>, tensor<2x1xi64>, tensor<1x2xi64>, tensor<1x2xi64>, tensor<1x1xi64>
}
}
