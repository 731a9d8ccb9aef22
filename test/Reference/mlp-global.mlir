// A two-layer MLP as imported; the sharded forms of this folder must equal it.
// RUN: dshard-interpret %s --random-inputs=3 | FileCheck %s
// CHECK: y : tensor<16x64xf32> = min

func.func @run(%x: tensor<16x64xf32> {dshard.name = "x"}, %w1: tensor<64x256xf32> {dshard.name = "w1"},
               %w2: tensor<256x64xf32> {dshard.name = "w2"}) -> (tensor<16x64xf32> {dshard.name = "y"}) {
  %h = dshard.matmul %x, %w1 : (tensor<16x64xf32>, tensor<64x256xf32>) -> tensor<16x256xf32>
  %g = dshard.gelu %h : (tensor<16x256xf32>) -> tensor<16x256xf32>
  %y = dshard.matmul %g, %w2 : (tensor<16x256xf32>, tensor<256x64xf32>) -> tensor<16x64xf32>
  return %y : tensor<16x64xf32>
}
