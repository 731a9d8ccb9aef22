// Each composite op has the value of its decomposition.
// RUN: dshard-opt %s --dshard-decompose -o %t.mlir
// RUN: FileCheck %s --check-prefix=NONE --input-file %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs=1 --entry run | FileCheck %s
// RUN: dshard-interpret %s --against %t.mlir --random-inputs=1 --entry training | FileCheck %s --check-prefix=TRAINING
// NONE-NOT: dshard.{{attention|rotary|rms_norm|layer_norm|softmax|weight_grad|cross_entropy|adamw}}
// (Eight keys, so that the 1/8 of a row that attends nothing is exact in f32.)
// CHECK-COUNT-15: largest difference
// CHECK-NOT: DIFFERENT
// TRAINING-COUNT-17: largest difference
// TRAINING-NOT: DIFFERENT

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

// Eight keys again; row 0 of batch 1 attends nothing.
func.func @training(%x: tensor<2x3x4xf32>, %g: tensor<2x3x5xf32>, %q: tensor<2x4x8x6xf32>, %k: tensor<2x2x8x6xf32>, %v: tensor<2x2x8x3xf32>, %o: tensor<2x4x8x3xf32>,
                    %w: tensor<3x4xf32>, %wg: tensor<3x4xf32>, %m: tensor<3x4xf32>, %offset: tensor<i64>) ->
    (tensor<4x5xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>,
     tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>,
     tensor<2x4x8x3xf32>, tensor<2x4x8xf32>, tensor<2x4x8x3xf32>, tensor<2x4x8x3xf32>) {
  %mask = dshard.constant dense<[[true, false, true, true, true, true, true, false], [false, false, true, true, true, true, true, true]]> : tensor<2x8xi1>
  %labels = dshard.constant dense<[[0, 4, -100], [2, -100, 1]]> : tensor<2x3xi64>
  %yes = dshard.constant dense<true> : tensor<i1>
  %no = dshard.constant dense<false> : tensor<i1>
  %half = dshard.constant dense<0.5> : tensor<f32>
  %square = dshard.mul %m, %m : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %wgrad = dshard.weight_grad %x, %g : (tensor<2x3x4xf32>, tensor<2x3x5xf32>) -> tensor<4x5xf32>
  %loss:2 = dshard.cross_entropy %g, %labels : (tensor<2x3x5xf32>, tensor<2x3xi64>) -> (tensor<2x3xf32>, tensor<2x3xf32>)
  %step:3 = dshard.adamw %w, %wg, %m, %square, %half, %half, %half, %half, %yes {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-3 : f64, weight_decay = 0.1 : f64} : (tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>)
  %none:3 = dshard.adamw %w, %wg, %m, %square, %half, %half, %half, %half, %no {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-3 : f64, weight_decay = 0.0 : f64} : (tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>)
  %a1, %l1 = dshard.attention %q, %k, %v {scale = 0.5 : f64, causal, offset = 1 : i64, window = 3 : i64, softcap = 1.5 : f64} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>) -> (tensor<2x4x8x3xf32>, tensor<2x4x8xf32>)
  %d1:3 = dshard.attention_grad %q, %k, %v, %a1, %l1, %o {scale = 0.5 : f64, causal, offset = 1 : i64, window = 3 : i64, softcap = 1.5 : f64} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x4x8x3xf32>, tensor<2x4x8xf32>, tensor<2x4x8x3xf32>) -> (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>)
  %a2, %l2 = dshard.attention %q, %k, %v, %mask {scale = 0.5 : f64, causal, fully_masked = #dshard.fully_masked<uniform>} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x8x3xf32>, tensor<2x4x8xf32>)
  %d2:3 = dshard.attention_grad %q, %k, %v, %a2, %l2, %o, %mask {scale = 0.5 : f64, causal, fully_masked = #dshard.fully_masked<uniform>} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x4x8x3xf32>, tensor<2x4x8xf32>, tensor<2x4x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>)
  %a3, %l3 = dshard.attention %q, %k, %v, %mask {scale = 0.5 : f64, causal, window = 3 : i64, layout = #dshard.layout<zigzag>, parts = 2 : i64} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x8x3xf32>, tensor<2x4x8xf32>)
  %a4, %l4 = dshard.attention %q, %k, %v {scale = 0.5 : f64, causal, layout = #dshard.layout<striped>, parts = 4 : i64} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>) -> (tensor<2x4x8x3xf32>, tensor<2x4x8xf32>)
  %a5, %l5 = dshard.attention %q, %k, %v, %mask, %offset {scale = 0.5 : f64, causal} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>, tensor<i64>) -> (tensor<2x4x8x3xf32>, tensor<2x4x8xf32>)
  return %wgrad, %loss#0, %loss#1, %step#0, %step#1, %step#2, %none#0, %d1#0, %d1#1, %d1#2, %d2#0, %d2#1, %d2#2, %a3, %l3, %a4, %a5 :
    tensor<4x5xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>,
    tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>,
    tensor<2x4x8x3xf32>, tensor<2x4x8xf32>, tensor<2x4x8x3xf32>, tensor<2x4x8x3xf32>
}
