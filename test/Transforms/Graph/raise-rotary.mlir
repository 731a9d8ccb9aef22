// Rotary embeddings as exporters write them: x cos + rotate_half(x) sin, with tables
// of full width that hold the same half twice.
// RUN: dshard-opt %s -dshard-raise-rotary -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry torch
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry constant_table
// RUN: dshard-opt %s -dshard-raise-rotary -verify-diagnostics

// The half table is built where the full one was; query and key share it after CSE.
// CHECK-LABEL: func.func @torch
// CHECK: %[[C:.*]] = dshard.cos %arg1 {{.*}} : (tensor<1x5x4xf64>) -> tensor<1x5x4xf64>
// CHECK: %[[S:.*]] = dshard.sin %arg1
// CHECK-NOT: dshard.concat
// CHECK: dshard.rotary %arg0, %{{.*}}, %{{.*}} {part = #dshard.part<forward>, path = "attn"} : (tensor<2x3x5x8xf64>, tensor<1x5x4xf64>, tensor<1x5x4xf64>) -> tensor<2x3x5x8xf64>
// CHECK-NOT: dshard.add
func.func @torch(%x: tensor<2x3x5x8xf64>, %angles: tensor<1x5x4xf64>) -> tensor<2x3x5x8xf64> {
  %scale = dshard.constant dense<1.5> : tensor<f64>
  %0 = dshard.concat %angles, %angles {dim = 2, path = "attn", part = #dshard.part<forward>} : (tensor<1x5x4xf64>, tensor<1x5x4xf64>) -> tensor<1x5x8xf64>
  %1 = dshard.cos %0 {path = "attn", part = #dshard.part<forward>} : (tensor<1x5x8xf64>) -> tensor<1x5x8xf64>
  %2 = dshard.sin %0 {path = "attn", part = #dshard.part<forward>} : (tensor<1x5x8xf64>) -> tensor<1x5x8xf64>
  %3 = dshard.mul %1, %scale {path = "attn", part = #dshard.part<forward>} : (tensor<1x5x8xf64>, tensor<f64>) -> tensor<1x5x8xf64>
  %4 = dshard.mul %2, %scale {path = "attn", part = #dshard.part<forward>} : (tensor<1x5x8xf64>, tensor<f64>) -> tensor<1x5x8xf64>
  %5 = dshard.reshape %3 {path = "attn", part = #dshard.part<forward>} : (tensor<1x5x8xf64>) -> tensor<1x1x5x8xf64>
  %6 = dshard.reshape %4 {path = "attn", part = #dshard.part<forward>} : (tensor<1x5x8xf64>) -> tensor<1x1x5x8xf64>
  %7 = dshard.mul %x, %5 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x8xf64>, tensor<1x1x5x8xf64>) -> tensor<2x3x5x8xf64>
  %8 = dshard.slice %x {starts = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x8xf64>) -> tensor<2x3x5x4xf64>
  %9 = dshard.slice %x {starts = array<i64: 0, 0, 0, 4>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x8xf64>) -> tensor<2x3x5x4xf64>
  %10 = dshard.neg %9 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x4xf64>) -> tensor<2x3x5x4xf64>
  %11 = dshard.concat %10, %8 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x4xf64>, tensor<2x3x5x4xf64>) -> tensor<2x3x5x8xf64>
  %12 = dshard.mul %11, %6 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x8xf64>, tensor<1x1x5x8xf64>) -> tensor<2x3x5x8xf64>
  %13 = dshard.add %7, %12 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x5x8xf64>, tensor<2x3x5x8xf64>) -> tensor<2x3x5x8xf64>
  return %13 : tensor<2x3x5x8xf64>
}

// Tables that are constants, of equal halves; the products in the other order.
// CHECK-LABEL: func.func @constant_table
// CHECK: dshard.constant dense<{{.*}}> : tensor<1x1x2x1xf64>
// CHECK: dshard.rotary %arg0
func.func @constant_table(%x: tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64> {
  %cos = dshard.constant dense<[[[[0.5, 0.5], [0.25, 0.25]]]]> : tensor<1x1x2x2xf64>
  %sin = dshard.constant dense<[[[[0.75, 0.75], [1.0, 1.0]]]]> : tensor<1x1x2x2xf64>
  %0 = dshard.mul %cos, %x {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  %1 = dshard.slice %x {starts = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>) -> tensor<2x3x2x1xf64>
  %2 = dshard.slice %x {starts = array<i64: 0, 0, 0, 1>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>) -> tensor<2x3x2x1xf64>
  %3 = dshard.neg %2 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x1xf64>) -> tensor<2x3x2x1xf64>
  %4 = dshard.concat %3, %1 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x1xf64>, tensor<2x3x2x1xf64>) -> tensor<2x3x2x2xf64>
  %5 = dshard.mul %sin, %4 {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  %6 = dshard.add %5, %0 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  return %6 : tensor<2x3x2x2xf64>
}

// Tables whose halves differ are no rotary embedding: the ops stay.
// CHECK-LABEL: func.func @halves_differ
// CHECK-NOT: dshard.rotary
// CHECK: return
func.func @halves_differ(%x: tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64> {
  %cos = dshard.constant dense<[[[[0.5, 0.5], [0.25, 0.125]]]]> : tensor<1x1x2x2xf64>
  %sin = dshard.constant dense<[[[[0.75, 0.75], [1.0, 1.0]]]]> : tensor<1x1x2x2xf64>
  %0 = dshard.mul %cos, %x {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  %1 = dshard.slice %x {starts = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>) -> tensor<2x3x2x1xf64>
  %2 = dshard.slice %x {starts = array<i64: 0, 0, 0, 1>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>) -> tensor<2x3x2x1xf64>
  %3 = dshard.neg %2 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x1xf64>) -> tensor<2x3x2x1xf64>
  %4 = dshard.concat %3, %1 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x1xf64>, tensor<2x3x2x1xf64>) -> tensor<2x3x2x2xf64>
  %5 = dshard.mul %sin, %4 {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  // expected-remark@+1 {{looks like a rotary embedding, but its tables are not one half twice}}
  %6 = dshard.add %0, %5 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  return %6 : tensor<2x3x2x2xf64>
}

// The second half rotated without its sign is another thing.
// CHECK-LABEL: func.func @no_sign
// CHECK-NOT: dshard.rotary
// CHECK: return
func.func @no_sign(%x: tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64> {
  %cos = dshard.constant dense<0.5> : tensor<1x1x2x2xf64>
  %0 = dshard.mul %x, %cos {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>, tensor<1x1x2x2xf64>) -> tensor<2x3x2x2xf64>
  %1 = dshard.slice %x {starts = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>) -> tensor<2x3x2x1xf64>
  %2 = dshard.slice %x {starts = array<i64: 0, 0, 0, 1>, strides = array<i64: 1, 1, 1, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>) -> tensor<2x3x2x1xf64>
  %3 = dshard.concat %2, %1 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x1xf64>, tensor<2x3x2x1xf64>) -> tensor<2x3x2x2xf64>
  %4 = dshard.mul %3, %cos {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>, tensor<1x1x2x2xf64>) -> tensor<2x3x2x2xf64>
  %5 = dshard.add %0, %4 {path = "attn", part = #dshard.part<forward>} : (tensor<2x3x2x2xf64>, tensor<2x3x2x2xf64>) -> tensor<2x3x2x2xf64>
  return %5 : tensor<2x3x2x2xf64>
}
