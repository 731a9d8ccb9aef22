// An op that a strategy annotated is left alone.
// RUN: dshard-opt %s -dshard-canonicalize-graph | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// CHECK-COUNT-2: dshard.reshape
func.func @annotated(%x: tensor<2x8xf32>) -> tensor<4x4xf32> {
  %0 = dshard.reshape %x {path = "a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"} ]>]} : (tensor<2x8xf32>) -> tensor<16xf32>
  %1 = dshard.reshape %0 {path = "a", part = #dshard.part<forward>} : (tensor<16xf32>) -> tensor<4x4xf32>
  return %1 : tensor<4x4xf32>
}
}
