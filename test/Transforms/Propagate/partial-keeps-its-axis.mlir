// A value that stays partial over an axis through an op keeps that axis from sharding
// another operand there: that one is gathered. A shrunk case of test/random.
// RUN: dshard-opt %s --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved -o %t.resolved.mlir
// RUN: FileCheck %s < %t.resolved.mlir
// RUN: dshard-opt %t.resolved.mlir --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.local.mlir
// RUN: dshard-interpret %s --against %t.local.mlir --random-inputs=3 --ranks 2

// CHECK: %[[P:.*]] = dshard.matmul {{.*}}partial = {"tp"}
// CHECK: %[[S:.*]] = dshard.reshard %arg2 to <[{}, {} ]>
// CHECK: %[[Q:.*]] = dshard.mul %[[P]], %[[S]] {{.*}}partial = {"tp"}
// CHECK: dshard.reshard %[[Q]] to <[{}, {} ]>
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(%a: tensor<4x2xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %b: tensor<2x6xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
               %c: tensor<4x6xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x6xf32> {
  %0 = dshard.matmul %a, %b {path = "product", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<4x2xf32>, tensor<2x6xf32>) -> tensor<4x6xf32>
  %1 = dshard.mul %0, %c {path = "scale", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  return %1 : tensor<4x6xf32>
}
}
