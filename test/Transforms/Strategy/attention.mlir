// The built-in plan is chosen and named. Two KV heads over tp=4: keys and values are
// sharded by the major sub-axis of size 2; over tp=2 by the whole axis; one KV head
// is replicated. The vocabulary of the table and of the head are sharded, too.
// RUN: sed 's/TP/4/' %s | dshard-opt --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefixes=CHECK,TP4
// RUN: sed 's/TP/2/' %s | dshard-opt --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefixes=CHECK,TP2
// RUN: sed 's/TP/1/' %s | dshard-opt --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefix=TP1
// RUN: sed 's/TP/3/' %s | not dshard-opt --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefix=TP3
// RUN: sed 's/TP/8/' %s | not dshard-opt --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefix=TP8

// CHECK: remark: using the built-in tensor-parallel plan 'llama': its keys match 6 of 10 modules
// TP1-NOT: {{remark|dshard.sharding}}
// TP3: error: model.layers.0.self_attn.q_proj: 4 heads are not divisible by tp=3
// TP8: error: model.layers.0.self_attn.q_proj: 4 heads are not divisible by tp=8

// CHECK: func.func @run
// CHECK-SAME: tensor<32x16xf32> {{{[^%]*}}model.embed_tokens = rowwise_rep{{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}
// CHECK-SAME: tensor<16x16xf32> {{{[^%]*}}q_proj = colwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}
// TP4-SAME: tensor<16x8xf32> {{{[^%]*}}k_proj = colwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {"tp":(1)2} ]>}
// TP4-SAME: tensor<16x8xf32> {{{[^%]*}}v_proj = colwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {"tp":(1)2} ]>}
// TP2-SAME: tensor<16x8xf32> {{{[^%]*}}k_proj = colwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}
// TP2-SAME: tensor<16x8xf32> {{{[^%]*}}v_proj = colwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}
// CHECK-SAME: tensor<16x16xf32> {{{[^%]*}}o_proj = rowwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}
// CHECK-SAME: tensor<32x16xf32> {{{[^%]*}}lm_head = colwise{{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}
// CHECK: dshard.gather {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {} ]>]
// TP4: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {"tp":(1)2} ]>]{{.*}}k_proj
// CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {"tp"} ]>]{{.*}}lm_head
module attributes {dshard.mesh = #dshard.mesh<"tp"=TP>} {
  func.func @run(%ids: tensor<2x8xi64>,
                 %table: tensor<32x16xf32> {dshard.role = #dshard.role<param>},
                 %q: tensor<16x16xf32> {dshard.role = #dshard.role<param>},
                 %k: tensor<16x8xf32> {dshard.role = #dshard.role<param>},
                 %v: tensor<16x8xf32> {dshard.role = #dshard.role<param>},
                 %o: tensor<16x16xf32> {dshard.role = #dshard.role<param>},
                 %head: tensor<32x16xf32> {dshard.role = #dshard.role<param>}) -> tensor<2x8x32xf32> {
    %x = dshard.gather %table, %ids {dim = 0 : i64, part = #dshard.part<forward>, path = "model.embed_tokens"} : (tensor<32x16xf32>, tensor<2x8xi64>) -> tensor<2x8x16xf32>
    %0 = dshard.matmul %x, %q {part = #dshard.part<forward>, path = "model.layers.0.self_attn.q_proj"} : (tensor<2x8x16xf32>, tensor<16x16xf32>) -> tensor<2x8x16xf32>
    %1 = dshard.matmul %x, %k {part = #dshard.part<forward>, path = "model.layers.0.self_attn.k_proj"} : (tensor<2x8x16xf32>, tensor<16x8xf32>) -> tensor<2x8x8xf32>
    %2 = dshard.matmul %x, %v {part = #dshard.part<forward>, path = "model.layers.0.self_attn.v_proj"} : (tensor<2x8x16xf32>, tensor<16x8xf32>) -> tensor<2x8x8xf32>
    %3 = dshard.reshape %0 {part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x16xf32>) -> tensor<2x8x4x4xf32>
    %4 = dshard.reshape %1 {part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x8xf32>) -> tensor<2x8x2x4xf32>
    %5 = dshard.reshape %2 {part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x8xf32>) -> tensor<2x8x2x4xf32>
    %6 = dshard.transpose %3 {permutation = array<i64: 0, 2, 1, 3>, part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x4x4xf32>) -> tensor<2x4x8x4xf32>
    %7 = dshard.transpose %4 {permutation = array<i64: 0, 2, 1, 3>, part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x2x4xf32>) -> tensor<2x2x8x4xf32>
    %8 = dshard.transpose %5 {permutation = array<i64: 0, 2, 1, 3>, part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x2x4xf32>) -> tensor<2x2x8x4xf32>
    %9, %lse = dshard.attention %6, %7, %8 {scale = 0.5 : f64, causal, part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x4x8x4xf32>, tensor<2x2x8x4xf32>, tensor<2x2x8x4xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
    %10 = dshard.transpose %9 {permutation = array<i64: 0, 2, 1, 3>, part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x4x8x4xf32>) -> tensor<2x8x4x4xf32>
    %11 = dshard.reshape %10 {part = #dshard.part<forward>, path = "model.layers.0.self_attn"} : (tensor<2x8x4x4xf32>) -> tensor<2x8x16xf32>
    %12 = dshard.matmul %11, %o {part = #dshard.part<forward>, path = "model.layers.0.self_attn.o_proj"} : (tensor<2x8x16xf32>, tensor<16x16xf32>) -> tensor<2x8x16xf32>
    %13 = dshard.matmul %12, %head {transpose_rhs, part = #dshard.part<forward>, path = "lm_head"} : (tensor<2x8x16xf32>, tensor<32x16xf32>) -> tensor<2x8x32xf32>
    return %13 : tensor<2x8x32xf32>
  }
}
