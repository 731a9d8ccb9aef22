// A mean over three shards is exact: a third is no number of f16, three is. A shrunk
// case of test/random.
// RUN: dshard-opt %s --dshard-propagate --dshard-insert-reshards --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs=3 --ranks 3

// CHECK: dshard.reduce %arg0 {{.*}}kind = #dshard<reduction mean>
// CHECK-NEXT: dshard.constant dense<3.000000e+00> : tensor<f16>
// CHECK-NEXT: dshard.div
// CHECK-NEXT: dshard.all_reduce {{ *}}sum
module attributes {dshard.mesh = #dshard.mesh<"tp"=3>} {
func.func @run(%x: tensor<3xf16> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) -> tensor<f16> {
  %0 = dshard.reduce %x {kind = #dshard<reduction mean>, dims = array<i64: 0>, path = "mean", part = #dshard.part<forward>} : (tensor<3xf16>) -> tensor<f16>
  return %0 : tensor<f16>
}
}
