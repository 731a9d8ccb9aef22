// A boolean takes one byte in the table of collectives, as it does in memory.
// RUN: dshard-opt %s --from=resolve --to=local --explain | FileCheck %s

// CHECK: all_gather tp 4 test
// CHECK: 1 collectives, 4 bytes of operands per rank
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(%x: tensor<8xi1> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) -> (tensor<8xi1> {dshard.sharding = #dshard.sharding<[{} ]>}) {
  %0 = dshard.reshard %x to <[{} ]> why "test" {path = "", part = #dshard.part<forward>} : tensor<8xi1>
  return %0 : tensor<8xi1>
}
}
