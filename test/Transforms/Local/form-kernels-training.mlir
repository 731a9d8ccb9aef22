// What a backward and an optimizer become: calls, kernels of their own, folds in two steps.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-verify-schedule | FileCheck %s

// The gradient reads the forward's result through strides where the forward writes it transposed.
// CHECK-LABEL: func.func @attention
func.func @attention(%q: tensor<2x4x8x16xf32>, %k: tensor<2x2x8x16xf32>, %v: tensor<2x2x8x16xf32>, %do: tensor<2x8x64xf32>)
    -> (tensor<2x8x64xf32>, tensor<2x8x64xf32>, tensor<2x2x8x16xf32>, tensor<2x2x8x16xf32>) attributes {dshard.spmd} {
  // CHECK: %[[O:.*]]:2 = dshard.fused %{{.*}} {dshard.call = "attention"{{.*}} -> (tensor<2x8x4x16xf32>, tensor<2x4x8xf32>)
  %o, %lse = dshard.attention %q, %k, %v {scale = 0.25, causal, path = "a", part = #dshard.part<forward>}
      : (tensor<2x4x8x16xf32>, tensor<2x2x8x16xf32>, tensor<2x2x8x16xf32>) -> (tensor<2x4x8x16xf32>, tensor<2x4x8xf32>)
  %t = dshard.transpose %o {permutation = array<i64: 0, 2, 1, 3>, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x16xf32>) -> tensor<2x8x4x16xf32>
  %y = dshard.reshape %t {path = "a", part = #dshard.part<forward>} : (tensor<2x8x4x16xf32>) -> tensor<2x8x64xf32>
  // CHECK: dshard.fused %[[O]]#0, {{.*}}, %[[O]]#1 {dshard.call = "attention_grad"{{.*}} -> (tensor<2x8x64xf32>, tensor<2x2x8x16xf32>, tensor<2x2x8x16xf32>)
  %d4 = dshard.reshape %do {path = "a", part = #dshard.part<backward>} : (tensor<2x8x64xf32>) -> tensor<2x8x4x16xf32>
  %dt = dshard.transpose %d4 {permutation = array<i64: 0, 2, 1, 3>, path = "a", part = #dshard.part<backward>} : (tensor<2x8x4x16xf32>) -> tensor<2x4x8x16xf32>
  %dq, %dk, %dv = dshard.attention_grad %q, %k, %v, %o, %lse, %dt {scale = 0.25, causal, path = "a", part = #dshard.part<backward>}
      : (tensor<2x4x8x16xf32>, tensor<2x2x8x16xf32>, tensor<2x2x8x16xf32>, tensor<2x4x8x16xf32>, tensor<2x4x8xf32>, tensor<2x4x8x16xf32>) -> (tensor<2x4x8x16xf32>, tensor<2x2x8x16xf32>, tensor<2x2x8x16xf32>)
  %qt = dshard.transpose %dq {permutation = array<i64: 0, 2, 1, 3>, path = "a", part = #dshard.part<backward>} : (tensor<2x4x8x16xf32>) -> tensor<2x8x4x16xf32>
  %qr = dshard.reshape %qt {path = "a", part = #dshard.part<backward>} : (tensor<2x8x4x16xf32>) -> tensor<2x8x64xf32>
  // CHECK-NOT: dshard.fused
  return %y, %qr, %dk, %dv : tensor<2x8x64xf32>, tensor<2x8x64xf32>, tensor<2x2x8x16xf32>, tensor<2x2x8x16xf32>
}

// The gradient of a weight is a product that reads its left side transposed.
// CHECK-LABEL: func.func @weight_grad
func.func @weight_grad(%x: tensor<2x8x16xf32>, %dy: tensor<2x8x32xf32>) -> tensor<16x32xf32> attributes {dshard.spmd} {
  // CHECK: dshard.fused %{{.*}} {dshard.call = "matmul"
  // CHECK: dshard.matmul {{.*}}transpose_lhs{{.*}} -> tensor<16x32xf32>
  %dw = dshard.weight_grad %x, %dy {path = "w", part = #dshard.part<backward>} : (tensor<2x8x16xf32>, tensor<2x8x32xf32>) -> tensor<16x32xf32>
  return %dw : tensor<16x32xf32>
}

// The gradient of an embedding: what computes the updates joins, what uses the sums does not.
// CHECK-LABEL: func.func @scatter_add
func.func @scatter_add(%ids: tensor<5xi64>, %d: tensor<5x16xf32>, %acc: tensor<7x16xf32>) -> tensor<7x16xf32> attributes {dshard.spmd} {
  // CHECK: %[[G:.*]] = dshard.fused
  // CHECK: dshard.neg
  // CHECK-NEXT: dshard.scatter_add
  // CHECK: dshard.fused {{.*}}%[[G]]
  // CHECK: dshard.add
  %n = dshard.neg %d {path = "e", part = #dshard.part<backward>} : (tensor<5x16xf32>) -> tensor<5x16xf32>
  %g = dshard.scatter_add %ids, %n {dim = 0 : i64, path = "e", part = #dshard.part<backward>} : (tensor<5xi64>, tensor<5x16xf32>) -> tensor<7x16xf32>
  %s = dshard.add %acc, %g {path = "e", part = #dshard.part<backward>} : (tensor<7x16xf32>, tensor<7x16xf32>) -> tensor<7x16xf32>
  return %s : tensor<7x16xf32>
}

// The norm of a large gradient: 64 sums that threads share, then theirs; no index is divided.
// CHECK-LABEL: func.func @norm
func.func @norm(%g: tensor<512x256xf32>) -> tensor<f32> attributes {dshard.spmd} {
  // CHECK: %[[R:.*]] = dshard.reshape %{{.*}} -> tensor<64x2048xf32>
  // CHECK: %[[P:.*]] = dshard.fused %[[R]] {{.*}} -> tensor<64xf32>
  // CHECK: dshard.fused %[[P]] {{.*}} -> tensor<f32>
  %m = dshard.mul %g, %g {path = "n", part = #dshard.part<optimizer>} : (tensor<512x256xf32>, tensor<512x256xf32>) -> tensor<512x256xf32>
  %r = dshard.reduce %m {kind = #dshard<reduction sum>, dims = array<i64: 0, 1>, path = "n", part = #dshard.part<optimizer>} : (tensor<512x256xf32>) -> tensor<f32>
  return %r : tensor<f32>
}

// A constant from outside a repeat is part of the kernels inside.
// CHECK-LABEL: func.func @constant
func.func @constant(%x: tensor<8xf32>) -> tensor<8xf32> attributes {dshard.spmd} {
  %c = dshard.constant dense<2.0> : tensor<f32>
  // CHECK-NOT: dshard.constant
  // CHECK: dshard.repeat
  // CHECK: dshard.fused %{{[a-z0-9]*}} {
  // CHECK: dshard.constant dense<2.0
  %r = dshard.repeat 3 init(%x) : (tensor<8xf32>) -> tensor<8xf32> {
  ^bb0(%i: tensor<i64>, %a: tensor<8xf32>):
    %n = dshard.mul %a, %c {path = "c", part = #dshard.part<forward>} : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
    dshard.yield %n : tensor<8xf32>
  }
  return %r : tensor<8xf32>
}

// The backward of a gated activation: what both gradients need is computed once, in one kernel.
// CHECK-LABEL: func.func @gate
func.func @gate(%gate: tensor<32x64xf32>, %up: tensor<32x64xf32>, %d: tensor<32x64xf32>) -> (tensor<32x64xf32>, tensor<32x64xf32>) attributes {dshard.spmd} {
  // CHECK: dshard.fused {{.*}} -> (tensor<32x64xf32>, tensor<32x64xf32>)
  // CHECK-NOT: dshard.fused
  // CHECK: return
  %s = dshard.sigmoid %gate {path = "g", part = #dshard.part<backward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
  %a = dshard.mul %gate, %s {path = "g", part = #dshard.part<backward>} : (tensor<32x64xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
  %du = dshard.mul %d, %a {path = "g", part = #dshard.part<backward>} : (tensor<32x64xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
  %b = dshard.mul %d, %up {path = "g", part = #dshard.part<backward>} : (tensor<32x64xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
  %dg = dshard.mul %b, %s {path = "g", part = #dshard.part<backward>} : (tensor<32x64xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
  return %du, %dg : tensor<32x64xf32>, tensor<32x64xf32>
}
