// The forms in which exporters write a root-mean-square normalisation.
// RUN: dshard-opt %s -dshard-raise-rms-norm -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry torch
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry quotient
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry half

// torch.onnx: reciprocal of sqrt, the weight first.
// CHECK-LABEL: func.func @torch
// CHECK-NEXT: dshard.rms_norm %arg0, %arg1 {epsilon = 1.000000e-03 : f64, part = #dshard.part<forward>, path = "norm"} : (tensor<2x3x8xf64>, tensor<8xf64>) -> tensor<2x3x8xf64>
// CHECK-NEXT: return
func.func @torch(%x: tensor<2x3x8xf64>, %w: tensor<8xf64>) -> tensor<2x3x8xf64> {
  %two = dshard.constant dense<2.0> : tensor<f64>
  %eps = dshard.constant dense<1.0e-3> : tensor<f64>
  %0 = dshard.pow %x, %two {path = "norm", part = #dshard.part<forward>} : (tensor<2x3x8xf64>, tensor<f64>) -> tensor<2x3x8xf64>
  %1 = dshard.reduce %0 {kind = #dshard<reduction mean>, dims = array<i64: 2>, keep_dims, path = "norm", part = #dshard.part<forward>} : (tensor<2x3x8xf64>) -> tensor<2x3x1xf64>
  %2 = dshard.add %1, %eps {path = "norm", part = #dshard.part<forward>} : (tensor<2x3x1xf64>, tensor<f64>) -> tensor<2x3x1xf64>
  %3 = dshard.sqrt %2 {path = "norm", part = #dshard.part<forward>} : (tensor<2x3x1xf64>) -> tensor<2x3x1xf64>
  %4 = dshard.reciprocal %3 {path = "norm", part = #dshard.part<forward>} : (tensor<2x3x1xf64>) -> tensor<2x3x1xf64>
  %5 = dshard.mul %x, %4 {path = "norm", part = #dshard.part<forward>} : (tensor<2x3x8xf64>, tensor<2x3x1xf64>) -> tensor<2x3x8xf64>
  %6 = dshard.mul %w, %5 {path = "norm", part = #dshard.part<forward>} : (tensor<8xf64>, tensor<2x3x8xf64>) -> tensor<2x3x8xf64>
  return %6 : tensor<2x3x8xf64>
}

// x * x, 1 / sqrt, the weight last.
// CHECK-LABEL: func.func @quotient
// CHECK-NEXT: dshard.rms_norm %arg0, %arg1
// CHECK-NEXT: return
func.func @quotient(%x: tensor<2x8xf64>, %w: tensor<8xf64>) -> tensor<2x8xf64> {
  %one = dshard.constant dense<1.0> : tensor<f64>
  %eps = dshard.constant dense<1.0e-3> : tensor<f64>
  %0 = dshard.mul %x, %x {path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf64>, tensor<2x8xf64>) -> tensor<2x8xf64>
  %1 = dshard.reduce %0 {kind = #dshard<reduction mean>, dims = array<i64: 1>, keep_dims, path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf64>) -> tensor<2x1xf64>
  %2 = dshard.add %eps, %1 {path = "norm", part = #dshard.part<forward>} : (tensor<f64>, tensor<2x1xf64>) -> tensor<2x1xf64>
  %3 = dshard.sqrt %2 {path = "norm", part = #dshard.part<forward>} : (tensor<2x1xf64>) -> tensor<2x1xf64>
  %4 = dshard.div %one, %3 {path = "norm", part = #dshard.part<forward>} : (tensor<f64>, tensor<2x1xf64>) -> tensor<2x1xf64>
  %5 = dshard.mul %4, %x {path = "norm", part = #dshard.part<forward>} : (tensor<2x1xf64>, tensor<2x8xf64>) -> tensor<2x8xf64>
  %6 = dshard.mul %5, %w {path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf64>, tensor<8xf64>) -> tensor<2x8xf64>
  return %6 : tensor<2x8xf64>
}

// A 16-bit model computes in f32 and casts back before the weight.
// CHECK-LABEL: func.func @half
// CHECK-NEXT: dshard.rms_norm %arg0, %arg1 {{.*}} : (tensor<2x8xbf16>, tensor<8xbf16>) -> tensor<2x8xbf16>
// CHECK-NEXT: return
func.func @half(%x: tensor<2x8xbf16>, %w: tensor<8xbf16>) -> tensor<2x8xbf16> {
  %two = dshard.constant dense<2.0> : tensor<f32>
  %eps = dshard.constant dense<1.0e-3> : tensor<f32>
  %c = dshard.cast %x {path = "norm", part = #dshard.part<forward>} : (tensor<2x8xbf16>) -> tensor<2x8xf32>
  %0 = dshard.pow %c, %two {path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %1 = dshard.reduce %0 {kind = #dshard<reduction mean>, dims = array<i64: 1>, keep_dims, path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf32>) -> tensor<2x1xf32>
  %2 = dshard.add %1, %eps {path = "norm", part = #dshard.part<forward>} : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %3 = dshard.rsqrt %2 {path = "norm", part = #dshard.part<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %4 = dshard.mul %c, %3 {path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
  %5 = dshard.cast %4 {path = "norm", part = #dshard.part<forward>} : (tensor<2x8xf32>) -> tensor<2x8xbf16>
  %6 = dshard.mul %w, %5 {path = "norm", part = #dshard.part<forward>} : (tensor<8xbf16>, tensor<2x8xbf16>) -> tensor<2x8xbf16>
  return %6 : tensor<2x8xbf16>
}

// The mean over another dim, of another value, or a cube is no such norm.
// CHECK-LABEL: func.func @other
// CHECK-NOT: dshard.rms_norm
// CHECK: return
func.func @other(%x: tensor<8x8xf64>, %y: tensor<8x8xf64>, %w: tensor<8xf64>) -> (tensor<8x8xf64>, tensor<8x8xf64>, tensor<8x8xf64>) {
  %eps = dshard.constant dense<1.0e-3> : tensor<f64>
  %three = dshard.constant dense<3.0> : tensor<f64>
  %0 = dshard.mul %x, %x {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8x8xf64>) -> tensor<8x8xf64>
  %1 = dshard.reduce %0 {kind = #dshard<reduction mean>, dims = array<i64: 0>, keep_dims, path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>) -> tensor<1x8xf64>
  %2 = dshard.add %1, %eps {path = "norm", part = #dshard.part<forward>} : (tensor<1x8xf64>, tensor<f64>) -> tensor<1x8xf64>
  %3 = dshard.rsqrt %2 {path = "norm", part = #dshard.part<forward>} : (tensor<1x8xf64>) -> tensor<1x8xf64>
  %4 = dshard.mul %x, %3 {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<1x8xf64>) -> tensor<8x8xf64>
  %5 = dshard.mul %4, %w {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8xf64>) -> tensor<8x8xf64>
  %6 = dshard.reduce %0 {kind = #dshard<reduction mean>, dims = array<i64: 1>, keep_dims, path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>) -> tensor<8x1xf64>
  %7 = dshard.add %6, %eps {path = "norm", part = #dshard.part<forward>} : (tensor<8x1xf64>, tensor<f64>) -> tensor<8x1xf64>
  %8 = dshard.rsqrt %7 {path = "norm", part = #dshard.part<forward>} : (tensor<8x1xf64>) -> tensor<8x1xf64>
  %9 = dshard.mul %y, %8 {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8x1xf64>) -> tensor<8x8xf64>
  %10 = dshard.mul %9, %w {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8xf64>) -> tensor<8x8xf64>
  %11 = dshard.pow %x, %three {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<f64>) -> tensor<8x8xf64>
  %12 = dshard.reduce %11 {kind = #dshard<reduction mean>, dims = array<i64: 1>, keep_dims, path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>) -> tensor<8x1xf64>
  %13 = dshard.add %12, %eps {path = "norm", part = #dshard.part<forward>} : (tensor<8x1xf64>, tensor<f64>) -> tensor<8x1xf64>
  %14 = dshard.rsqrt %13 {path = "norm", part = #dshard.part<forward>} : (tensor<8x1xf64>) -> tensor<8x1xf64>
  %15 = dshard.mul %x, %14 {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8x1xf64>) -> tensor<8x8xf64>
  %16 = dshard.mul %15, %w {path = "norm", part = #dshard.part<forward>} : (tensor<8x8xf64>, tensor<8xf64>) -> tensor<8x8xf64>
  return %5, %10, %16 : tensor<8x8xf64>, tensor<8x8xf64>, tensor<8x8xf64>
}
