// The segments of a fused projection are dealt out: weight and bias say so, and each slice is taken of every rank's
// part. The program means the same, on one rank and, when it is partitioned, on two.
// RUN: dshard-opt %s --dshard-interleave-projections | FileCheck %s -enable-var-scope
// RUN: dshard-opt %s --dshard-interleave-projections -o %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --entry fused --random-inputs --random-weights
// RUN: dshard-opt %t.mlir --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved --dshard-decompose-reshards --dshard-partition -o %t.local.mlir
// RUN: dshard-interpret %s --against %t.local.mlir --entry fused --random-inputs --random-weights
// RUN: FileCheck %s --check-prefix=LOCAL < %t.local.mlir

// No collective between the projection and what is made of its segments.
// LOCAL-LABEL: func.func @fused
// LOCAL-NOT: all_gather
// LOCAL: return

// CHECK-LABEL: func.func @fused(
// CHECK-SAME: tensor<4x16xf32> {dshard.interleave = {dim = 1 : i64, parts = 2 : i64, sizes = array<i64: 8, 4, 4>}
// CHECK-SAME: tensor<16xf32> {dshard.interleave = {dim = 0 : i64, parts = 2 : i64, sizes = array<i64: 8, 4, 4>}
// CHECK: %[[Y:.*]] = dshard.add
// CHECK: %[[P:.*]] = dshard.reshape %[[Y]] {{.*}} -> tensor<2x2x8xf32>
// CHECK: %[[S:.*]] = dshard.slice %[[P]] {{{.*}}starts = array<i64: 0, 0, 4>{{.*}} -> tensor<2x2x2xf32>
// CHECK: dshard.reshape %[[S]] {{.*}} -> tensor<2x4xf32>
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @fused(%x: tensor<2x4xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
    %w: tensor<4x16xf32> {dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "none.data", offset = 0, length = 256, type = tensor<4x16xf32>, fan_in = 4>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %b: tensor<16xf32> {dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"b", "none.data", offset = 256, length = 64, type = tensor<16xf32>, fan_in = 4>, dshard.sharding = #dshard.sharding<[{"tp"} ]>}) -> (tensor<2x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) {
  %m = dshard.matmul %x, %w {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{?}, {"tp"} ]>]} : (tensor<2x4xf32>, tensor<4x16xf32>) -> tensor<2x16xf32>
  %y = dshard.add %m, %b {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{?}, {"tp"} ]>]} : (tensor<2x16xf32>, tensor<16xf32>) -> tensor<2x16xf32>
  %k = dshard.slice %y {starts = array<i64: 0, 8>, strides = array<i64: 1, 1>, path = "", part = #dshard.part<forward>} : (tensor<2x16xf32>) -> tensor<2x4xf32>
  %v = dshard.slice %y {starts = array<i64: 0, 12>, strides = array<i64: 1, 1>, path = "", part = #dshard.part<forward>} : (tensor<2x16xf32>) -> tensor<2x4xf32>
  %r = dshard.mul %k, %v {path = "", part = #dshard.part<forward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  return %r : tensor<2x4xf32>
}

// Something else reads the weight: it stays in the file's order.
// CHECK-LABEL: func.func @read_elsewhere(
// CHECK-NOT: dshard.interleave
// CHECK: dshard.slice {{.*}} -> tensor<2x4xf32>
func.func @read_elsewhere(%x: tensor<2x4xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
    %w: tensor<4x8xf32> {dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w2", "none.data", offset = 0, length = 128, type = tensor<4x8xf32>, fan_in = 4>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> (tensor<2x4xf32>, tensor<4x8xf32>) {
  %m = dshard.matmul %x, %w {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{?}, {"tp"} ]>]} : (tensor<2x4xf32>, tensor<4x8xf32>) -> tensor<2x8xf32>
  %k = dshard.slice %m {starts = array<i64: 0, 4>, strides = array<i64: 1, 1>, path = "", part = #dshard.part<forward>} : (tensor<2x8xf32>) -> tensor<2x4xf32>
  return %k, %w : tensor<2x4xf32>, tensor<4x8xf32>
}

// Three columns a segment: two ranks do not divide them.
// CHECK-LABEL: func.func @undivided(
// CHECK-NOT: dshard.interleave
// CHECK: return
func.func @undivided(%x: tensor<2x4xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
    %w: tensor<4x6xf32> {dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w3", "none.data", offset = 0, length = 96, type = tensor<4x6xf32>, fan_in = 4>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<2x3xf32> {
  %m = dshard.matmul %x, %w {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{?}, {"tp"} ]>]} : (tensor<2x4xf32>, tensor<4x6xf32>) -> tensor<2x6xf32>
  %k = dshard.slice %m {starts = array<i64: 0, 3>, strides = array<i64: 1, 1>, path = "", part = #dshard.part<forward>} : (tensor<2x6xf32>) -> tensor<2x3xf32>
  return %k : tensor<2x3xf32>
}
}
