// What decides between operands that are sharded differently: the bytes, and a
// remark that names the loser.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-propagate --dshard-insert-reshards --dshard-verify-resolved | FileCheck %s

// The replicated weight is sliced for free and the small product reduced; gathering
// the activation would move more.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// CHECK-LABEL: func.func @slice_weight(
// CHECK: dshard.reshard %arg1 to <[{"tp"}, {} ]> why "slice argument 1 for down"
// CHECK: dshard.matmul
// CHECK: dshard.reshard {{.*}} why "row-parallel output of down"
func.func @slice_weight(%x: tensor<16x256xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %w: tensor<256x8xf32>) -> tensor<16x8xf32> {
  // expected-remark@+1 {{the operands of down (matmul) are sharded differently: chose dim 1 of operand 0 over {"tp"} (512 wire bytes per rank), not nothing sharded (8192)}}
  %0 = dshard.matmul %x, %w {path = "down", part = #dshard.part<forward>} : (tensor<16x256xf32>, tensor<256x8xf32>) -> tensor<16x8xf32>
  return %0 : tensor<16x8xf32>
}
}

// -----

// A large result turns the choice around.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// CHECK-LABEL: func.func @gather_activation(
// CHECK: dshard.reshard %arg0 to <[{}, {} ]> why "gather argument 0 for up"
// CHECK-NEXT: dshard.matmul
// CHECK-NOT: dshard.reshard
func.func @gather_activation(%x: tensor<16x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %w: tensor<8x256xf32>) -> tensor<16x256xf32> {
  // expected-remark@+1 {{chose nothing sharded (256 wire bytes per rank), not dim 1 of operand 0 over {"tp"} (16384)}}
  %0 = dshard.matmul %x, %w {path = "up", part = #dshard.part<forward>} : (tensor<16x8xf32>, tensor<8x256xf32>) -> tensor<16x256xf32>
  return %0 : tensor<16x256xf32>
}
}

// -----

// A slow link weighs more: tp between hosts loses against dp_shard inside one.
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2 intra, "tp"=2 inter>} {
// CHECK-LABEL: func.func @links(
// CHECK: dshard.reshard %arg0 to <[{"tp"}, {} ]> why "gather argument 0 for m"
func.func @links(%x: tensor<8x8xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}, %y: tensor<8x8xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<8x8xf32> {
  // expected-remark@+1 {{are sharded differently}}
  %0 = dshard.mul %x, %y {path = "m", part = #dshard.part<forward>} : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  return %0 : tensor<8x8xf32>
}
}
