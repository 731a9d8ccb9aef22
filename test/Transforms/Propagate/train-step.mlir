// A training step of a two-layer MLP in two micro-batches, written by hand, on storage that does
// not divide: gradients stay partial until after the loop, are padded with zeros, and end where
// their parameter is stored.
// DEFINE: %{mode} = parameters
// DEFINE: %{resolve} = --dshard-data-parallel --dshard-verify-annotated --dshard-fully-shard=mode=%{mode} --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved
// DEFINE: %{local} = --dshard-decompose-reshards --dshard-partition --canonicalize --dshard-fold-collectives --dshard-bucket-collectives --dshard-verify-local
// DEFINE: %{against} = dshard-interpret %s --random-inputs=2 --random-weights --scalar lr=0.5
//
// RUN: dshard-opt %s %{resolve} -o %t.resolved.mlir 2> /dev/null
// RUN: dshard-opt %t.resolved.mlir %{local} -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=RESOLVED < %t.resolved.mlir
// RUN: FileCheck %s --check-prefix=LOCAL < %t.local.mlir
// RUN: %{against} --against %t.resolved.mlir --against %t.local.mlir
//
// REDEFINE: %{mode} = optimizer
// RUN: dshard-opt %s %{resolve} -o %t.resolved.mlir 2> /dev/null
// RUN: dshard-opt %t.resolved.mlir %{local} -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=OPTIMIZER < %t.local.mlir
// RUN: %{against} --against %t.resolved.mlir --against %t.local.mlir
//
// REDEFINE: %{mode} = gradients
// RUN: dshard-opt %s %{resolve} -o %t.resolved.mlir 2> /dev/null
// RUN: dshard-opt %t.resolved.mlir %{local} -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=GRADIENTS < %t.local.mlir
// RUN: %{against} --against %t.resolved.mlir --against %t.local.mlir
//
// REDEFINE: %{mode} = none
// RUN: dshard-opt %s %{resolve} -o %t.resolved.mlir 2> /dev/null
// RUN: dshard-opt %t.resolved.mlir %{local} -o %t.local.mlir
// RUN: FileCheck %s --check-prefix=NONE < %t.local.mlir
// RUN: %{against} --against %t.resolved.mlir --against %t.local.mlir

// Parameter, moments and their new values are stored alike; 5 is padded to 6.
// RESOLVED-LABEL: func.func @train_step(
// RESOLVED-SAME: %arg5: tensor<6x3xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>
// RESOLVED-SAME: %arg8: tensor<6xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>, dshard.state = "b1.exp_avg"
// RESOLVED-SAME: -> ({{.*}}tensor<6xf32> {dshard.name = "b1.exp_avg", dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>, dshard.state = "b1.exp_avg"}
// Zeros, carried values and results are one partial value.
// RESOLVED: dshard.constant {dshard.shardings = [#dshard.sharding<[{} ], partial = {"dp_replicate", "dp_shard"}, kind = sum>]} dense<0.000000e+00> : tensor<5xf32>
// RESOLVED: %[[ALL:.*]]:4 = dshard.repeat 2 {{.*}}dshard.shardings = [#dshard.sharding<[], partial = {"dp_replicate", "dp_shard"}, kind = sum>, #dshard.sharding<[{}, {} ], partial = {"dp_replicate", "dp_shard"}, kind = sum>
// A parameter is gathered in the loop, to be free between uses.
// RESOLVED: dshard.reshard %arg3 to <[{}, {} ]> why "gather parameter w1" regather
// RESOLVED-NOT: dshard.reshard %{{[0-9]+}}
// RESOLVED: dshard.yield
// RESOLVED: dshard.reshard %[[ALL]]#0 to <[]> why "partial output of loss"
// RESOLVED: %[[PAD:.*]] = dshard.pad %[[ALL]]#3 {{.*}} : (tensor<5x3xf32>) -> tensor<6x3xf32>
// RESOLVED: dshard.reshard %[[PAD]] to <[{"dp_shard"}, {} ]> why "reduce gradient of w2"
// The squares go by shards; their sum is reduced once for all parameters.
// RESOLVED: dshard.mul {{.*}}path = "optimizer"} : (tensor<6xf32>, tensor<6xf32>) -> tensor<6xf32>
// RESOLVED-COUNT-1: why "partial output of optimizer"
// RESOLVED: dshard.adamw %arg4, {{.*}} -> (tensor<6xf32>, tensor<6xf32>, tensor<6xf32>)

