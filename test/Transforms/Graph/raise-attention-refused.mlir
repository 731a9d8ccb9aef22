// What is no attention of one query and its keys stays as it is, and a remark says why.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics -dshard-raise-attention | FileCheck %s

// raise_attention_c2: one query for all batches.
// CHECK-LABEL: func.func @one_query(
// CHECK-NOT: dshard.attention
func.func @one_query(%q: tensor<1x4x5x8xf64>, %k: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %s = dshard.matmul %q, %k {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x8xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %s {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but the query repeats over batch or heads; it stays in single ops}}
  %r = dshard.matmul %w, %k {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// -----

// The scores repeat over the batches of the value.
// CHECK-LABEL: func.func @one_score(
// CHECK-NOT: dshard.attention
func.func @one_score(%q: tensor<1x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %s = dshard.matmul %q, %q {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x8xf64>, tensor<1x4x5x8xf64>) -> tensor<1x4x5x5xf64>
  %w = dshard.softmax %s {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x5xf64>) -> tensor<1x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but key and value are no [batch, heads, keys, size]}}
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// -----

// Only the bias has batches.
// CHECK-LABEL: func.func @wide_bias(
// CHECK-NOT: dshard.attention
func.func @wide_bias(%q: tensor<1x4x5x8xf64>, %bias: tensor<2x4x5x5xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %s = dshard.matmul %q, %q {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x8xf64>, tensor<1x4x5x8xf64>) -> tensor<1x4x5x5xf64>
  %m = dshard.add %s, %bias {path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x5xf64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %m {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but the scores are no product of query and key}}
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// -----

// A row that both hide would be the mean of other values.
// CHECK-LABEL: func.func @two_masks(
// CHECK-NOT: dshard.attention
func.func @two_masks(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %odd: tensor<5x5xf64>, %keep: tensor<2x1x1x5xi1>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %qk = dshard.matmul %q, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %s = dshard.mul %qk, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %low = dshard.constant dense<-1.0e38> : tensor<f64>
  %n = dshard.mul %odd, %low {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xf64>, tensor<f64>) -> tensor<5x5xf64>
  %m = dshard.add %s, %n {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %t = dshard.select %keep, %m, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi1>, tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %t {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  // expected-remark@+1 {{looks like attention, but what is added to the scores is no mask (dshard.mul of tensor<5x5xf64>); it stays in single ops}}
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
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
