// For a GPU nothing is packed, buffers lie at multiples of 256 bytes, and a collective runs beside what does not
// touch its bytes: on its group's stream, ordered by events.
// RUN: dshard-opt %s --dshard-form-kernels=target=cuda:sm_90 --dshard-convert-to-plan=target=cuda:sm_90 | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
// CHECK: plan.state "w" "parameter" init "load" offset 0 size 2048
// CHECK: plan.state "v" "parameter" init "load" offset 2048 size 2048
// CHECK: plan.program "load"
// CHECK-NOT: plan.pack_rhs
// CHECK: plan.program "run"
// CHECK-SAME: scratch 33554432
// CHECK: plan.matmul {{.*}} -> out(%[[P:.*]]) {batch
// CHECK-NEXT: plan.record {event = 0}
// CHECK-NEXT: plan.wait {event = 0} {{.*}}{stream = 1 : i64}
// CHECK-NEXT: plan.all_reduce in(%[[P]]) -> out(%[[P]]) {{.*}}{stream = 1 : i64}
// CHECK-NEXT: plan.record {event = 1} {{.*}}{stream = 1 : i64}
// The product that does not need the sum goes on at once, the one that does waits.
// CHECK-NEXT: plan.matmul
// CHECK-NEXT: plan.wait {event = 1}
// CHECK-NOT: stream
// CHECK-NEXT: plan.matmul lhs(%[[P]])
// A second group has a stream of its own; a program ends on stream 0.
// CHECK-NEXT: plan.record {event = 2}
// CHECK-NEXT: plan.wait {event = 2} {{.*}}{stream = 2 : i64}
// CHECK-NEXT: plan.all_gather {{.*}}{stream = 2 : i64}
// CHECK-NEXT: plan.record {event = 3} {{.*}}{stream = 2 : i64}
// CHECK-NEXT: plan.wait {event = 3}
// CHECK-NOT: stream
// CHECK: plan.entry
func.func @run(%x: tensor<4x32xf32> {dshard.name = "x", dshard.role = #dshard.role<input>, dshard.global = tensor<8x64xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>},
               %w: tensor<16x32xf32> {dshard.name = "w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 4096, type = tensor<16x64xf32>, fan_in = 64>, dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
               %v: tensor<16x32xf32> {dshard.name = "v", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"v", "m.data", offset = 4096, length = 4096, type = tensor<16x64xf32>, fan_in = 64>, dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>})
    -> (tensor<8x4xf32> {dshard.name = "y", dshard.global = tensor<8x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>}) attributes {dshard.spmd} {
  %p = dshard.matmul %x, %w {transpose_rhs, path = "down", part = #dshard.part<forward>} : (tensor<4x32xf32>, tensor<16x32xf32>) -> tensor<4x16xf32>
  %s = dshard.all_reduce sum %p over ["tp"] why "row-parallel output of down" {path = "down", part = #dshard.part<forward>} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  %q = dshard.matmul %x, %v {transpose_rhs, path = "up", part = #dshard.part<forward>} : (tensor<4x32xf32>, tensor<16x32xf32>) -> tensor<4x16xf32>
  %y = dshard.matmul %s, %q {transpose_rhs, path = "head", part = #dshard.part<forward>} : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x4xf32>
  %g = dshard.all_gather %y dims [0] over ["dp_shard"] why "output y" {path = "", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<8x4xf32>
  return %g : tensor<8x4xf32>
}
}