// LOCAL: dshard.repeat
// LOCAL: dshard.all_gather %arg3, %arg4 dims [0, 0] over ["dp_shard"] why "gather parameters of layers.0: w1, b1"
// LOCAL-NOT: dshard.reduce_scatter
// LOCAL: dshard.yield
// Sums over dp_shard are scattered, then those of shards over dp_replicate.
// LOCAL: dshard.reduce_scatter sum {{.*}} over ["dp_shard"] why "reduce gradient of w2"
// LOCAL-NEXT: dshard.all_reduce sum {{.*}} over ["dp_replicate"] why "reduce gradient of w2"
// LOCAL: dshard.reduce_scatter sum {{.*}} dims [0, 0] over ["dp_shard"] why "reduce gradients of layers.0: b1, w1"
// LOCAL-NEXT: dshard.all_reduce sum {{.*}} over ["dp_replicate"] why "reduce gradients of layers.0: b1, w1"
// LOCAL: dshard.all_reduce sum {{.*}} over ["dp_shard"] why "partial output of optimizer"
// The gradient that is given out is cropped.
// LOCAL: dshard.adamw

// OPTIMIZER-NOT: dshard.reduce_scatter
// OPTIMIZER: dshard.all_reduce sum {{.*}} over ["dp_replicate", "dp_shard"] why "reduce gradients of layers.0: b1, w1"
// OPTIMIZER: dshard.all_gather {{.*}} over ["dp_shard"] why "gather updated parameters of layers.0: w1, b1"
// OPTIMIZER: dshard.all_gather {{.*}} over ["dp_shard"] why "gather updated parameter w2"
// OPTIMIZER: dshard.slice {{.*}} : (tensor<6x3xf32>) -> tensor<5x3xf32>

// Gathered once, before the loop.
// GRADIENTS: dshard.all_gather %arg3, %arg4 {{.*}}why "gather parameters of layers.0: w1, b1"
// GRADIENTS: dshard.all_gather %arg5 {{.*}}why "gather parameter w2"
// GRADIENTS: dshard.repeat
// GRADIENTS-NOT: why "gather parameter

