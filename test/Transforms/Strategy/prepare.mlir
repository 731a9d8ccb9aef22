// prepare_output and prepare_input set the layout at a module's edge; replicated keeps
// a module whole.
// RUN: dshard-opt %s --dshard-tensor-parallel="plan=%S/Inputs/prepare.json" | FileCheck %s

// CHECK: tensor<8x16xf32> {{{[^%]*}}: block.up = replicated">{{[^%]*}}dshard.sharding = #dshard.sharding<[{}, {} ]>}
// CHECK: dshard.matmul
// CHECK-NOT: dshard.shardings
// CHECK-SAME: path = "block.up"
// CHECK: dshard.relu {{.*}}: block = prepare_output">, dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]
// CHECK: dshard.neg {{.*}}: head = prepare_input">, dshard.shardings = [#dshard.sharding<[{?}, {} ]>]
module attributes {dshard.mesh = #dshard.mesh<"tp"=4>} {
  func.func @run(%x: tensor<4x8xf32>, %w1: tensor<8x16xf32> {dshard.role = #dshard.role<param>}) -> tensor<4x16xf32> {
    %0 = dshard.matmul %x, %w1 {path = "block.up"} : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
    %1 = dshard.relu %0 {path = "block"} : (tensor<4x16xf32>) -> tensor<4x16xf32>
    %2 = dshard.neg %1 {path = "other"} : (tensor<4x16xf32>) -> tensor<4x16xf32>
    %3 = dshard.tanh %2 {path = "head"} : (tensor<4x16xf32>) -> tensor<4x16xf32>
    return %3 : tensor<4x16xf32>
  }
}
