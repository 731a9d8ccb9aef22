// Sub-axes: tp=4 as a major and a minor factor of 2. Groups of the minor factor
// are neighbours, groups of the major one are two apart; a value sharded over a
// sub-axis is equal on the ranks of the other factor.
// RUN: dshard-interpret %s --input x=%S/Inputs/iota-4x2.npy | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=4>} {
func.func @run(
    %x: tensor<2x2xf32> {dshard.name = "x", dshard.global = tensor<4x2xf32>, dshard.sharding = #dshard.sharding<[{"tp":(1)2}, {} ]>})
    -> (tensor<2x2xf32> {dshard.name = "same", dshard.global = tensor<4x2xf32>, dshard.sharding = #dshard.sharding<[{"tp":(1)2}, {} ]>},
        tensor<1x2xf32> {dshard.name = "sliced", dshard.global = tensor<4x2xf32>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
        tensor<4x2xf32> {dshard.name = "gathered", dshard.global = tensor<4x2xf32>},
        tensor<2x2xf32> {dshard.name = "minor_sum", dshard.global = tensor<4x2xf32>, dshard.sharding = #dshard.sharding<[{"tp":(1)2}, {} ]>},
        tensor<2x2xf32> {dshard.name = "partial", dshard.global = tensor<4x2xf32>, dshard.sharding = #dshard.sharding<[{"tp":(1)2}, {} ], partial = {"tp":(2)2}, kind = sum>},
        tensor<i64> {dshard.name = "indices", dshard.global = tensor<i64>, dshard.sharding = #dshard.sharding<[], partial = {"tp"}, kind = sum>})
    attributes {dshard.spmd} {
  // CHECK: same : {{.*}} = {{\[\[}}0, 1], [2, 3], [4, 5], [6, 7]]
  %s = dshard.local_slice %x dim 0 over ["tp":(2)2] why "test" : (tensor<2x2xf32>) -> tensor<1x2xf32>
  // CHECK: sliced : {{.*}} = {{\[\[}}0, 1], [2, 3], [4, 5], [6, 7]]
  %g = dshard.all_gather %x dims [0] over ["tp":(1)2] why "test" : (tensor<2x2xf32>) -> tensor<4x2xf32>
  // CHECK: gathered : {{.*}} = {{\[\[}}0, 1], [2, 3], [4, 5], [6, 7]]
  %m = dshard.all_reduce sum %x over ["tp":(2)2] why "test" : (tensor<2x2xf32>) -> tensor<2x2xf32>
  // CHECK: minor_sum : {{.*}} = {{\[\[}}0, 2], [4, 6], [8, 10], [12, 14]]
  // CHECK: partial : {{.*}} = {{\[\[}}0, 2], [4, 6], [8, 10], [12, 14]]
  %i = dshard.rank_index over ["tp":(2)2] : tensor<i64>
  // CHECK: indices : tensor<i64> = 2
  return %x, %s, %g, %m, %x, %i : tensor<2x2xf32>, tensor<1x2xf32>, tensor<4x2xf32>, tensor<2x2xf32>, tensor<2x2xf32>, tensor<i64>
}
}
