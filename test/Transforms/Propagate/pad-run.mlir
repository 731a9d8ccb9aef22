// A padded vocabulary gives the unpadded model's logits, negative ids too.
// RUN: dshard-opt %s --dshard-pad --dshard-propagate --dshard-insert-reshards --dshard-verify-resolved --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs=2 --random-weights --ranks 4
// CHECK: %arg0: tensor<3x8xf32> {dshard.global = tensor<12x8xf32>

module attributes {dshard.mesh = #dshard.mesh<"tp"=4>} {
func.func @run(%table: tensor<10x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>,
      dshard.weight = #dshard.weight<"embed", "w.data", offset = 0, length = 320, type = tensor<10x8xf32>, fan_in = 8>},
    %ids: tensor<2x3xi64> {dshard.name = "ids"}) -> (tensor<2x3x10xf32>, tensor<3x8xf32>) {
  %0 = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<10x8xf32>, tensor<2x3xi64>) -> tensor<2x3x8xf32>
  %1 = dshard.matmul %0, %table {transpose_rhs, path = "lm_head", part = #dshard.part<forward>} : (tensor<2x3x8xf32>, tensor<10x8xf32>) -> tensor<2x3x10xf32>
  %last = dshard.constant dense<[-1, -10, 9]> : tensor<3xi64>
  %2 = dshard.gather %table, %last {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<10x8xf32>, tensor<3xi64>) -> tensor<3x8xf32>
  return %1, %2 : tensor<2x3x10xf32>, tensor<3x8xf32>
}
}
