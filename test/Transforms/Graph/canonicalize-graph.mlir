// Chains of reshapes and transposes fold; the values stay.
// RUN: dshard-opt %s -dshard-canonicalize-graph -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry reshapes
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry transposes

// CHECK-LABEL: func.func @reshapes
// CHECK-NEXT: %[[R:.*]] = dshard.reshape %arg0 {{.*}} : (tensor<2x8xf32>) -> tensor<4x4xf32>
// CHECK-NEXT: return %[[R]], %arg0
func.func @reshapes(%x: tensor<2x8xf32>) -> (tensor<4x4xf32>, tensor<2x8xf32>) {
  %0 = dshard.reshape %x {path = "a", part = #dshard.part<forward>} : (tensor<2x8xf32>) -> tensor<16xf32>
  %1 = dshard.reshape %0 {path = "a", part = #dshard.part<forward>} : (tensor<16xf32>) -> tensor<4x4xf32>
  %2 = dshard.reshape %0 {path = "a", part = #dshard.part<forward>} : (tensor<16xf32>) -> tensor<2x8xf32>
  return %1, %2 : tensor<4x4xf32>, tensor<2x8xf32>
}

// CHECK-LABEL: func.func @transposes
// CHECK-NEXT: %[[T:.*]] = dshard.transpose %arg0 {{.*}}permutation = array<i64: 1, 2, 0>} : (tensor<2x3x4xf32>) -> tensor<3x4x2xf32>
// CHECK-NEXT: return %[[T]], %arg0
func.func @transposes(%x: tensor<2x3x4xf32>) -> (tensor<3x4x2xf32>, tensor<2x3x4xf32>) {
  %0 = dshard.transpose %x {permutation = array<i64: 2, 0, 1>, path = "a", part = #dshard.part<forward>} : (tensor<2x3x4xf32>) -> tensor<4x2x3xf32>
  %1 = dshard.transpose %0 {permutation = array<i64: 2, 0, 1>, path = "a", part = #dshard.part<forward>} : (tensor<4x2x3xf32>) -> tensor<3x4x2xf32>
  %2 = dshard.transpose %0 {permutation = array<i64: 1, 2, 0>, path = "a", part = #dshard.part<forward>} : (tensor<4x2x3xf32>) -> tensor<2x3x4xf32>
  return %1, %2 : tensor<3x4x2xf32>, tensor<2x3x4xf32>
}

// What nobody reads is dropped; constants fold through a reshape.
// CHECK-LABEL: func.func @constants
// CHECK-NEXT: %[[C:.*]] = dshard.constant dense<{{.*}}[1.000000e+00, 2.000000e+00], [3.000000e+00, 4.000000e+00]{{.*}}> : tensor<2x2xf32>
// CHECK-NEXT: return %[[C]]
func.func @constants() -> tensor<2x2xf32> {
  %0 = dshard.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>
  %1 = dshard.neg %0 {path = "a", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = dshard.reshape %0 {path = "a", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<2x2xf32>
  return %2 : tensor<2x2xf32>
}
