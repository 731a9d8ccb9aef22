// The factor rule of every op family, as remarks.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics -dshard-print-sharding-rules

func.func @pointwise(%x: tensor<2x4xf32>, %b: tensor<4xf32>, %c: tensor<2x1xf32>, %s: tensor<f32>) {
  // expected-remark@+1 {{([i, j], [j])->([i, j]) {i=2, j=4} jointly linear}}
  %0 = dshard.add %x, %b : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // Dims of size 1 have no factor.
  // expected-remark@+1 {{([i, j], [i, _])->([i, j]) {i=2, j=4} linear 0, 1}}
  %1 = dshard.mul %x, %c : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  // expected-remark@+1 {{([i, j], [])->([i, j]) {i=2, j=4} linear 0}}
  %2 = dshard.div %x, %s : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  // expected-remark@+1 {{([i, j])->([i, j]) {i=2, j=4}}}
  %3 = dshard.exp %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @matmul(%x: tensor<2x8x4xf32>, %w: tensor<4x16xf32>, %wt: tensor<16x4xf32>, %b: tensor<1x4x16xf32>) {
  // expected-remark@+1 {{([i, j, l], [l, k])->([i, j, k]) {i=2, j=8, k=16, l=4 reduce sum} linear 0, 1}}
  %0 = dshard.matmul %x, %w : (tensor<2x8x4xf32>, tensor<4x16xf32>) -> tensor<2x8x16xf32>
  // expected-remark@+1 {{([i, j, l], [k, l])->([i, j, k]) {i=2, j=8, k=16, l=4 reduce sum} linear 0, 1}}
  %1 = dshard.matmul %x, %wt {transpose_rhs} : (tensor<2x8x4xf32>, tensor<16x4xf32>) -> tensor<2x8x16xf32>
  // expected-remark@+1 {{([i, j, l], [_, l, k])->([i, j, k])}}
  %2 = dshard.matmul %x, %b : (tensor<2x8x4xf32>, tensor<1x4x16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// What rounds to integers is not linear, nor a test for zero.
func.func @linear(%x: tensor<4xf32>, %i: tensor<4xi64>, %n: tensor<4xi32>) {
  // expected-remark@+1 {{([i])->([i]) {i=4} linear 0}}
  %0 = dshard.cast %x : (tensor<4xf32>) -> tensor<4xbf16>
  // expected-remark@+1 {{([i])->([i]) {i=4}}}
  %1 = dshard.cast %x : (tensor<4xf32>) -> tensor<4xi64>
  // expected-remark@+1 {{([i])->([i]) {i=4}}}
  %2 = dshard.cast %i : (tensor<4xi64>) -> tensor<4xi1>
  // expected-remark@+1 {{([i])->([i]) {i=4} linear 0}}
  %3 = dshard.cast %n : (tensor<4xi32>) -> tensor<4xi64>
  // expected-remark@+1 {{([i])->([i]) {i=4} linear 0}}
  %4 = dshard.cast %i : (tensor<4xi64>) -> tensor<4xf32>
  // expected-remark@+1 {{([i], [i])->([i]) {i=4}}}
  %5 = dshard.div %i, %i : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
  return
}

// -----

// The result of attention is linear in the value, the log-sum-exp is not.
// Query heads are KV heads times repetitions, so that a sharding of the heads
// reaches the KV heads.
func.func @attention(%q: tensor<2x8x5x16xf32>, %k: tensor<2x2x7x16xf32>, %v: tensor<2x2x7x12xf32>, %p: tensor<2x7xi1>, %t: tensor<1x5x8xf32>) {
  // expected-remark@+1 {{([i, jk, l, n], [i, j, m, n], [i, j, m, o], [i, m])->([i, jk, l, o], [i, jk, l]) {i=2, j=2, k=4, l=5, m=7 ring, n=16 gather, o=12 gather}}}
  %0:2 = dshard.attention %q, %k, %v, %p {scale = 0.25 : f64}
    : (tensor<2x8x5x16xf32>, tensor<2x2x7x16xf32>, tensor<2x2x7x12xf32>, tensor<2x7xi1>) -> (tensor<2x8x5x12xf32>, tensor<2x8x5xf32>)
  // Shards of a causal query sequence differ in their offset.
  // expected-remark@+1 {{l=5 ring, m=7 ring}}
  %1:2 = dshard.attention %q, %k, %v {scale = 0.25 : f64, causal}
    : (tensor<2x8x5x16xf32>, tensor<2x2x7x16xf32>, tensor<2x2x7x12xf32>) -> (tensor<2x8x5x12xf32>, tensor<2x8x5xf32>)
  // expected-remark@+1 {{([i, j, k, l], [_, k, m], [_, k, m])->([i, j, k, l]) {i=2, j=8, k=5, l=16 gather, m=8 gather} linear 0}}
  %2 = dshard.rotary %q, %t, %t : (tensor<2x8x5x16xf32>, tensor<1x5x8xf32>, tensor<1x5x8xf32>) -> tensor<2x8x5x16xf32>
  return
}

// -----

func.func @norms(%x: tensor<2x4xf32>, %w: tensor<4xf32>) {
  // expected-remark@+1 {{([i, j], [j])->([i, j]) {i=2, j=4 gather} linear 1}}
  %0 = dshard.rms_norm %x, %w {epsilon = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // expected-remark@+1 {{([i, j], [j], [j])->([i, j]) {i=2, j=4 gather}}}
  %1 = dshard.layer_norm %x, %w, %w {epsilon = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // expected-remark@+1 {{([i, j])->([i, j]) {i=2 gather, j=4}}}
  %2 = dshard.softmax %x {dim = 0} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @reduce(%x: tensor<2x4xf32>) {
  // expected-remark@+1 {{([i, j])->([i, _]) {i=2, j=4 reduce sum} linear 0}}
  %0 = dshard.reduce %x {kind = #dshard<reduction mean>, dims = array<i64: 1>, keep_dims} : (tensor<2x4xf32>) -> tensor<2x1xf32>
  // expected-remark@+1 {{([i, j])->([j]) {i=2 reduce max, j=4}}}
  %1 = dshard.reduce %x {kind = #dshard<reduction max>, dims = array<i64: 0>} : (tensor<2x4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @reshape(%x: tensor<2x5x32xf32>, %y: tensor<2x1x6x4xf32>, %z: tensor<6x4xf32>, %e: tensor<0x4xf32>) {
  // A dim that splits.
  // expected-remark@+1 {{([i, j, kl])->([i, j, k, l]) {i=2, j=5, k=4, l=8} linear 0}}
  %0 = dshard.reshape %x : (tensor<2x5x32xf32>) -> tensor<2x5x4x8xf32>
  // Dims that merge.
  // expected-remark@+1 {{([i, j, k])->([ij, k]) {i=2, j=5, k=32} linear 0}}
  %1 = dshard.reshape %x : (tensor<2x5x32xf32>) -> tensor<10x32xf32>
  // Dims of size 1 come and go.
  // expected-remark@+1 {{([i, _, j, k])->([_, i, j, _, k]) {i=2, j=6, k=4} linear 0}}
  %2 = dshard.reshape %y : (tensor<2x1x6x4xf32>) -> tensor<1x2x6x1x4xf32>
  // 6 and 4 share the major part 2; what is left fits nowhere.
  // expected-remark@+1 {{([ij, m])->([ik, l]) {i=2, j=3 gather, k=2 gather, l=6 gather, m=4 gather} linear 0}}
  %3 = dshard.reshape %z : (tensor<6x4xf32>) -> tensor<4x6xf32>
  // expected-remark@+1 {{([_, _])->([_, _]) {} linear 0}}
  %4 = dshard.reshape %e : (tensor<0x4xf32>) -> tensor<4x0xf32>
  return
}

// -----

func.func @layout(%x: tensor<2x4xf32>, %c: tensor<4xf32>) {
  // expected-remark@+1 {{()->([i]) {i=4}}}
  %0 = dshard.constant dense<1.0> : tensor<4xf32>
  // expected-remark@+1 {{([i, j])->([j, i]) {i=2, j=4} linear 0}}
  %1 = dshard.transpose %x {permutation = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<4x2xf32>
  // expected-remark@+1 {{([j])->([i, j]) {i=3, j=4} linear 0}}
  %2 = dshard.broadcast_to %c : (tensor<4xf32>) -> tensor<3x4xf32>
  // expected-remark@+1 {{([k, j], [l, j])->([i, j]) {i=5 gather, j=4, k=2 gather, l=3 gather} jointly linear}}
  %3 = dshard.concat %x, %2 {dim = 0} : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<5x4xf32>
  // expected-remark@+1 {{([i, j])->([i, k]) {i=5, j=4 gather, k=2 gather} linear 0}}
  %4 = dshard.slice %3 {starts = array<i64: 0, 1>, strides = array<i64: 1, 1>} : (tensor<5x4xf32>) -> tensor<5x2xf32>
  // expected-remark@+1 {{([i, j])->([i, k]) {i=2, j=4 gather, k=6 gather} linear 0}}
  %5 = dshard.pad %x {low = array<i64: 0, 0>, high = array<i64: 0, 2>, value = 0.0 : f64} : (tensor<2x4xf32>) -> tensor<2x6xf32>
  // Adding ones is not linear.
  // expected-remark@+1 {{([i, j])->([i, k]) {i=2, j=4 gather, k=6 gather}}}
  %6 = dshard.pad %x {low = array<i64: 0, 0>, high = array<i64: 0, 2>, value = 1.0 : f64} : (tensor<2x4xf32>) -> tensor<2x6xf32>
  return
}

// -----

func.func @indices(%table: tensor<10x4xf32>, %mask: tensor<10x4xi1>, %ids: tensor<2x3xi64>, %tuples: tensor<5x1xi64>) {
  // Sharding the looked-up dim leaves a partial result.
  // expected-remark@+1 {{([k, l], [i, j])->([i, j, l]) {i=2, j=3, k=10 reduce sum, l=4} linear 0}}
  %0 = dshard.gather %table, %ids {dim = 0} : (tensor<10x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
  // expected-remark@+1 {{k=10 gather}}
  %1 = dshard.gather %mask, %ids {dim = 0} : (tensor<10x4xi1>, tensor<2x3xi64>) -> tensor<2x3x4xi1>
  // expected-remark@+1 {{([k, l], [i, j])->([i, l]) {i=5, j=1 gather, k=10 gather, l=4} linear 0}}
  %2 = dshard.gather_nd %table, %tuples : (tensor<10x4xf32>, tensor<5x1xi64>) -> tensor<5x4xf32>
  // expected-remark@+1 {{()->([i, j]) {i=4, j=2}}}
  %3 = dshard.iota {dim = 0} : () -> tensor<4x2xi64>
  return
}

// -----

func.func @training(%x: tensor<2x8x4xf32>, %g: tensor<2x8x16xf32>, %i: tensor<2x8xi64>, %z: tensor<2x8xf32>, %s: tensor<f32>, %b: tensor<i1>, %w: tensor<3x4x5xf32>) {
  // Every leading dim may be sharded for itself.
  // expected-remark@+1 {{([i, j, k], [i, j, l])->([k, l]) {i=2 reduce sum, j=8 reduce sum, k=4, l=16} linear 0, 1}}
  %0 = dshard.weight_grad %x, %g : (tensor<2x8x4xf32>, tensor<2x8x16xf32>) -> tensor<4x16xf32>
  // Which matrix a row needs is data: any row may be anywhere, and any expert.
  // expected-remark@+1 {{([i, j, l], [k, l, m], [i, j])->([i, j, m]) {i=2, j=8, k=3 reduce sum, l=4 reduce sum, m=5} linear 0, 1}}
  %e = dshard.grouped_matmul %x, %w, %i : (tensor<2x8x4xf32>, tensor<3x4x5xf32>, tensor<2x8xi64>) -> tensor<2x8x5xf32>
  // expected-remark@+1 {{([i, j, l], [i, j, m], [i, j])->([k, l, m]) {i=2 reduce sum, j=8 reduce sum, k=3, l=4, m=16} linear 0, 1}}
  %d = dshard.grouped_weight_grad %x, %g, %i : (tensor<2x8x4xf32>, tensor<2x8x16xf32>, tensor<2x8xi64>) -> tensor<3x4x16xf32>
  // expected-remark@+1 {{([i, j], [i, j, l])->([k, l]) {i=2 reduce sum, j=8 reduce sum, k=32, l=16} linear 1}}
  %1 = dshard.scatter_add %i, %g {dim = 0 : i64} : (tensor<2x8xi64>, tensor<2x8x16xf32>) -> tensor<32x16xf32>
  // expected-remark@+1 {{([i, j, k])->([i, j, k]) {i=2, j=8 gather, k=4} linear 0}}
  %2 = dshard.reorder %x {dim = 1 : i64, layout = #dshard.layout<zigzag>, parts = 2 : i64} : (tensor<2x8x4xf32>) -> tensor<2x8x4xf32>
  // expected-remark@+1 {{([i, j, k], [i, j])->([i, j], [i, j]) {i=2, j=8, k=16 gather}}}
  %3:2 = dshard.cross_entropy %g, %i : (tensor<2x8x16xf32>, tensor<2x8xi64>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  // A pending sum ends in it.
  // expected-remark@+1 {{([i, j])->([i, j]) {i=2, j=8}}}
  %4 = dshard.gradient %z {of = "w"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  // expected-remark@+1 {{([i, j], [i, j], [i, j], [i, j], [], [], [], [], [])->([i, j], [i, j], [i, j]) {i=2, j=8}}}
  %5:3 = dshard.adamw %z, %z, %z, %z, %s, %s, %s, %s, %b {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.0 : f64} : (tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// The query heads of a group add to one KV head's gradient: k is in no dim of dk and dv.
func.func @attention_training(%q: tensor<2x4x8x6xf32>, %k: tensor<2x2x8x6xf32>, %v: tensor<2x2x8x3xf32>, %o: tensor<2x4x8x3xf32>, %l: tensor<2x4x8xf32>, %p: tensor<2x8xi1>, %n: tensor<i64>) {
  // expected-remark@+1 {{([i, jk, l, n], [i, j, m, n], [i, j, m, o], [i, jk, l, o], [i, jk, l], [i, jk, l, o], [i, m])->([i, jk, l, n], [i, j, m, n], [i, j, m, o]) {i=2, j=2, k=2, l=8 gather, m=8 gather, n=6 gather, o=3 gather} missing factors sum}}
  %0:3 = dshard.attention_grad %q, %k, %v, %o, %l, %o, %p {scale = 1.0 : f64} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x4x8x3xf32>, tensor<2x4x8xf32>, tensor<2x4x8x3xf32>, tensor<2x8xi1>) -> (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>)
  // expected-remark@+1 {{([i, jk, l, n], [i, j, m, n], [i, j, m, o], [i, m], [])->([i, jk, l, o], [i, jk, l]) {i=2, j=2, k=2, l=8 ring, m=8 ring, n=6 gather, o=3 gather}}}
  %1:2 = dshard.attention %q, %k, %v, %p, %n {scale = 1.0 : f64, causal} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x3xf32>, tensor<2x8xi1>, tensor<i64>) -> (tensor<2x4x8x3xf32>, tensor<2x4x8xf32>)
  return
}
