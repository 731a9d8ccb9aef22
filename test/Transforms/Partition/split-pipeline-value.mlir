// The stages together compute what the program computed, before and after the
// partition, and with two micro-batches.
// RUN: dshard-opt %s --dshard-split-pipeline > %t.split.mlir
// RUN: dshard-opt %t.split.mlir --dshard-partition --dshard-verify-local > %t.local.mlir
// RUN: dshard-interpret %s --against %t.split.mlir --against %t.local.mlir --random-inputs --random-weights | FileCheck %s
// CHECK-COUNT-2: y : tensor<4x8xf32> : largest difference {{[0-9.e-]+}} of {{[1-9].*}}
// CHECK-NOT:     DIFFERENT

// The same rows through whole batches.
// RUN: sed -e 's/2x8xf32/4x8xf32/g' -e 's/dshard.micro_batched, //' -e 's/attributes {dshard.micro_batches = 2 : i64}//' %s > %t.whole.mlir
// RUN: dshard-interpret %t.whole.mlir --against %s --against %t.local.mlir --random-inputs --random-weights | FileCheck %s

#p = #dshard.sharding<[{}, {} ]>
#t = #dshard.sharding<[{}, {"tp"} ]>
#r = #dshard.sharding<[{"tp"}, {} ]>
#partial = #dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>
module attributes {dshard.mesh = #dshard.mesh<"pp"=3, "tp"=2>} {
  func.func @run(
      %x: tensor<2x8xf32> {dshard.micro_batched, dshard.name = "x", dshard.role = #dshard.role<input>, dshard.sharding = #p},
      %w0: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #t,
        dshard.weight = #dshard.weight<"w0", "w", offset = 0, length = 256, type = tensor<8x8xf32>, fan_in = 8>},
      %w1: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #r,
        dshard.weight = #dshard.weight<"w1", "w", offset = 256, length = 256, type = tensor<8x8xf32>, fan_in = 8>})
      -> (tensor<2x8xf32> {dshard.micro_batched, dshard.name = "y", dshard.sharding = #p},
          tensor<2x8xf32> {dshard.micro_batched, dshard.name = "early", dshard.sharding = #t}) attributes {dshard.micro_batches = 2 : i64} {
    %a = dshard.matmul %x, %w0 {path = "layers.0", part = #dshard.part<forward>, dshard.shardings = [#t]} : (tensor<2x8xf32>, tensor<8x8xf32>) -> tensor<2x8xf32>
    // A partial value crosses as it is.
    %b = dshard.matmul %a, %w1 {path = "layers.1", part = #dshard.part<forward>, dshard.shardings = [#partial]} : (tensor<2x8xf32>, tensor<8x8xf32>) -> tensor<2x8xf32>
    %c = dshard.reshard %b to #p why "row-parallel output of layers.1" {path = "layers.2", part = #dshard.part<forward>} : tensor<2x8xf32>
    // Stage 1 passes the value of stage 0 on.
    %d = dshard.reshard %a to #p why "columns of layers.0" {path = "layers.2", part = #dshard.part<forward>} : tensor<2x8xf32>
    %y = dshard.add %c, %d {path = "layers.2", part = #dshard.part<forward>, dshard.shardings = [#p]} : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
    return %y, %a : tensor<2x8xf32>, tensor<2x8xf32>
  }
}
