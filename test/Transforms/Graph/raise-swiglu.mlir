// x * sigmoid(x) is silu, and that times another value swiglu.
// RUN: dshard-opt %s -dshard-raise-swiglu -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry swiglu
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry silu

// CHECK-LABEL: func.func @swiglu
// CHECK-NEXT: %[[S:.*]] = dshard.swiglu %arg0, %arg1 {part = #dshard.part<forward>, path = "mlp"}
// CHECK-NEXT: return %[[S]]
func.func @swiglu(%gate: tensor<2x4xf64>, %up: tensor<2x4xf64>) -> tensor<2x4xf64> {
  %0 = dshard.sigmoid %gate {path = "mlp.act", part = #dshard.part<forward>} : (tensor<2x4xf64>) -> tensor<2x4xf64>
  %1 = dshard.mul %gate, %0 {path = "mlp.act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %2 = dshard.mul %up, %1 {path = "mlp", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  return %2 : tensor<2x4xf64>
}

// A silu that is read twice stays one.
// CHECK-LABEL: func.func @silu
// CHECK-NEXT: %[[S:.*]] = dshard.silu %arg0 {part = #dshard.part<forward>, path = "act"}
// CHECK-NEXT: %[[M:.*]] = dshard.mul %[[S]], %arg1
// CHECK-NEXT: return %[[S]], %[[M]]
func.func @silu(%x: tensor<2x4xf64>, %y: tensor<2x4xf64>) -> (tensor<2x4xf64>, tensor<2x4xf64>) {
  %0 = dshard.sigmoid %x {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>) -> tensor<2x4xf64>
  %1 = dshard.mul %0, %x {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %2 = dshard.mul %1, %y {path = "mlp", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  return %1, %2 : tensor<2x4xf64>, tensor<2x4xf64>
}

// The sigmoid of another value is a gate of its own.
// CHECK-LABEL: func.func @other
// CHECK: dshard.sigmoid
// CHECK-NOT: silu
// CHECK: return
func.func @other(%x: tensor<2x4xf64>, %y: tensor<2x4xf64>) -> tensor<2x4xf64> {
  %0 = dshard.sigmoid %x {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>) -> tensor<2x4xf64>
  %1 = dshard.mul %0, %y {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  return %1 : tensor<2x4xf64>
}
