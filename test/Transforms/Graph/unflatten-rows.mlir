// Products, norms and elementwise ops move before the reshape that merges batch and sequence.
// RUN: dshard-opt %s -dshard-unflatten-rows -dshard-canonicalize-graph -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry linear
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry heads
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry norm

// CHECK-LABEL: func.func @linear
// CHECK-NEXT: %[[N:.*]] = dshard.layer_norm %arg0, %arg1
// CHECK-NEXT: %[[P:.*]] = dshard.matmul %[[N]], %arg2 {{.*}} -> tensor<2x4x3xf64>
// CHECK-NEXT: %[[B:.*]] = dshard.add %[[P]], %arg3 {{.*}} -> tensor<2x4x3xf64>
// CHECK-NEXT: return %[[B]]
func.func @linear(%x: tensor<2x4x8xf64>, %weight: tensor<8xf64>, %w: tensor<8x3xf64>, %bias: tensor<3xf64>) -> tensor<2x4x3xf64> {
  %0 = dshard.reshape %x {path = "a", part = #dshard.part<forward>} : (tensor<2x4x8xf64>) -> tensor<8x8xf64>
  %1 = dshard.layer_norm %0, %weight {epsilon = 1.0e-5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8xf64>) -> tensor<8x8xf64>
  %2 = dshard.matmul %1, %w {path = "a", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8x3xf64>) -> tensor<8x3xf64>
  %3 = dshard.add %2, %bias {path = "a", part = #dshard.part<forward>} : (tensor<8x3xf64>, tensor<3xf64>) -> tensor<8x3xf64>
  %4 = dshard.reshape %3 {path = "a", part = #dshard.part<forward>} : (tensor<8x3xf64>) -> tensor<2x4x3xf64>
  return %4 : tensor<2x4x3xf64>
}

// The reshape may merge heads as well.
// CHECK-LABEL: func.func @heads
// CHECK-NEXT: %[[X:.*]] = dshard.reshape %arg0 {{.*}} -> tensor<2x4x6xf64>
// CHECK-NEXT: dshard.matmul %[[X]], %arg1 {{.*}} -> tensor<2x4x3xf64>
func.func @heads(%x: tensor<2x4x3x2xf64>, %w: tensor<6x3xf64>) -> tensor<2x4x3xf64> {
  %0 = dshard.reshape %x {path = "a", part = #dshard.part<forward>} : (tensor<2x4x3x2xf64>) -> tensor<8x6xf64>
  %1 = dshard.matmul %0, %w {path = "a", part = #dshard.part<forward>} : (tensor<8x6xf64>, tensor<6x3xf64>) -> tensor<8x3xf64>
  %2 = dshard.reshape %1 {path = "a", part = #dshard.part<forward>} : (tensor<8x3xf64>) -> tensor<2x4x3xf64>
  return %2 : tensor<2x4x3xf64>
}

// Rows of two dims from the start stay as they are.
// CHECK-LABEL: func.func @rows
// CHECK-NEXT: dshard.matmul %arg0, %arg1 {{.*}} -> tensor<8x3xf64>
func.func @rows(%x: tensor<8x6xf64>, %w: tensor<6x3xf64>) -> tensor<8x3xf64> {
  %0 = dshard.matmul %x, %w {path = "a", part = #dshard.part<forward>} : (tensor<8x6xf64>, tensor<6x3xf64>) -> tensor<8x3xf64>
  return %0 : tensor<8x3xf64>
}

// A norm of every head, on sequence and heads merged.
// CHECK-LABEL: func.func @norm
// CHECK-NEXT: %[[H:.*]] = dshard.reshape %arg0 {{.*}} -> tensor<2x4x3x2xf64>
// CHECK-NEXT: %[[N:.*]] = dshard.rms_norm %[[H]], %arg1
// CHECK-NEXT: return %[[N]]
func.func @norm(%x: tensor<2x4x6xf64>, %weight: tensor<2xf64>) -> tensor<2x4x3x2xf64> {
  %0 = dshard.reshape %x {path = "a", part = #dshard.part<forward>} : (tensor<2x4x6xf64>) -> tensor<2x12x2xf64>
  %1 = dshard.rms_norm %0, %weight {epsilon = 1.0e-5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<2x12x2xf64>, tensor<2xf64>) -> tensor<2x12x2xf64>
  %2 = dshard.reshape %1 {path = "a", part = #dshard.part<forward>} : (tensor<2x12x2xf64>) -> tensor<2x4x3x2xf64>
  return %2 : tensor<2x4x3x2xf64>
}
