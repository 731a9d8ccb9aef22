// The resolved phase: a reshard changes no value, shardings on arguments of a
// global function change nothing.
// RUN: dshard-interpret %S/mlp-global.mlir --against %s --random-inputs=3 | FileCheck %s
// CHECK: y : tensor<16x64xf32> : largest difference 0 of

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @run(
    %x: tensor<16x64xf32> {dshard.name = "x", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
    %w1: tensor<64x256xf32> {dshard.name = "w1", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>},
    %w2: tensor<256x64xf32> {dshard.name = "w2", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp", "dp_shard"}, {} ]>})
    -> (tensor<16x64xf32> {dshard.name = "y", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) {
  %w1c = dshard.reshard %w1 to <[{}, {"tp"} ]> why "gather parameter mlp.w1" : tensor<64x256xf32>
  %h = dshard.matmul %x, %w1c : (tensor<16x64xf32>, tensor<64x256xf32>) -> tensor<16x256xf32>
  %g = dshard.gelu %h : (tensor<16x256xf32>) -> tensor<16x256xf32>
  %w2c = dshard.reshard %w2 to <[{"tp"}, {} ]> why "gather parameter mlp.w2" regather : tensor<256x64xf32>
  %p = dshard.matmul %g, %w2c : (tensor<16x256xf32>, tensor<256x64xf32>) -> tensor<16x64xf32>
  %y = dshard.reshard %p to <[{"dp_shard"}, {} ]> why "row-parallel output of mlp.w2" : tensor<16x64xf32>
  return %y : tensor<16x64xf32>
}
}
