// Attention as exporters write it, in its forms; the mask is taken apart.
// RUN: dshard-opt %s -dshard-raise-attention -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry torch
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input padding=random:3 --entry torch
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry no_mask
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry window
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry nothing_attended
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry guarded
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry chosen
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry softcap
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry constant_mask
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input keep=random:5 --entry traced

// torch.onnx of a grouped-query model: repeated KV heads, the transposed key through
// three dims, a mask of index grids and a look-up of the padding.
// CHECK-LABEL: func.func @torch
// CHECK: %[[P:.*]] = dshard.cast %arg3 {{.*}} : (tensor<2x5xi64>) -> tensor<2x5xi1>
// CHECK-NEXT: dshard.attention %arg0, %arg1, %arg2, %[[P]] {causal, fully_masked = #dshard.fully_masked<uniform>, part = #dshard.part<forward>, path = "attn", scale = 2.500000e-01 : f64}
// CHECK-SAME: (tensor<2x4x5x8xf64>, tensor<2x2x5x8xf64>, tensor<2x2x5x8xf64>, tensor<2x5xi1>) -> (tensor<2x4x5x8xf64>, tensor<2x4x5xf32>)
// CHECK-NEXT: return
func.func @torch(%q: tensor<2x4x5x8xf64>, %k: tensor<2x2x5x8xf64>, %v: tensor<2x2x5x8xf64>, %padding: tensor<2x5xi64> {dshard.name = "padding"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %true = dshard.constant dense<true> : tensor<i1>
  %keep = dshard.cast %padding {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi64>) -> tensor<2x5xi1>
  %count = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<5xi64>
  %batch = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<2xi64>
  %batch4 = dshard.reshape %batch {path = "attn", part = #dshard.part<forward>} : (tensor<2xi64>) -> tensor<2x1x1x1xi64>
  %row = dshard.reshape %count {path = "attn", part = #dshard.part<forward>} : (tensor<5xi64>) -> tensor<1x1x5x1xi64>
  %column = dshard.reshape %count {path = "attn", part = #dshard.part<forward>} : (tensor<5xi64>) -> tensor<1x1x1x5xi64>
  %le = dshard.compare %column, %row {predicate = #dshard.predicate<le>, path = "attn", part = #dshard.part<forward>} : (tensor<1x1x1x5xi64>, tensor<1x1x5x1xi64>) -> tensor<1x1x5x5xi1>
  %causal = dshard.and %true, %le {path = "attn", part = #dshard.part<forward>} : (tensor<i1>, tensor<1x1x5x5xi1>) -> tensor<1x1x5x5xi1>
  %b = dshard.broadcast_to %batch4 {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x1xi64>) -> tensor<2x1x1x5xi64>
  %b5 = dshard.reshape %b {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5x1xi64>
  %j = dshard.broadcast_to %column {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x1x5xi64>) -> tensor<2x1x1x5xi64>
  %j5 = dshard.reshape %j {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5x1xi64>
  %grid = dshard.concat %b5, %j5 {dim = 4, path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5x1xi64>, tensor<2x1x1x5x1xi64>) -> tensor<2x1x1x5x2xi64>
  %looked = dshard.gather_nd %keep, %grid {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi1>, tensor<2x1x1x5x2xi64>) -> tensor<2x1x1x5xi1>
  %mask = dshard.and %causal, %looked {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x5x5xi1>, tensor<2x1x1x5xi1>) -> tensor<2x1x5x5xi1>
  %k5 = dshard.reshape %k {path = "attn", part = #dshard.part<forward>} : (tensor<2x2x5x8xf64>) -> tensor<2x2x1x5x8xf64>
  %kr = dshard.broadcast_to %k5 {path = "attn", part = #dshard.part<forward>} : (tensor<2x2x1x5x8xf64>) -> tensor<2x2x2x5x8xf64>
  %k4 = dshard.reshape %kr {path = "attn", part = #dshard.part<forward>} : (tensor<2x2x2x5x8xf64>) -> tensor<2x4x5x8xf64>
  %v5 = dshard.reshape %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x2x5x8xf64>) -> tensor<2x2x1x5x8xf64>
  %vr = dshard.broadcast_to %v5 {path = "attn", part = #dshard.part<forward>} : (tensor<2x2x1x5x8xf64>) -> tensor<2x2x2x5x8xf64>
  %v4 = dshard.reshape %vr {path = "attn", part = #dshard.part<forward>} : (tensor<2x2x2x5x8xf64>) -> tensor<2x4x5x8xf64>
  %k3 = dshard.reshape %k4 {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<8x5x8xf64>
  %k3t = dshard.transpose %k3 {permutation = array<i64: 0, 2, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<8x5x8xf64>) -> tensor<8x8x5xf64>
  %kt = dshard.reshape %k3t {path = "attn", part = #dshard.part<forward>} : (tensor<8x8x5xf64>) -> tensor<2x4x8x5xf64>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<2x1x5x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %nan = dshard.is_nan %p {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xi1>
  %safe = dshard.select %nan, %zero, %p {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xi1>, tensor<f64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %safe, %v4 {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// No mask, the scale as a quotient of the scores, the key transposed by the product.
// CHECK-LABEL: func.func @no_mask
// CHECK-NEXT: dshard.attention %arg0, %arg1, %arg2 {part = #dshard.part<forward>, path = "attn", scale = 2.500000e-01 : f64}
// CHECK-NEXT: return
func.func @no_mask(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %four = dshard.constant dense<4.0> : tensor<f64>
  %s = dshard.matmul %q, %k {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x5xf64>
  %masked = dshard.div %s, %four {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// Key j with i - 3 < j <= i: a causal window of 3.
// CHECK-LABEL: func.func @window
// CHECK-NEXT: dshard.attention {{.*}}causal{{.*}}window = 3 : i64
// CHECK-NEXT: return
func.func @window(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %row = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %column = dshard.iota {dim = 1, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x5xi64>
  %three = dshard.constant dense<3> : tensor<i64>
  %le = dshard.compare %column, %row {predicate = #dshard.predicate<le>, path = "attn", part = #dshard.part<forward>} : (tensor<1x5xi64>, tensor<5x1xi64>) -> tensor<5x5xi1>
  %first = dshard.sub %row, %three {path = "attn", part = #dshard.part<forward>} : (tensor<5x1xi64>, tensor<i64>) -> tensor<5x1xi64>
  %gt = dshard.compare %column, %first {predicate = #dshard.predicate<gt>, path = "attn", part = #dshard.part<forward>} : (tensor<1x5xi64>, tensor<5x1xi64>) -> tensor<5x5xi1>
  %mask = dshard.and %le, %gt {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<5x5xi1>) -> tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// Key j < i: the first query attends nothing, and a finite number leaves it uniform.
// CHECK-LABEL: func.func @nothing_attended
// CHECK-NEXT: dshard.attention {{.*}}causal, fully_masked = #dshard.fully_masked<uniform>, offset = -1 : i64
// CHECK-NEXT: return
func.func @nothing_attended(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %row = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %column = dshard.iota {dim = 1, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x5xi64>
  %mask = dshard.compare %row, %column {predicate = #dshard.predicate<gt>, path = "attn", part = #dshard.part<forward>} : (tensor<5x1xi64>, tensor<1x5xi64>) -> tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// The same with -inf and a guard against not-a-number: zero, the default.
// CHECK-LABEL: func.func @guarded
// CHECK-NEXT: dshard.attention {{.*}}{causal, offset = -1 : i64
// CHECK-NEXT: return
func.func @guarded(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<0xFFF0000000000000> : tensor<f64>
  %row = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %column = dshard.iota {dim = 1, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x5xi64>
  %mask = dshard.compare %row, %column {predicate = #dshard.predicate<gt>, path = "attn", part = #dshard.part<forward>} : (tensor<5x1xi64>, tensor<1x5xi64>) -> tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %nan = dshard.is_nan %p {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xi1>
  %safe = dshard.select %nan, %zero, %p {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xi1>, tensor<f64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %safe, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// The mask chooses between scores and a number.
// CHECK-LABEL: func.func @chosen
// CHECK-NEXT: dshard.attention {{.*}}{causal, fully_masked = #dshard.fully_masked<uniform>, part
// CHECK-NEXT: return
func.func @chosen(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %row = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %column = dshard.iota {dim = 1, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x5xi64>
  %mask = dshard.compare %row, %column {predicate = #dshard.predicate<ge>, path = "attn", part = #dshard.part<forward>} : (tensor<5x1xi64>, tensor<1x5xi64>) -> tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %masked = dshard.select %mask, %s, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// Capped scores: 2 tanh(x / 2).
// CHECK-LABEL: func.func @softcap
// CHECK-NEXT: dshard.attention {{.*}}scale = 2.500000e-01 : f64, softcap = 2.000000e+00 : f64
// CHECK-NEXT: return
func.func @softcap(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %two = dshard.constant dense<2.0> : tensor<f64>
  %c = dshard.constant dense<0.5> : tensor<f64>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %small = dshard.div %s, %two {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %tanh = dshard.tanh %small {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %masked = dshard.mul %tanh, %two {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<f64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// A causal mask that is a constant.
// CHECK-LABEL: func.func @constant_mask
// CHECK-NEXT: dshard.attention {{.*}}{causal, fully_masked = #dshard.fully_masked<uniform>, part
// CHECK-NEXT: return
func.func @constant_mask(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %mask = dshard.constant dense<[[true, false, false, false, false], [true, true, false, false, false], [true, true, true, false, false], [true, true, true, true, false], [true, true, true, true, true]]> : tensor<5x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 1, 3, 2>, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// A TorchScript trace: a look-up in the flattened padding, -inf with a guard, the key
// transposed together with its heads.
// CHECK-LABEL: func.func @traced
// CHECK-NOT: dshard.gather
// CHECK: %[[K:.*]] = dshard.transpose %{{.*}}permutation = array<i64: 0, 1, 3, 2>}
// CHECK: %[[P:.*]] = dshard.reshape %{{.*}} -> tensor<2x5xi1>
// CHECK-NEXT: dshard.attention %arg0, %[[K]], %arg2, %[[P]] {part = #dshard.part<forward>, path = "attn", scale = 2.500000e-01 : f64}
// CHECK-NEXT: return
func.func @traced(%q: tensor<2x4x5x8xf64>, %k: tensor<2x5x4x8xf64>, %v: tensor<2x4x5x8xf64>, %keep: tensor<2x5xi1> {dshard.name = "keep"}) -> tensor<2x4x5x8xf64> {
  %c = dshard.constant dense<0.5> : tensor<f64>
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %away = dshard.constant dense<0xFFF0000000000000> : tensor<f64>
  %five = dshard.constant dense<5> : tensor<1xi64>
  %batch = dshard.iota {dim = 0, path = "attn", part = #dshard.part<forward>} : () -> tensor<2x1x1x1xi64>
  %column = dshard.iota {dim = 3, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x1x1x5xi64>
  %start = dshard.mul %batch, %five {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x1xi64>, tensor<1xi64>) -> tensor<2x1x1x1xi64>
  %index = dshard.add %column, %start {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x1x5xi64>, tensor<2x1x1x1xi64>) -> tensor<2x1x1x5xi64>
  %flat = dshard.reshape %keep {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi1>) -> tensor<10x1xi1>
  %looked = dshard.gather %flat, %index {dim = 0, path = "attn", part = #dshard.part<forward>} : (tensor<10x1xi1>, tensor<2x1x1x5xi64>) -> tensor<2x1x1x5x1xi1>
  %mask = dshard.reshape %looked {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5x1xi1>) -> tensor<2x1x1x5xi1>
  %qs = dshard.mul %q, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<f64>) -> tensor<2x4x5x8xf64>
  %kt = dshard.transpose %k {permutation = array<i64: 0, 2, 3, 1>, path = "attn", part = #dshard.part<forward>} : (tensor<2x5x4x8xf64>) -> tensor<2x4x8x5xf64>
  %ks = dshard.mul %kt, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x8x5xf64>, tensor<f64>) -> tensor<2x4x8x5xf64>
  %s = dshard.matmul %qs, %ks {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x8x5xf64>) -> tensor<2x4x5x5xf64>
  %m = dshard.select %mask, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi1>, tensor<f64>, tensor<f64>) -> tensor<2x1x1x5xf64>
  %masked = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x1x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %masked {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %nan = dshard.is_nan %p {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xi1>
  %safe = dshard.select %nan, %zero, %p {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xi1>, tensor<f64>, tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %safe, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}
