// Many parameters of one unit are counted, a few named; a gather of the backward part
// is another. Storage dims and dtypes may differ.
// RUN: dshard-opt %s --dshard-bucket-collectives --dshard-verify-local | FileCheck %s

// CHECK-LABEL: func.func @units(
// CHECK: dshard.all_gather %arg0, %arg1, %arg0, %arg1, %arg0 dims [0, 1, 1, 0, 0] over ["dp_shard"] why "gather the 5 parameters of layers.0"
// CHECK: dshard.all_gather %arg0, %arg1 dims [0, 0] over ["dp_shard"] why "gather parameters of the root unit: head, norm"
// CHECK: dshard.all_gather %arg0 dims [0] over ["dp_shard"] why "gather parameter head" {part = #dshard.part<backward>
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
func.func @units(%a: tensor<4x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
                 %b: tensor<8x2xbf16> {dshard.global = tensor<8x4xbf16>, dshard.sharding = #dshard.sharding<[{}, {"dp_shard"} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_gather %a dims [0] over ["dp_shard"] why "gather parameter layers.0.a" {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %1 = dshard.all_gather %b dims [1] over ["dp_shard"] why "gather parameter layers.0.b" {path = "layers.0", part = #dshard.part<forward>} : (tensor<8x2xbf16>) -> tensor<8x4xbf16>
  %2 = dshard.all_gather %a dims [1] over ["dp_shard"] why "gather parameter layers.0.c" {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<4x16xf32>
  %3 = dshard.all_gather %b dims [0] over ["dp_shard"] why "gather parameter layers.0.d" {path = "layers.0", part = #dshard.part<forward>} : (tensor<8x2xbf16>) -> tensor<16x2xbf16>
  %4 = dshard.all_gather %a dims [0] over ["dp_shard"] why "gather parameter layers.0.e" {path = "layers.0", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %5 = dshard.all_gather %a dims [0] over ["dp_shard"] why "gather parameter head" {path = "", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %6 = dshard.all_gather %b dims [0] over ["dp_shard"] why "gather parameter norm" {path = "", part = #dshard.part<forward>} : (tensor<8x2xbf16>) -> tensor<16x2xbf16>
  %7 = dshard.all_gather %a dims [0] over ["dp_shard"] why "gather parameter head" {path = "", part = #dshard.part<backward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  return
}
}
