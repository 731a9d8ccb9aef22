// Storage over dp_shard beside the compute sharding: the first dim that divides after
// it, else a padded one; a reshard "gather parameter NAME" with its unit's path.
// RUN: dshard-opt %s --split-input-file --dshard-fully-shard --dshard-verify-partial --dshard-verify-resolved -o %t.mlir 2> %t.remarks
// RUN: FileCheck %s < %t.mlir
// RUN: FileCheck %s --check-prefix=REMARK < %t.remarks
// RUN: dshard-opt %s --split-input-file --dshard-fully-shard=mode=gradients | FileCheck %s --check-prefix=GRADIENTS
// RUN: dshard-opt %s --split-input-file --dshard-fully-shard=mode=none | FileCheck %s --check-prefix=NONE
// RUN: dshard-opt %s --split-input-file --dshard-fully-shard=mode=optimizer | FileCheck %s --check-prefix=NONE
// RUN: dshard-opt %s --split-input-file --dshard-fully-shard=unit=layers.*.a 2> /dev/null | FileCheck %s --check-prefix=UNIT

// NONE-NOT: dshard.reshard
// GRADIENTS-NOT: regather

// CHECK-LABEL: func.func @units(
// CHECK-SAME: %arg1: tensor<4x4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>
// CHECK-SAME: %arg2: tensor<4x4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>
// CHECK-SAME: %arg3: tensor<4x4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>
// CHECK-SAME: %arg4: tensor<4x4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>
// Used by two units: it belongs to the root.
// CHECK: %[[SHARED:.*]] = dshard.reshard %arg2 to <[{}, {} ]> why "gather parameter shared" {part = #dshard.part<forward>, path = ""}
// CHECK: %[[A:.*]] = dshard.reshard %arg1 to <[{}, {"tp"} ]> why "gather parameter a" regather {part = #dshard.part<forward>, path = "layers.0"}
// CHECK: dshard.matmul %{{.*}}, %[[A]]
// CHECK: dshard.matmul %{{.*}}, %[[SHARED]]
// The last unit and the root are kept.
// CHECK: dshard.reshard %arg3 {{.*}}why "gather parameter b" {part = #dshard.part<forward>, path = "layers.1"}
// CHECK: dshard.reshard %arg4 {{.*}}why "gather parameter head" {part = #dshard.part<forward>, path = ""}
// UNIT-LABEL: func.func @units(
// UNIT: why "gather parameter shared" {part = #dshard.part<forward>, path = ""}
// UNIT: why "gather parameter a" {part = #dshard.part<forward>, path = "layers.0.a"}
// UNIT: why "gather parameter b" {part = #dshard.part<forward>, path = ""}
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "dp_shard"=2, "tp"=2>} {
func.func @units(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>},
    %a: tensor<4x4xf32> {dshard.weight = #dshard.weight<"a", "w.bin", offset = 0, length = 64, type = tensor<4x4xf32>, fan_in = 4>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %shared: tensor<4x4xf32> {dshard.weight = #dshard.weight<"shared", "w.bin", offset = 64, length = 64, type = tensor<4x4xf32>, fan_in = 4>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
    %b: tensor<4x4xf32> {dshard.weight = #dshard.weight<"b", "w.bin", offset = 128, length = 64, type = tensor<4x4xf32>, fan_in = 4>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
    %head: tensor<4x4xf32> {dshard.weight = #dshard.weight<"head", "w.bin", offset = 192, length = 64, type = tensor<4x4xf32>, fan_in = 4>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {} ]>})
    -> (tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>},
        tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"dp_replicate", "dp_shard"}, {"tp"} ]>}) {
  %0 = dshard.matmul %x, %shared {path = "layers.0.s", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>]} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.matmul %0, %a {path = "layers.0.a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_replicate", "dp_shard"}, {"tp"} ]>]} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = dshard.matmul %0, %shared {path = "layers.1.s", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>]} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = dshard.matmul %2, %b {path = "layers.1.b", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>]} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %4 = dshard.matmul %3, %head {path = "head", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_replicate", "dp_shard"}, {} ]>]} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %4, %1 : tensor<4x4xf32>, tensor<4x4xf32>
}
}

// -----

// Dim 0 is tp's already and 6 rows over 4 do not divide by 2 more: dim 1. A vector of 3 is
// padded and cropped; one that tp holds whole, and a scalar, stay.
// CHECK-LABEL: func.func @dims(
// CHECK-SAME: %arg0: tensor<6x4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp"}, {"dp_shard"} ]>
// CHECK-SAME: %arg1: tensor<8x4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp", "dp_shard"}, {} ]>
// CHECK-SAME: %arg2: tensor<4xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>
// CHECK-SAME: %arg3: tensor<6xf32> {{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp"} ]>
// CHECK-SAME: %arg4: tensor<f32>
// CHECK: %[[G:.*]] = dshard.reshard %arg2 to <[{} ]> why "gather parameter small"
// CHECK-NEXT: %[[S:.*]] = dshard.slice %[[G]] {{.*}}path = "layers.0", starts = array<i64: 0>, strides = array<i64: 1>} : (tensor<4xf32>) -> tensor<3xf32>
// CHECK-NEXT: dshard.neg %[[S]]
// CHECK: dshard.neg %arg3
// CHECK: dshard.neg %arg4
// REMARK: remark: parameter small: dim 0 padded from 3 to 4 for storage over {"dp_shard"} of 2 ranks
// REMARK: remark: parameter whole of 24 bytes is stored as it is computed with, [{"tp"} ]: {"dp_shard"} of 2 ranks divides no dim of it
// REMARK: remark: parameter scalar of 4 bytes is stored as it is computed with, [ ]: {"dp_shard"} of 2 ranks divides no dim of it
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @dims(
    %rows: tensor<6x4xf32> {dshard.name = "rows", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %more: tensor<8x4xf32> {dshard.name = "more", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %small: tensor<3xf32> {dshard.weight = #dshard.weight<"small", "w.bin", offset = 0, length = 12, type = tensor<3xf32>, fan_in = 3>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{} ]>},
    %whole: tensor<6xf32> {dshard.weight = #dshard.weight<"whole", "w.bin", offset = 12, length = 24, type = tensor<6xf32>, fan_in = 6>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"} ]>},
    %scalar: tensor<f32> {dshard.weight = #dshard.weight<"scalar", "w.bin", offset = 36, length = 4, type = tensor<f32>, fan_in = 1>, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[]>})
    -> (tensor<6x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}, tensor<8x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
        tensor<3xf32> {dshard.sharding = #dshard.sharding<[{} ]>}, tensor<6xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}, tensor<f32> {dshard.sharding = #dshard.sharding<[]>}) {
  %0 = dshard.neg %rows {path = "layers.0.a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]} : (tensor<6x4xf32>) -> tensor<6x4xf32>
  %1 = dshard.neg %more {path = "layers.0.a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]} : (tensor<8x4xf32>) -> tensor<8x4xf32>
  %2 = dshard.neg %small {path = "layers.0.a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<3xf32>) -> tensor<3xf32>
  %3 = dshard.neg %whole {path = "layers.0.a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"} ]>]} : (tensor<6xf32>) -> tensor<6xf32>
  %4 = dshard.neg %scalar {path = "layers.0.a", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[]>]} : (tensor<f32>) -> tensor<f32>
  return %0, %1, %2, %3, %4 : tensor<6x4xf32>, tensor<8x4xf32>, tensor<3xf32>, tensor<6xf32>, tensor<f32>
}
}
