// Ops become library calls and kernels; the values stay.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-verify-schedule -o %t.mlir
// RUN: FileCheck %s < %t.mlir
// RUN: dshard-opt %s --dshard-form-kernels --dshard-schedule --dshard-verify-schedule -o %t2.mlir
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry epilogue --random-inputs=5
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry attention --random-inputs=5
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry norms --random-inputs=5
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry cycle --random-inputs=5
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry expensive --random-inputs=5
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry integers --random-inputs=5
// RUN: dshard-interpret %s --against %t.mlir --against %t2.mlir --entry constants --random-inputs=5

module attributes {dshard.mesh = #dshard.mesh<"tp"=1>} {

// Bias, activation and residual belong to the call, in this order.
// CHECK-LABEL: func.func @epilogue(
// CHECK: %[[R:.*]] = dshard.fused %arg1, %arg0, %arg2, %arg3 {dshard.call = "matmul"}
// CHECK: dshard.transpose
// CHECK: dshard.matmul
// CHECK: dshard.add
// CHECK: dshard.gelu
// CHECK: dshard.add
// CHECK: dshard.yield
// The product of which more than the sum is used keeps its own call.
// CHECK: %[[P:.*]] = dshard.fused %[[R]], %arg4 {dshard.call = "matmul"}
// CHECK-NEXT: ^bb0
// CHECK-NEXT: dshard.matmul
// CHECK-NEXT: dshard.yield
// CHECK: dshard.fused %[[P]] :
// CHECK: return
func.func @epilogue(%x: tensor<3x5x8xf32>, %w: tensor<6x8xf32>, %b: tensor<6xf32>,
                    %r: tensor<3x5x6xf32>, %v: tensor<6x4xf32>) -> (tensor<3x5x4xf32>, tensor<3x5x4xf32>) attributes {dshard.spmd} {
  %wt = dshard.transpose %w {permutation = array<i64: 1, 0>} : (tensor<6x8xf32>) -> tensor<8x6xf32>
  %0 = dshard.matmul %x, %wt : (tensor<3x5x8xf32>, tensor<8x6xf32>) -> tensor<3x5x6xf32>
  %1 = dshard.add %b, %0 : (tensor<6xf32>, tensor<3x5x6xf32>) -> tensor<3x5x6xf32>
  %2 = dshard.gelu %1 : (tensor<3x5x6xf32>) -> tensor<3x5x6xf32>
  %3 = dshard.add %r, %2 : (tensor<3x5x6xf32>, tensor<3x5x6xf32>) -> tensor<3x5x6xf32>
  %4 = dshard.matmul %3, %v : (tensor<3x5x6xf32>, tensor<6x4xf32>) -> tensor<3x5x4xf32>
  %5 = dshard.relu %4 : (tensor<3x5x4xf32>) -> tensor<3x5x4xf32>
  return %4, %5 : tensor<3x5x4xf32>, tensor<3x5x4xf32>
}

// Head transposes are strides of the call; rotary is a kernel that reads through one.
// CHECK-LABEL: func.func @attention(
// CHECK: %[[Q4:.*]] = dshard.reshape %arg0
// CHECK: %[[Q:.*]] = dshard.fused %[[Q4]], %arg3, %arg4 :
// CHECK: dshard.transpose
// CHECK: dshard.rotary
// CHECK: %[[O:.*]] = dshard.fused {{.*}} {dshard.call = "attention"} : {{.*}} -> tensor<2x6x32xf32>
// CHECK: dshard.attention
// CHECK-NEXT: dshard.transpose
// CHECK-NEXT: dshard.reshape
// CHECK-NEXT: dshard.yield
// CHECK: return %[[O]]
func.func @attention(%q: tensor<2x6x32xf32>, %k: tensor<2x6x16xf32>, %v: tensor<2x6x16xf32>,
                     %cos: tensor<1x6x4xf32>, %sin: tensor<1x6x4xf32>) -> tensor<2x6x32xf32> attributes {dshard.spmd} {
  %q4 = dshard.reshape %q : (tensor<2x6x32xf32>) -> tensor<2x6x4x8xf32>
  %qt = dshard.transpose %q4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x6x4x8xf32>) -> tensor<2x4x6x8xf32>
  %qr = dshard.rotary %qt, %cos, %sin : (tensor<2x4x6x8xf32>, tensor<1x6x4xf32>, tensor<1x6x4xf32>) -> tensor<2x4x6x8xf32>
  %k4 = dshard.reshape %k : (tensor<2x6x16xf32>) -> tensor<2x6x2x8xf32>
  %kt = dshard.transpose %k4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x6x2x8xf32>) -> tensor<2x2x6x8xf32>
  %v4 = dshard.reshape %v : (tensor<2x6x16xf32>) -> tensor<2x6x2x8xf32>
  %vt = dshard.transpose %v4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x6x2x8xf32>) -> tensor<2x2x6x8xf32>
  %a, %l = dshard.attention %qr, %kt, %vt {scale = 0.35 : f64, causal} : (tensor<2x4x6x8xf32>, tensor<2x2x6x8xf32>, tensor<2x2x6x8xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x4x6xf32>)
  %at = dshard.transpose %a {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x4x6x8xf32>) -> tensor<2x6x4x8xf32>
  %o = dshard.reshape %at : (tensor<2x6x4x8xf32>) -> tensor<2x6x32xf32>
  return %o : tensor<2x6x32xf32>
}

