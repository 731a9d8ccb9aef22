// A Llama block on tp=2, embedding and head included: three sums (look-up, attention,
// MLP), logits stay sharded over the vocabulary.
// RUN: dshard-opt %s --dshard-verify-annotated --dshard-pad --dshard-propagate --dshard-insert-reshards --dshard-fully-shard --dshard-verify-partial --dshard-verify-resolved -o %t.resolved.mlir
// RUN: dshard-opt %t.resolved.mlir --dshard-split-pipeline --dshard-decompose-reshards --dshard-partition --canonicalize --dshard-fold-collectives --dshard-bucket-collectives --dshard-verify-local -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=LOCAL < %t.local.mlir
// RUN: dshard-interpret %s --against %t.resolved.mlir --random-inputs=3
// RUN: dshard-interpret %s --against %t.local.mlir --random-inputs=3 --ranks 2

// LOCAL-LABEL: func.func @run(
// LOCAL-SAME: -> (tensor<2x4x48xf32> {dshard.global = tensor<2x4x96xf32>, dshard.name = "logits", dshard.sharding = #dshard.sharding<[{}, {}, {"tp"} ]>})
// LOCAL-NOT: dshard.{{all_|reduce_scatter|local_slice}}
// LOCAL: dshard.all_reduce sum %{{.*}} over ["tp"] why "vocabulary-parallel output of model.embed_tokens"
// LOCAL-NOT: dshard.{{all_|reduce_scatter|local_slice}}
// LOCAL: dshard.attention {{.*}} : (tensor<2x4x4x8xf32>, tensor<2x1x4x8xf32>, tensor<2x1x4x8xf32>, tensor<2x4xi1>)
// LOCAL-NOT: dshard.{{all_|reduce_scatter|local_slice}}
// LOCAL: dshard.all_reduce sum %{{.*}} over ["tp"] why "row-parallel output of model.layers.0.self_attn.o_proj"
// LOCAL-NOT: dshard.{{all_|reduce_scatter|local_slice}}
// LOCAL: dshard.all_reduce sum %{{.*}} over ["tp"] why "row-parallel output of model.layers.0.mlp.down_proj"
// LOCAL-NOT: dshard.{{all_|reduce_scatter|local_slice}}

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(
    %ids: tensor<2x4xi64> {dshard.name = "ids", dshard.role = #dshard.role<input>},
    %mask: tensor<2x4xi1> {dshard.name = "mask", dshard.role = #dshard.role<input>},
    %table: tensor<96x64xf32> {dshard.name = "table", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %n1: tensor<64xf32> {dshard.name = "n1", dshard.role = #dshard.role<param>},
    %n2: tensor<64xf32> {dshard.name = "n2", dshard.role = #dshard.role<param>},
    %n3: tensor<64xf32> {dshard.name = "n3", dshard.role = #dshard.role<param>},
    %wq: tensor<64x64xf32> {dshard.name = "wq", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %wk: tensor<64x16xf32> {dshard.name = "wk", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %wv: tensor<64x16xf32> {dshard.name = "wv", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %wo: tensor<64x64xf32> {dshard.name = "wo", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %wg: tensor<64x128xf32> {dshard.name = "wg", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %wu: tensor<64x128xf32> {dshard.name = "wu", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %wd: tensor<128x64xf32> {dshard.name = "wd", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %wh: tensor<64x96xf32> {dshard.name = "wh", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>})
    -> (tensor<2x4x96xf32> {dshard.name = "logits"}) {
  %x = dshard.gather %table, %ids {dim = 0 : i64, path = "model.embed_tokens", part = #dshard.part<forward>} : (tensor<96x64xf32>, tensor<2x4xi64>) -> tensor<2x4x64xf32>
  %pos = dshard.iota {dim = 1 : i64, path = "model.rotary_emb", part = #dshard.part<forward>} : () -> tensor<1x4x4xf32>
  %freq = dshard.constant dense<[[[1.0, 0.5, 0.25, 0.125]]]> : tensor<1x1x4xf32>
  %angle = dshard.mul %pos, %freq {path = "model.rotary_emb", part = #dshard.part<forward>} : (tensor<1x4x4xf32>, tensor<1x1x4xf32>) -> tensor<1x4x4xf32>
  %cos = dshard.cos %angle {path = "model.rotary_emb", part = #dshard.part<forward>} : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %sin = dshard.sin %angle {path = "model.rotary_emb", part = #dshard.part<forward>} : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %h = dshard.rms_norm %x, %n1 {epsilon = 1.0e-6 : f64, path = "model.layers.0.input_layernorm", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64xf32>) -> tensor<2x4x64xf32>
  %q0 = dshard.matmul %h, %wq {path = "model.layers.0.self_attn.q_proj", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x64xf32>) -> tensor<2x4x64xf32>
  %q1 = dshard.reshape %q0 {path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x64xf32>) -> tensor<2x4x8x8xf32>
  %q2 = dshard.transpose %q1 {permutation = array<i64: 0, 2, 1, 3>, path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x8x8xf32>) -> tensor<2x8x4x8xf32>
  %q3 = dshard.rotary %q2, %cos, %sin {path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x8x4x8xf32>, tensor<1x4x4xf32>, tensor<1x4x4xf32>) -> tensor<2x8x4x8xf32>
  %k0 = dshard.matmul %h, %wk {path = "model.layers.0.self_attn.k_proj", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x16xf32>) -> tensor<2x4x16xf32>
  %k1 = dshard.reshape %k0 {path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x16xf32>) -> tensor<2x4x2x8xf32>
  %k2 = dshard.transpose %k1 {permutation = array<i64: 0, 2, 1, 3>, path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x2x8xf32>) -> tensor<2x2x4x8xf32>
  %k3 = dshard.rotary %k2, %cos, %sin {path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x2x4x8xf32>, tensor<1x4x4xf32>, tensor<1x4x4xf32>) -> tensor<2x2x4x8xf32>
  %v0 = dshard.matmul %h, %wv {path = "model.layers.0.self_attn.v_proj", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x16xf32>) -> tensor<2x4x16xf32>
  %v1 = dshard.reshape %v0 {path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x16xf32>) -> tensor<2x4x2x8xf32>
  %v2 = dshard.transpose %v1 {permutation = array<i64: 0, 2, 1, 3>, path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x2x8xf32>) -> tensor<2x2x4x8xf32>
  %a, %lse = dshard.attention %q3, %k3, %v2, %mask {causal, scale = 0.3535533905932738 : f64, path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x8x4x8xf32>, tensor<2x2x4x8xf32>, tensor<2x2x4x8xf32>, tensor<2x4xi1>) -> (tensor<2x8x4x8xf32>, tensor<2x8x4xf32>)
  %a1 = dshard.transpose %a {permutation = array<i64: 0, 2, 1, 3>, path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x8x4x8xf32>) -> tensor<2x4x8x8xf32>
  %a2 = dshard.reshape %a1 {path = "model.layers.0.self_attn", part = #dshard.part<forward>} : (tensor<2x4x8x8xf32>) -> tensor<2x4x64xf32>
  %o = dshard.matmul %a2, %wo {path = "model.layers.0.self_attn.o_proj", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x64xf32>) -> tensor<2x4x64xf32>
  %x1 = dshard.add %x, %o {path = "model.layers.0", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<2x4x64xf32>) -> tensor<2x4x64xf32>
  %h1 = dshard.rms_norm %x1, %n2 {epsilon = 1.0e-6 : f64, path = "model.layers.0.post_attention_layernorm", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64xf32>) -> tensor<2x4x64xf32>
  %g = dshard.matmul %h1, %wg {path = "model.layers.0.mlp.gate_proj", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x128xf32>) -> tensor<2x4x128xf32>
  %u = dshard.matmul %h1, %wu {path = "model.layers.0.mlp.up_proj", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x128xf32>) -> tensor<2x4x128xf32>
  %s = dshard.swiglu %g, %u {path = "model.layers.0.mlp", part = #dshard.part<forward>} : (tensor<2x4x128xf32>, tensor<2x4x128xf32>) -> tensor<2x4x128xf32>
  %d = dshard.matmul %s, %wd {path = "model.layers.0.mlp.down_proj", part = #dshard.part<forward>} : (tensor<2x4x128xf32>, tensor<128x64xf32>) -> tensor<2x4x64xf32>
  %x2 = dshard.add %x1, %d {path = "model.layers.0", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<2x4x64xf32>) -> tensor<2x4x64xf32>
  %h2 = dshard.rms_norm %x2, %n3 {epsilon = 1.0e-6 : f64, path = "model.norm", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64xf32>) -> tensor<2x4x64xf32>
  %logits = dshard.matmul %h2, %wh {path = "lm_head", part = #dshard.part<forward>} : (tensor<2x4x64xf32>, tensor<64x96xf32>) -> tensor<2x4x96xf32>
  return %logits : tensor<2x4x96xf32>
}
}
