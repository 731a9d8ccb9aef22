// What is added to the scores, or hides them in no way that the op knows, becomes the bias; the value stays.
// RUN: dshard-opt %s -verify-diagnostics -dshard-raise-attention -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// Random booleans are all true: the masks are files.
// RUN: %python -c "import numpy as np, sys; r = np.random.default_rng(1); [np.save(sys.argv[1] + n, r.random(s) < 0.5) for n, s in (('.keep.npy', (2, 1, 1, 5)), ('.hide.npy', (2, 1, 5, 5)))]" %t
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry bias
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input keep=%t.keep.npy --entry bias_in_mask
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input keep=%t.keep.npy --entry bias_and_mask
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry alibi
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input hide=%t.hide.npy --entry replaced
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry zeros
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry odd_mask
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry skewed

// What is added broadcasts over batch and heads.
// CHECK-LABEL: func.func @bias(
// CHECK: %[[B:.*]] = dshard.reshape %{{.*}} : (tensor<5x5xf64>) -> tensor<1x1x5x5xf64>
// CHECK-NEXT: dshard.attention %{{.*}}, %{{.*}}, %{{.*}}, %[[B]] {part = #dshard.part<forward>, path = "attn", scale = 5.000000e-01 : f64}
// CHECK-NEXT: return
func.func @bias(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}, %bias: tensor<5x5xf64> {dshard.name = "bias"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %qk = dshard.matmul %q, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %s = dshard.mul %qk, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %m = dshard.add %s, %bias {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %m {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// T5: the mask chooses between bias and a number that hides.
// CHECK-LABEL: func.func @bias_in_mask(
// CHECK: %[[P:.*]] = dshard.reshape %{{.*}} -> tensor<2x5xi1>
// CHECK-NEXT: dshard.attention %{{.*}}, %{{.*}}, %{{.*}}, %[[P]], %{{[a-z0-9]+}} {fully_masked = #dshard.fully_masked<uniform>, part
// CHECK-SAME: tensor<2x5xi1>, tensor<1x4x5x5xf64>)
// CHECK-NEXT: return
func.func @bias_in_mask(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}, %keep: tensor<2x1x1x5xi1> {dshard.name = "keep"}, %bias: tensor<1x4x5x5xf64> {dshard.name = "bias"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %qk = dshard.matmul %q, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %s = dshard.mul %qk, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %mask = dshard.select %keep, %bias, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi1>, tensor<1x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %m = dshard.add %mask, %s {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %m {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// MPNet: added one after the other; the bias is not repeated for each batch.
// CHECK-LABEL: func.func @bias_and_mask(
// CHECK-NOT: dshard.broadcast_to
// CHECK: dshard.attention %{{.*}}, tensor<2x5xi1>, tensor<1x4x5x5xf64>)
// CHECK-NEXT: return
func.func @bias_and_mask(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}, %keep: tensor<2x1x1x5xi1> {dshard.name = "keep"}, %bias: tensor<1x4x5x5xf64> {dshard.name = "bias"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %qk = dshard.matmul %q, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %s = dshard.mul %qk, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<0xFFF0000000000000> : tensor<f64>
  %wide = dshard.broadcast_to %bias {path = "attn", part = #dshard.part<forward>} : (tensor<1x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %b = dshard.add %s, %wide {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %mask = dshard.select %keep, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi1>, tensor<f64>, tensor<f64>) -> tensor<2x1x1x5xf64>
  %m = dshard.add %b, %mask {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x1x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %m {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// BLOOM: batch and heads are one dim around the products.
// CHECK-LABEL: func.func @alibi(
// CHECK: dshard.attention %arg0, %arg1, %arg2, %{{[a-z0-9]+}} {{.*}}, tensor<2x4x1x5xf64>)
// CHECK-NOT: dshard.matmul
func.func @alibi(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}, %bias: tensor<2x4x5xf64> {dshard.name = "bias"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %q3 = dshard.reshape %q {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %k3 = dshard.reshape %k {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %v3 = dshard.reshape %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %kt = dshard.transpose %k3 {permutation = array<i64: 0, 2, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>) -> tensor<8x8x5xf64>
  %qk = dshard.matmul %q3, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>, tensor<8x8x5xf64>) -> tensor<8x5x5xf64>
  %s = dshard.mul %qk, %c {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>, tensor<f64>) -> tensor<8x5x5xf64>
  %a3 = dshard.reshape %bias {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5xf64>) -> tensor<8x1x5xf64>
  %b = dshard.add %s, %a3 {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>, tensor<8x1x5xf64>) -> tensor<8x5x5xf64>
  %s4 = dshard.reshape %b {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %s4 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %w3 = dshard.reshape %w {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<8x5x5xf64>
  %r3 = dshard.matmul %w3, %v3 {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>, tensor<8x5x8xf64>) -> tensor<8x5x8xf64>
  %r = dshard.reshape %r3 {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// DeBERTa: a bias of its own per batch, scaled with the scores, under a mask of queries and keys, which is -inf.
// CHECK-LABEL: func.func @replaced(
// CHECK: dshard.mul %{{.*}} : (tensor<2x4x5x5xf64>, tensor<f64>)
// CHECK: dshard.select
// CHECK-NEXT: dshard.add
// CHECK: dshard.attention {{.*}}{fully_masked = #dshard.fully_masked<uniform>, {{.*}}scale = 5.000000e-01 : f64}
// CHECK-NOT: dshard.matmul
func.func @replaced(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}, %bias: tensor<8x5x5xf64> {dshard.name = "bias"}, %hide: tensor<2x1x5x5xi1> {dshard.name = "hide"}) -> tensor<2x4x5x8xf64> {
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %two = dshard.constant dense<2.0> : tensor<f64>
  %q3 = dshard.reshape %q {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %k3 = dshard.reshape %k {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %v3 = dshard.reshape %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %kt = dshard.transpose %k3 {permutation = array<i64: 0, 2, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>) -> tensor<8x8x5xf64>
  %qk = dshard.matmul %q3, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>, tensor<8x8x5xf64>) -> tensor<8x5x5xf64>
  %b = dshard.add %qk, %bias {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>, tensor<8x5x5xf64>) -> tensor<8x5x5xf64>
  %d = dshard.div %b, %two {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>, tensor<f64>) -> tensor<8x5x5xf64>
  %s4 = dshard.reshape %d {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>) -> tensor<2x4x5x5xf64>
  %n = dshard.select %hide, %away, %s4 {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xi1>, tensor<f64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %n {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %w3 = dshard.reshape %w {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<8x5x5xf64>
  // expected-remark@+1 {{what hides keys is neither causal nor key padding; it is added to the scores as a bias}}
  %r3 = dshard.matmul %w3, %v3 {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x5xf64>, tensor<8x5x8xf64>) -> tensor<8x5x8xf64>
  %r = dshard.reshape %r3 {path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// One query after a cache: what the triangle of a trace hides is nothing.
// CHECK-LABEL: func.func @zeros(
// CHECK-NOT: dshard.add
// CHECK: dshard.attention %arg0, %arg1, %arg2 {part
func.func @zeros(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %qk = dshard.matmul %q, %kt {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %s = dshard.mul %qk, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %j = dshard.iota {dim = 3, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x1x1x5xi64>
  %five = dshard.constant dense<5> : tensor<i64>
  %far = dshard.compare %j, %five {predicate = #dshard.predicate<gt>, path = "attn", part = #dshard.part<forward>} : (tensor<1x1x1x5xi64>, tensor<i64>) -> tensor<1x1x1x5xi1>
  %fc = dshard.cast %far {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x1x5xi1>) -> tensor<1x1x1x5xf64>
  %n = dshard.mul %fc, %away {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x1x5xf64>, tensor<f64>) -> tensor<1x1x1x5xf64>
  %m = dshard.add %s, %n {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<1x1x1x5xf64>) -> tensor<2x4x5x5xf64>
  %w = dshard.softmax %m {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %w, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// Every second key.
// CHECK-LABEL: func.func @odd_mask(
// CHECK: dshard.select
// CHECK: dshard.attention {{.*}}{fully_masked = #dshard.fully_masked<uniform>, {{.*}}tensor<1x1x5x5xf64>)
func.func @odd_mask(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}) -> tensor<2x4x5x8xf64> {
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
  // expected-remark@+1 {{the mask is neither causal, nor a window, nor key padding (dshard.constant of tensor<5x5xi1>); it is added to the scores as a bias}}
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// Keys 2 i <= j: no offset and no window.
// CHECK-LABEL: func.func @skewed(
// CHECK: dshard.select
// CHECK: dshard.attention {{.*}}{fully_masked = #dshard.fully_masked<uniform>, {{.*}}tensor<1x1x5x5xf64>)
func.func @skewed(%q: tensor<2x4x5x8xf64> {dshard.name = "q"}, %k: tensor<2x4x5x8xf64> {dshard.name = "k"}, %v: tensor<2x4x5x8xf64> {dshard.name = "v"}) -> tensor<2x4x5x8xf64> {
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
  // expected-remark@+1 {{the mask is neither causal, nor a window, nor key padding (dshard.compare of tensor<5x5xi1>); it is added to the scores as a bias}}
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}
