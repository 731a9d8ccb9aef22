// @train_step: labels and states as arguments, loss, backward, one dshard.gradient per
// parameter, norm over all of them, AdamW on the finished gradients, states as results.
// RUN: dshard-opt %s --dshard-build-train-step=config=%S/Inputs/full.json | FileCheck %s -enable-var-scope
// RUN: dshard-opt %s --pass-pipeline='builtin.module(dshard-build-train-step{config=%S/Inputs/full.json},dshard-decompose{ops=cross_entropy},dshard-verify-train)' -o /dev/null

// CHECK: func.func @run
// CHECK-LABEL: func.func @train_step
// CHECK-SAME: [[X:%.+]]: tensor<4x3xf32> {dshard.dim_names = ["batch", ""], dshard.name = "x", dshard.role = #dshard.role<input>}
// CHECK-SAME: [[LABELS:%.+]]: tensor<4xi64> {dshard.dim_names = ["batch"], dshard.name = "labels", dshard.range = array<i64: 0, 4, -100>, dshard.role = #dshard.role<input>}
// CHECK-SAME: [[W:%[^ ]+]]: tensor<3x5xf32> {dshard.name = "fc.w", dshard.role = #dshard.role<param>, dshard.state = "fc.w", dshard.weight
// CHECK-SAME: [[B:%[^ ]+]]: tensor<5xf32> {dshard.name = "fc.b"
// CHECK-SAME: [[IDS:%[^ ]+]]: tensor<5xi64> {dshard.name = "ids"
// CHECK-SAME: [[WM:%[^ ]+]]: tensor<3x5xf32> {dshard.role = #dshard.role<optimizer_state>, dshard.state = "fc.w.exp_avg", dshard.state_of = "fc.w"}
// CHECK-SAME: [[WV:%[^ ]+]]: tensor<3x5xf32> {dshard.role = #dshard.role<optimizer_state>, dshard.state = "fc.w.exp_avg_sq", dshard.state_of = "fc.w"}
// CHECK-SAME: tensor<i64> {dshard.role = #dshard.role<optimizer_state>, dshard.state = "step"}
// CHECK-SAME: [[LR:%[^ ]+]]: tensor<f32> {dshard.role = #dshard.role<input>, dshard.scalar = "lr"}
// CHECK-SAME: -> (tensor<f32> {dshard.name = "loss"}, tensor<f32> {dshard.name = "grad_norm"}
// CHECK-SAME: tensor<3x5xf32> {dshard.name = "fc.w.grad", dshard.role = #dshard.role<grad>}
// CHECK-SAME: tensor<2xf32> {dshard.finite = ["fc.w", "fc.b"], dshard.name = "nonfinite.stop"}
// CHECK-SAME: tensor<3x5xf32> {dshard.role = #dshard.role<param>, dshard.state = "fc.w"}

// The labels that count, and the loss as a sum.
// CHECK: [[VALID:%.+]] = dshard.max
// CHECK: [[SCALE:%.+]] = dshard.reciprocal [[VALID]]
// CHECK: dshard.matmul [[X]], [[W]] {part = #dshard.part<forward>, path = "fc"}
// CHECK: dshard.cross_entropy %{{.*}}, [[LABELS]]
// CHECK: [[SUM:%.+]] = dshard.reduce
// CHECK: dshard.broadcast_to [[SCALE]] {part = #dshard.part<backward>

// Backward, then one named gradient per parameter.
// CHECK: [[DW:%.+]] = dshard.weight_grad
// CHECK: [[GW:%.+]] = dshard.gradient [[DW]] {of = "fc.w", part = #dshard.part<backward>, path = "fc"}
// CHECK: dshard.gradient {{.*}} {of = "fc.b"

// Norm and clipping read the finished gradients only; 1 - beta^step is computed in f64.
// CHECK: [[SQUARES:%.+]] = dshard.concat
// CHECK: [[TOTAL:%.+]] = dshard.reduce [[SQUARES]]
// CHECK: [[NORM:%.+]] = dshard.sqrt [[TOTAL]]
// CHECK: [[ENABLED:%.+]] = dshard.compare [[TOTAL]]
// CHECK: [[CLIP:%.+]] = dshard.min
// CHECK: dshard.pow {{.*}} : (tensor<f64>, tensor<f64>) -> tensor<f64>
// CHECK: dshard.adamw [[W]], [[GW]], [[WM]], [[WV]], [[LR]], {{.*}}, [[CLIP]], [[ENABLED]] {beta1 = 9.000000e-01 : f64, {{.*}} weight_decay = 1.000000e-01 : f64}
// CHECK: dshard.adamw [[B]], {{.*}} weight_decay = 0.000000e+00 : f64}
// CHECK: [[LOSS:%.+]] = dshard.div [[SUM]], [[VALID]]
// CHECK: return [[LOSS]], [[NORM]], [[GW]]
func.func @run(%x: tensor<4x3xf32> {dshard.dim_names = ["batch", ""], dshard.name = "x", dshard.role = #dshard.role<input>},
               %w: tensor<3x5xf32> {dshard.name = "fc.w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"fc.w", "m.data", offset = 0, length = 60, type = tensor<3x5xf32>, fan_in = 3>},
               %b: tensor<5xf32> {dshard.name = "fc.b", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"fc.b", "m.data", offset = 60, length = 20, type = tensor<5xf32>, fan_in = 3>},
               %ids: tensor<5xi64> {dshard.name = "ids", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"ids", "m.data", offset = 80, length = 40, type = tensor<5xi64>, fan_in = 0>})
    -> (tensor<4x5xf32> {dshard.dim_names = ["batch", ""], dshard.name = "y"}, tensor<5xi64> {dshard.name = "z"}) {
  %0 = dshard.matmul %x, %w {path = "fc", part = #dshard.part<forward>} : (tensor<4x3xf32>, tensor<3x5xf32>) -> tensor<4x5xf32>
  %1 = dshard.add %0, %b {path = "fc", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5xf32>) -> tensor<4x5xf32>
  return %1, %ids : tensor<4x5xf32>, tensor<5xi64>
}
