// Shardings spread along factors, forward and backward, and end closed.
// RUN: dshard-opt %s --split-input-file --dshard-propagate | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// One annotated weight is enough: forward to the activation, not into the
// contraction's result. An argument without annotation is replicated.
// CHECK-LABEL: func.func @forward(
// CHECK-SAME: %arg0: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>}
// CHECK-SAME: -> (tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>})
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
// CHECK: dshard.gelu {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{}, {} ]>]
func.func @forward(%x: tensor<16x64xf32>,
    %w1: tensor<64x256xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w2: tensor<256x64xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<16x64xf32> {
  %0 = dshard.matmul %x, %w1 {path = "up", part = #dshard.part<forward>} : (tensor<16x64xf32>, tensor<64x256xf32>) -> tensor<16x256xf32>
  %1 = dshard.gelu %0 {path = "", part = #dshard.part<forward>} : (tensor<16x256xf32>) -> tensor<16x256xf32>
  %2 = dshard.matmul %1, %w2 {path = "down", part = #dshard.part<forward>} : (tensor<16x256xf32>, tensor<256x64xf32>) -> tensor<16x64xf32>
  return %2 : tensor<16x64xf32>
}

// Backward: from a late annotation to the constant, through a transpose; the `?`
// of an open dim is gone.
// CHECK-LABEL: func.func @backward(
// CHECK: dshard.constant {{.*}}dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]
// CHECK: dshard.transpose {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
// CHECK: dshard.mul {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
func.func @backward(%x: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {?} ]>}) -> tensor<4x8xf32> {
  %c = dshard.constant dense<2.0> : tensor<8x4xf32>
  %0 = dshard.transpose %c {permutation = array<i64: 1, 0>, path = "", part = #dshard.part<forward>} : (tensor<8x4xf32>) -> tensor<4x8xf32>
  %1 = dshard.mul %x, %0 {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  return %1 : tensor<4x8xf32>
}

// A closed dim does not change; the declared result reaches the value.
// CHECK-LABEL: func.func @declared(
// CHECK-SAME: %arg0: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>}
// CHECK: dshard.exp {{.*}}dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]
func.func @declared(%x: tensor<4x8xf32>) -> (tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) {
  %0 = dshard.exp %x {path = "", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %0 : tensor<4x8xf32>
}

// A softmax needs its whole dim: nothing propagates through it.
// CHECK-LABEL: func.func @whole(
// CHECK: dshard.softmax {{.*}}dshard.shardings = [#dshard.sharding<[{}, {} ]>]
func.func @whole(%x: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<4x8xf32> {
  %0 = dshard.softmax %x {dim = 1 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %0 : tensor<4x8xf32>
}
}

// -----

// Grouped-query attention on tp=4 with 2 KV heads: the query heads fall into
// 2 KV heads x 4, so keys and values get the major half of tp and are replicated
// over the minor one. Only the query is annotated.
module attributes {dshard.mesh = #dshard.mesh<"tp"=4>} {
// CHECK-LABEL: func.func @gqa(
// CHECK: dshard.reshape {{.*}}dshard.shardings = [#dshard.sharding<[{}, {}, {"tp"}, {} ]>]
// CHECK: dshard.transpose {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"}, {}, {} ]>]
// CHECK: dshard.reshape {{.*}}dshard.shardings = [#dshard.sharding<[{}, {}, {"tp":(1)2}, {} ]>]
// CHECK: dshard.transpose {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp":(1)2}, {}, {} ]>]
// CHECK: dshard.attention {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"}, {}, {} ]>, #dshard.sharding<[{}, {"tp"}, {} ]>]
// CHECK: dshard.transpose {{.*}}dshard.shardings = [#dshard.sharding<[{}, {}, {"tp"}, {} ]>]
// CHECK: dshard.reshape {{.*}}dshard.shardings = [#dshard.sharding<[{}, {}, {"tp"} ]>]
func.func @gqa(%q: tensor<2x16x64xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"tp"} ]>},
               %kv: tensor<2x16x16xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {?} ]>}) -> tensor<2x16x64xf32> {
  %0 = dshard.reshape %q {path = "a", part = #dshard.part<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x8x8xf32>
  %1 = dshard.transpose %0 {permutation = array<i64: 0, 2, 1, 3>, path = "a", part = #dshard.part<forward>} : (tensor<2x16x8x8xf32>) -> tensor<2x8x16x8xf32>
  %2 = dshard.reshape %kv {path = "a", part = #dshard.part<forward>} : (tensor<2x16x16xf32>) -> tensor<2x16x2x8xf32>
  %3 = dshard.transpose %2 {permutation = array<i64: 0, 2, 1, 3>, path = "a", part = #dshard.part<forward>} : (tensor<2x16x2x8xf32>) -> tensor<2x2x16x8xf32>
  %4, %5 = dshard.attention %1, %3, %3 {causal, scale = 0.35 : f64, path = "a", part = #dshard.part<forward>} : (tensor<2x8x16x8xf32>, tensor<2x2x16x8xf32>, tensor<2x2x16x8xf32>) -> (tensor<2x8x16x8xf32>, tensor<2x8x16xf32>)
  %6 = dshard.transpose %4 {permutation = array<i64: 0, 2, 1, 3>, path = "a", part = #dshard.part<forward>} : (tensor<2x8x16x8xf32>) -> tensor<2x16x8x8xf32>
  %7 = dshard.reshape %6 {path = "a", part = #dshard.part<forward>} : (tensor<2x16x8x8xf32>) -> tensor<2x16x64xf32>
  return %7 : tensor<2x16x64xf32>
}
}

// -----

// An axis of size 1 shards nothing.
module attributes {dshard.mesh = #dshard.mesh<"tp"=1>} {
// CHECK-LABEL: func.func @one_rank(
// CHECK: dshard.exp {{.*}}dshard.shardings = [#dshard.sharding<[{}, {} ]>]
func.func @one_rank(%x: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<4x8xf32> {
  %0 = dshard.exp %x {path = "", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %0 : tensor<4x8xf32>
}
}

// -----

// Two operands ask for different axes on one dim: the larger one keeps its own,
// since moving the smaller one costs less.
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
// CHECK-LABEL: func.func @conflict(
// CHECK: dshard.mul {{.*}}dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
func.func @conflict(%x: tensor<64x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
                    %y: tensor<8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>}) -> tensor<64x8xf32> {
  %0 = dshard.mul %x, %y {path = "", part = #dshard.part<forward>} : (tensor<64x8xf32>, tensor<8xf32>) -> tensor<64x8xf32>
  return %0 : tensor<64x8xf32>
}
}
