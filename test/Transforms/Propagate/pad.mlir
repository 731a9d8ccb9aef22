// The vocabulary is padded: its argument grows, its stored type stays, negative
// indices are wrapped first and logits are cropped. Every other dim is left alone.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-pad | FileCheck %s
// RUN: dshard-opt %s --split-input-file --dshard-pad --dshard-propagate --dshard-insert-reshards --dshard-verify-resolved --dshard-decompose-reshards --dshard-partition --dshard-verify-local | FileCheck %s --check-prefix=LOCAL

module attributes {dshard.mesh = #dshard.mesh<"tp"=4>} {
// CHECK-LABEL: func.func @pad(
// CHECK-SAME: %arg0: tensor<12x8xf32> {{.*}}dshard.weight = #dshard.weight<{{.*}}tensor<10x8xf32>
// CHECK: %[[NEGATIVE:.*]] = dshard.compare %arg1
// CHECK: %[[WRAPPED:.*]] = dshard.add %arg1
// CHECK: %[[IDS:.*]] = dshard.select %[[NEGATIVE]], %[[WRAPPED]], %arg1
// CHECK: %[[H:.*]] = dshard.gather %arg0, %[[IDS]]
// CHECK-SAME: (tensor<12x8xf32>, tensor<2x3xi64>) -> tensor<2x3x8xf32>
// CHECK: %[[Y:.*]] = dshard.matmul %[[H]], %arg0
// CHECK-SAME: -> tensor<2x3x12xf32>
// CHECK: %[[C:.*]] = dshard.slice %[[Y]]
// CHECK-SAME: -> tensor<2x3x10xf32>
// CHECK: return %[[C]]
// LOCAL-LABEL: func.func @pad(
// LOCAL-SAME: %arg0: tensor<3x8xf32> {dshard.global = tensor<12x8xf32>
// LOCAL: dshard.all_reduce
// LOCAL: dshard.all_gather {{.*}} dims [2] over ["tp"] why "gather output of lm_head
// LOCAL: dshard.slice {{.*}} -> tensor<2x3x10xf32>
// expected-remark@+1 {{parameter embed: dim 0 padded from 10 to 12 for {"tp"} of 4 ranks: 64 bytes more in all, and lm_head is gathered and cropped to 10}}
func.func @pad(%table: tensor<10x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>,
      dshard.weight = #dshard.weight<"embed", "w.data", offset = 0, length = 320, type = tensor<10x8xf32>, fan_in = 8>},
    %ids: tensor<2x3xi64>) -> tensor<2x3x10xf32> {
  %0 = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<10x8xf32>, tensor<2x3xi64>) -> tensor<2x3x8xf32>
  %1 = dshard.matmul %0, %table {transpose_rhs, path = "lm_head", part = #dshard.part<forward>} : (tensor<2x3x8xf32>, tensor<10x8xf32>) -> tensor<2x3x10xf32>
  return %1 : tensor<2x3x10xf32>
}

// A dim that divides stays.
// CHECK-LABEL: func.func @divides(
// CHECK-SAME: %arg0: tensor<8x8xf32>
// CHECK-NOT: dshard.compare
func.func @divides(%table: tensor<8x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %ids: tensor<3xi64>) -> tensor<3x8xf32> {
  %0 = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<8x8xf32>, tensor<3xi64>) -> tensor<3x8xf32>
  return %0 : tensor<3x8xf32>
}
}

// -----

// Through a transpose.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// CHECK-LABEL: func.func @transposed(
// CHECK: dshard.transpose {{.*}} (tensor<6x4xf32>) -> tensor<4x6xf32>
// CHECK: dshard.slice {{.*}} -> tensor<3x5xf32>
// expected-remark@+1 {{dim 0 padded from 5 to 6}}
func.func @transposed(%w: tensor<5x4xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}, %x: tensor<3x4xf32>) -> tensor<3x5xf32> {
  %0 = dshard.transpose %w {permutation = array<i64: 1, 0>, path = "lm_head", part = #dshard.part<forward>} : (tensor<5x4xf32>) -> tensor<4x5xf32>
  %1 = dshard.matmul %x, %0 {path = "lm_head", part = #dshard.part<forward>} : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
  return %1 : tensor<3x5xf32>
}
}

// -----

// A bias that does not divide is added to the cropped product as a whole.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// CHECK-LABEL: func.func @bias(
// CHECK-SAME: %arg1: tensor<5xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{} ]>}
// CHECK: %[[C:.*]] = dshard.slice {{.*}} -> tensor<3x5xf32>
// CHECK: dshard.add %[[C]], %arg1
func.func @bias(
    // expected-remark@+1 {{dim 0 padded from 5 to 6}}
    %w: tensor<5x4xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    // expected-remark@+1 {{a bias of size 5 is replicated, because 2 ranks do not divide it}}
    %b: tensor<5xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"} ]>}, %x: tensor<3x4xf32>) -> tensor<3x5xf32> {
  %0 = dshard.matmul %x, %w {transpose_rhs, path = "lm_head", part = #dshard.part<forward>} : (tensor<3x4xf32>, tensor<5x4xf32>) -> tensor<3x5xf32>
  %1 = dshard.add %0, %b {path = "lm_head", part = #dshard.part<forward>} : (tensor<3x5xf32>, tensor<5xf32>) -> tensor<3x5xf32>
  return %1 : tensor<3x5xf32>
}
}
