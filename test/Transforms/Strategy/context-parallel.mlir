// The sequence of every input is sharded over cp and lies in zigzag order inside. Ops that
// treat its elements alike follow; constants and what is computed from them are permuted;
// what reads positions gets the natural order back. The value stays the same.
// RUN: dshard-opt %s --dshard-context-parallel=layout=zigzag -o %t.mlir 2> %t.remarks
// RUN: FileCheck %s -enable-var-scope < %t.mlir
// RUN: FileCheck %s --check-prefix=REMARK < %t.remarks
// RUN: dshard-opt %t.mlir --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.local.mlir
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry positions
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry computed
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry whole
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry causal
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry cross
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry made
// RUN: dshard-interpret %s --against %t.mlir --against %t.local.mlir --random-inputs --entry unraised
// RUN: dshard-opt %s --dshard-context-parallel=layout=contiguous -o %t.contiguous.mlir
// RUN: FileCheck %s --check-prefix=CONTIGUOUS < %t.contiguous.mlir
// RUN: dshard-interpret %s --against %t.contiguous.mlir --random-inputs --entry whole
// RUN: dshard-interpret %s --against %t.contiguous.mlir --random-inputs --entry causal

module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {

// Inputs and results say their order; a constant table and a count are permuted.
// CHECK-LABEL: func.func @positions(
// CHECK-SAME: %[[X:.*]]: tensor<1x8x4xf32> {{[^%]*}}dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 1 : i64, dshard.origin = #dshard.origin<"context parallel: sequence dim 1">{{.*}}dshard.sharding = #dshard.sharding<[{}, {"cp"}, {} ]>
// CHECK-SAME: -> (tensor<1x8x4xf32> {dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 1 : i64})
// CHECK: dshard.constant dense<{{\[\[}}0.000000e+00], [1.000000e+00], [6.000000e+00], [7.000000e+00], [2.000000e+00], [3.000000e+00], [4.000000e+00], [5.000000e+00]]> : tensor<8x1xf32>
// CHECK: dshard.constant dense<[3.000000e+00, 3.500000e+00, 6.000000e+00, 6.500000e+00, 4.000000e+00, 4.500000e+00, 5.000000e+00, 5.500000e+00]> : tensor<8xf32>
// CHECK-NOT: dshard.reorder
// CHECK: return
// CONTIGUOUS-LABEL: func.func @positions(
// CONTIGUOUS-SAME: -> tensor<1x8x4xf32>
// CONTIGUOUS-NOT: dshard.reorder
// CONTIGUOUS-NOT: dshard.layout
func.func @positions(%x: tensor<1x8x4xf32> {dshard.dim_names = ["batch", "seq", ""], dshard.role = #dshard.role<input>}) -> tensor<1x8x4xf32> {
  %table = dshard.constant dense<[[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]]> : tensor<8x1xf32>
  %count = dshard.iota {dim = 0, start = 3.0 : f64, step = 0.5 : f64, path = "i", part = #dshard.part<forward>} : () -> tensor<8xf32>
  %column = dshard.reshape %count {path = "i", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8x1xf32>
  %0 = dshard.add %x, %table {path = "a", part = #dshard.part<forward>} : (tensor<1x8x4xf32>, tensor<8x1xf32>) -> tensor<1x8x4xf32>
  %1 = dshard.mul %0, %column {path = "b", part = #dshard.part<forward>} : (tensor<1x8x4xf32>, tensor<8x1xf32>) -> tensor<1x8x4xf32>
  return %1 : tensor<1x8x4xf32>
}

// What is computed from a count is computed from the permuted one; another value is reordered.
// CHECK-LABEL: func.func @computed(
// CHECK: dshard.reorder %arg1 {dim = 0 : i64, layout = #dshard.layout<zigzag>{{.*}}parts = 2
// CHECK: %[[C:.*]] = dshard.constant dense<[0, 1, 6, 7, 2, 3, 4, 5]> : tensor<8xi64>
// CHECK: %[[F:.*]] = dshard.cast %[[C]]
// CHECK: dshard.cos %[[F]]
func.func @computed(%x: tensor<2x8xf32> {dshard.dim_names = ["batch", "seq"], dshard.role = #dshard.role<input>}, %w: tensor<8xf32> {dshard.role = #dshard.role<param>}) -> tensor<2x8xf32> {
  %count = dshard.iota {dim = 0, path = "i", part = #dshard.part<forward>} : () -> tensor<8xi64>
  %float = dshard.cast %count {path = "i", part = #dshard.part<forward>} : (tensor<8xi64>) -> tensor<8xf32>
  %cos = dshard.cos %float {path = "i", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %0 = dshard.mul %x, %cos {path = "a", part = #dshard.part<forward>} : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
  %1 = dshard.mul %0, %w {path = "b", part = #dshard.part<forward>} : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
  return %1 : tensor<2x8xf32>
}

// What an op makes along the dim (a part, more of it, sums by position) has an order of its
// own, and is reordered; what it repeats has none.
// CHECK-LABEL: func.func @made(
// CHECK: dshard.reorder %{{.*}} {dim = 0
// CHECK: dshard.reorder %{{.*}} {dim = 0
// CHECK: dshard.reorder %{{.*}} {dim = 0
// CHECK: dshard.reorder %{{.*}} {dim = 0
// CHECK-NOT: dshard.reorder
// CHECK: return
func.func @made(%x: tensor<8x4xf32> {dshard.dim_names = ["seq", ""], dshard.role = #dshard.role<input>}, %w: tensor<12x4xf32> {dshard.role = #dshard.role<param>}, %u: tensor<5x4xf32> {dshard.role = #dshard.role<param>}, %b: tensor<1x4xf32> {dshard.role = #dshard.role<param>}) -> tensor<8x4xf32> {
  %index = dshard.constant dense<[5, 2, 0, 7, 5]> : tensor<5xi64>
  %0 = dshard.slice %w {starts = array<i64: 2, 0>, strides = array<i64: 1, 1>, path = "s", part = #dshard.part<forward>} : (tensor<12x4xf32>) -> tensor<8x4xf32>
  %1 = dshard.pad %u {low = array<i64: 1, 0>, high = array<i64: 2, 0>, value = 0.5 : f64, path = "p", part = #dshard.part<forward>} : (tensor<5x4xf32>) -> tensor<8x4xf32>
  %2 = dshard.scatter_add %index, %u {dim = 0, path = "a", part = #dshard.part<forward>} : (tensor<5xi64>, tensor<5x4xf32>) -> tensor<8x4xf32>
  %3 = dshard.concat %b, %u, %b, %b {dim = 0, path = "c", part = #dshard.part<forward>} : (tensor<1x4xf32>, tensor<5x4xf32>, tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<8x4xf32>
  %4 = dshard.broadcast_to %b {path = "r", part = #dshard.part<forward>} : (tensor<1x4xf32>) -> tensor<8x4xf32>
  %5 = dshard.add %x, %0 {path = "x", part = #dshard.part<forward>} : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %6 = dshard.mul %5, %1 {path = "x", part = #dshard.part<forward>} : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %7 = dshard.add %6, %2 {path = "x", part = #dshard.part<forward>} : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %8 = dshard.add %7, %3 {path = "x", part = #dshard.part<forward>} : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %9 = dshard.add %8, %4 {path = "x", part = #dshard.part<forward>} : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  return %9 : tensor<8x4xf32>
}

// A slice, a concatenation, a look-up by position, a merge with another dim: each gets the
// natural order; a softmax and a sum over the dim do not care.
// CHECK-LABEL: func.func @whole(
// CHECK: %[[N:.*]] = dshard.reorder %{{.*}} {dim = 1 : i64, inverse, layout
// CHECK: dshard.slice %[[N]]
// CHECK: dshard.gather %[[N]]
// CHECK: dshard.concat %[[N]], %[[N]]
// CHECK: dshard.reshape %[[N]]
// CHECK: dshard.softmax %arg0
// CHECK: dshard.reduce %arg0
// CONTIGUOUS-LABEL: func.func @whole(
// CONTIGUOUS-NOT: dshard.reorder
// CONTIGUOUS-LABEL: func.func @causal(
// REMARK: remark: needs the sequence dim 1 of 'tensor<2x8x4xf32>' whole and in its own order: it is gathered from all cp=2 ranks
func.func @whole(%x: tensor<2x8x4xf32> {dshard.dim_names = ["batch", "seq", ""], dshard.role = #dshard.role<input>}) -> (tensor<2x1x4xf32>, tensor<2x2x4xf32>, tensor<2x16x4xf32>, tensor<16x4xf32>, tensor<2x8x4xf32>, tensor<2x4xf32>) {
  %index = dshard.constant dense<[5, 2]> : tensor<2xi64>
  %0 = dshard.slice %x {starts = array<i64: 0, 7, 0>, strides = array<i64: 1, 1, 1>, path = "last", part = #dshard.part<forward>} : (tensor<2x8x4xf32>) -> tensor<2x1x4xf32>
  %1 = dshard.gather %x, %index {dim = 1, path = "pick", part = #dshard.part<forward>} : (tensor<2x8x4xf32>, tensor<2xi64>) -> tensor<2x2x4xf32>
  %2 = dshard.concat %x, %x {dim = 1, path = "twice", part = #dshard.part<forward>} : (tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> tensor<2x16x4xf32>
  %3 = dshard.reshape %x {path = "merge", part = #dshard.part<forward>} : (tensor<2x8x4xf32>) -> tensor<16x4xf32>
  %4 = dshard.softmax %x {dim = 1, path = "scores", part = #dshard.part<forward>} : (tensor<2x8x4xf32>) -> tensor<2x8x4xf32>
  %5 = dshard.reduce %x {kind = #dshard<reduction sum>, dims = array<i64: 1>, path = "pool", part = #dshard.part<forward>} : (tensor<2x8x4xf32>) -> tensor<2x4xf32>
  return %0, %1, %2, %3, %4, %5 : tensor<2x1x4xf32>, tensor<2x2x4xf32>, tensor<2x16x4xf32>, tensor<16x4xf32>, tensor<2x8x4xf32>, tensor<2x4xf32>
}

// Self-attention follows, and says how.
// CHECK-LABEL: func.func @causal(
// CHECK: dshard.attention {{.*}}causal{{.*}}dshard.cp_method = "ring"{{.*}}layout = #dshard.layout<zigzag>{{.*}}parts = 2
// CONTIGUOUS: dshard.attention {{.*}}causal{{.*}}dshard.cp_method = "ring"{{.*}}parts = 2
func.func @causal(%q: tensor<1x2x8x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>},
                  %k: tensor<1x1x8x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>},
                  %v: tensor<1x1x8x3xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>},
                  %keys: tensor<1x8xi1>) -> (tensor<1x2x8x3xf32>, tensor<1x2x8xf32>) {
  %0:2 = dshard.attention %q, %k, %v, %keys {scale = 0.5 : f64, causal, path = "a", part = #dshard.part<forward>} : (tensor<1x2x8x4xf32>, tensor<1x1x8x4xf32>, tensor<1x1x8x3xf32>, tensor<1x8xi1>) -> (tensor<1x2x8x3xf32>, tensor<1x2x8xf32>)
  return %0#0, %0#1 : tensor<1x2x8x3xf32>, tensor<1x2x8xf32>
}

// Attention that was not raised: both dims of the scores follow, and the mask.
// CHECK-LABEL: func.func @unraised(
// CHECK-NOT: dshard.reorder
// CHECK: return
func.func @unraised(%q: tensor<2x8x4xf32> {dshard.dim_names = ["batch", "seq", ""], dshard.role = #dshard.role<input>},
                    %keys: tensor<2x8xi1> {dshard.dim_names = ["batch", "seq"], dshard.role = #dshard.role<input>}) -> tensor<2x8x4xf32> {
  %count = dshard.iota {dim = 0, path = "m", part = #dshard.part<forward>} : () -> tensor<8xi64>
  %row = dshard.reshape %count {path = "m", part = #dshard.part<forward>} : (tensor<8xi64>) -> tensor<8x1xi64>
  %column = dshard.reshape %count {path = "m", part = #dshard.part<forward>} : (tensor<8xi64>) -> tensor<1x8xi64>
  %before = dshard.compare %column, %row {predicate = #dshard.predicate<le>, path = "m", part = #dshard.part<forward>} : (tensor<1x8xi64>, tensor<8x1xi64>) -> tensor<8x8xi1>
  %padding = dshard.reshape %keys {path = "m", part = #dshard.part<forward>} : (tensor<2x8xi1>) -> tensor<2x1x8xi1>
  %mask = dshard.and %before, %padding {path = "m", part = #dshard.part<forward>} : (tensor<8x8xi1>, tensor<2x1x8xi1>) -> tensor<2x8x8xi1>
  %low = dshard.constant dense<-100.0> : tensor<f32>
  %scores = dshard.matmul %q, %q {transpose_rhs, path = "a", part = #dshard.part<forward>} : (tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> tensor<2x8x8xf32>
  %masked = dshard.select %mask, %scores, %low {path = "a", part = #dshard.part<forward>} : (tensor<2x8x8xi1>, tensor<2x8x8xf32>, tensor<f32>) -> tensor<2x8x8xf32>
  %weights = dshard.softmax %masked {dim = 2, path = "a", part = #dshard.part<forward>} : (tensor<2x8x8xf32>) -> tensor<2x8x8xf32>
  %out = dshard.matmul %weights, %q {path = "a", part = #dshard.part<forward>} : (tensor<2x8x8xf32>, tensor<2x8x4xf32>) -> tensor<2x8x4xf32>
  return %out : tensor<2x8x4xf32>
}

// Attention over another sequence: in any order without a causal mask, in natural order with one.
// CHECK-LABEL: func.func @cross(
// CHECK-NOT: dshard.reorder
// CHECK: dshard.attention %arg0, %arg1, %arg1 {dshard.shardings
// CHECK: dshard.reorder %arg0 {{.*}}inverse
// CHECK: dshard.reorder %arg1 {{.*}}inverse
// CHECK: dshard.attention {{.*}}causal
func.func @cross(%q: tensor<1x2x8x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>},
                 %k: tensor<1x1x12x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>}) -> (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) {
  %0:2 = dshard.attention %q, %k, %k {scale = 0.5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<1x2x8x4xf32>, tensor<1x1x12x4xf32>, tensor<1x1x12x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  %1:2 = dshard.attention %q, %k, %k {scale = 0.5 : f64, causal, path = "b", part = #dshard.part<forward>} : (tensor<1x2x8x4xf32>, tensor<1x1x12x4xf32>, tensor<1x1x12x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0, %1#0 : tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>
}
}
