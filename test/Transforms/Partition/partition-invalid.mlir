// What cannot become local.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-partition

// expected-error@+1 {{module has no dshard.mesh; give it one with --mesh}}
module {
}

// -----

// partition_c1
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @unresolved(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.exp' op a value has no closed sharding; run the resolve phase first}}
  %0 = dshard.exp %x {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %x : tensor<4xf32>
}
}

// -----

// partition_c1
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @two_steps(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {"dp_shard"} ]>}) -> (tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>}) {
  // expected-error@+1 {{'dshard.reshard' op from [{"tp"}, {"dp_shard"} ] to [{}, {} ] is not one collective; run dshard-decompose-reshards first}}
  %0 = dshard.reshard %x to <[{}, {} ]> why "test" {path = "", part = #dshard.part<forward>} : tensor<4x4xf32>
  return %0 : tensor<4x4xf32>
}
}
