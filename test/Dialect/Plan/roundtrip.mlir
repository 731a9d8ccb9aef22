// Every op of the plan dialect prints and parses.
// RUN: dshard-opt %s -o %t.mlir
// RUN: dshard-opt %t.mlir | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>, plan.target = "cpu:x86-64-v3"} {
  // CHECK: plan.group over [#dshard.axis<"tp">]
  plan.group over [#dshard.axis<"tp">]
  // CHECK: plan.table over [0] [0, 8]
  plan.table over [0] [0, 8]
  // CHECK: plan.file "w.data" size 64
  plan.file "w.data" size 64
  // CHECK: plan.source <"w", "w.data"{{.*}}> file 0
  plan.source <"w", "w.data", offset = 0, length = 64, type = tensor<4x4xf32>, fan_in = 4> file 0
  // CHECK: plan.state "w" "parameter" init "load" packed offset 0 size 256 : tensor<4x4xf32> local tensor<4x4xf32>
  plan.state "w" "parameter" init "load" packed offset 0 size 256 : tensor<4x4xf32> local tensor<4x4xf32>
  // CHECK: plan.program "run" stage 0 arena 192 scratch 64
  plan.program "run" stage 0 arena 192 scratch 64 {
    // CHECK: %[[X:.*]] = plan.buffer "x" offset 0 size 64 : tensor<4x4xf32>
    %x = plan.buffer "x" offset 0 size 64 : tensor<4x4xf32>
    // CHECK: %[[V:.*]] = plan.buffer "v" of %[[X]] offset 16 size 16 : tensor<4xf32>
    %v = plan.buffer "v" of %x offset 16 size 16 : tensor<4xf32>
    // CHECK: %[[W:.*]] = plan.buffer "w" in state 0 offset 0 size 256 : tensor<4x4xf32>
    %w = plan.buffer "w" in state 0 offset 0 size 256 : tensor<4x4xf32>
    %y = plan.buffer "y" offset 64 size 64 : tensor<4x4xf32>
    // CHECK: plan.matmul lhs(%[[X]]) rhs(%[[W]]) residual(%[[X]]) -> out(%{{.*}}) {batch = 1, m = 4, n = 4, k = 4, {{.*}}activation = 2} path "up" node "/up" part forward
    plan.matmul lhs(%x) rhs(%w) residual(%x) -> out(%y) {batch = 1, m = 4, n = 4, k = 4, lda = 4, ldb = 0, ldc = 4, ldr = 4, stride_lhs = 0, stride_rhs = 0, stride_out = 16, stride_residual = 16, transpose_lhs = 0, transpose_rhs = 0, packed = 1, activation = 2} path "up" node "/up" part forward
    // CHECK: plan.repeat 3 : i64 {
    plan.repeat 3 {
      // CHECK: plan.all_reduce in(%{{.*}}) -> out(%{{.*}}) {group = 0, operands = 1, reduction = 0} why "sum"
      plan.all_reduce in(%y) -> out(%y) {group = 0, operands = 1, reduction = 0} why "sum"
    }
    // CHECK: plan.if #plan.scalar<0> {
    plan.if #plan.scalar<0> {
      // CHECK: plan.copy in(%{{.*}}) -> out(%{{.*}}) {ndims = 1, sizes = [4], in_offset = #plan.table<0>, in_strides = [1], out_offset = #plan.loop<0>, out_strides = [1]}
      plan.copy in(%y) -> out(%v) {ndims = 1, sizes = [4], in_offset = #plan.table<0>, in_strides = [1], out_offset = #plan.loop<0>, out_strides = [1]}
    // CHECK: } else {
    } else {
      // CHECK: plan.fill -> out(%{{.*}}) {value_bits = 1.5
      plan.fill -> out(%v) {value_bits = 1.5}
    }
    // CHECK: plan.call {
    plan.call {
      // CHECK: plan.launch in(%{{.*}}, %{{.*}}) -> out(%{{.*}}) {kernel = 0, inputs = 2}
      plan.launch in(%x, %y) -> out(%y) {kernel = 0, inputs = 2}
    }
  }
  // CHECK: plan.image "\7FELF"
  plan.image "\7FELF"
  // CHECK: plan.kernel "k0_add" image 0 entry 4096 extent 16 grain 16 buffers 3
  plan.kernel "k0_add" image 0 entry 4096 extent 16 grain 16 buffers 3
  // CHECK: plan.entry "run" program 0 {
  plan.entry "run" program 0 {
    // CHECK: plan.input "x" buffer 0 dims ["batch", ""] range [0, 7] sharding <[{}, {} ]> : tensor<4x4xf32> local tensor<4x4xf32>
    plan.input "x" buffer 0 dims ["batch", ""] range [0, 7] sharding <[{}, {} ]> : tensor<4x4xf32> local tensor<4x4xf32>
    // CHECK: plan.output "y" buffer 3 : tensor<4x4xf32> local tensor<4x4xf32>
    plan.output "y" buffer 3 : tensor<4x4xf32> local tensor<4x4xf32>
  }
}
