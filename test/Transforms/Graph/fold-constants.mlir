// Ops on constants are evaluated, rounded to their type, within a budget.
// RUN: dshard-opt %s -dshard-fold-constants | FileCheck %s
// RUN: dshard-opt %s -dshard-fold-constants=max-elements=3 | FileCheck %s --check-prefix=SMALL

// CHECK-LABEL: func.func @table
// CHECK-NEXT: %[[C:.*]] = dshard.constant dense<{{.*}}1.000000e+00, 0.540302277, -0.416146845, -0.989992499{{.*}}> : tensor<4xf32>
// CHECK-NEXT: return %[[C]]
// SMALL-LABEL: func.func @table
// SMALL: dshard.iota
// SMALL: dshard.cos
func.func @table() -> tensor<4xf32> {
  %0 = dshard.iota {dim = 0, path = "a", part = #dshard.part<forward>} : () -> tensor<4xi64>
  %1 = dshard.cast %0 {path = "a", part = #dshard.part<forward>} : (tensor<4xi64>) -> tensor<4xf32>
  %2 = dshard.cos %1 {path = "a", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %2 : tensor<4xf32>
}

// bf16 keeps 8 bits of 1 / 3.
// CHECK-LABEL: func.func @rounded
// CHECK-NEXT: dshard.constant dense<3.339840e-01> : tensor<2xbf16>
func.func @rounded() -> tensor<2xbf16> {
  %0 = dshard.constant dense<3.0> : tensor<2xbf16>
  %1 = dshard.reciprocal %0 {path = "a", part = #dshard.part<forward>} : (tensor<2xbf16>) -> tensor<2xbf16>
  return %1 : tensor<2xbf16>
}

// Integers that double cannot hold are left to the runtime.
// CHECK-LABEL: func.func @large_integers
// CHECK: dshard.add
func.func @large_integers() -> tensor<i64> {
  %0 = dshard.constant dense<9223372036854775806> : tensor<i64>
  %1 = dshard.constant dense<1> : tensor<i64>
  %2 = dshard.add %0, %1 {path = "a", part = #dshard.part<forward>} : (tensor<i64>, tensor<i64>) -> tensor<i64>
  return %2 : tensor<i64>
}

// An op with one operand that is no constant stays.
// CHECK-LABEL: func.func @not_constant
// CHECK: dshard.add
func.func @not_constant(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = dshard.constant dense<1.0> : tensor<4xf32>
  %1 = dshard.add %x, %0 {path = "a", part = #dshard.part<forward>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}
