// What frees memory goes as soon as it is ready; collectives keep their order.
// RUN: dshard-opt %s --dshard-schedule -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --entry frees --random-inputs=3 --ranks 2
// RUN: dshard-interpret %s --against %t.mlir --entry order --random-inputs=3 --ranks 2

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// Each big value is reduced before the next one is made.
// CHECK-LABEL: func.func @frees(
// CHECK: dshard.broadcast_to %arg0
// CHECK-NEXT: dshard.reduce
// CHECK-NEXT: dshard.broadcast_to %arg1
// CHECK-NEXT: dshard.reduce
// CHECK-NEXT: dshard.add
func.func @frees(%a: tensor<8xf32>, %b: tensor<8xf32>) -> tensor<8xf32> attributes {dshard.spmd} {
  %0 = dshard.broadcast_to %a : (tensor<8xf32>) -> tensor<64x8xf32>
  %1 = dshard.broadcast_to %b : (tensor<8xf32>) -> tensor<64x8xf32>
  %2 = dshard.reduce %0 {kind = #dshard<reduction sum>, dims = array<i64: 0>} : (tensor<64x8xf32>) -> tensor<8xf32>
  %3 = dshard.reduce %1 {kind = #dshard<reduction sum>, dims = array<i64: 0>} : (tensor<64x8xf32>) -> tensor<8xf32>
  %4 = dshard.add %2, %3 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %4 : tensor<8xf32>
}

// The second gather would free memory first; all ranks keep the program's order.
// CHECK-LABEL: func.func @order(
// CHECK: dshard.reduce_scatter
// CHECK: dshard.all_reduce
func.func @order(%a: tensor<64xf32>, %b: tensor<4xf32>) -> (tensor<32xf32> {dshard.global = tensor<64xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>}, tensor<4xf32>) attributes {dshard.spmd} {
  %0 = dshard.broadcast_to %a : (tensor<64xf32>) -> tensor<1x64xf32>
  %1 = dshard.reshape %0 : (tensor<1x64xf32>) -> tensor<64xf32>
  %2 = dshard.reduce_scatter sum %1 dims [0] over ["tp"] why "first" : (tensor<64xf32>) -> tensor<32xf32>
  %3 = dshard.all_reduce sum %b over ["tp"] why "second" : (tensor<4xf32>) -> tensor<4xf32>
  return %2, %3 : tensor<32xf32>, tensor<4xf32>
}
}
