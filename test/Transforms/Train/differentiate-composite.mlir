// A composite op's gradient is that of its decomposition, and so is the decomposition of its gradient.
// RUN: dshard-opt %s --dshard-differentiate -o %t.mlir
// RUN: dshard-opt %s --dshard-decompose --dshard-differentiate -o %t.first.mlir
// RUN: dshard-opt %t.mlir --dshard-decompose -o %t.then.mlir
// RUN: FileCheck %s --check-prefix=WHOLE --input-file %t.mlir
// RUN: FileCheck %s --check-prefix=NONE --input-file %t.first.mlir
// RUN: FileCheck %s --check-prefix=NONE --input-file %t.then.mlir
// RUN: dshard-interpret %t.mlir --against %t.first.mlir --against %t.then.mlir --random-inputs=3 --entry norms_vjp | FileCheck %s --check-prefix=NORMS
// RUN: dshard-interpret %t.mlir --against %t.first.mlir --against %t.then.mlir --random-inputs=3 --entry attention_vjp | FileCheck %s --check-prefix=ATTENTION
// RUN: dshard-interpret %t.mlir --against %t.first.mlir --against %t.then.mlir --random-inputs=3 --entry loss_vjp | FileCheck %s --check-prefix=LOSS
// WHOLE-COUNT-4: dshard.attention_grad
// NONE-NOT: dshard.{{attention|rotary|rms_norm|layer_norm|softmax|cross_entropy}}
// NORMS-COUNT-10: largest difference
// NORMS-NOT: DIFFERENT
// ATTENTION-COUNT-6: largest difference
// ATTENTION-NOT: DIFFERENT
// LOSS-COUNT-4: largest difference
// LOSS-NOT: DIFFERENT

func.func @norms(%x: tensor<2x3x8xf32>, %w: tensor<8xf32>, %b: tensor<8xf32>, %q: tensor<2x4x5x6xf32>, %cos: tensor<2x5x3xf32>) ->
    (tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x6xf32>) {
  %rms = dshard.rms_norm %x, %w {epsilon = 1.0e-2 : f64} : (tensor<2x3x8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %ln = dshard.layer_norm %x, %w {epsilon = 1.0e-2 : f64} : (tensor<2x3x8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %lnb = dshard.layer_norm %x, %w, %b {epsilon = 1.0e-2 : f64} : (tensor<2x3x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x3x8xf32>
  %soft = dshard.softmax %x {dim = 1 : i64} : (tensor<2x3x8xf32>) -> tensor<2x3x8xf32>
  %r1 = dshard.rotary %q, %cos, %cos : (tensor<2x4x5x6xf32>, tensor<2x5x3xf32>, tensor<2x5x3xf32>) -> tensor<2x4x5x6xf32>
  %r2 = dshard.rotary %q, %cos, %cos {interleaved} : (tensor<2x4x5x6xf32>, tensor<2x5x3xf32>, tensor<2x5x3xf32>) -> tensor<2x4x5x6xf32>
  return %rms, %ln, %lnb, %soft, %r1, %r2 : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x4x5x6xf32>, tensor<2x4x5x6xf32>
}

func.func @attention(%q: tensor<2x4x5x6xf32>, %k: tensor<2x2x8x6xf32>, %v: tensor<2x2x8x3xf32>) ->
    (tensor<2x4x5x3xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5x3xf32>) {
  %mask = dshard.constant dense<[[true, false, true, true, true, true, true, false], [false, false, true, true, true, true, true, true]]> : tensor<2x8xi1>
  %a1, %l1 = dshard.attention %q, %k, %v {scale = 0.5 : f64} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %a2, %l2 = dshard.attention %q, %k, %v {scale = 0.5 : f64, causal, offset = 2 : i64, window = 2 : i64, softcap = 1.5 : f64} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %a3, %l3 = dshard.attention %q, %k, %v, %mask {scale = 0.5 : f64, causal, fully_masked = #dshard.fully_masked<uniform>} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  %a4, %l4 = dshard.attention %q, %k, %v, %mask {scale = 0.5 : f64, causal} : (tensor<2x4x5x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x5x3xf32>, tensor<2x4x5xf32>)
  return %a1, %a2, %a3, %a4 : tensor<2x4x5x3xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5x3xf32>, tensor<2x4x5x3xf32>
}

func.func @loss(%x: tensor<2x3x4xf32>, %w: tensor<4x5xf32>) -> (tensor<2x3xf32>, tensor<2x3xf32>) {
  %labels = dshard.constant dense<[[0, 4, -100], [2, -100, 1]]> : tensor<2x3xi64>
  %logits = dshard.matmul %x, %w : (tensor<2x3x4xf32>, tensor<4x5xf32>) -> tensor<2x3x5xf32>
  %loss:2 = dshard.cross_entropy %logits, %labels : (tensor<2x3x5xf32>, tensor<2x3xi64>) -> (tensor<2x3xf32>, tensor<2x3xf32>)
  return %loss#0, %loss#1 : tensor<2x3xf32>, tensor<2x3xf32>
}
