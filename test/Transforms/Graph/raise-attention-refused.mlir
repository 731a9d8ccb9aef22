// A mask that is not understood leaves the ops as they are, and a remark says why.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics -dshard-raise-attention | FileCheck %s

// CHECK-NOT: dshard.attention

// Every second key.
func.func @odd_mask(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %mask = dshard.constant dense<[[true, false, true, false, true], [true, true, false, false, false], [true, true, true, false, false], [true, true, true, true, false], [true, true, true, true, true]]> : tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but the mask is neither causal, nor a window, nor key padding (dshard.constant of tensor<5x5xi1>); it stays in single ops}}
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// -----

// A bias of the scores (ALiBi and the like) is no mask.
func.func @bias(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %bias: tensor<5x5xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %masked = dshard.add %s, %bias {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but what is added to the scores is no mask}}
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// -----

// Keys 2 i <= j: no offset and no window.
func.func @skewed(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %row = dshard.iota {dim = 0, step = 2.0 : f64, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %column = dshard.iota {dim = 1, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x5xi64>
  %mask = dshard.compare %row, %column {predicate = #dshard.predicate<le>, path = "attn", part = #dshard.part<forward>} : (tensor<5x1xi64>, tensor<1x5xi64>) -> tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but the mask is neither causal, nor a window, nor key padding (dshard.compare of tensor<5x5xi1>)}}
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// -----

// The mask looks up other keys than its own: it stays, as a value of its own.
// The padding is [B,T] by position, so the op is attention, but the look-up is kept.
// CHECK-LABEL: func.func @other_look_up
// CHECK: dshard.gather_nd
// CHECK: dshard.attention
func.func @other_look_up(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %keep: tensor<2x5xi1>, %grid: tensor<2x1x1x5x2xi64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %mask = dshard.gather_nd %keep, %grid {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi1>, tensor<2x1x1x5x2xi64>) -> tensor<2x1x1x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi1>, tensor<f64>, tensor<f64>) -> tensor<2x1x1x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x1x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}
