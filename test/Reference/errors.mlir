// What the interpreter refuses, in one line each.
// RUN: split-file %s %t
// RUN: not dshard-interpret %t/replicas.mlir 2>&1 | FileCheck %s --check-prefix=REPLICAS
// RUN: not dshard-interpret %t/if.mlir 2>&1 | FileCheck %s --check-prefix=IF
// RUN: not dshard-interpret %t/types.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=TYPES
// RUN: not dshard-interpret %t/index.mlir 2>&1 | FileCheck %s --check-prefix=INDEX
// RUN: not dshard-interpret %t/two.mlir 2>&1 | FileCheck %s --check-prefix=TWO
// RUN: dshard-interpret %t/two.mlir --entry decode --input x=%S/Inputs/iota-4x2.npy | FileCheck %s --check-prefix=ENTRY
// RUN: not dshard-interpret %t/two.mlir --entry decode 2>&1 | FileCheck %s --check-prefix=NOVALUE
// RUN: not dshard-interpret %t/two.mlir --entry decode --input y=random 2>&1 | FileCheck %s --check-prefix=NAME
// RUN: not dshard-interpret %t/two.mlir --entry prefill --input x=%S/Inputs/iota-4x2.npy 2>&1 | FileCheck %s --check-prefix=SHAPE
// RUN: not dshard-interpret %t/two.mlir --entry prefill --input x=%t/two.mlir 2>&1 | FileCheck %s --check-prefix=NPY
// RUN: not dshard-interpret %S/mlp-global.mlir --against %S/control.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=OTHER
// RUN: not dshard-interpret %t/none.mlir 2>&1 | FileCheck %s --check-prefix=NONE
// RUN: sh -c 'dshard-interpret --nonsense; echo status $?' 2>&1 | FileCheck %s --check-prefix=USAGE
// RUN: not dshard-interpret %t/weight.mlir 2>&1 | FileCheck %s --check-prefix=WEIGHT
// RUN: not dshard-interpret %t/weight.mlir --weights %S/Inputs 2>&1 | FileCheck %s --check-prefix=SHORT
// RUN: dshard-interpret --help | FileCheck %s --check-prefix=HELP
// NONE: error: {{.*}}none.mlir: no such file
// USAGE: error: unknown flag '--nonsense'; try --help
// USAGE: status 2
// HELP: Exit status: 0 done

//--- replicas.mlir
// REPLICAS: error: {{.*}}'func.func' op result 0: ranks 0 and 1 should hold the same values, but differ by up to 1{{.*}} (largest value 0
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run() -> tensor<i64> attributes {dshard.spmd} {
  %r = dshard.rank_index over ["tp"] : tensor<i64>
  return %r : tensor<i64>
}
}
//--- if.mlir
// IF: rank 1 reaches this collective and rank 0 of its group does not
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run() -> tensor<i64> attributes {dshard.spmd} {
  %r = dshard.rank_index over ["tp"] : tensor<i64>
  %c = dshard.cast %r : (tensor<i64>) -> tensor<i1>
  %x = dshard.if %c : (tensor<i1>) -> tensor<i64> {
    %s = dshard.all_reduce sum %r over ["tp"] why "test" : (tensor<i64>) -> tensor<i64>
    dshard.yield %s : tensor<i64>
  } else {
    dshard.yield %r : tensor<i64>
  }
  return %x : tensor<i64>
}
}
//--- types.mlir
// TYPES: argument {{.*}}tensor<3xf32>
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(%x: tensor<3xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{"tp"}]>}) attributes {dshard.spmd} {
  return
}
}
//--- index.mlir
// INDEX: 'dshard.gather' op index 4 is outside dim 0 of size 4
// OTHER: mlp-global.mlir has the outputs y; {{.*}}control.mlir has repeat, partial, if, fused
func.func @run() -> tensor<2xf32> {
  %x = dshard.constant dense<1.0> : tensor<4xf32>
  %i = dshard.constant dense<[-4, 4]> : tensor<2xi64>
  %y = dshard.gather %x, %i {dim = 0 : i64} : (tensor<4xf32>, tensor<2xi64>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
//--- two.mlir
// TWO: several functions; choose one with --entry (there are prefill, decode)
// ENTRY: y : tensor<4x2xf32> = {{\[\[}}-0, -1]
// NOVALUE: input 'x' (tensor<4x2xf32>) has no value; give --input x=FILE.npy or --random-inputs
// NAME: --input y: 'decode' has no such input
// SHAPE: holds 4x2xf32, the input is tensor<8x2xf32>
// NPY: not a .npy file
func.func @prefill(%x: tensor<8x2xf32> {dshard.name = "x"}) -> (tensor<8x2xf32> {dshard.name = "y"}) {
  %y = dshard.neg %x : (tensor<8x2xf32>) -> tensor<8x2xf32>
  return %y : tensor<8x2xf32>
}
func.func @decode(%x: tensor<4x2xf32> {dshard.name = "x"}) -> (tensor<4x2xf32> {dshard.name = "y"}) {
  %y = dshard.neg %x : (tensor<4x2xf32>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}
//--- weight.mlir
// WEIGHT: weight 'w': {{.*}}cannot open: No such file or directory; name its folder with --weights or use --random-weights
// SHORT: has 160 bytes, the weight needs 256 at 0
func.func @run(%w: tensor<8x8xf32> {dshard.weight = #dshard.weight<"w", "iota-4x2.npy", offset = 0, length = 256, type = tensor<8x8xf32>, fan_in = 8>}) -> tensor<8x8xf32> {
  return %w : tensor<8x8xf32>
}
