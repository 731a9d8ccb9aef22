// A decomposition has the value of its op, on random inputs, and is made of
// simpler ops.
// RUN: dshard-opt %s -dshard-decompose -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: %python -c "import numpy as np, sys; np.save(sys.argv[1], np.random.default_rng(1).random((2, 7)) < 0.6)" %t.padding.npy
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input padding=%t.padding.npy --rtol 1e-7

// CHECK-NOT: dshard.attention
// CHECK-NOT: dshard.rotary
// CHECK-NOT: dshard.rms_norm
// CHECK-NOT: dshard.layer_norm
// CHECK-NOT: dshard.softmax
// CHECK: dshard.matmul {{.*}} {part = #dshard.part<forward>, path = "m", transpose_rhs}
func.func @run(
    %q: tensor<2x4x5x8xf32> {dshard.name = "q"}, %k: tensor<2x2x7x8xf32> {dshard.name = "k"}, %v: tensor<2x2x7x6xf32> {dshard.name = "v"},
    %padding: tensor<2x7xi1> {dshard.name = "padding"}, %t: tensor<1x5x4xf32> {dshard.name = "t"}, %u: tensor<1x5x4xf32> {dshard.name = "u"},
    %x: tensor<3x6xf32> {dshard.name = "x"}, %w: tensor<6xf32> {dshard.name = "w"}, %b: tensor<6xf32> {dshard.name = "b"})
    -> (tensor<2x4x5x6xf32>, tensor<2x4x5xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>,
        tensor<3x6xf32>, tensor<3x6xf32>, tensor<3x6xf32>, tensor<3x6xf32>) {
  %0:2 = dshard.attention %q, %k, %v, %padding {scale = 0.25 : f64, causal, offset = 2, path = "m", part = #dshard.part<forward>}
    : (tensor<2x4x5x8xf32>, tensor<2x2x7x8xf32>, tensor<2x2x7x6xf32>, tensor<2x7xi1>) -> (tensor<2x4x5x6xf32>, tensor<2x4x5xf32>)
  // Queries 0 and 1 attend nothing: uniform, and then zero.
  %1:2 = dshard.attention %q, %k, %v {scale = 0.25 : f64, causal, offset = -2, fully_masked = #dshard.fully_masked<uniform>, path = "m", part = #dshard.part<forward>}
    : (tensor<2x4x5x8xf32>, tensor<2x2x7x8xf32>, tensor<2x2x7x6xf32>) -> (tensor<2x4x5x6xf32>, tensor<2x4x5xf32>)
  %2:2 = dshard.attention %q, %k, %v {scale = 0.25 : f64, causal, offset = -2, window = 2, softcap = 0.5 : f64, path = "m", part = #dshard.part<forward>}
    : (tensor<2x4x5x8xf32>, tensor<2x2x7x8xf32>, tensor<2x2x7x6xf32>) -> (tensor<2x4x5x6xf32>, tensor<2x4x5xf32>)
  %3 = dshard.rotary %q, %t, %u {path = "m", part = #dshard.part<forward>} : (tensor<2x4x5x8xf32>, tensor<1x5x4xf32>, tensor<1x5x4xf32>) -> tensor<2x4x5x8xf32>
  %4 = dshard.rotary %q, %t, %u {interleaved, path = "m", part = #dshard.part<forward>} : (tensor<2x4x5x8xf32>, tensor<1x5x4xf32>, tensor<1x5x4xf32>) -> tensor<2x4x5x8xf32>
  %5 = dshard.rms_norm %x, %w {epsilon = 0.0009765625 : f64, path = "m", part = #dshard.part<forward>} : (tensor<3x6xf32>, tensor<6xf32>) -> tensor<3x6xf32>
  %6 = dshard.layer_norm %x, %w, %b {epsilon = 0.0009765625 : f64, path = "m", part = #dshard.part<forward>} : (tensor<3x6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<3x6xf32>
  %7 = dshard.softmax %x {dim = 1, path = "m", part = #dshard.part<forward>} : (tensor<3x6xf32>) -> tensor<3x6xf32>
  %8 = dshard.softmax %x {dim = 0, path = "m", part = #dshard.part<forward>} : (tensor<3x6xf32>) -> tensor<3x6xf32>
  return %0#0, %0#1, %1#0, %2#0, %3, %4, %5, %6, %7, %8
    : tensor<2x4x5x6xf32>, tensor<2x4x5xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>,
      tensor<3x6xf32>, tensor<3x6xf32>, tensor<3x6xf32>, tensor<3x6xf32>
}
