// Equal values are computed once, whatever their path and why; the op that stays
// is named after both.
// RUN: dshard-opt %s -dshard-cse | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {

// CHECK-LABEL: func.func @paths
// CHECK-NEXT: %[[C:.*]] = dshard.cos %arg0 {part = #dshard.part<forward>, path = "model.layers"}
// CHECK-NEXT: dshard.add %[[C]], %[[C]]
func.func @paths(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = dshard.cos %x {path = "model.layers.0.attn", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  %1 = dshard.cos %x {path = "model.layers.1", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = dshard.add %0, %1 {path = "model", part = #dshard.part<forward>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %2 : tensor<4xf32>
}

// A common prefix is one of whole names: layers.1 is not in layers.10.
// CHECK-LABEL: func.func @whole_names
// CHECK-NEXT: dshard.cos %arg0 {part = #dshard.part<forward>, path = "layers"}
func.func @whole_names(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = dshard.cos %x {path = "layers.1", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  %1 = dshard.cos %x {path = "layers.10", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = dshard.add %0, %1 {path = "", part = #dshard.part<forward>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %2 : tensor<4xf32>
}

// CHECK-LABEL: func.func @whys
// CHECK-NEXT: dshard.all_gather %arg0 dims [0] over ["tp"] why "q_proj; k_proj"
// CHECK-NOT: dshard.all_gather
func.func @whys(%x: tensor<4xf32>) -> tensor<8xf32> {
  %0 = dshard.all_gather %x dims [0] over ["tp"] why "q_proj" : (tensor<4xf32>) -> tensor<8xf32>
  %1 = dshard.all_gather %x dims [0] over ["tp"] why "k_proj" : (tensor<4xf32>) -> tensor<8xf32>
  %2 = dshard.all_gather %x dims [0] over ["tp"] why "q_proj" : (tensor<4xf32>) -> tensor<8xf32>
  %3 = dshard.add %0, %1 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %4 = dshard.add %3, %2 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %4 : tensor<8xf32>
}

// What differs in meaning stays apart: part, attributes, operand order, type.
// CHECK-LABEL: func.func @different
// CHECK: dshard.neg {{.*}}part<forward>
// CHECK: dshard.neg {{.*}}part<backward>
// CHECK: dshard.iota {dim = 0
// CHECK: dshard.iota {dim = 1
// CHECK: dshard.sub %arg0, %arg1
// CHECK: dshard.sub %arg1, %arg0
func.func @different(%x: tensor<4x4xf32>, %y: tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xi64>, tensor<4x4xi64>, tensor<4x4xf32>, tensor<4x4xf32>) {
  %0 = dshard.neg %x {part = #dshard.part<forward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = dshard.neg %x {part = #dshard.part<backward>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = dshard.iota {dim = 0} : () -> tensor<4x4xi64>
  %3 = dshard.iota {dim = 1} : () -> tensor<4x4xi64>
  %4 = dshard.sub %x, %y : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %5 = dshard.sub %y, %x : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %0, %1, %2, %3, %4, %5 : tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xi64>, tensor<4x4xi64>, tensor<4x4xf32>, tensor<4x4xf32>
}

// Messages are no values.
// CHECK-LABEL: func.func @effects
// CHECK-COUNT-2: dshard.send
func.func @effects(%x: tensor<4xf32>) {
  dshard.send %x to 1 tag 0 over ["tp"] why "w" : tensor<4xf32>
  dshard.send %x to 1 tag 0 over ["tp"] why "w" : tensor<4xf32>
  return
}
}
