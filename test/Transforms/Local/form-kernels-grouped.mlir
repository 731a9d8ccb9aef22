// Products by group are library calls on a CPU, and kernels on a GPU that look the matrices up.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-schedule --dshard-verify-schedule -o %t.cpu.mlir
// RUN: FileCheck %s --input-file %t.cpu.mlir
// RUN: dshard-interpret %s --against %t.cpu.mlir --random-inputs --entry grouped
// RUN: dshard-opt %s --dshard-form-kernels=target=cuda:sm_90 --dshard-schedule --dshard-verify-schedule -o %t.gpu.mlir
// RUN: FileCheck %s --check-prefix=GPU --input-file %t.gpu.mlir
// RUN: dshard-interpret %s --against %t.gpu.mlir --random-inputs --entry grouped

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {

// The number that only the rank decides stays outside of kernels.
// CHECK-LABEL: func.func @grouped
// CHECK: %[[R:.*]] = dshard.rank_index
// CHECK: %[[O:.*]] = dshard.mul %[[R]]
// CHECK: dshard.fused %{{.*}}, %[[O]] {dshard.call = "grouped_matmul"
// CHECK: dshard.grouped_matmul
// CHECK: dshard.fused %{{.*}} {dshard.call = "grouped_weight_grad"
// CHECK: dshard.grouped_weight_grad
// No look-up is stored: one kernel, and a product of masked rows.
// GPU-LABEL: func.func @grouped
// GPU-NOT: grouped_
// GPU: dshard.gather
// GPU-NEXT: dshard.mul
// GPU-NEXT: dshard.reduce
// GPU: dshard.call = "matmul"
func.func @grouped(%x: tensor<6x4xf32>, %w: tensor<2x4x5xf32>, %g: tensor<6x5xf32>) -> (tensor<6x5xf32>, tensor<3x4x5xf32>) attributes {dshard.spmd} {
  %groups = dshard.constant dense<[3, 0, 2, 2, 1, 3]> : tensor<6xi64>
  %others = dshard.constant dense<[2, 0, 2, 2, 1, 2]> : tensor<6xi64>
  %two = dshard.constant dense<2> : tensor<i64>
  %rank = dshard.rank_index over ["tp"] {path = "e", part = #dshard.part<forward>} : tensor<i64>
  %first = dshard.mul %rank, %two {path = "e", part = #dshard.part<forward>} : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %0 = dshard.grouped_matmul %x, %w, %groups, %first {path = "e", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<2x4x5xf32>, tensor<6xi64>, tensor<i64>) -> tensor<6x5xf32>
  %1 = dshard.grouped_weight_grad %x, %g, %others {path = "e", part = #dshard.part<backward>} : (tensor<6x4xf32>, tensor<6x5xf32>, tensor<6xi64>) -> tensor<3x4x5xf32>
  %2 = dshard.all_reduce sum %0 over ["tp"] why "partial output of e" {path = "e", part = #dshard.part<forward>} : (tensor<6x5xf32>) -> tensor<6x5xf32>
  return %2, %1 : tensor<6x5xf32>, tensor<3x4x5xf32>
}
}
