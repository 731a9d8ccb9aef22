// Buffers, states, loading, tables and calls of a row-parallel layer on two ranks.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-convert-to-plan=target=cpu:x86-64-v3 | FileCheck %s

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
// The weight is only a packed operand: [k, n] from the stored [n, k], the rank's columns of it.
// CHECK: plan.state "w" "parameter" init "load" packed offset 0 size 2048 sharding <[{}, {"tp"} ]> : tensor<16x64xf32> local tensor<16x32xf32>
// A table that is looked up and multiplied with lies in two states.
// CHECK: plan.state "e" "parameter" init "load" offset 2048 size 512 {{.*}}: tensor<8x16xf32> local tensor<8x16xf32>
// CHECK: plan.state "e (packed)" "parameter" init "load" packed offset 2560 size 1024
// CHECK: plan.source <"w", "m.data"
// CHECK: plan.table over [1] [0, 32]
// CHECK: plan.program "load"
// CHECK: plan.load_slice -> out(%[[STAGE:.*]]) {source = 0, ndims = 2, starts = [0, #plan.table<0>], sizes = [16, 32], permutation = [1, 0], at = [0, 0]}
// CHECK: plan.pack_rhs in(%[[STAGE]]) -> out(%{{.*}}) {k = 32, n = 16, column = 0, total_n = 16}
// CHECK: plan.group over [#dshard.axis<"tp">]
// CHECK: plan.program "run"
// CHECK-DAG: %[[X:.*]] = plan.buffer "x"
// CHECK-DAG: %[[IDS:.*]] = plan.buffer "ids"
// CHECK: plan.matmul lhs(%[[X]]) rhs(%{{.*}}) -> out(%[[P:.*]]) {batch = 1, m = 4, n = 16, k = 32, lda = 32, ldb = 0, {{.*}}packed = 1, activation = 0}
// In place: the partial sums die here.
// CHECK: plan.all_reduce in(%[[P]]) -> out(%[[P]]) {group = 0, operands = 1, reduction = 0} path "down" why "row-parallel output of down" part forward
// CHECK: plan.launch in(%{{.*}}, %[[IDS]], %[[P]]) -> out(%{{.*}}) {kernel = 0, inputs = 3}
// CHECK: plan.matmul {{.*}}n = 8, k = 16, {{.*}}packed = 1
// CHECK: plan.image
// CHECK: plan.kernel "k0_gather_add" image 0 entry {{[0-9]+}} extent 4
// CHECK: plan.entry "run" program 1
// CHECK: plan.input "x" buffer
// CHECK: plan.input "ids" buffer {{[0-9]+}} dims ["batch"] range [-8, 7]
// CHECK: plan.output "y" buffer
func.func @run(%x: tensor<4x32xf32> {dshard.name = "x", dshard.role = #dshard.role<input>, dshard.global = tensor<4x64xf32>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
               %ids: tensor<4xi64> {dshard.name = "ids", dshard.role = #dshard.role<input>, dshard.dim_names = ["batch"], dshard.global = tensor<4xi64>, dshard.sharding = #dshard.sharding<[{} ]>},
               %w: tensor<16x32xf32> {dshard.name = "w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 4096, type = tensor<16x64xf32>, fan_in = 64>, dshard.global = tensor<16x64xf32>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
               %e: tensor<8x16xf32> {dshard.name = "e", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"e", "m.data", offset = 4096, length = 512, type = tensor<8x16xf32>, fan_in = 16>, dshard.global = tensor<8x16xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>})
    -> (tensor<4x8xf32> {dshard.name = "y", dshard.global = tensor<4x8xf32>, dshard.sharding = #dshard.sharding<[{}, {} ]>}) attributes {dshard.spmd} {
  %p = dshard.matmul %x, %w {transpose_rhs, path = "down", part = #dshard.part<forward>} : (tensor<4x32xf32>, tensor<16x32xf32>) -> tensor<4x16xf32>
  %s = dshard.all_reduce sum %p over ["tp"] why "row-parallel output of down" {path = "down", part = #dshard.part<forward>} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  %g = dshard.gather %e, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<8x16xf32>, tensor<4xi64>) -> tensor<4x16xf32>
  %h = dshard.add %g, %s {path = "", part = #dshard.part<forward>} : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  %y = dshard.matmul %h, %e {transpose_rhs, path = "head", part = #dshard.part<forward>} : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  return %y : tensor<4x8xf32>
}
}
