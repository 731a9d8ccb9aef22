// Megatron TP and fully-sharded storage on dp_shard=2, tp=2: the example of
// spec/sharding.md. It equals the global program, and does not once a
// reduction is missing.
// RUN: dshard-interpret %S/mlp-global.mlir --against %s --random-inputs=3 --ranks 4 | FileCheck %s
// CHECK: y : tensor<16x64xf32> : largest difference {{.*}}e-1{{[0-9]}} of
// CHECK-NOT: DIFFERENT
// RUN: dshard-interpret %s --against %S/mlp-global.mlir --random-inputs=3 --precision=model
// RUN: sed 's/all_reduce sum/all_reduce max/' %s > %t.mlir
// RUN: not dshard-interpret %S/mlp-global.mlir --against %t.mlir --random-inputs=3 2>&1 | FileCheck %s --check-prefix=WRONG
// WRONG: error: output 'y' differs by up to
// RUN: not dshard-interpret %s --random-inputs --ranks 8 2>&1 | FileCheck %s --check-prefix=RANKS
// RANKS: has 4 ranks, --ranks asks for 8

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @run(
    %x: tensor<8x64xf32> {dshard.name = "x", dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
    %w1: tensor<32x128xf32> {dshard.name = "w1", dshard.global = tensor<64x256xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>},
    %w2: tensor<64x64xf32> {dshard.name = "w2", dshard.global = tensor<256x64xf32>, dshard.sharding = #dshard.sharding<[{"tp", "dp_shard"}, {} ]>})
    -> (tensor<8x64xf32> {dshard.name = "y", dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>})
    attributes {dshard.spmd} {
  %w1c = dshard.all_gather %w1 dims [0] over ["dp_shard"] why "gather parameter mlp.w1" : (tensor<32x128xf32>) -> tensor<64x128xf32>
  %h = dshard.matmul %x, %w1c : (tensor<8x64xf32>, tensor<64x128xf32>) -> tensor<8x128xf32>
  %g = dshard.gelu %h : (tensor<8x128xf32>) -> tensor<8x128xf32>
  %w2c = dshard.all_gather %w2 dims [0] over ["dp_shard"] why "gather parameter mlp.w2" : (tensor<64x64xf32>) -> tensor<128x64xf32>
  %p = dshard.matmul %g, %w2c : (tensor<8x128xf32>, tensor<128x64xf32>) -> tensor<8x64xf32>
  %y = dshard.all_reduce sum %p over ["tp"] why "row-parallel output of mlp.w2" : (tensor<8x64xf32>) -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}
}
