// Two stages of two layers: each holds its own parameters, and what the inputs
// alone decide (the mask) is computed on both. One value crosses; a tied parameter
// is held twice, with a remark. The value stays the same.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-split-pipeline | FileCheck %s -enable-var-scope
// RUN: dshard-opt %s --split-input-file --dshard-split-pipeline=split=cost 2>/dev/null | FileCheck %s -check-prefix=COST

// One stage is left alone.
// CHECK-LABEL: module attributes {dshard.mesh = #dshard.mesh<"tp"=2>}
// CHECK-NEXT:    func.func @run(%{{.*}}) -> tensor<4x8xf32>
// CHECK-NEXT:      return
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  func.func @run(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
    return %x : tensor<4x8xf32>
  }
}

// -----

#p = #dshard.sharding<[{}, {} ]>
#t = #dshard.sharding<[{}, {"tp"} ]>
#r = #dshard.sharding<[{"tp"}, {} ]>
#partial = #dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>

// CHECK-LABEL: func.func private @run.0(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<4x8xf32> {dshard.index = 0 : i64
// CHECK-SAME:    %[[MASK:[a-z0-9]+]]: tensor<4x8xf32> {dshard.index = 1 : i64
// CHECK-SAME:    %[[EMBED:[a-z0-9]+]]: tensor<8x8xf32> {dshard.index = 2 : i64
// CHECK-SAME:    %[[W0:[a-z0-9]+]]: tensor<8x8xf32> {dshard.index = 3 : i64
// CHECK-SAME:    ) attributes {dshard.stage = 0 : i64}
// CHECK:         %[[M0:.*]] = dshard.neg %[[MASK]]
// CHECK:         %[[H:.*]] = dshard.matmul %[[X]], %[[EMBED]]
// CHECK:         %[[A:.*]] = dshard.matmul %[[H]], %[[W0]]
// CHECK:         %[[MT:.*]] = dshard.reshard %[[M0]]
// CHECK:         %[[B:.*]] = dshard.add %[[A]], %[[MT]]
// CHECK-NEXT:    dshard.send %[[B]] to 1 tag 0 over ["pp"] why "output of model.layers.0 for stage 1"
// CHECK-SAME:      path = "model.layers.0"
// CHECK-NEXT:    return

// CHECK-LABEL: func.func private @run.1(
// CHECK-SAME:    %[[MASK:[a-z0-9]+]]: tensor<4x8xf32> {dshard.index = 1 : i64
// CHECK-SAME:    %[[EMBED:[a-z0-9]+]]: tensor<8x8xf32> {dshard.index = 2 : i64
// CHECK-SAME:    %[[W1:[a-z0-9]+]]: tensor<8x8xf32> {dshard.index = 4 : i64
// CHECK-SAME:    -> (tensor<4x8xf32> {dshard.index = 0 : i64
// CHECK-NEXT:    %[[B:.*]] = dshard.recv from 0 tag 0 over ["pp"] why "output of model.layers.0 for stage 1"
// CHECK-SAME:      dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]
// CHECK:         %[[M1:.*]] = dshard.neg %[[MASK]]
// CHECK:         %[[C:.*]] = dshard.matmul %[[B]], %[[W1]]
// CHECK:         %[[D:.*]] = dshard.reshard %[[C]]
// CHECK:         %[[E:.*]] = dshard.add %[[D]], %[[M1]]
// CHECK:         %[[Y:.*]] = dshard.matmul %[[E]], %[[EMBED]]
// CHECK:         return %[[Y]]

// The entry point keeps its signature.
// CHECK:       func.func private @run(
// CHECK-SAME:    tensor<4x8xf32> {dshard.name = "x"
// CHECK-SAME:    attributes {dshard.stages = ["run.0", "run.1"]}
// CHECK-NOT:     {

// Four products cost the same: two for each stage.
// COST-LABEL: func.func private @run.0(
// COST:         dshard.matmul
// COST:         dshard.matmul
// COST-NOT:     dshard.matmul
// COST-LABEL: func.func private @run.1(
// COST:         dshard.matmul
// COST:         dshard.matmul
// COST-NOT:     dshard.matmul
module attributes {dshard.mesh = #dshard.mesh<"pp"=2, "tp"=2>} {
  func.func @run(
      %x: tensor<4x8xf32> {dshard.name = "x", dshard.role = #dshard.role<input>, dshard.sharding = #p},
      %mask: tensor<4x8xf32> {dshard.name = "mask", dshard.role = #dshard.role<input>, dshard.sharding = #p},
      // expected-remark@+1 {{parameter 'embed' of 'tensor<8x8xf32>' is used by the stages 0, 1, each of which holds it}}
      %embed: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #p,
        dshard.weight = #dshard.weight<"embed", "w", offset = 0, length = 256, type = tensor<8x8xf32>, fan_in = 8>},
      %w0: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #t,
        dshard.weight = #dshard.weight<"w0", "w", offset = 256, length = 256, type = tensor<8x8xf32>, fan_in = 8>},
      %w1: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #r,
        dshard.weight = #dshard.weight<"w1", "w", offset = 512, length = 256, type = tensor<8x8xf32>, fan_in = 8>})
      -> (tensor<4x8xf32> {dshard.name = "y", dshard.sharding = #p}) {
    %m = dshard.neg %mask {path = "model", part = #dshard.part<forward>, dshard.shardings = [#p]} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %h = dshard.matmul %x, %embed {path = "model.embed", part = #dshard.part<forward>, dshard.shardings = [#p]} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %a = dshard.matmul %h, %w0 {path = "model.layers.0.fc", part = #dshard.part<forward>, dshard.shardings = [#t]} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %mt = dshard.reshard %m to #t why "mask of layer 0" {path = "model.layers.0", part = #dshard.part<forward>} : tensor<4x8xf32>
    %b = dshard.add %a, %mt {path = "model.layers.0", part = #dshard.part<forward>, dshard.shardings = [#t]} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
    %c = dshard.matmul %b, %w1 {path = "model.layers.1.fc", part = #dshard.part<forward>, dshard.shardings = [#partial]} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %d = dshard.reshard %c to #p why "row-parallel output of model.layers.1.fc" {path = "model.layers.1.fc", part = #dshard.part<forward>} : tensor<4x8xf32>
    %e = dshard.add %d, %m {path = "model.layers.1", part = #dshard.part<forward>, dshard.shardings = [#p]} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
    %y = dshard.matmul %e, %embed {path = "head", part = #dshard.part<forward>, dshard.shardings = [#p]} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    return %y : tensor<4x8xf32>
  }
}