// A residual that is used again becomes a second result of the norm's kernel.
// CHECK-LABEL: func.func @norms(
// CHECK: %[[H:.*]]:2 = dshard.fused %arg0, %arg1, %arg2 :
// CHECK-NEXT: ^bb0
// CHECK-NEXT: dshard.add
// CHECK-NEXT: dshard.rms_norm
// CHECK-NEXT: dshard.yield
// CHECK: dshard.fused %[[H]]#1, %arg3 {dshard.call = "matmul"}
// CHECK: return
func.func @norms(%x: tensor<4x8xf32>, %y: tensor<4x8xf32>, %g: tensor<8xf32>, %w: tensor<8x8xf32>) -> tensor<4x8xf32> attributes {dshard.spmd} {
  %h = dshard.add %x, %y : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %n = dshard.rms_norm %h, %g {epsilon = 1.0e-6 : f64} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %m = dshard.matmul %n, %w : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
  %r = dshard.mul %m, %h : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  return %r : tensor<4x8xf32>
}

// The exp may not join the last kernel: the reduction between needs it first.
// CHECK-LABEL: func.func @cycle(
// CHECK: %[[E:.*]] = dshard.fused %arg0 :
// CHECK: dshard.exp
// CHECK: %[[S:.*]] = dshard.fused %[[E]] :
// CHECK: dshard.reduce
// CHECK: dshard.fused %[[E]], %[[S]] :
// CHECK: dshard.div
// CHECK: return
func.func @cycle(%x: tensor<4x8xf32>) -> tensor<4x8xf32> attributes {dshard.spmd} {
  %e = dshard.exp %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %s = dshard.reduce %e {kind = #dshard<reduction sum>, dims = array<i64: 0>} : (tensor<4x8xf32>) -> tensor<8xf32>
  %r = dshard.div %e, %s : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  return %r : tensor<4x8xf32>
}

// What costs is not computed for every row that it is broadcast to.
// CHECK-LABEL: func.func @expensive(
// CHECK: %[[C:.*]] = dshard.fused %arg1 :
// CHECK: dshard.cos
// CHECK: dshard.fused %arg0, %[[C]] :
// CHECK: return
func.func @expensive(%x: tensor<64x8xf32>, %a: tensor<8xf32>) -> tensor<64x8xf32> attributes {dshard.spmd} {
  %c = dshard.cos %a : (tensor<8xf32>) -> tensor<8xf32>
  %r = dshard.mul %x, %c : (tensor<64x8xf32>, tensor<8xf32>) -> tensor<64x8xf32>
  return %r : tensor<64x8xf32>
}

// A product that the library does not compute is a kernel.
// CHECK-LABEL: func.func @integers(
// CHECK: dshard.fused %arg0, %arg1 :
// CHECK-NEXT: ^bb0
// CHECK-NEXT: dshard.matmul
// CHECK: return
func.func @integers(%x: tensor<4x8xi64>, %y: tensor<8x2xi64>) -> tensor<4x2xi64> attributes {dshard.spmd} {
  %r = dshard.matmul %x, %y : (tensor<4x8xi64>, tensor<8x2xi64>) -> tensor<4x2xi64>
  return %r : tensor<4x2xi64>
}

// A constant that a call reads is copied to a buffer by a kernel of its own.
// CHECK-LABEL: func.func @constants(
// CHECK: %[[W:.*]] = dshard.fused {{.*}}: () -> tensor<2x2xf32>
// CHECK: dshard.constant
// CHECK: dshard.fused %arg0, %[[W]] {dshard.call = "matmul"}
// CHECK: return
func.func @constants(%x: tensor<4x2xf32>) -> tensor<4x2xf32> attributes {dshard.spmd} {
  %w = dshard.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %r = dshard.matmul %x, %w : (tensor<4x2xf32>, tensor<2x2xf32>) -> tensor<4x2xf32>
  return %r : tensor<4x2xf32>
}
}
