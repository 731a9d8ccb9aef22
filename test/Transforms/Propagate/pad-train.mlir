// A padded vocabulary in a training step: gradients get zeros for the padding, moments and updates
// grow with the parameter, what is given out is cropped.
// RUN: dshard-opt %s --dshard-pad --dshard-fully-shard --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved -o %t.resolved.mlir 2> /dev/null
// RUN: dshard-opt %s --dshard-pad 2> /dev/null | FileCheck %s
// RUN: dshard-opt %t.resolved.mlir --dshard-decompose-reshards --dshard-partition --canonicalize --dshard-fold-collectives --dshard-bucket-collectives --dshard-verify-local -o %t.local.mlir 2> /dev/null
// RUN: dshard-interpret %s --against %t.resolved.mlir --against %t.local.mlir --random-inputs=2 --random-weights --scalar lr=0.5

// CHECK-LABEL: func.func @train_step(
// CHECK-SAME: %arg3: tensor<8x4xf32>
// CHECK-SAME: %arg4: tensor<8x4xf32>
// CHECK-SAME: -> (tensor<3x2x7xf32> {dshard.name = "y"}, tensor<7x4xf32> {dshard.name = "table.grad"}, tensor<8x4xf32> {dshard.name = "table"
// CHECK: dshard.matmul {{.*}}transpose_rhs} : (tensor<3x2x4xf32>, tensor<8x4xf32>) -> tensor<3x2x8xf32>
// CHECK: %[[DY:.*]] = dshard.pad %arg1 {{.*}} : (tensor<3x2x7xf32>) -> tensor<3x2x8xf32>
// CHECK: dshard.matmul %[[DY]], %arg3 {{.*}} : (tensor<3x2x8xf32>, tensor<8x4xf32>) -> tensor<3x2x4xf32>
// CHECK: %[[SUM:.*]] = dshard.add {{.*}} -> tensor<7x4xf32>
// CHECK: %[[PAD:.*]] = dshard.pad %[[SUM]] {{.*}} -> tensor<8x4xf32>
// CHECK: %[[G:.*]] = dshard.gradient %[[PAD]]
// CHECK: dshard.adamw %arg3, %[[G]], {{.*}} -> (tensor<8x4xf32>, tensor<8x4xf32>, tensor<8x4xf32>)
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=3, "tp"=2>} {
func.func @train_step(%ids: tensor<3x2xi64> {dshard.name = "ids", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
    %dy: tensor<3x2x7xf32> {dshard.name = "dy", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {}, {} ]>},
    %lr: tensor<f32> {dshard.name = "lr", dshard.scalar = "lr", dshard.role = #dshard.role<input>},
    %table: tensor<7x4xf32> {dshard.role = #dshard.role<param>, dshard.state = "table", dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>,
                             dshard.weight = #dshard.weight<"table", "w.bin", offset = 0, length = 112, type = tensor<7x4xf32>, fan_in = 4>},
    %m: tensor<7x4xf32> {dshard.name = "table.exp_avg", dshard.role = #dshard.role<optimizer_state>, dshard.state = "table.exp_avg", dshard.state_of = "table"},
    %v: tensor<7x4xf32> {dshard.name = "table.exp_avg_sq", dshard.role = #dshard.role<optimizer_state>, dshard.state = "table.exp_avg_sq", dshard.state_of = "table"})
    -> (tensor<3x2x7xf32> {dshard.name = "y"}, tensor<7x4xf32> {dshard.name = "table.grad"}, tensor<7x4xf32> {dshard.name = "table", dshard.state = "table"},
        tensor<7x4xf32> {dshard.name = "table.exp_avg", dshard.state = "table.exp_avg"}, tensor<7x4xf32> {dshard.name = "table.exp_avg_sq", dshard.state = "table.exp_avg_sq"}) {
  %x = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<7x4xf32>, tensor<3x2xi64>) -> tensor<3x2x4xf32>
  %y = dshard.matmul %x, %table {transpose_rhs, path = "head", part = #dshard.part<forward>} : (tensor<3x2x4xf32>, tensor<7x4xf32>) -> tensor<3x2x7xf32>
  %dw = dshard.weight_grad %dy, %x {path = "head", part = #dshard.part<backward>} : (tensor<3x2x7xf32>, tensor<3x2x4xf32>) -> tensor<7x4xf32>
  %dx = dshard.matmul %dy, %table {path = "head", part = #dshard.part<backward>} : (tensor<3x2x7xf32>, tensor<7x4xf32>) -> tensor<3x2x4xf32>
  %de = dshard.scatter_add %ids, %dx {dim = 0 : i64, path = "embed", part = #dshard.part<backward>} : (tensor<3x2xi64>, tensor<3x2x4xf32>) -> tensor<7x4xf32>
  %sum = dshard.add %dw, %de {path = "embed", part = #dshard.part<backward>} : (tensor<7x4xf32>, tensor<7x4xf32>) -> tensor<7x4xf32>
  %g = dshard.gradient %sum {of = "table", path = "embed", part = #dshard.part<backward>} : (tensor<7x4xf32>) -> tensor<7x4xf32>
  %one = dshard.constant dense<1.0> : tensor<f32>
  %yes = dshard.constant dense<true> : tensor<i1>
  %u:3 = dshard.adamw %table, %g, %m, %v, %lr, %one, %one, %one, %yes {beta1 = 5.0e-1 : f64, beta2 = 7.5e-1 : f64, epsilon = 1.0 : f64, weight_decay = 1.25e-1 : f64, path = "", part = #dshard.part<optimizer>} : (tensor<7x4xf32>, tensor<7x4xf32>, tensor<7x4xf32>, tensor<7x4xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<7x4xf32>, tensor<7x4xf32>, tensor<7x4xf32>)
  return %y, %g, %u#0, %u#1, %u#2 : tensor<3x2x7xf32>, tensor<7x4xf32>, tensor<7x4xf32>, tensor<7x4xf32>, tensor<7x4xf32>
}
}
