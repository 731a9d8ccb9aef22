// A bias of the scores: as it prints, its rule, its value when it is decomposed, and the gradients' with it.
// RUN: dshard-opt %s -o %t.again.mlir
// RUN: dshard-opt %t.again.mlir | FileCheck %s
// RUN: dshard-opt %s --dshard-print-sharding-rules -o /dev/null 2>&1 | FileCheck %s --check-prefix=RULE
// RUN: dshard-opt %s --dshard-decompose -o %t.mlir
// RUN: %python -c "import numpy as np, sys; np.save(sys.argv[1], np.random.default_rng(1).random((2, 8)) < 0.5)" %t.p.npy
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --input p=%t.p.npy --rtol 1e-6

// The last operand, of 4 dims; those of size 1 have no factor.
// CHECK-LABEL: func.func @run
// CHECK: dshard.attention %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} {part = #dshard.part<forward>, path = "a", scale = 5.000000e-01 : f64} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<1x4x8x8xf32>)
// CHECK: dshard.attention_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} {part
// RULE: ([i, jk, l, n], [i, j, m, n], [i, j, m, o], [_, jk, l, m])->([i, jk, l, o], [i, jk, l])
// RULE: ([i, jk, l, n], [i, j, m, n], [i, j, m, o], [i, jk, l, o], [i, jk, l], [i, jk, l, o], [_, jk, l, m])->
// RULE: ([i, jk, l, n], [i, j, m, n], [i, j, m, o], [i, m], [i, _, _, m])->
// Dealt out, a rank needs all keys of its rows.
// RULE: ([i, jk, l, m], [i, j, l, m], [i, j, l, n], [i, jk, l, o])->{{.*}}o=8 gather
func.func @run(%q: tensor<2x4x8x6xf32> {dshard.name = "q"}, %k: tensor<2x2x8x6xf32> {dshard.name = "k"}, %v: tensor<2x2x8x4xf32> {dshard.name = "v"}, %p: tensor<2x8xi1> {dshard.name = "p"},
    %b: tensor<1x4x8x8xf32> {dshard.name = "b"}, %r: tensor<2x1x1x8xf32> {dshard.name = "r"}, %f: tensor<2x4x8x8xf32> {dshard.name = "f"}, %g: tensor<2x4x8x4xf32> {dshard.name = "g"})
    -> (tensor<2x4x8x4xf32>, tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8xf32>, tensor<2x4x8x4xf32>) {
  %0:2 = dshard.attention %q, %k, %v, %b {scale = 0.5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<1x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  %1:3 = dshard.attention_grad %q, %k, %v, %0#0, %0#1, %g, %b {scale = 0.5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8xf32>, tensor<2x4x8x4xf32>, tensor<1x4x8x8xf32>) -> (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>)
  %2:2 = dshard.attention %q, %k, %v, %p, %r {scale = 0.5 : f64, causal, softcap = 1.5 : f64, fully_masked = #dshard.fully_masked<uniform>, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<2x8xi1>, tensor<2x1x1x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  %3:2 = dshard.attention %q, %k, %v, %f {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 2 : i64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<2x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0, %1#0, %1#1, %1#2, %2#0, %2#1, %3#0 : tensor<2x4x8x4xf32>, tensor<2x4x8x6xf32>, tensor<2x2x8x6xf32>, tensor<2x2x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8xf32>, tensor<2x4x8x4xf32>
}
