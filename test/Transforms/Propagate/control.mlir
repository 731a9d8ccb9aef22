// Regions of repeat and if: what they carry has one sharding inside and outside, and reshards of
// what a loop does not change stand before it.
// RUN: dshard-opt %s --split-input-file --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved 2> /dev/null | FileCheck %s
// RUN: dshard-opt %s --split-input-file --dshard-propagate --dshard-insert-reshards --dshard-decompose-reshards --dshard-partition --dshard-verify-local 2> /dev/null | FileCheck %s --check-prefix=LOCAL

// The carried value takes the sharding of the matmul that makes it; the weight of the loop is
// gathered once.
// CHECK-LABEL: func.func @carried(
// CHECK: %[[W:.*]] = dshard.reshard %arg1 to <[{}, {} ]>
// CHECK: %[[R:.*]] = dshard.repeat 3 init(%arg0) {dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]
// CHECK: dshard.matmul %{{.*}}, %[[W]] {dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]
// CHECK: return %[[R]]
// LOCAL-LABEL: func.func @carried(
// LOCAL: dshard.all_gather
// LOCAL: dshard.repeat 3 init(%arg0) {{.*}} : (tensor<2x4xf32>) -> tensor<2x4xf32>
// LOCAL-NEXT: ^bb0(%{{.*}}: tensor<i64>, %{{.*}}: tensor<2x4xf32>):
// LOCAL-NOT: dshard.all_gather
// LOCAL: dshard.yield %{{.*}} : tensor<2x4xf32>
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @carried(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x4xf32> {
  %0 = dshard.repeat 3 init(%x) {path = "", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32> {
  ^bb0(%i: tensor<i64>, %v: tensor<4x4xf32>):
    %1 = dshard.matmul %v, %w {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    dshard.yield %1 : tensor<4x4xf32>
  }
  return %0 : tensor<4x4xf32>
}
}

// -----

// A sum from zero over a sharded contraction is pending in the loop, and reduced once behind it.
// CHECK-LABEL: func.func @accumulator(
// CHECK: dshard.constant {dshard.shardings = [#dshard.sharding<[{}, {} ], partial = {"tp"}, kind = sum>]}
// CHECK: %[[R:.*]] = dshard.repeat 2
// CHECK-NOT: dshard.reshard
// CHECK: dshard.yield
// CHECK: dshard.reshard %[[R]] to <[{}, {} ]> why "row-parallel output of a"
// LOCAL-LABEL: func.func @accumulator(
// LOCAL: dshard.yield
// LOCAL: dshard.all_reduce
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @accumulator(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x4xf32> {
  %zero = dshard.constant dense<0.0> : tensor<4x4xf32>
  %0 = dshard.repeat 2 init(%zero) {path = "", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32> {
  ^bb0(%i: tensor<i64>, %v: tensor<4x4xf32>):
    %1 = dshard.matmul %x, %w {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %2 = dshard.add %v, %1 {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    dshard.yield %2 : tensor<4x4xf32>
  }
  return %0 : tensor<4x4xf32>
}
}

// -----

// Not from zero: each rank would add the start. It is reduced in every iteration.
// CHECK-LABEL: func.func @not_from_zero(
// CHECK: dshard.repeat 2
// CHECK: %[[P:.*]] = dshard.matmul
// CHECK: %[[S:.*]] = dshard.reshard %[[P]] to <[{}, {} ]> why "row-parallel output of a"
// CHECK: dshard.add %{{.*}}, %[[S]]
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @not_from_zero(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}, %start: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = dshard.repeat 2 init(%start) {path = "", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32> {
  ^bb0(%i: tensor<i64>, %v: tensor<4x4xf32>):
    %1 = dshard.matmul %x, %w {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %2 = dshard.add %v, %1 {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    dshard.yield %2 : tensor<4x4xf32>
  }
  return %0 : tensor<4x4xf32>
}
}

// -----

// A value that the body also reads otherwise is whole in every iteration.
// CHECK-LABEL: func.func @read_inside(
// CHECK: dshard.repeat 2
// CHECK: %[[P:.*]] = dshard.matmul
// CHECK: dshard.reshard %[[P]] to <[{}, {"tp"} ]> why "row-parallel output of a"
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @read_inside(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x4xf32> {
  %zero = dshard.constant dense<0.0> : tensor<4x4xf32>
  %0 = dshard.repeat 2 init(%zero) {path = "", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32> {
  ^bb0(%i: tensor<i64>, %v: tensor<4x4xf32>):
    %e = dshard.exp %v {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
    %m = dshard.mul %x, %e {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %1 = dshard.matmul %m, %w {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %2 = dshard.add %v, %1 {path = "a", part = #dshard.part<forward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    dshard.yield %2 : tensor<4x4xf32>
  }
  return %0 : tensor<4x4xf32>
}
}

// -----

// Both branches give the result as one sharding.
// CHECK-LABEL: func.func @branches(
// CHECK: dshard.if %arg0 {dshard.shardings = [#dshard.sharding<[{"tp"} ]>]
// CHECK: dshard.neg %arg1 {dshard.shardings = [#dshard.sharding<[{"tp"} ]>]
// CHECK: else
// CHECK: %[[E:.*]] = dshard.exp %{{.*}} {dshard.shardings = [#dshard.sharding<[{"tp"} ]>]
// CHECK: dshard.yield %[[E]]
// LOCAL-LABEL: func.func @branches(
// LOCAL: dshard.if %arg0 {{.*}} : (tensor<i1>) -> tensor<2xf32>
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @branches(%c: tensor<i1>, %x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}, %y: tensor<4xf32>) -> tensor<4xf32> {
  %0 = dshard.if %c {path = "", part = #dshard.part<forward>} : (tensor<i1>) -> tensor<4xf32> {
    %1 = dshard.neg %x {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    dshard.yield %1 : tensor<4xf32>
  } else {
    %2 = dshard.exp %y {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    dshard.yield %2 : tensor<4xf32>
  }
  return %0 : tensor<4xf32>
}
}
