// States of two entry points, a scalar, a repeat with accumulators in fixed places, a branch that
// the rank decides, and an optimizer step that works in place.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-schedule --dshard-verify-schedule --dshard-convert-to-plan=target=cpu:x86-64-v3 | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// Written by train_step: plain, although run could read it packed.
// CHECK: plan.state "w" "parameter" init "load" written offset 0 size 256 : tensor<8x8xf32> local tensor<8x8xf32>
// CHECK: plan.state "w.exp_avg" "optimizer_state" init "zero" written
// CHECK: plan.state "w.exp_avg_sq" "optimizer_state" init "zero" written
// One load for both.
// CHECK: plan.program "load"
// CHECK-COUNT-1: plan.load_slice
// CHECK: plan.program "run"
// CHECK: plan.matmul {{.*}}packed = 0
func.func @run(%x: tensor<4x8xf32> {dshard.name = "x"},
               %w: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 256, type = tensor<8x8xf32>, fan_in = 8>})
    -> (tensor<4x8xf32> {dshard.name = "y"}) attributes {dshard.spmd} {
  %y = dshard.matmul %x, %w {path = "p", part = #dshard.part<forward>} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
  return %y : tensor<4x8xf32>
}
// CHECK: plan.scalar "lr" initial 1.000000e-03 : f32
// The condition is a table: rank 0 takes the first branch.
// CHECK: plan.table over [0] [1, 0]
// CHECK: plan.program "train_step"
// CHECK-DAG: %[[LR:.*]] = plan.buffer "lr" scalar 0
// CHECK-DAG: %[[W:.*]] = plan.buffer "w" in state 0
// CHECK-DAG: %[[M:.*]] = plan.buffer "w.exp_avg" in state 1
// CHECK-DAG: %[[V:.*]] = plan.buffer "w.exp_avg_sq" in state 2
// CHECK-DAG: %[[X:.*]] = plan.buffer "x"
// CHECK: plan.fill -> out(%[[ACC:.*]]) {value_bits = 0.0
// CHECK: plan.repeat 2 : i64 {
// CHECK-NEXT:   plan.fill -> out(%[[I:.*]]) {value_bits = #plan.loop<0>}
// CHECK-NEXT:   plan.launch in(%[[X]], %[[I]]) -> out(%[[XI:.*]]) {
// The gradient is added to the accumulator by the product itself.
// CHECK-NEXT:   plan.matmul lhs(%[[XI]]) rhs(%[[XI]]) residual(%[[ACC]]) -> out(%[[ACC]]) {{.*}}transpose_lhs = 1
// CHECK-NEXT: {{^ *}$}}
// CHECK-NEXT: plan.if #plan.table<0> {
// CHECK-NEXT:   plan.launch in(%[[ACC]]) -> out(%[[G:.*]]) {
// CHECK-NEXT: } else {
// CHECK-NEXT:   plan.copy in(%[[ACC]]) -> out(%[[G]])
// CHECK-NEXT: {{^ *}$}}
// CHECK: plan.launch in(%[[W]], %[[G]], %[[M]], %[[V]], %[[LR]]{{.*}}) -> out(%[[W]], %[[M]], %[[V]])
// CHECK-NOT: plan.copy
// CHECK: plan.entry "run" program 1
// CHECK: plan.entry "train_step" program 2
// CHECK-NEXT: plan.input "x" buffer
// CHECK-SAME: range [0, 9, -100]
// CHECK-NEXT: plan.output "check" buffer {{[0-9]+}} finite ["w"]
// CHECK-NEXT: {{^ *}$}}
func.func @train_step(%x: tensor<4x2x8xf32> {dshard.name = "x", dshard.range = array<i64: 0, 9, -100>},
                      %w: tensor<8x8xf32> {dshard.state = "w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 256, type = tensor<8x8xf32>, fan_in = 8>},
                      %m: tensor<8x8xf32> {dshard.state = "w.exp_avg", dshard.state_of = "w", dshard.role = #dshard.role<optimizer_state>},
                      %v: tensor<8x8xf32> {dshard.state = "w.exp_avg_sq", dshard.state_of = "w", dshard.role = #dshard.role<optimizer_state>},
                      %lr: tensor<f32> {dshard.scalar = "lr", dshard.role = #dshard.role<input>})
    -> (tensor<1xf32> {dshard.name = "check", dshard.finite = ["w"]}, tensor<8x8xf32> {dshard.state = "w"}, tensor<8x8xf32> {dshard.state = "w.exp_avg"},
        tensor<8x8xf32> {dshard.state = "w.exp_avg_sq"}) attributes {dshard.spmd} {
  %zero = dshard.constant dense<0.0> : tensor<8x8xf32>
  %sum = dshard.repeat 2 init(%zero) : (tensor<8x8xf32>) -> tensor<8x8xf32> {
  ^bb0(%i: tensor<i64>, %acc: tensor<8x8xf32>):
    %xi = dshard.gather %x, %i {dim = 1 : i64, path = "p", part = #dshard.part<forward>} : (tensor<4x2x8xf32>, tensor<i64>) -> tensor<4x8xf32>
    %g = dshard.weight_grad %xi, %xi {path = "p", part = #dshard.part<backward>} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
    %next = dshard.add %acc, %g {path = "p", part = #dshard.part<backward>} : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    dshard.yield %next : tensor<8x8xf32>
  }
  %rank = dshard.rank_index over ["tp"] {path = "", part = #dshard.part<forward>} : tensor<i64>
  %one = dshard.constant dense<1> : tensor<i64>
  %first = dshard.compare %rank, %one {predicate = #dshard.predicate<lt>, path = "", part = #dshard.part<forward>} : (tensor<i64>, tensor<i64>) -> tensor<i1>
  %grad = dshard.if %first : (tensor<i1>) -> tensor<8x8xf32> {
    %t = dshard.tanh %sum {path = "p", part = #dshard.part<backward>} : (tensor<8x8xf32>) -> tensor<8x8xf32>
    dshard.yield %t : tensor<8x8xf32>
  } else {
    dshard.yield %sum : tensor<8x8xf32>
  }
  %square = dshard.mul %grad, %grad {path = "p", part = #dshard.part<optimizer>} : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  %norm = dshard.reduce %square {kind = #dshard<reduction sum>, dims = array<i64: 0, 1>, path = "p", part = #dshard.part<optimizer>} : (tensor<8x8xf32>) -> tensor<f32>
  %check = dshard.reshape %norm {path = "p", part = #dshard.part<optimizer>} : (tensor<f32>) -> tensor<1xf32>
  %unit = dshard.constant dense<1.0> : tensor<f32>
  %on = dshard.constant dense<true> : tensor<i1>
  %nw, %nm, %nv = dshard.adamw %w, %grad, %m, %v, %lr, %unit, %unit, %unit, %on {beta1 = 0.9, beta2 = 0.999, epsilon = 1.0e-8, weight_decay = 0.0, path = "p", part = #dshard.part<optimizer>}
      : (tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>)
  return %check, %nw, %nm, %nv : tensor<1xf32>, tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>
}
}
