// Transposes move behind elementwise ops; those that move nothing become reshapes.
// RUN: dshard-opt %s -dshard-sink-transposes -dshard-canonicalize-graph -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry chain
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry bias
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry different
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry large
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry nothing_moved

// From channels last to channels last again: no transpose is left.
// CHECK-LABEL: func.func @chain
// CHECK-NEXT: %[[A:.*]] = dshard.add %arg0, %arg1
// CHECK-NEXT: %[[R:.*]] = dshard.relu %[[A]]
// CHECK-NEXT: return %[[R]]
func.func @chain(%x: tensor<2x3x4x5xf64>, %y: tensor<2x3x4x5xf64>) -> tensor<2x3x4x5xf64> {
  %0 = dshard.transpose %x {permutation = array<i64: 0, 3, 1, 2>, path = "a", part = #dshard.part<forward>} : (tensor<2x3x4x5xf64>) -> tensor<2x5x3x4xf64>
  %1 = dshard.transpose %y {permutation = array<i64: 0, 3, 1, 2>, path = "a", part = #dshard.part<forward>} : (tensor<2x3x4x5xf64>) -> tensor<2x5x3x4xf64>
  %2 = dshard.add %0, %1 {path = "a", part = #dshard.part<forward>} : (tensor<2x5x3x4xf64>, tensor<2x5x3x4xf64>) -> tensor<2x5x3x4xf64>
  %3 = dshard.relu %2 {path = "a", part = #dshard.part<forward>} : (tensor<2x5x3x4xf64>) -> tensor<2x5x3x4xf64>
  %4 = dshard.transpose %3 {permutation = array<i64: 0, 2, 3, 1>, path = "a", part = #dshard.part<forward>} : (tensor<2x5x3x4xf64>) -> tensor<2x3x4x5xf64>
  return %4 : tensor<2x3x4x5xf64>
}

// One dim broadcasts from another place; a scalar from none.
// CHECK-LABEL: func.func @bias
// CHECK-NEXT: %[[B:.*]] = dshard.reshape %arg1 {{.*}} -> tensor<1x1x5xf64>
// CHECK-NEXT: %[[A:.*]] = dshard.add %arg0, %[[B]]
// CHECK-NEXT: %[[M:.*]] = dshard.mul %[[A]], %arg2
// CHECK-NEXT: %[[T:.*]] = dshard.transpose %[[M]]
// CHECK-NEXT: return %[[T]]
func.func @bias(%x: tensor<2x3x5xf64>, %b: tensor<5x1xf64>, %s: tensor<f64>) -> tensor<2x5x3xf64> {
  %0 = dshard.transpose %x {permutation = array<i64: 0, 2, 1>, path = "a", part = #dshard.part<forward>} : (tensor<2x3x5xf64>) -> tensor<2x5x3xf64>
  %1 = dshard.add %0, %b {path = "a", part = #dshard.part<forward>} : (tensor<2x5x3xf64>, tensor<5x1xf64>) -> tensor<2x5x3xf64>
  %2 = dshard.mul %1, %s {path = "a", part = #dshard.part<forward>} : (tensor<2x5x3xf64>, tensor<f64>) -> tensor<2x5x3xf64>
  return %2 : tensor<2x5x3xf64>
}

// Two permutations: nothing moves.
// CHECK-LABEL: func.func @different
// CHECK: dshard.transpose
// CHECK: dshard.transpose
// CHECK: dshard.add
// CHECK-NEXT: return
func.func @different(%x: tensor<3x3x3xf64>, %y: tensor<3x3x3xf64>) -> tensor<3x3x3xf64> {
  %0 = dshard.transpose %x {permutation = array<i64: 0, 2, 1>, path = "a", part = #dshard.part<forward>} : (tensor<3x3x3xf64>) -> tensor<3x3x3xf64>
  %1 = dshard.transpose %y {permutation = array<i64: 2, 1, 0>, path = "a", part = #dshard.part<forward>} : (tensor<3x3x3xf64>) -> tensor<3x3x3xf64>
  %2 = dshard.add %0, %1 {path = "a", part = #dshard.part<forward>} : (tensor<3x3x3xf64>, tensor<3x3x3xf64>) -> tensor<3x3x3xf64>
  return %2 : tensor<3x3x3xf64>
}

// A table of two dims keeps the op where it is (rotary embeddings).
// CHECK-LABEL: func.func @large
// CHECK-NEXT: dshard.transpose
// CHECK-NEXT: dshard.mul
// CHECK-NEXT: return
func.func @large(%x: tensor<2x3x5xf64>, %y: tensor<5x3xf64>) -> tensor<2x5x3xf64> {
  %0 = dshard.transpose %x {permutation = array<i64: 0, 2, 1>, path = "a", part = #dshard.part<forward>} : (tensor<2x3x5xf64>) -> tensor<2x5x3xf64>
  %1 = dshard.mul %0, %y {path = "a", part = #dshard.part<forward>} : (tensor<2x5x3xf64>, tensor<5x3xf64>) -> tensor<2x5x3xf64>
  return %1 : tensor<2x5x3xf64>
}

// Tokens to an image and back (SegFormer).
// CHECK-LABEL: func.func @nothing_moved
// CHECK-NEXT: %[[R:.*]] = dshard.reshape %arg0 {{.*}} -> tensor<2x3x4x5xf64>
// CHECK-NEXT: return %[[R]]
func.func @nothing_moved(%x: tensor<2x12x5xf64>) -> tensor<2x3x4x5xf64> {
  %0 = dshard.transpose %x {permutation = array<i64: 0, 2, 1>, path = "a", part = #dshard.part<forward>} : (tensor<2x12x5xf64>) -> tensor<2x5x12xf64>
  %1 = dshard.reshape %0 {path = "a", part = #dshard.part<forward>} : (tensor<2x5x12xf64>) -> tensor<2x5x3x4xf64>
  %2 = dshard.transpose %1 {permutation = array<i64: 0, 2, 3, 1>, path = "a", part = #dshard.part<forward>} : (tensor<2x5x3x4xf64>) -> tensor<2x3x4x5xf64>
  return %2 : tensor<2x3x4x5xf64>
}
