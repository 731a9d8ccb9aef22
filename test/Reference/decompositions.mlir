// Each composite op has the value of its decomposition.
// RUN: dshard-opt %s --dshard-decompose -o %t.mlir
// RUN: FileCheck %s --check-prefix=NONE --input-file %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs=1 | FileCheck %s
// NONE-NOT: dshard.{{attention|rotary|rms_norm|layer_norm|softmax}}
// (Eight keys, so that the 1/8 of a row that attends nothing is exact in f32.)
// CHECK-COUNT-15: largest difference
// CHECK-NOT: DIFFERENT

func.func @run(%x: tensor<2x3x8xf32>, %w: tensor<8xf32>, %b: tensor<8xf32>,
               %q: tensor<2x4x5x6xf32>, %k: tensor<2x2x8x6xf32>, %v: tensor<2x2x8x3xf32>,
               %cos: tensor<1x5x3xf32>, %sin: tensor<1x5x3xf32>, %cosb: tensor<2x5x3xf32>, %h: tensor<2x3x8xbf16>, %wh: tensor<8xbf16>) ->
    (tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>,
     tensor<2x4x5x6xf32>, tensor<2x4x5x6xf32>,
     tensor<2x4x5x3xf32>, tensor<2x4x5xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5xf32>, tensor<2x4x5x3xf32>, tensor<2x3x8xbf16>) {
  %mask = dshard.constant dense<[[true, false, true, true, true, true, true, false], [false, false, true, true, true, true, true, true]]> : tensor<2x8xi1>
  %rms = dshard.rms_norm %x, %w {epsilon = 1.0e-5 : f64} : (tensor<2x3x8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %ln = dshard.layer_norm %x, %w {epsilon = 1.0e-5 : f64} : (tensor<2x3x8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %lnb = dshard.layer_norm %x, %w, %b {epsilon = 1.0e-5 : f64} : (tensor<2x3x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %s1 = dshard.softmax %x {dim = 1 : i64} : (tensor<2x3x8xf32>) -> tensor<2x3x8xf32>
  %s2 = dshard.softmax %x {dim = 2 : i64} : (tensor<2x3x8xf32>) -> tensor<2x3x8xf32>
  %r1 = dshard.rotary %q, %cos, %sin : (tensor<2x4x5x6xf32>, tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<2x4x5x6xf32>
  %r2 = dshard.rotary %q, %cosb, %cosb {interleaved} : (tensor<2x4x5x6xf32>, tensor<2x5x3xf32>, tensor<2x5x3xf32>) -> tensor<2x4x5x6xf32>
  %a1, %l1 = dshard.attention %q, %k, %v {scale = 0.5 : f64} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %a2, %l2 = dshard.attention %q, %k, %v {scale = 0.5 : f64, causal, offset = 2 : i64, window = 2 : i64, softcap = 1.5 : f64} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %a3, %l3 = dshard.attention %q, %k, %v, %mask {scale = 0.5 : f64, causal, fully_masked = #dshard.fully_masked<uniform>} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %a4, %l4 = dshard.attention %q, %k, %v, %mask {scale = 0.5 : f64, causal} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %rh = dshard.rms_norm %h, %wh {epsilon = 1.0e-5 : f64} : (tensor<2x3x8xbf16>, tensor<8xbf16>) -> tensor<2x3x8xbf16>
  return %rms, %ln, %lnb, %s1, %s2, %r1, %r2, %a1, %l1, %a2, %l2, %a3, %l3, %a4, %rh : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5xf32>, tensor<2x4x5x3xf32>, tensor<2x3x8xbf16>
}
