// Tensors without elements and values that are no tensors pass; gates refuse them later.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-schedule | FileCheck %s

// There is no product of dims to match, so the reshape is no view.
// CHECK-LABEL: func.func @empty(
// CHECK: %[[X:.*]] = dshard.reshape %arg0
// CHECK: dshard.fused %[[X]], %arg1 {dshard.call = "matmul"}
func.func @empty(%x: tensor<2x0x4xf32>, %w: tensor<4x8xf32>) -> tensor<0x8xf32> attributes {dshard.spmd} {
  %0 = dshard.reshape %x : (tensor<2x0x4xf32>) -> tensor<0x4xf32>
  %1 = dshard.matmul %0, %w : (tensor<0x4xf32>, tensor<4x8xf32>) -> tensor<0x8xf32>
  return %1 : tensor<0x8xf32>
}
