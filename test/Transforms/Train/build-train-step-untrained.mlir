// What is not trained is named, with the reason, and has neither gradient nor moments: a parameter that the
// loss does not depend on, a scalar, buffers.
// RUN: dshard-opt %s --verify-diagnostics --dshard-build-train-step=config=%S/Inputs/plain.json | FileCheck %s -enable-var-scope

// CHECK-LABEL: func.func @train_step
// CHECK-NOT: dshard.is_parameter
// CHECK-SAME: dshard.state = "w.exp_avg"
// CHECK-NOT: dshard.state = "unused.exp_avg"
// CHECK-SAME: tensor<1xf32> {dshard.finite = ["w"]
// CHECK: dshard.gradient {{.*}} {of = "w"
// CHECK-NOT: dshard.gradient
// expected-remark@+1 {{--train: 1 parameter is trained; not trained: scale (no dims); table (a buffer); rotary.inv_freq (a buffer by its name); unused (the loss does not depend on it)}}
func.func @run(%x: tensor<4x5xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
               %w: tensor<5xf32> {dshard.name = "w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 20, type = tensor<5xf32>, fan_in = 0>},
               %scale: tensor<f32> {dshard.name = "scale", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"scale", "m.data", offset = 40, length = 4, type = tensor<f32>, fan_in = 0>},
               %table: tensor<5xf32> {dshard.is_parameter = false, dshard.name = "table", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"table", "m.data", offset = 44, length = 20, type = tensor<5xf32>, fan_in = 0>},
               %freq: tensor<5xf32> {dshard.name = "rotary.inv_freq", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"rotary.inv_freq", "m.data", offset = 64, length = 20, type = tensor<5xf32>, fan_in = 0>},
               %unused: tensor<5xf32> {dshard.name = "unused", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"unused", "m.data", offset = 20, length = 20, type = tensor<5xf32>, fan_in = 0>})
    -> (tensor<4x5xf32> {dshard.name = "y"}, tensor<5xf32> {dshard.name = "z"}) {
  %0 = dshard.mul %x, %w {path = "", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5xf32>) -> tensor<4x5xf32>
  %1 = dshard.mul %0, %scale {path = "", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<f32>) -> tensor<4x5xf32>
  %2 = dshard.mul %1, %table {path = "", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5xf32>) -> tensor<4x5xf32>
  %3 = dshard.mul %2, %freq {path = "", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5xf32>) -> tensor<4x5xf32>
  return %3, %unused : tensor<4x5xf32>, tensor<5xf32>
}
