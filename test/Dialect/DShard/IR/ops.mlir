// Every op prints as it was written, and parses again.
// RUN: dshard-opt %s -o %t.mlir
// RUN: dshard-opt %t.mlir | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=4>} {

// CHECK-LABEL: func.func @elementwise
func.func @elementwise(%x: tensor<2x4xf32>, %b: tensor<4xf32>, %m: tensor<2x1xi1>, %i: tensor<2x4xi64>) {
  // CHECK: dshard.exp %{{.*}} {part = #dshard.part<forward>, path = "m"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %0 = dshard.exp %x {path = "m", part = #dshard.part<forward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: dshard.add %{{.*}}, %{{.*}} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %1 = dshard.add %x, %b : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: dshard.gelu %{{.*}} {tanh_approximation}
  %2 = dshard.gelu %x {tanh_approximation} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: dshard.cast %{{.*}} : (tensor<2x4xf32>) -> tensor<2x4xbf16>
  %3 = dshard.cast %x : (tensor<2x4xf32>) -> tensor<2x4xbf16>
  // CHECK: dshard.select
  %4 = dshard.select %m, %x, %b : (tensor<2x1xi1>, tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: dshard.mod %{{.*}}, %{{.*}} {fmod}
  %5 = dshard.mod %i, %i {fmod} : (tensor<2x4xi64>, tensor<2x4xi64>) -> tensor<2x4xi64>
  // CHECK: dshard.swiglu
  %6 = dshard.swiglu %x, %x : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// CHECK-LABEL: func.func @products
func.func @products(%a: tensor<2x8x4xf32>, %b: tensor<16x4xf32>) {
  // CHECK: dshard.matmul %{{.*}}, %{{.*}} {transpose_rhs} : (tensor<2x8x4xf32>, tensor<16x4xf32>) -> tensor<2x8x16xf32>
  %0 = dshard.matmul %a, %b {transpose_rhs} : (tensor<2x8x4xf32>, tensor<16x4xf32>) -> tensor<2x8x16xf32>
  return
}

// CHECK-LABEL: func.func @attention
func.func @attention(%q: tensor<2x8x5x16xf32>, %k: tensor<2x2x7x16xf32>, %v: tensor<2x2x7x12xf32>, %p: tensor<2x7xi1>, %t: tensor<1x5x8xf32>) {
  // CHECK: dshard.attention %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} {causal, fully_masked = #dshard.fully_masked<uniform>, offset = 2 : i64, scale = 2.500000e-01 : f64, window = 3 : i64}
  %0:2 = dshard.attention %q, %k, %v, %p {scale = 0.25 : f64, causal, offset = 2, window = 3, fully_masked = #dshard.fully_masked<uniform>}
    : (tensor<2x8x5x16xf32>, tensor<2x2x7x16xf32>, tensor<2x2x7x12xf32>, tensor<2x7xi1>) -> (tensor<2x8x5x12xf32>, tensor<2x8x5xf32>)
  // CHECK: dshard.attention %{{.*}}, %{{.*}}, %{{.*}} {scale = 1.000000e+00 : f64}
  %1:2 = dshard.attention %q, %k, %v {scale = 1.0 : f64}
    : (tensor<2x8x5x16xf32>, tensor<2x2x7x16xf32>, tensor<2x2x7x12xf32>) -> (tensor<2x8x5x12xf32>, tensor<2x8x5xf32>)
  // CHECK: dshard.rotary %{{.*}}, %{{.*}}, %{{.*}} {interleaved}
  %2 = dshard.rotary %q, %t, %t {interleaved} : (tensor<2x8x5x16xf32>, tensor<1x5x8xf32>, tensor<1x5x8xf32>) -> tensor<2x8x5x16xf32>
  return
}

// CHECK-LABEL: func.func @norms
func.func @norms(%x: tensor<2x4xf32>, %w: tensor<4xf32>) {
  // CHECK: dshard.rms_norm %{{.*}}, %{{.*}} {epsilon = 1.000000e-05 : f64}
  %0 = dshard.rms_norm %x, %w {epsilon = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: dshard.layer_norm %{{.*}}, %{{.*}}, %{{.*}} {epsilon
  %1 = dshard.layer_norm %x, %w, %w {epsilon = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: dshard.softmax %{{.*}} {dim = 1 : i64}
  %2 = dshard.softmax %x {dim = 1} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// CHECK-LABEL: func.func @layout
func.func @layout(%x: tensor<2x4xf32>) {
  // CHECK: dshard.constant dense<1.000000e+00> : tensor<4xf32>
  %c = dshard.constant dense<1.0> : tensor<4xf32>
  // CHECK: dshard.reshape
  %0 = dshard.reshape %x : (tensor<2x4xf32>) -> tensor<8xf32>
  // CHECK: dshard.transpose %{{.*}} {permutation = array<i64: 1, 0>}
  %1 = dshard.transpose %x {permutation = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<4x2xf32>
  // CHECK: dshard.broadcast_to
  %2 = dshard.broadcast_to %c : (tensor<4xf32>) -> tensor<3x4xf32>
  // CHECK: dshard.concat %{{.*}}, %{{.*}} {dim = 0 : i64}
  %3 = dshard.concat %x, %2 {dim = 0} : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<5x4xf32>
  // CHECK: dshard.slice %{{.*}} {starts = array<i64: 4, 1>, strides = array<i64: -2, 1>}
  %4 = dshard.slice %3 {starts = array<i64: 4, 1>, strides = array<i64: -2, 1>} : (tensor<5x4xf32>) -> tensor<3x2xf32>
  // CHECK: dshard.pad %{{.*}} {high = array<i64: 0, 2>, low = array<i64: 1, 0>, value = 0.000000e+00 : f64}
  %5 = dshard.pad %x {low = array<i64: 1, 0>, high = array<i64: 0, 2>, value = 0.0 : f64} : (tensor<2x4xf32>) -> tensor<3x6xf32>
  return
}

// CHECK-LABEL: func.func @indices
func.func @indices(%table: tensor<10x4xf32>, %ids: tensor<2x3xi64>, %offset: tensor<i64>, %tuples: tensor<5x2xi64>) {
  // CHECK: dshard.gather %{{.*}}, %{{.*}} {dim = 0 : i64}
  %0 = dshard.gather %table, %ids {dim = 0} : (tensor<10x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
  %1 = dshard.gather %table, %ids, %offset {dim = 0} : (tensor<10x4xf32>, tensor<2x3xi64>, tensor<i64>) -> tensor<2x3x4xf32>
  // CHECK: dshard.gather_nd
  %2 = dshard.gather_nd %table, %tuples : (tensor<10x4xf32>, tensor<5x2xi64>) -> tensor<5xf32>
  // CHECK: dshard.iota {dim = 0 : i64, start = 1.000000e+00 : f64}
  %3 = dshard.iota {dim = 0, start = 1.0 : f64} : () -> tensor<4xi64>
  return
}

// CHECK-LABEL: func.func @reshard
func.func @reshard(%x: tensor<8x8xf32>) {
  // CHECK: dshard.reshard %{{.*}} to <[{}, {"tp"} ]> why "gather parameter mlp.w1" regather : tensor<8x8xf32>
  %0 = dshard.reshard %x to <[{}, {"tp"} ]> why "gather parameter mlp.w1" regather : tensor<8x8xf32>
  return
}

// CHECK-LABEL: func.func @collectives
func.func @collectives(%x: tensor<8x8xf32>, %y: tensor<4xbf16>) {
  // CHECK: dshard.all_gather %{{.*}}, %{{.*}} dims [0, 0] over ["dp_shard"] why "w"
  // CHECK-SAME: (tensor<8x8xf32>, tensor<4xbf16>) -> (tensor<16x8xf32>, tensor<8xbf16>)
  %0:2 = dshard.all_gather %x, %y dims [0, 0] over ["dp_shard"] why "w" : (tensor<8x8xf32>, tensor<4xbf16>) -> (tensor<16x8xf32>, tensor<8xbf16>)
  // CHECK: dshard.all_reduce sum %{{.*}} over ["dp_shard", "tp":(1)2] why "w"
  %1 = dshard.all_reduce sum %x over ["dp_shard", "tp":(1)2] why "w" : (tensor<8x8xf32>) -> tensor<8x8xf32>
  // CHECK: dshard.reduce_scatter max %{{.*}} dims [1] over ["tp"] why "w"
  %2 = dshard.reduce_scatter max %x dims [1] over ["tp"] why "w" : (tensor<8x8xf32>) -> tensor<8x2xf32>
  // CHECK: dshard.all_to_all %{{.*}} split 0 concat 1 over ["tp"] why "w"
  %3 = dshard.all_to_all %x split 0 concat 1 over ["tp"] why "w" : (tensor<8x8xf32>) -> tensor<2x32xf32>
  // CHECK: dshard.broadcast %{{.*}} root 3 over ["tp"] why "w"
  %4 = dshard.broadcast %x root 3 over ["tp"] why "w" : (tensor<8x8xf32>) -> tensor<8x8xf32>
  // CHECK: dshard.permute %{{.*}} shift 1 over ["tp"] why "w"
  %5 = dshard.permute %x shift 1 over ["tp"] why "w" : (tensor<8x8xf32>) -> tensor<8x8xf32>
  // CHECK: dshard.send %{{.*}} to 1 tag 7 over ["dp_shard"] why "w" : tensor<8x8xf32>
  dshard.send %x to 1 tag 7 over ["dp_shard"] why "w" : tensor<8x8xf32>
  // CHECK: dshard.recv from 0 tag 7 over ["dp_shard"] why "w" : tensor<8x8xf32>
  %6 = dshard.recv from 0 tag 7 over ["dp_shard"] why "w" : tensor<8x8xf32>
  // CHECK: dshard.local_slice %{{.*}} dim 1 over ["tp"] why "w"
  %7 = dshard.local_slice %x dim 1 over ["tp"] why "w" : (tensor<8x8xf32>) -> tensor<8x2xf32>
  // CHECK: dshard.rank_index over ["tp"] : tensor<i64>
  %8 = dshard.rank_index over ["tp"] : tensor<i64>
  return
}

// CHECK-LABEL: func.func @control
func.func @control(%x: tensor<4xf32>, %c: tensor<i1>) -> tensor<4xf32> {
  // CHECK: dshard.repeat 3 init(%{{.*}}) : (tensor<4xf32>) -> tensor<4xf32> {
  %0 = dshard.repeat 3 init(%x) : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%i: tensor<i64>, %carried: tensor<4xf32>):
    %1 = dshard.add %carried, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    // CHECK: dshard.yield %{{.*}} : tensor<4xf32>
    dshard.yield %1 : tensor<4xf32>
  }
  // CHECK: dshard.if %{{.*}} : (tensor<i1>) -> tensor<4xf32> {
  %2 = dshard.if %c : (tensor<i1>) -> tensor<4xf32> {
    dshard.yield %0 : tensor<4xf32>
  } else {
    dshard.yield %x : tensor<4xf32>
  }
  // CHECK: dshard.fused %{{.*}} : (tensor<4xf32>) -> tensor<4xf32> {
  %3 = dshard.fused %2 : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%a: tensor<4xf32>):
    %4 = dshard.neg %a : (tensor<4xf32>) -> tensor<4xf32>
    dshard.yield %4 : tensor<4xf32>
  }
  return %3 : tensor<4xf32>
}
}