// NONE-NOT: dshard.reduce_scatter
// NONE-NOT: dshard.all_gather
// NONE: dshard.all_reduce sum {{.*}} over ["dp_replicate", "dp_shard"] why "reduce gradients of layers.0: b1, w1"
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "dp_shard"=2>} {
func.func @train_step(
    %x: tensor<8x6xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
    %t: tensor<8x3xf32> {dshard.name = "t", dshard.role = #dshard.role<input>},
    %lr: tensor<f32> {dshard.name = "lr", dshard.scalar = "lr", dshard.role = #dshard.role<input>},
    %w1: tensor<6x5xf32> {dshard.name = "w1", dshard.role = #dshard.role<param>, dshard.state = "w1", dshard.weight = #dshard.weight<"w1", "w.bin", offset = 0, length = 120, type = tensor<6x5xf32>, fan_in = 6>},
    %b1: tensor<5xf32> {dshard.name = "b1", dshard.role = #dshard.role<param>, dshard.state = "b1", dshard.weight = #dshard.weight<"b1", "w.bin", offset = 0, length = 20, type = tensor<5xf32>, fan_in = 5>},
    %w2: tensor<5x3xf32> {dshard.name = "w2", dshard.role = #dshard.role<param>, dshard.state = "w2", dshard.weight = #dshard.weight<"w2", "w.bin", offset = 0, length = 60, type = tensor<5x3xf32>, fan_in = 5>},
    %w1_exp_avg: tensor<6x5xf32> {dshard.name = "w1.exp_avg", dshard.role = #dshard.role<optimizer_state>, dshard.state = "w1.exp_avg", dshard.state_of = "w1"},
    %w1_exp_avg_sq: tensor<6x5xf32> {dshard.name = "w1.exp_avg_sq", dshard.role = #dshard.role<optimizer_state>, dshard.state = "w1.exp_avg_sq", dshard.state_of = "w1"},
    %b1_exp_avg: tensor<5xf32> {dshard.name = "b1.exp_avg", dshard.role = #dshard.role<optimizer_state>, dshard.state = "b1.exp_avg", dshard.state_of = "b1"},
    %b1_exp_avg_sq: tensor<5xf32> {dshard.name = "b1.exp_avg_sq", dshard.role = #dshard.role<optimizer_state>, dshard.state = "b1.exp_avg_sq", dshard.state_of = "b1"},
    %w2_exp_avg: tensor<5x3xf32> {dshard.name = "w2.exp_avg", dshard.role = #dshard.role<optimizer_state>, dshard.state = "w2.exp_avg", dshard.state_of = "w2"},
    %w2_exp_avg_sq: tensor<5x3xf32> {dshard.name = "w2.exp_avg_sq", dshard.role = #dshard.role<optimizer_state>, dshard.state = "w2.exp_avg_sq", dshard.state_of = "w2"})
    -> (tensor<f32> {dshard.name = "loss"},
        tensor<6x5xf32> {dshard.name = "w1.grad"},
        tensor<6x5xf32> {dshard.name = "w1", dshard.state = "w1"},
        tensor<6x5xf32> {dshard.name = "w1.exp_avg", dshard.state = "w1.exp_avg"},
        tensor<6x5xf32> {dshard.name = "w1.exp_avg_sq", dshard.state = "w1.exp_avg_sq"},
        tensor<5xf32> {dshard.name = "b1.grad"},
        tensor<5xf32> {dshard.name = "b1", dshard.state = "b1"},
        tensor<5xf32> {dshard.name = "b1.exp_avg", dshard.state = "b1.exp_avg"},
        tensor<5xf32> {dshard.name = "b1.exp_avg_sq", dshard.state = "b1.exp_avg_sq"},
        tensor<5x3xf32> {dshard.name = "w2.grad"},
        tensor<5x3xf32> {dshard.name = "w2", dshard.state = "w2"},
        tensor<5x3xf32> {dshard.name = "w2.exp_avg", dshard.state = "w2.exp_avg"},
        tensor<5x3xf32> {dshard.name = "w2.exp_avg_sq", dshard.state = "w2.exp_avg_sq"}) {
  %zero = dshard.constant dense<0.0> : tensor<5xf32>
  %zero1 = dshard.constant dense<0.0> : tensor<6x5xf32>
  %zero2 = dshard.constant dense<0.0> : tensor<5x3xf32>
  %zero0 = dshard.constant dense<0.0> : tensor<f32>
  %all:4 = dshard.repeat 2 init(%zero0, %zero1, %zero, %zero2) {path = "", part = #dshard.part<forward>} : (tensor<f32>, tensor<6x5xf32>, tensor<5xf32>, tensor<5x3xf32>) -> (tensor<f32>, tensor<6x5xf32>, tensor<5xf32>, tensor<5x3xf32>) {
  ^bb0(%i: tensor<i64>, %loss_sum: tensor<f32>, %a1: tensor<6x5xf32>, %a2: tensor<5xf32>, %a3: tensor<5x3xf32>):
    %xs = dshard.reshape %x {path = "", part = #dshard.part<forward>} : (tensor<8x6xf32>) -> tensor<4x2x6xf32>
    %xi = dshard.gather %xs, %i {dim = 1 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x2x6xf32>, tensor<i64>) -> tensor<4x6xf32>
    %ts = dshard.reshape %t {path = "", part = #dshard.part<forward>} : (tensor<8x3xf32>) -> tensor<4x2x3xf32>
    %ti = dshard.gather %ts, %i {dim = 1 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x2x3xf32>, tensor<i64>) -> tensor<4x3xf32>
    %h0 = dshard.matmul %xi, %w1 {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x6xf32>, tensor<6x5xf32>) -> tensor<4x5xf32>
    %h1 = dshard.add %h0, %b1 {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5xf32>) -> tensor<4x5xf32>
    %h = dshard.mul %h1, %h1 {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<4x5xf32>) -> tensor<4x5xf32>
    %y = dshard.matmul %h, %w2 {path = "layers.1", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5x3xf32>) -> tensor<4x3xf32>
    %d = dshard.sub %y, %ti {path = "loss", part = #dshard.part<forward>} : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
    %dd = dshard.mul %d, %d {path = "loss", part = #dshard.part<forward>} : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
    %l = dshard.reduce %dd {dims = array<i64: 0, 1>, kind = #dshard<reduction sum>, path = "loss", part = #dshard.part<forward>} : (tensor<4x3xf32>) -> tensor<f32>
    %l1 = dshard.add %loss_sum, %l {path = "loss", part = #dshard.part<forward>} : (tensor<f32>, tensor<f32>) -> tensor<f32>
    %dy = dshard.add %d, %d {path = "loss", part = #dshard.part<backward>} : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
    %dw2 = dshard.weight_grad %h, %dy {path = "layers.1", part = #dshard.part<backward>} : (tensor<4x5xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
    %dh = dshard.matmul %dy, %w2 {transpose_rhs, path = "layers.1", part = #dshard.part<backward>} : (tensor<4x3xf32>, tensor<5x3xf32>) -> tensor<4x5xf32>
    %dh2 = dshard.mul %dh, %h1 {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x5xf32>, tensor<4x5xf32>) -> tensor<4x5xf32>
    %dh1 = dshard.add %dh2, %dh2 {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x5xf32>, tensor<4x5xf32>) -> tensor<4x5xf32>
    %db1 = dshard.reduce %dh1 {dims = array<i64: 0>, kind = #dshard<reduction sum>, path = "layers.0", part = #dshard.part<backward>} : (tensor<4x5xf32>) -> tensor<5xf32>
    %dw1 = dshard.weight_grad %xi, %dh1 {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x6xf32>, tensor<4x5xf32>) -> tensor<6x5xf32>
    %s1 = dshard.add %a1, %dw1 {path = "layers.0", part = #dshard.part<backward>} : (tensor<6x5xf32>, tensor<6x5xf32>) -> tensor<6x5xf32>
    %s2 = dshard.add %db1, %a2 {path = "layers.0", part = #dshard.part<backward>} : (tensor<5xf32>, tensor<5xf32>) -> tensor<5xf32>
    %s3 = dshard.add %a3, %dw2 {path = "layers.1", part = #dshard.part<backward>} : (tensor<5x3xf32>, tensor<5x3xf32>) -> tensor<5x3xf32>
    dshard.yield %l1, %s1, %s2, %s3 : tensor<f32>, tensor<6x5xf32>, tensor<5xf32>, tensor<5x3xf32>
  }
  %one = dshard.constant dense<1.0> : tensor<f32>
  %yes = dshard.constant dense<true> : tensor<i1>
  %g_w1 = dshard.gradient %all#1 {of = "w1", path = "layers.0", part = #dshard.part<backward>} : (tensor<6x5xf32>) -> tensor<6x5xf32>
  %g_b1 = dshard.gradient %all#2 {of = "b1", path = "layers.0", part = #dshard.part<backward>} : (tensor<5xf32>) -> tensor<5xf32>
  %g_w2 = dshard.gradient %all#3 {of = "w2", path = "layers.1", part = #dshard.part<backward>} : (tensor<5x3xf32>) -> tensor<5x3xf32>
  %q_w1 = dshard.mul %g_w1, %g_w1 {path = "optimizer", part = #dshard.part<optimizer>} : (tensor<6x5xf32>, tensor<6x5xf32>) -> tensor<6x5xf32>
  %n_w1 = dshard.reduce %q_w1 {dims = array<i64: 0, 1>, kind = #dshard<reduction sum>, path = "optimizer", part = #dshard.part<optimizer>} : (tensor<6x5xf32>) -> tensor<f32>
  %q_b1 = dshard.mul %g_b1, %g_b1 {path = "optimizer", part = #dshard.part<optimizer>} : (tensor<5xf32>, tensor<5xf32>) -> tensor<5xf32>
  %n_b1 = dshard.reduce %q_b1 {dims = array<i64: 0>, kind = #dshard<reduction sum>, path = "optimizer", part = #dshard.part<optimizer>} : (tensor<5xf32>) -> tensor<f32>
  %q_w2 = dshard.mul %g_w2, %g_w2 {path = "optimizer", part = #dshard.part<optimizer>} : (tensor<5x3xf32>, tensor<5x3xf32>) -> tensor<5x3xf32>
  %n_w2 = dshard.reduce %q_w2 {dims = array<i64: 0, 1>, kind = #dshard<reduction sum>, path = "optimizer", part = #dshard.part<optimizer>} : (tensor<5x3xf32>) -> tensor<f32>
  %m1 = dshard.add %n_w1, %n_b1 {path = "optimizer", part = #dshard.part<optimizer>} : (tensor<f32>, tensor<f32>) -> tensor<f32>
  %m2 = dshard.add %m1, %n_w2 {path = "optimizer", part = #dshard.part<optimizer>} : (tensor<f32>, tensor<f32>) -> tensor<f32>
  %scale = dshard.rsqrt %m2 {path = "optimizer", part = #dshard.part<optimizer>} : (tensor<f32>) -> tensor<f32>
  %u_w1:3 = dshard.adamw %w1, %g_w1, %w1_exp_avg, %w1_exp_avg_sq, %lr, %one, %one, %scale, %yes {beta1 = 5.0e-1 : f64, beta2 = 7.5e-1 : f64, epsilon = 1.0 : f64, weight_decay = 1.25e-1 : f64, path = "optimizer", part = #dshard.part<optimizer>} : (tensor<6x5xf32>, tensor<6x5xf32>, tensor<6x5xf32>, tensor<6x5xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<6x5xf32>, tensor<6x5xf32>, tensor<6x5xf32>)
  %u_b1:3 = dshard.adamw %b1, %g_b1, %b1_exp_avg, %b1_exp_avg_sq, %lr, %one, %one, %scale, %yes {beta1 = 5.0e-1 : f64, beta2 = 7.5e-1 : f64, epsilon = 1.0 : f64, weight_decay = 1.25e-1 : f64, path = "optimizer", part = #dshard.part<optimizer>} : (tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<5xf32>, tensor<5xf32>, tensor<5xf32>)
  %u_w2:3 = dshard.adamw %w2, %g_w2, %w2_exp_avg, %w2_exp_avg_sq, %lr, %one, %one, %scale, %yes {beta1 = 5.0e-1 : f64, beta2 = 7.5e-1 : f64, epsilon = 1.0 : f64, weight_decay = 1.25e-1 : f64, path = "optimizer", part = #dshard.part<optimizer>} : (tensor<5x3xf32>, tensor<5x3xf32>, tensor<5x3xf32>, tensor<5x3xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<5x3xf32>, tensor<5x3xf32>, tensor<5x3xf32>)
  return %all#0, %g_w1, %u_w1#0, %u_w1#1, %u_w1#2, %g_b1, %u_b1#0, %u_b1#1, %u_b1#2, %g_w2, %u_w2#0, %u_w2#1, %u_w2#2 : tensor<f32>, tensor<6x5xf32>, tensor<6x5xf32>, tensor<6x5xf32>, tensor<6x5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5x3xf32>, tensor<5x3xf32>, tensor<5x3xf32>, tensor<5x3xf32>
}
}
