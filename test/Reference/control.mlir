// repeat carries values and counts, if takes one region, fused is its region.
// RUN: dshard-interpret %s | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run() -> (tensor<2xi64> {dshard.name = "repeat"}, tensor<2xi64> {dshard.name = "partial", dshard.sharding = #dshard.sharding<[{}], partial = {"tp"}, kind = sum>},
                     tensor<2xi64> {dshard.name = "if", dshard.sharding = #dshard.sharding<[{"tp"}]>, dshard.global = tensor<4xi64>}, tensor<2xi64> {dshard.name = "fused"})
    attributes {dshard.spmd} {
  %zero = dshard.constant dense<0> : tensor<2xi64>
  %one = dshard.constant dense<1> : tensor<2xi64>
  // Sum of 0..4, and 5 times one.
  // CHECK: repeat : tensor<2xi64> = [10, 10]
  // CHECK: partial : tensor<2xi64> = [10, 10]
  %sum, %count = dshard.repeat 5 init(%zero, %zero) : (tensor<2xi64>, tensor<2xi64>) -> (tensor<2xi64>, tensor<2xi64>) {
  ^bb0(%i: tensor<i64>, %s: tensor<2xi64>, %c: tensor<2xi64>):
    %next = dshard.add %s, %i : (tensor<2xi64>, tensor<i64>) -> tensor<2xi64>
    %more = dshard.add %c, %one : (tensor<2xi64>, tensor<2xi64>) -> tensor<2xi64>
    dshard.yield %next, %more : tensor<2xi64>, tensor<2xi64>
  }
  // Rank 0 takes the else region, rank 1 the other.
  // CHECK: if : tensor<4xi64> = [7, 7, 1, 1]
  %r = dshard.rank_index over ["tp"] : tensor<i64>
  %condition = dshard.cast %r : (tensor<i64>) -> tensor<i1>
  %chosen = dshard.if %condition : (tensor<i1>) -> tensor<2xi64> {
    dshard.yield %one : tensor<2xi64>
  } else {
    %seven = dshard.constant dense<7> : tensor<2xi64>
    dshard.yield %seven : tensor<2xi64>
  }
  // CHECK: fused : tensor<2xi64> = [-20, -20]
  %fused = dshard.fused %sum : (tensor<2xi64>) -> tensor<2xi64> {
  ^bb0(%x: tensor<2xi64>):
    %twice = dshard.add %x, %x : (tensor<2xi64>, tensor<2xi64>) -> tensor<2xi64>
    %minus = dshard.neg %twice : (tensor<2xi64>) -> tensor<2xi64>
    dshard.yield %minus : tensor<2xi64>
  }
  return %sum, %count, %chosen, %fused : tensor<2xi64>, tensor<2xi64>, tensor<2xi64>, tensor<2xi64>
}
}
