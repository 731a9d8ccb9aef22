// Single passes run on any IR: what is no tensor of known size counts no bytes.
// RUN: dshard-opt %s --dshard-schedule | FileCheck %s

func.func private @next(i32) -> i32
func.func private @grow(tensor<?xf32>) -> tensor<*xf32>

// CHECK-LABEL: func.func @numbers(
// CHECK-COUNT-2: call @next
// CHECK: call @grow
func.func @numbers(%x: i32, %y: tensor<?xf32>) -> (i32, tensor<*xf32>) {
  %0 = func.call @next(%x) : (i32) -> i32
  %1 = func.call @next(%0) : (i32) -> i32
  %2 = func.call @grow(%y) : (tensor<?xf32>) -> tensor<*xf32>
  return %1, %2 : i32, tensor<*xf32>
}
