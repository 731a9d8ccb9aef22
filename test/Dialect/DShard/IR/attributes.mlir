// Every attribute prints as it was written, and parses again.
// RUN: dshard-opt %s -o %t.mlir
// RUN: dshard-opt %t.mlir | FileCheck %s

// CHECK: module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=8 intra>
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=8 intra>, dshard.phase = "annotate"} {

// CHECK-LABEL: func.func @shardings
// CHECK-SAME: #dshard.sharding<[{"dp_shard"}, {"tp"} ]>
// CHECK-SAME: #dshard.sharding<[{"dp_shard", "tp"}, {} ]>
// CHECK-SAME: #dshard.sharding<[{"tp":(1)2, ?}, {?} ]>
// CHECK-SAME: #dshard.sharding<[{}, {"tp"} ], partial = {"dp_shard"}, kind = max>
// CHECK-SAME: #dshard.sharding<[]>
func.func @shardings(
    %a: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}]>},
    %b: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>},
    %c: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{"tp":(1)2, ?}, {?} ]>},
    %d: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ], partial = {"dp_shard"}, kind = max>},
    %e: tensor<f32> {dshard.sharding = #dshard.sharding<[]>}) {
  return
}

// Sub-axes that continue each other print as one.
// CHECK-LABEL: func.func @merged_sub_axes
// CHECK-SAME: #dshard.sharding<[{"tp":(1)4}, {"tp":(4)2} ]>
func.func @merged_sub_axes(
    %a: tensor<16x64xf32> {dshard.sharding = #dshard.sharding<[{"tp":(1)2, "tp":(2)2}, {"tp":(4)2} ]>}) {
  return
}

// CHECK-LABEL: func.func @parameters
// CHECK-SAME: dshard.name = "model.norm.weight"
// CHECK-SAME: dshard.role = #dshard.role<param>
// CHECK-SAME: dshard.weight = #dshard.weight<"model.norm.weight", "model.onnx.data", offset = 64, length = 256, type = tensor<64xf32>, fan_in = 0, transposed, file_size = 320, identity = 18446744073709551615>
// CHECK-SAME: dshard.weight = #dshard.weight<"w", "model.onnx.data", offset = 0, length = 64, type = tensor<4x4xf32>, fan_in = 4>
func.func @parameters(
    %a: tensor<64xf32> {dshard.name = "model.norm.weight", dshard.role = #dshard.role<param>,
      dshard.weight = #dshard.weight<"model.norm.weight", "model.onnx.data", offset = 64, length = 256, type = tensor<64xf32>, fan_in = 0, transposed, file_size = 320, identity = 18446744073709551615>},
    %b: tensor<4x4xf32> {dshard.weight = #dshard.weight<"w", "model.onnx.data", offset = 0, length = 64, type = tensor<4x4xf32>, fan_in = 4>}) {
  return
}

// A parameter may wait for dshard-pad, which makes its size divide.
// CHECK-LABEL: func.func @before_padding
func.func @before_padding(
    %w: tensor<250x64xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) {
  return
}

// CHECK-LABEL: func.func @local
// CHECK-SAME: tensor<8x8xf32> {dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>, dshard.state = "w"}
// CHECK-SAME: attributes {dshard.spmd}
func.func @local(
    %a: tensor<8x8xf32> {dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>, dshard.state = "w"})
    attributes {dshard.spmd} {
  return
}

// CHECK-LABEL: func.func @on_ops
// CHECK: dshard.origin = #dshard.origin<"tp plan llama: q_proj colwise">, dshard.shardings = [#dshard.sharding<[{"dp_shard"}, {} ]>]
func.func @on_ops(%a: tensor<16x64xf32>) -> tensor<16x64xf32> {
  %0 = dshard.neg %a {path = "m", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_shard"}, {} ]>],
                      dshard.origin = #dshard.origin<"tp plan llama: q_proj colwise">} : (tensor<16x64xf32>) -> tensor<16x64xf32>
  return %0 : tensor<16x64xf32>
}

// Enumerations.
// CHECK-LABEL: func.func @enumerations
// CHECK-SAME: dshard.role = #dshard.role<optimizer_state>
// CHECK: kind = #dshard<reduction product>
// CHECK: part = #dshard.part<backward>, path = "m", predicate = #dshard.predicate<ge>
func.func @enumerations(%a: tensor<16x64xf32> {dshard.role = #dshard.role<optimizer_state>}) -> tensor<16xi1> {
  %0 = dshard.reduce %a {kind = #dshard<reduction product>, dims = array<i64: 1>, path = "m", part = #dshard.part<forward>} : (tensor<16x64xf32>) -> tensor<16xf32>
  %1 = dshard.compare %0, %0 {predicate = #dshard.predicate<ge>, path = "m", part = #dshard.part<backward>} : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xi1>
  return %1 : tensor<16xi1>
}
}
