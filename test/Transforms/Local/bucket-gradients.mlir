// What only the optimizer waits for is one collective per unit, part and axes, where its last
// operand is ready.
// RUN: dshard-opt %s --split-input-file --dshard-bucket-collectives --dshard-verify-local | FileCheck %s

// Scattered, then summed over the replicas: what needs an earlier one moves behind the bucket.
// CHECK-LABEL: func.func @chain(
// CHECK-NOT: dshard.reduce_scatter
// CHECK: %[[SQUARE:.*]] = dshard.mul %arg1, %arg1
// CHECK-NEXT: %[[S:.*]]:2 = dshard.reduce_scatter sum %arg0, %[[SQUARE]] dims [0, 1] over ["dp_shard"] why "reduce gradients of layers.0: a, b" {{.*}}path = "layers.0"
// CHECK-NEXT: %[[R:.*]]:2 = dshard.all_reduce sum %[[S]]#0, %[[S]]#1 over ["dp_replicate"] why "reduce gradients of layers.0: a, b"
// CHECK-NEXT: return %[[R]]#0, %[[R]]#1
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "dp_shard"=2>} {
func.func @chain(%a: tensor<4x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
    %b: tensor<4x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>})
    -> (tensor<2x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
        tensor<4x2xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {"dp_shard"} ]>}) attributes {dshard.spmd} {
  %0 = dshard.reduce_scatter sum %a dims [0] over ["dp_shard"] why "reduce gradient of layers.0.a" {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x4xf32>) -> tensor<2x4xf32>
  %1 = dshard.all_reduce sum %0 over ["dp_replicate"] why "reduce gradient of layers.0.a" {path = "layers.0", part = #dshard.part<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %2 = dshard.mul %b, %b {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = dshard.reduce_scatter sum %2 dims [1] over ["dp_shard"] why "reduce gradient of layers.0.b" {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x4xf32>) -> tensor<4x2xf32>
  %4 = dshard.all_reduce sum %3 over ["dp_replicate"] why "reduce gradient of layers.0.b" {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x2xf32>) -> tensor<4x2xf32>
  return %1, %4 : tensor<2x4xf32>, tensor<4x2xf32>
}
}

// -----

// The backward part waits for the input's gradient: it stays where it is.
// CHECK-LABEL: func.func @not_for_the_optimizer(
// CHECK: %[[DX:.*]] = dshard.all_reduce sum %arg0 over ["tp"] why "gradient of the input"
// CHECK-NEXT: %[[G:.*]] = dshard.mul %[[DX]], %[[DX]]
// CHECK-NEXT: dshard.all_reduce sum %[[G]] over ["tp"] why "reduce gradient of a"
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @not_for_the_optimizer(%a: tensor<4x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>})
    -> (tensor<4x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %a over ["tp"] why "gradient of the input" {path = "a", part = #dshard.part<backward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.mul %0, %0 {path = "a", part = #dshard.part<backward>} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = dshard.all_reduce sum %1 over ["tp"] why "reduce gradient of a" {path = "a", part = #dshard.part<backward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  return %2 : tensor<4x4xf32>
}
}

// -----

// Scalars of all parameters are one, but one that needs another's sum is not among them.
// CHECK-LABEL: func.func @norm(
// CHECK: %[[N:.*]]:2 = dshard.all_reduce sum %arg0, %arg1 over ["tp"] why "square of a; square of b" {{.*}}path = ""
// CHECK-NEXT: %[[M:.*]] = dshard.mul %[[N]]#0, %[[N]]#1
// CHECK-NEXT: dshard.all_reduce sum %[[M]] over ["tp"] why "square of both"
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @norm(%a: tensor<f32> {dshard.global = tensor<f32>, dshard.sharding = #dshard.sharding<[]>},
    %b: tensor<f32> {dshard.global = tensor<f32>, dshard.sharding = #dshard.sharding<[]>})
    -> (tensor<f32> {dshard.global = tensor<f32>, dshard.sharding = #dshard.sharding<[]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %a over ["tp"] why "square of a" {path = "layers.0.a", part = #dshard.part<optimizer>} : (tensor<f32>) -> tensor<f32>
  %1 = dshard.all_reduce sum %b over ["tp"] why "square of b" {path = "head", part = #dshard.part<optimizer>} : (tensor<f32>) -> tensor<f32>
  %2 = dshard.mul %0, %1 {path = "", part = #dshard.part<optimizer>} : (tensor<f32>, tensor<f32>) -> tensor<f32>
  %3 = dshard.all_reduce sum %2 over ["tp"] why "square of both" {path = "", part = #dshard.part<optimizer>} : (tensor<f32>) -> tensor<f32>
  return %3 : tensor<f32>
}
}

// -----

// Vectors go by unit where matrices are reduced over the same axes.
// CHECK-LABEL: func.func @vectors(
// CHECK: dshard.all_reduce sum %arg0, %arg1 over ["dp_replicate"] why "reduce gradients of layers.0: w, norm"
// CHECK: dshard.all_reduce sum %arg2 over ["dp_replicate"] why "reduce gradient of layers.1.norm"
// CHECK: dshard.all_reduce sum %{{.*}}#1, %{{.*}} over ["tp"] why "reduce gradients of several units: layers.0.norm, layers.1.norm"
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "tp"=2>} {
func.func @vectors(%w: tensor<4x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
    %n0: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
    %n1: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<4x4xf32> {dshard.global = tensor<4x4xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>},
        tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
        tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %w over ["dp_replicate"] why "reduce gradient of layers.0.w" {path = "layers.0", part = #dshard.part<backward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.all_reduce sum %n0 over ["dp_replicate"] why "reduce gradient of layers.0.norm" {path = "layers.0", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = dshard.all_reduce sum %1 over ["tp"] why "reduce gradient of layers.0.norm" {path = "layers.0", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  %3 = dshard.all_reduce sum %n1 over ["dp_replicate"] why "reduce gradient of layers.1.norm" {path = "layers.1", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  %4 = dshard.all_reduce sum %3 over ["tp"] why "reduce gradient of layers.1.norm" {path = "layers.1", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0, %2, %4 : tensor<4x4xf32>, tensor<4xf32>, tensor<4xf32>
}
}
