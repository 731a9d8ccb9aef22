// Collectives are dropped, shared and merged, and nothing changes in value.
// RUN: dshard-opt %s --dshard-fold-collectives --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --entry shared --random-inputs=5 --ranks 2
// RUN: dshard-interpret %s --against %t.mlir --entry reduce_scatter --random-inputs=5 --ranks 2
// RUN: dshard-interpret %s --against %t.mlir --entry round_trips --random-inputs=5 --ranks 2
// RUN: dshard-interpret %s --against %t.mlir --entry sum --random-inputs=5 --ranks 2
// RUN: dshard-interpret %s --against %t.mlir --entry independent --random-inputs=5 --ranks 2

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// Equal gathers are one; the reasons are kept, the path is what they share. Another
// part is another gather.
// CHECK-LABEL: func.func @shared(
// CHECK: %[[G:.*]] = dshard.all_gather %arg0 dims [0] over ["tp"] why "for q; for k" {part = #dshard.part<forward>, path = "attn"}
// CHECK-NEXT: dshard.exp %[[G]]
// CHECK-NEXT: dshard.neg %[[G]]
// CHECK-NEXT: dshard.all_gather %arg0 dims [0] over ["tp"] why "again" {part = #dshard.part<backward>
func.func @shared(%x: tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>})
    -> (tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_gather %x dims [0] over ["tp"] why "for q" {path = "attn.q", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<8xf32>
  %1 = dshard.exp %0 {path = "attn.q", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %2 = dshard.all_gather %x dims [0] over ["tp"] why "for k" {path = "attn.k", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<8xf32>
  %3 = dshard.neg %2 {path = "attn.k", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %4 = dshard.all_gather %x dims [0] over ["tp"] why "again" {path = "attn.k", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<8xf32>
  %5 = dshard.add %1, %3 {path = "attn", part = #dshard.part<forward>} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %6 = dshard.add %5, %4 {path = "attn", part = #dshard.part<forward>} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %6 : tensor<8xf32>
}

// A slice of a sum is a reduce_scatter; not where the whole sum is needed too.
// CHECK-LABEL: func.func @reduce_scatter(
// CHECK: dshard.reduce_scatter sum %arg0 dims [0] over ["tp"] why "a"
// CHECK: dshard.all_reduce sum
// CHECK: dshard.local_slice
func.func @reduce_scatter(%x: tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>},
        tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>},
        tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %x over ["tp"] why "a" {path = "a", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %1 = dshard.local_slice %0 dim 0 over ["tp"] why "b" {path = "a", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<4xf32>
  %2 = dshard.neg %x {path = "a", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %3 = dshard.all_reduce sum %2 over ["tp"] why "c" {path = "a", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %4 = dshard.local_slice %3 dim 0 over ["tp"] why "d" {path = "a", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<4xf32>
  return %1, %4, %3 : tensor<4xf32>, tensor<4xf32>, tensor<8xf32>
}

// There and back is nothing; another dim is something.
// CHECK-LABEL: func.func @round_trips(
// CHECK-NEXT: %[[G:.*]] = dshard.all_gather %arg0
// CHECK-NEXT: %[[S:.*]] = dshard.local_slice %[[G]] dim 1
// CHECK-NEXT: return %arg0, %arg1, %[[S]]
func.func @round_trips(%x: tensor<4x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
      %y: tensor<8x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>})
    -> (tensor<4x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
        tensor<8x8xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
        tensor<8x4xf32> {dshard.global = tensor<8x8xf32>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_gather %x dims [0] over ["tp"] why "a" {path = "", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %1 = dshard.local_slice %0 dim 0 over ["tp"] why "b" {path = "", part = #dshard.part<forward>} : (tensor<8x8xf32>) -> tensor<4x8xf32>
  %2 = dshard.local_slice %y dim 0 over ["tp"] why "c" {path = "", part = #dshard.part<forward>} : (tensor<8x8xf32>) -> tensor<4x8xf32>
  %3 = dshard.all_gather %2 dims [0] over ["tp"] why "d" {path = "", part = #dshard.part<forward>} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %4 = dshard.local_slice %0 dim 1 over ["tp"] why "e" {path = "", part = #dshard.part<forward>} : (tensor<8x8xf32>) -> tensor<8x4xf32>
  return %1, %3, %4 : tensor<4x8xf32>, tensor<8x8xf32>, tensor<8x4xf32>
}

// The sum of two sums is the sum of the sums: one collective.
// CHECK-LABEL: func.func @sum(
// CHECK: %[[A:.*]] = dshard.add %arg0, %arg1
// CHECK-NEXT: %[[R:.*]] = dshard.all_reduce sum %[[A]] over ["tp"] why "attn; mlp"
// CHECK-NEXT: return %[[R]]
func.func @sum(%x: tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
               %y: tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %x over ["tp"] why "attn" {path = "l.attn", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %1 = dshard.all_reduce sum %y over ["tp"] why "mlp" {path = "l.mlp", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %2 = dshard.add %0, %1 {path = "l", part = #dshard.part<forward>} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %2 : tensor<8xf32>
}

// Sums that are needed for themselves, and maxima, stay.
// CHECK-LABEL: func.func @independent(
// CHECK-COUNT-4: dshard.all_reduce
func.func @independent(%x: tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
               %y: tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
        tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
        tensor<8xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %x over ["tp"] why "a" {path = "", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %1 = dshard.all_reduce sum %y over ["tp"] why "b" {path = "", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %2 = dshard.add %0, %1 {path = "", part = #dshard.part<forward>} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %3 = dshard.all_reduce max %x over ["tp"] why "c" {path = "", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %4 = dshard.all_reduce max %y over ["tp"] why "d" {path = "", part = #dshard.part<forward>} : (tensor<8xf32>) -> tensor<8xf32>
  %5 = dshard.add %3, %4 {path = "", part = #dshard.part<forward>} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %0, %2, %5 : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
}
}
