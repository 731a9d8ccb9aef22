// The error-function and tanh forms of gelu, factors in several orders.
// RUN: dshard-opt %s -dshard-raise-gelu -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry erf
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry tanh --rtol 1e-6

// CHECK-LABEL: func.func @erf
// CHECK-NEXT: %[[G:.*]] = dshard.gelu %arg0 {part = #dshard.part<forward>, path = "act"}
// CHECK-NEXT: return %[[G]]
func.func @erf(%x: tensor<2x4xf64>) -> tensor<2x4xf64> {
  %root = dshard.constant dense<1.4142135623730951> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %half = dshard.constant dense<0.5> : tensor<f64>
  %0 = dshard.div %x, %root {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %1 = dshard.erf %0 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>) -> tensor<2x4xf64>
  %2 = dshard.add %1, %one {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %3 = dshard.mul %x, %2 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %4 = dshard.mul %3, %half {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  return %4 : tensor<2x4xf64>
}

// CHECK-LABEL: func.func @tanh
// CHECK-NEXT: %[[G:.*]] = dshard.gelu %arg0 {part = #dshard.part<forward>, path = "act", tanh_approximation}
// CHECK-NEXT: return %[[G]]
func.func @tanh(%x: tensor<2x4xf64>) -> tensor<2x4xf64> {
  %a = dshard.constant dense<0.044715> : tensor<f64>
  %b = dshard.constant dense<0.7978845608> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %three = dshard.constant dense<3.0> : tensor<f64>
  %half = dshard.constant dense<0.5> : tensor<f64>
  %0 = dshard.pow %x, %three {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %1 = dshard.mul %0, %a {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %2 = dshard.add %x, %1 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %3 = dshard.mul %2, %b {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %4 = dshard.tanh %3 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>) -> tensor<2x4xf64>
  %5 = dshard.add %one, %4 {path = "act", part = #dshard.part<forward>} : (tensor<f64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %6 = dshard.mul %half, %x {path = "act", part = #dshard.part<forward>} : (tensor<f64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %7 = dshard.mul %6, %5 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  return %7 : tensor<2x4xf64>
}

// Another factor under the error function is no gelu.
// CHECK-LABEL: func.func @other
// CHECK-NOT: dshard.gelu
// CHECK: return
func.func @other(%x: tensor<2x4xf64>) -> tensor<2x4xf64> {
  %root = dshard.constant dense<1.7> : tensor<f64>
  %one = dshard.constant dense<1.0> : tensor<f64>
  %half = dshard.constant dense<0.5> : tensor<f64>
  %0 = dshard.div %x, %root {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %1 = dshard.erf %0 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>) -> tensor<2x4xf64>
  %2 = dshard.add %1, %one {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  %3 = dshard.mul %x, %2 {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  %4 = dshard.mul %3, %half {path = "act", part = #dshard.part<forward>} : (tensor<2x4xf64>, tensor<f64>) -> tensor<2x4xf64>
  return %4 : tensor<2x4xf64>
}
