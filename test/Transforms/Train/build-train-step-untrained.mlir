// A parameter that the loss does not depend on is named, and has neither gradient nor moments.
// RUN: dshard-opt %s --verify-diagnostics --dshard-build-train-step=config=%S/Inputs/plain.json | FileCheck %s -enable-var-scope

// CHECK-LABEL: func.func @train_step
// CHECK-SAME: dshard.state = "w.exp_avg"
// CHECK-NOT: dshard.state = "unused.exp_avg"
// CHECK-SAME: tensor<1xf32> {dshard.finite = ["w"]
// CHECK: dshard.gradient {{.*}} {of = "w"
// CHECK-NOT: dshard.gradient
// expected-remark@+1 {{not trained, since the loss does not depend on it: unused}}
func.func @run(%x: tensor<4x5xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
               %w: tensor<5xf32> {dshard.name = "w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 20, type = tensor<5xf32>, fan_in = 0>},
               %unused: tensor<5xf32> {dshard.name = "unused", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"unused", "m.data", offset = 20, length = 20, type = tensor<5xf32>, fan_in = 0>})
    -> (tensor<4x5xf32> {dshard.name = "y"}, tensor<5xf32> {dshard.name = "z"}) {
  %0 = dshard.mul %x, %w {path = "", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<5xf32>) -> tensor<4x5xf32>
  return %0, %unused : tensor<4x5xf32>, tensor<5xf32>
}
