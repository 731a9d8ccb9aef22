// Masks as transformers 4 builds them (optimum's files): inverted paddings, sums with a causal part.
// RUN: dshard-opt %s -dshard-raise-attention -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input padding=random:3 --entry inverted
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input padding=random:3 --entry hidden_sum
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input padding=random:3 --entry product
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input padding=random:3 --entry zeros

// where(bool(1 - mask), away, 1 - mask), the mask expanded to all queries.
// CHECK-LABEL: func.func @inverted
// CHECK: dshard.attention %arg0, %arg1, %arg2, %{{.*}} {fully_masked = #dshard.fully_masked<uniform>
// CHECK-NOT: dshard.softmax
func.func @inverted(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %padding: tensor<2x5xi64> {dshard.name = "padding"}) -> tensor<2x4x5x8xf64> {
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %n = dshard.reshape %padding {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
  %w = dshard.broadcast_to %n {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi64>) -> tensor<2x1x5x5xi64>
  %f = dshard.cast %w {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xi64>) -> tensor<2x1x5x5xf64>
  %u = dshard.sub %one, %f {path = "attn", part = #dshard.part<forward>} : (tensor<f64>, tensor<2x1x5x5xf64>) -> tensor<2x1x5x5xf64>
  %b = dshard.cast %u {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xf64>) -> tensor<2x1x5x5xi1>
  %m = dshard.select %b, %away, %u {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xi1>, tensor<f64>, tensor<2x1x5x5xf64>) -> tensor<2x1x5x5xf64>
  %s = dshard.matmul %q, %k {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x5xf64>
  %a0 = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %a0 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// where(causal + mask == 0, away, causal).
// CHECK-LABEL: func.func @hidden_sum
// CHECK: dshard.attention %arg0, %arg1, %arg2, %{{.*}} {causal, fully_masked = #dshard.fully_masked<uniform>
// CHECK-NOT: dshard.softmax
func.func @hidden_sum(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %padding: tensor<2x5xi64> {dshard.name = "padding"}) -> tensor<2x4x5x8xf64> {
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %c = dshard.constant dense<[[[[0.0, -3.4e38, -3.4e38, -3.4e38, -3.4e38], [0.0, 0.0, -3.4e38, -3.4e38, -3.4e38], [0.0, 0.0, 0.0, -3.4e38, -3.4e38], [0.0, 0.0, 0.0, 0.0, -3.4e38], [0.0, 0.0, 0.0, 0.0, 0.0]]]]> : tensor<1x1x5x5xf64>
  %n = dshard.reshape %padding {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
  %f = dshard.cast %n {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5xf64>
  %t = dshard.add %c, %f {path = "attn", part = #dshard.part<forward>} : (tensor<1x1x5x5xf64>, tensor<2x1x1x5xf64>) -> tensor<2x1x5x5xf64>
  %b = dshard.compare %t, %zero {predicate = #dshard.predicate<eq>, path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xf64>, tensor<f64>) -> tensor<2x1x5x5xi1>
  %m = dshard.select %b, %away, %c {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x5x5xi1>, tensor<f64>, tensor<1x1x5x5xf64>) -> tensor<2x1x5x5xf64>
  %s = dshard.matmul %q, %k {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x5xf64>
  %a0 = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %a0 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// A triangle above the diagonal, times what lies after positions that start at 2.
// CHECK-LABEL: func.func @product
// CHECK: dshard.attention %arg0, %arg1, %arg2 {causal, fully_masked = #dshard.fully_masked<uniform>, offset = 2
// CHECK-NOT: dshard.softmax
func.func @product(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %padding: tensor<2x5xi64> {dshard.name = "padding"}) -> tensor<2x4x5x8xf64> {
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %row = dshard.iota  {dim = 0, start = 1.0 : f64, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %pos = dshard.iota  {dim = 0, start = 2.0 : f64, path = "attn", part = #dshard.part<forward>} : () -> tensor<5x1xi64>
  %col = dshard.iota  {dim = 1, path = "attn", part = #dshard.part<forward>} : () -> tensor<1x5xi64>
  %tri = dshard.compare %col, %row {predicate = #dshard.predicate<ge>, path = "attn", part = #dshard.part<forward>} : (tensor<1x5xi64>, tensor<5x1xi64>) -> tensor<5x5xi1>
  %t = dshard.select %tri, %away, %zero {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>, tensor<f64>, tensor<f64>) -> tensor<5x5xf64>
  %gt = dshard.compare %col, %pos {predicate = #dshard.predicate<gt>, path = "attn", part = #dshard.part<forward>} : (tensor<1x5xi64>, tensor<5x1xi64>) -> tensor<5x5xi1>
  %g = dshard.cast %gt {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xi1>) -> tensor<5x5xf64>
  %m = dshard.mul %t, %g {path = "attn", part = #dshard.part<forward>} : (tensor<5x5xf64>, tensor<5x5xf64>) -> tensor<5x5xf64>
  %s = dshard.matmul %q, %k {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x5xf64>
  %a0 = dshard.add %s, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<5x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %a0 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}

// A bias of zeros beside the mask (cross attention of T5).
// CHECK-LABEL: func.func @zeros
// CHECK: dshard.attention %arg0, %arg1, %arg2, %{{.*}} {fully_masked = #dshard.fully_masked<uniform>
// CHECK-NOT: dshard.softmax
func.func @zeros(%q: tensor<2x4x5x8xf64>, %k: tensor<2x4x5x8xf64>, %v: tensor<2x4x5x8xf64>, %padding: tensor<2x5xi64> {dshard.name = "padding"}) -> tensor<2x4x5x8xf64> {
  %zero = dshard.constant dense<0.0> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %away = dshard.constant dense<-3.4e38> : tensor<f64>
  %none = dshard.constant dense<0.0> : tensor<1x4x5x5xf64>
  %n = dshard.reshape %padding {path = "attn", part = #dshard.part<forward>} : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
  %b = dshard.cast %n {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5xi1>
  %m = dshard.select %b, %zero, %away {path = "attn", part = #dshard.part<forward>} : (tensor<2x1x1x5xi1>, tensor<f64>, tensor<f64>) -> tensor<2x1x1x5xf64>
  %s = dshard.matmul %q, %k {transpose_rhs, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x8xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x5xf64>
  %a0 = dshard.add %s, %none {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<1x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %a1 = dshard.add %a0, %m {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x1x1x5xf64>) -> tensor<2x4x5x5xf64>
  %p = dshard.softmax %a1 {dim = 3, path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>) -> tensor<2x4x5x5xf64>
  %r = dshard.matmul %p, %v {path = "attn", part = #dshard.part<forward>} : (tensor<2x4x5x5xf64>, tensor<2x4x5x8xf64>) -> tensor<2x4x5x8xf64>
  return %r : tensor<2x4x5x8xf64>
}
