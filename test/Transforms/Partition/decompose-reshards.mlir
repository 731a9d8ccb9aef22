// Each reshard becomes reshards of one collective each; partition then shows which.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-decompose-reshards | FileCheck %s
// RUN: dshard-opt %s --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s --check-prefix=LOCAL < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --entry all --random-inputs=1 --ranks 8

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=4>} {
// CHECK-LABEL: func.func @all(
// LOCAL-LABEL: func.func @all(
func.func @all(%a: tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
               %b: tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>},
               %k: tensor<16x16xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> (
    tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>}, tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard", "tp"}, {} ]>}, tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{}, {} ]>},
    tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>}, tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp":(1)2} ]>},
    tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{"tp":(1)2}, {"tp":(2)2} ]>}, tensor<8x16xf32> {dshard.sharding = #dshard.sharding<[{"tp":(2)2}, {"tp":(1)2} ]>}) {
  // sharded -> replicated
  // CHECK: dshard.reshard %arg0 to <[{}, {} ]> why "a"
  // LOCAL: dshard.all_gather %arg0 dims [1] over ["tp"] why "a"
  %0 = dshard.reshard %a to <[{}, {} ]> why "a" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  // dim 1 -> dim 0
  // CHECK: dshard.reshard %arg0 to <[{"tp"}, {} ]> why "b"
  // LOCAL: dshard.all_to_all %arg0 split 0 concat 1 over ["tp"] why "b"
  %1 = dshard.reshard %a to <[{"tp"}, {} ]> why "b" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  // replicated -> sharded, over two axes at once
  // CHECK: dshard.reshard %arg1 to <[{"dp_shard", "tp"}, {} ]> why "c"
  // LOCAL: dshard.local_slice %arg1 dim 0 over ["dp_shard", "tp"] why "c"
  %2 = dshard.reshard %b to <[{"dp_shard", "tp"}, {} ]> why "c" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  %p = dshard.matmul %a, %k {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<8x16xf32>, tensor<16x16xf32>) -> tensor<8x16xf32>
  // partial -> replicated
  // CHECK: dshard.reshard %[[P:.*]] to <[{}, {} ]> why "d"
  // LOCAL: dshard.all_reduce sum %{{.*}} over ["tp"] why "d"
  %3 = dshard.reshard %p to <[{}, {} ]> why "d" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  // partial -> sharded; the slice comes first, it makes the rest smaller.
  // CHECK: %[[S:.*]] = dshard.reshard %[[P]] to <[{"dp_shard"}, {} ], partial = {"tp"}, kind = sum> why "e"
  // CHECK-NEXT: dshard.reshard %[[S]] to <[{"dp_shard"}, {"tp"} ]> why "e"
  // LOCAL: %[[S:.*]] = dshard.local_slice %{{.*}} dim 0 over ["dp_shard"] why "e"
  // LOCAL-NEXT: dshard.reduce_scatter sum %[[S]] dims [1] over ["tp"] why "e"
  %4 = dshard.reshard %p to <[{"dp_shard"}, {"tp"} ]> why "e" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  // Half of an axis.
  // LOCAL: dshard.all_gather %arg0 dims [1] over ["tp":(2)2] why "f"
  %5 = dshard.reshard %a to <[{}, {"tp":(1)2} ]> why "f" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  // The minor half can move by itself, the major one cannot: its minor neighbour
  // has to go first.
  // LOCAL: dshard.all_to_all %arg0 split 0 concat 1 over ["tp":(2)2] why "h"
  // CHECK: why "g"
  // expected-remark@+1 {{no collective goes from [{}, {"tp"} ] to [{"tp":(1)2}, {"tp":(2)2} ] alone: it is gathered and sliced (g)}}
  %6 = dshard.reshard %a to <[{"tp":(1)2}, {"tp":(2)2} ]> why "g" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  %7 = dshard.reshard %a to <[{"tp":(2)2}, {"tp":(1)2} ]> why "h" {path = "", part = #dshard.part<forward>} : tensor<8x16xf32>
  return %0, %1, %2, %3, %4, %5, %6, %7 : tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x16xf32>
}

// A reshard that changes nothing goes away.
// CHECK-LABEL: func.func @nothing(
// CHECK-NEXT: return %arg0
func.func @nothing(%a: tensor<8xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) -> (tensor<8xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) {
  %0 = dshard.reshard %a to <[{"tp":(1)2, "tp":(2)2} ]> why "same" {path = "", part = #dshard.part<forward>} : tensor<8xf32>
  return %0 : tensor<8xf32>
}
}
