// One table that is looked up and projected with: its gradient is a sum of two partial values, a
// scattered one and a transposed product, and reduced once, in the shards of the vocabulary.
// RUN: dshard-opt %s --dshard-fully-shard --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved -o %t.resolved.mlir
// RUN: FileCheck %s < %t.resolved.mlir
// RUN: dshard-opt %t.resolved.mlir --dshard-decompose-reshards --dshard-partition --canonicalize --dshard-fold-collectives --dshard-bucket-collectives --dshard-verify-local -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=LOCAL < %t.local.mlir
// RUN: dshard-interpret %s --against %t.resolved.mlir --against %t.local.mlir --random-inputs=2 --random-weights

// CHECK-LABEL: func.func @train_step(
// CHECK: dshard.reshard %arg2 to <[{"tp"}, {} ]> why "gather parameter table"
// CHECK: %[[W:.*]] = dshard.weight_grad {{.*}}#dshard.sharding<[{}, {"tp"} ], partial = {"dp_shard"}, kind = sum>
// CHECK: %[[T:.*]] = dshard.transpose %[[W]] {{.*}}#dshard.sharding<[{"tp"}, {} ], partial = {"dp_shard"}, kind = sum>
// CHECK: %[[S:.*]] = dshard.scatter_add {{.*}}#dshard.sharding<[{"tp"}, {} ], partial = {"dp_shard"}, kind = sum>
// CHECK: %[[A:.*]] = dshard.add %[[T]], %[[S]]
// CHECK: dshard.reshard %[[A]] to <[{"tp", "dp_shard"}, {} ]> why "reduce gradient of table"
// LOCAL-COUNT-1: dshard.reduce_scatter
// LOCAL-NOT: dshard.reduce_scatter
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @train_step(%ids: tensor<4x2xi64> {dshard.name = "ids", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
    %dy: tensor<4x2x8xf32> {dshard.name = "dy", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {}, {"tp"} ]>},
    %table: tensor<8x6xf32> {dshard.role = #dshard.role<param>, dshard.state = "table", dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>,
                             dshard.weight = #dshard.weight<"table", "w.bin", offset = 0, length = 192, type = tensor<8x6xf32>, fan_in = 6>})
    -> (tensor<4x2x8xf32> {dshard.name = "y"}, tensor<8x6xf32> {dshard.name = "table.grad"}) {
  %x = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<8x6xf32>, tensor<4x2xi64>) -> tensor<4x2x6xf32>
  %t = dshard.transpose %table {permutation = array<i64: 1, 0>, path = "head", part = #dshard.part<forward>} : (tensor<8x6xf32>) -> tensor<6x8xf32>
  %y = dshard.matmul %x, %t {path = "head", part = #dshard.part<forward>} : (tensor<4x2x6xf32>, tensor<6x8xf32>) -> tensor<4x2x8xf32>
  %dw = dshard.weight_grad %x, %dy {path = "head", part = #dshard.part<backward>} : (tensor<4x2x6xf32>, tensor<4x2x8xf32>) -> tensor<6x8xf32>
  %dt = dshard.transpose %dw {permutation = array<i64: 1, 0>, path = "head", part = #dshard.part<backward>} : (tensor<6x8xf32>) -> tensor<8x6xf32>
  %dx = dshard.matmul %dy, %t {transpose_rhs, path = "head", part = #dshard.part<backward>} : (tensor<4x2x8xf32>, tensor<6x8xf32>) -> tensor<4x2x6xf32>
  %de = dshard.scatter_add %ids, %dx {dim = 0 : i64, path = "embed", part = #dshard.part<backward>} : (tensor<4x2xi64>, tensor<4x2x6xf32>) -> tensor<8x6xf32>
  %sum = dshard.add %dt, %de {path = "embed", part = #dshard.part<backward>} : (tensor<8x6xf32>, tensor<8x6xf32>) -> tensor<8x6xf32>
  %g = dshard.gradient %sum {of = "table", path = "embed", part = #dshard.part<backward>} : (tensor<8x6xf32>) -> tensor<8x6xf32>
  return %y, %g : tensor<4x2x8xf32>, tensor<8x6xf32>
}
}
