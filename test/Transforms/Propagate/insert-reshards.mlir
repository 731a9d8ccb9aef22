// Every change of sharding becomes an op with a reason.
// RUN: dshard-opt %s --split-input-file --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved 2>/dev/null | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// A sharded contraction is partial and reduced right behind it, before the bias
// is added.
// CHECK-LABEL: func.func @row_parallel(
// CHECK: %[[P:.*]] = dshard.matmul %arg0, %arg1 {dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]
// CHECK-NEXT: %[[Y:.*]] = dshard.reshard %[[P]] to <[{}, {} ]> why "row-parallel output of m.down" {part = #dshard.part<forward>, path = "m.down"}
// CHECK-NEXT: dshard.add %[[Y]], %arg2
func.func @row_parallel(%x: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w: tensor<64x32xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %b: tensor<32xf32>) -> tensor<16x32xf32> {
  %0 = dshard.matmul %x, %w {path = "m.down", part = #dshard.part<forward>} : (tensor<16x64xf32>, tensor<64x32xf32>) -> tensor<16x32xf32>
  %1 = dshard.add %0, %b {path = "m.down", part = #dshard.part<forward>} : (tensor<16x32xf32>, tensor<32xf32>) -> tensor<16x32xf32>
  return %1 : tensor<16x32xf32>
}

// A value gathered once serves both users.
// CHECK-LABEL: func.func @shared_gather(
// CHECK: %[[G:.*]] = dshard.reshard %arg0 to <[{}, {} ]> why "gather input x for a"
// CHECK: dshard.softmax %[[G]]
// CHECK-NOT: dshard.reshard
// CHECK: dshard.softmax %[[G]]
func.func @shared_gather(%x: tensor<4x8xf32> {dshard.name = "x", dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %0 = dshard.softmax %x {dim = 1 : i64, path = "a", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = dshard.softmax %x {dim = 1 : i64, path = "b", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %0, %1 : tensor<4x8xf32>, tensor<4x8xf32>
}

// The vocabulary-parallel look-up.
// CHECK-LABEL: func.func @embedding(
// CHECK: dshard.gather {{.*}}partial = {"tp"}
// CHECK-NEXT: dshard.reshard {{.*}} to <[{}, {}, {} ]> why "vocabulary-parallel output of model.embed_tokens"
func.func @embedding(%table: tensor<32x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %ids: tensor<2x4xi64>) -> tensor<2x4x8xf32> {
  %0 = dshard.gather %table, %ids {dim = 0 : i64, path = "model.embed_tokens", part = #dshard.part<forward>} : (tensor<32x8xf32>, tensor<2x4xi64>) -> tensor<2x4x8xf32>
  return %0 : tensor<2x4x8xf32>
}

// What an annotation asks to stay partial passes through linear ops, and is reduced
// before one that is not.
// CHECK-LABEL: func.func @deferred(
// CHECK: %[[P:.*]] = dshard.matmul
// CHECK-NEXT: %[[C:.*]] = dshard.cast %[[P]] {dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]
// CHECK-NEXT: %[[R:.*]] = dshard.reshard %[[C]] to <[{}, {} ]> why "reduce output of m (cast) for m"
// CHECK-NEXT: dshard.exp %[[R]]
func.func @deferred(%x: tensor<4x64xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w: tensor<64x8xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x8xf64> {
  %0 = dshard.matmul %x, %w {path = "m", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<4x64xf32>, tensor<64x8xf32>) -> tensor<4x8xf32>
  %1 = dshard.cast %0 {path = "m", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<4x8xf32>) -> tensor<4x8xf64>
  %2 = dshard.exp %1 {path = "m", part = #dshard.part<forward>} : (tensor<4x8xf64>) -> tensor<4x8xf64>
  return %2 : tensor<4x8xf64>
}

// Sequence parallelism: a sharded sequence is gathered for the column-parallel
// product (never the weight), and the row-parallel one ends in a scatter.
// CHECK-LABEL: func.func @sequence_parallel(
// CHECK: %[[G:.*]] = dshard.reshard %arg0 to <[{}, {} ]> why "gather input x for up"
// CHECK: dshard.matmul %[[G]], %arg1 {dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
// CHECK: %[[P:.*]] = dshard.matmul {{.*}}partial = {"tp"}
// CHECK: dshard.reshard %[[P]] to <[{"tp"}, {} ]> why "row-parallel output of down"
func.func @sequence_parallel(%x: tensor<1024x8xf32> {dshard.name = "x", dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %w1: tensor<8x32xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w2: tensor<32x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>})
    -> (tensor<1024x8xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) {
  %0 = dshard.matmul %x, %w1 {path = "up", part = #dshard.part<forward>} : (tensor<1024x8xf32>, tensor<8x32xf32>) -> tensor<1024x32xf32>
  %1 = dshard.matmul %0, %w2 {path = "down", part = #dshard.part<forward>} : (tensor<1024x32xf32>, tensor<32x8xf32>) -> tensor<1024x8xf32>
  return %1 : tensor<1024x8xf32>
}
}
