// Row-parallel outputs and vocabulary-parallel look-ups are sharded on the sequence over
// tp; nothing else is. The sequence dim is followed from the inputs by the ops' rules.
// RUN: dshard-opt %s --split-input-file --dshard-sequence-parallel | FileCheck %s -enable-var-scope

// CHECK-LABEL: func.func @block(
// CHECK: dshard.gather {{.*}}dshard.origin = #dshard.origin<"sequence parallel">, dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {?} ]>]
// CHECK: dshard.rms_norm %{{.*}} {epsilon
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {"tp"} ]>]
// CHECK: dshard.matmul {{.*}}dshard.origin = #dshard.origin<"plan: down = rowwise, sequence parallel">, dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {} ]>]
// CHECK: dshard.add %{{.*}}, %{{.*}} {part
// The plan wants this one whole.
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {}, {} ]>]
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @block(%ids: tensor<2x4xi64> {dshard.role = #dshard.role<input>},
    %table: tensor<8x6xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %norm: tensor<6xf32> {dshard.role = #dshard.role<param>},
    %up: tensor<6x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %down: tensor<6x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> (tensor<2x4x6xf32>, tensor<2x4x6xf32>) {
  %x = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<8x6xf32>, tensor<2x4xi64>) -> tensor<2x4x6xf32>
  %h = dshard.rms_norm %x, %norm {epsilon = 1.0e-6 : f64, path = "norm", part = #dshard.part<forward>} : (tensor<2x4x6xf32>, tensor<6xf32>) -> tensor<2x4x6xf32>
  %u = dshard.matmul %h, %up {path = "up", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{?}, {?}, {"tp"} ]>]} : (tensor<2x4x6xf32>, tensor<6x8xf32>) -> tensor<2x4x8xf32>
  %t = dshard.transpose %down {permutation = array<i64: 1, 0>, path = "down", part = #dshard.part<forward>} : (tensor<6x8xf32>) -> tensor<8x6xf32>
  %d = dshard.matmul %u, %t {path = "down", part = #dshard.part<forward>, dshard.origin = #dshard.origin<"plan: down = rowwise">, dshard.shardings = [#dshard.sharding<[{?}, {?}, {} ]>]} : (tensor<2x4x8xf32>, tensor<8x6xf32>) -> tensor<2x4x6xf32>
  %r = dshard.add %x, %d {path = "", part = #dshard.part<forward>} : (tensor<2x4x6xf32>, tensor<2x4x6xf32>) -> tensor<2x4x6xf32>
  %e = dshard.matmul %u, %t {path = "again", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{?}, {}, {} ]>]} : (tensor<2x4x8xf32>, tensor<8x6xf32>) -> tensor<2x4x6xf32>
  return %r, %e : tensor<2x4x6xf32>, tensor<2x4x6xf32>
}
}

// -----

// A float input whose dim 0 is called seq, through a transpose and a reshape.
// CHECK-LABEL: func.func @renamed(
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {?} ]>]
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @renamed(%x: tensor<4x3x8xf32> {dshard.dim_names = ["seq", "batch", ""]},
    %down: tensor<8x6xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<3x4x6xf32> {
  %t = dshard.transpose %x {permutation = array<i64: 1, 0, 2>, path = "", part = #dshard.part<forward>} : (tensor<4x3x8xf32>) -> tensor<3x4x8xf32>
  %s = dshard.reshape %t {path = "", part = #dshard.part<forward>} : (tensor<3x4x8xf32>) -> tensor<3x4x2x4xf32>
  %f = dshard.reshape %s {path = "", part = #dshard.part<forward>} : (tensor<3x4x2x4xf32>) -> tensor<3x4x8xf32>
  %d = dshard.matmul %f, %down {path = "down", part = #dshard.part<forward>} : (tensor<3x4x8xf32>, tensor<8x6xf32>) -> tensor<3x4x6xf32>
  return %d : tensor<3x4x6xf32>
}
}

// -----

// No input has a sequence: the attention's rows are one, also in front of it.
// CHECK-LABEL: func.func @patches(
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {?} ]>]{{.*}}path = "before"
// CHECK: dshard.attention
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {?} ]>]{{.*}}path = "after"
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @patches(%x: tensor<2x4x8xf32>,
    %down: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<2x4x8xf32> {
  %b = dshard.matmul %x, %down {path = "before", part = #dshard.part<forward>} : (tensor<2x4x8xf32>, tensor<8x8xf32>) -> tensor<2x4x8xf32>
  %s = dshard.reshape %b {path = "", part = #dshard.part<forward>} : (tensor<2x4x8xf32>) -> tensor<2x4x2x4xf32>
  %q = dshard.transpose %s {permutation = array<i64: 0, 2, 1, 3>, path = "", part = #dshard.part<forward>} : (tensor<2x4x2x4xf32>) -> tensor<2x2x4x4xf32>
  %a, %l = dshard.attention %q, %q, %q {path = "", part = #dshard.part<forward>, scale = 0.5 : f64} : (tensor<2x2x4x4xf32>, tensor<2x2x4x4xf32>, tensor<2x2x4x4xf32>) -> (tensor<2x2x4x4xf32>, tensor<2x2x4xf32>)
  %t = dshard.transpose %a {permutation = array<i64: 0, 2, 1, 3>, path = "", part = #dshard.part<forward>} : (tensor<2x2x4x4xf32>) -> tensor<2x4x2x4xf32>
  %m = dshard.reshape %t {path = "", part = #dshard.part<forward>} : (tensor<2x4x2x4xf32>) -> tensor<2x4x8xf32>
  %d = dshard.matmul %m, %down {path = "after", part = #dshard.part<forward>} : (tensor<2x4x8xf32>, tensor<8x8xf32>) -> tensor<2x4x8xf32>
  return %d : tensor<2x4x8xf32>
}
}

// -----

// Five rows on two ranks: padded from the product to the norm, cropped for what is no sum or norm.
// CHECK-LABEL: func.func @odd(
// CHECK: %[[D:.*]] = dshard.matmul {{.*}}path = "down"
// CHECK: %[[P:.*]] = dshard.pad %[[D]] {{{.*}}dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {?} ]>], high = array<i64: 0, 1, 0>
// CHECK: %[[X:.*]] = dshard.pad %{{.*}} {high = array<i64: 0, 1, 0>
// CHECK: %[[R:.*]] = dshard.add %[[P]], %[[X]] {{.*}} -> tensor<2x6x8xf32>
// CHECK: %[[N:.*]] = dshard.rms_norm %[[R]]
// CHECK: %[[C:.*]] = dshard.slice %[[N]] {{.*}} -> tensor<2x5x8xf32>
// CHECK: dshard.gelu %[[C]]
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @odd(%x: tensor<2x5x8xf32>, %norm: tensor<8xf32> {dshard.role = #dshard.role<param>},
    %down: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<2x5x8xf32> {
  %s = dshard.reshape %x {path = "", part = #dshard.part<forward>} : (tensor<2x5x8xf32>) -> tensor<2x5x2x4xf32>
  %q = dshard.transpose %s {permutation = array<i64: 0, 2, 1, 3>, path = "", part = #dshard.part<forward>} : (tensor<2x5x2x4xf32>) -> tensor<2x2x5x4xf32>
  %a, %l = dshard.attention %q, %q, %q {path = "", part = #dshard.part<forward>, scale = 0.5 : f64} : (tensor<2x2x5x4xf32>, tensor<2x2x5x4xf32>, tensor<2x2x5x4xf32>) -> (tensor<2x2x5x4xf32>, tensor<2x2x5xf32>)
  %t = dshard.transpose %a {permutation = array<i64: 0, 2, 1, 3>, path = "", part = #dshard.part<forward>} : (tensor<2x2x5x4xf32>) -> tensor<2x5x2x4xf32>
  %m = dshard.reshape %t {path = "", part = #dshard.part<forward>} : (tensor<2x5x2x4xf32>) -> tensor<2x5x8xf32>
  %d = dshard.matmul %m, %down {path = "down", part = #dshard.part<forward>} : (tensor<2x5x8xf32>, tensor<8x8xf32>) -> tensor<2x5x8xf32>
  %r = dshard.add %d, %x {path = "", part = #dshard.part<forward>} : (tensor<2x5x8xf32>, tensor<2x5x8xf32>) -> tensor<2x5x8xf32>
  %n = dshard.rms_norm %r, %norm {epsilon = 1.0e-6 : f64, path = "norm", part = #dshard.part<forward>} : (tensor<2x5x8xf32>, tensor<8xf32>) -> tensor<2x5x8xf32>
  %g = dshard.gelu %n {path = "", part = #dshard.part<forward>} : (tensor<2x5x8xf32>) -> tensor<2x5x8xf32>
  return %g : tensor<2x5x8xf32>
}
}
