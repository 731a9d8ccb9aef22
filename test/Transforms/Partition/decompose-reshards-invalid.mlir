// decompose_c1
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-decompose-reshards

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @introduced(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.reshard' op cannot go from [{} ] to [{} ], partial = {"tp"}: no collective makes a value partial}}
  %0 = dshard.reshard %x to <[{} ], partial = {"tp"}, kind = sum> why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @unknown(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.reshard' op its operand has no sharding; run dshard-propagate first}}
  %0 = dshard.reshard %x to <[{"tp"} ]> why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
  return %0 : tensor<4xf32>
}
}
