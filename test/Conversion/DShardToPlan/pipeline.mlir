// Two stages of one entry point: a program each, states that only their ranks hold
// and load, a slot of the boundary buffers per micro-batch, and the gpipe lists.
// RUN: dshard-opt %s --dshard-convert-to-plan -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-opt %t.mlir --from=plan --emit=plan -o %t.dsplan
// RUN: dshard-plan print %t.dsplan | FileCheck %s --check-prefix=FILE

// Both stages' parameters begin behind the one that both hold.
// CHECK: plan.state "bias" "parameter" init "load" offset 0 size 16 stage 0
// CHECK: plan.state "w" "parameter" init "load" offset 64 size 16 stage 0
// CHECK: plan.state "bias (stage 1)" "parameter" init "load" offset 0 size 16 stage 1
// CHECK: plan.state "v" "parameter" init "load" offset 64 size 16 stage 1
// CHECK: plan.program "load" stage 0
// CHECK:   plan.if #plan.table<0> {
// CHECK-NEXT: plan.load_slice {{.*}}path "bias"
// CHECK-NEXT: plan.load_slice {{.*}}path "w"
// CHECK:   plan.if #plan.table<1> {
// CHECK-NEXT: plan.load_slice {{.*}}path "bias"
// CHECK-NEXT: plan.load_slice {{.*}}path "v"
// CHECK: plan.program "run.0" stage 0 arena 192
// CHECK:   plan.buffer "x" offset {{[0-9]+}} size 16 copies 2
// CHECK:   plan.send in(%{{.*}}) {group = 0, to = 1, tag = 3}
// CHECK: plan.program "run.1" stage 1 arena 128
// CHECK:   plan.buffer {{.*}} size 16 copies 2
// CHECK:   plan.recv -> out(%{{.*}}) {group = 0, from = 0, tag = 3}
// CHECK: plan.entry "run" program 1 stages 2 micro_batches 2 {
// CHECK-NEXT: plan.input "x" buffer {{[0-9]+}} stage 0 {{.*}} : tensor<8xf32> local tensor<8xf32>
// CHECK-NEXT: plan.output "y" buffer {{[0-9]+}} stage 1 {{.*}} : tensor<8xf32> local tensor<8xf32>

// FILE: launch(%{{.*}} f32[4] @{{.*}} slot micro_batch, {{.*}} -> %{{.*}} f32[4] @{{[0-9]+}}) kernel=
// FILE: recv(-> %{{.*}} f32[4] @0 slot micro_batch)
// FILE: launch({{.*}} -> %{{.*}} f32[4] @{{[0-9]+}} slot micro_batch) kernel=
// FILE: entry 0 "run" programs [1,2] micro_batches 2
// FILE: actions 0 [forward 0.0, forward 0.1]
// FILE: actions 1 [forward 1.0, forward 1.1]
#s = #dshard.sharding<[{} ]>
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(
      %x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.index = 0 : i64, dshard.micro_batched, dshard.name = "x", dshard.sharding = #s},
      %b: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.index = 1 : i64, dshard.sharding = #s, dshard.weight = #dshard.weight<"bias", "f", offset = 0, length = 16, type = tensor<4xf32>, fan_in = 4>},
      %w: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.index = 2 : i64, dshard.sharding = #s, dshard.weight = #dshard.weight<"w", "f", offset = 16, length = 16, type = tensor<4xf32>, fan_in = 4>})
      attributes {dshard.micro_batches = 2 : i64, dshard.spmd, dshard.stage = 0 : i64} {
    %h = dshard.fused %x, %b, %w : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%i: tensor<4xf32>, %j: tensor<4xf32>, %k: tensor<4xf32>):
      %0 = dshard.mul %i, %k : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      %1 = dshard.add %0, %j : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      dshard.yield %1 : tensor<4xf32>
    }
    dshard.send %h to 1 tag 3 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    return
  }
  func.func private @run.1(
      %b: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.index = 1 : i64, dshard.sharding = #s, dshard.weight = #dshard.weight<"bias", "f", offset = 0, length = 16, type = tensor<4xf32>, fan_in = 4>},
      %v: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.index = 3 : i64, dshard.sharding = #s, dshard.weight = #dshard.weight<"v", "f", offset = 32, length = 16, type = tensor<4xf32>, fan_in = 4>})
      -> (tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.index = 0 : i64, dshard.micro_batched, dshard.name = "y", dshard.sharding = #s})
      attributes {dshard.micro_batches = 2 : i64, dshard.spmd, dshard.stage = 1 : i64} {
    %h = dshard.recv from 0 tag 3 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    %y = dshard.fused %h, %b, %v : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%i: tensor<4xf32>, %j: tensor<4xf32>, %k: tensor<4xf32>):
      %0 = dshard.mul %i, %k : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      %1 = dshard.add %0, %j : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      dshard.yield %1 : tensor<4xf32>
    }
    return %y : tensor<4xf32>
  }
  func.func private @run(tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      attributes {dshard.micro_batches = 2 : i64, dshard.stages = ["run.0", "run.1"]}
}
