// A plan writes shardings of parameters and of module outputs, wherever the
// features of a weight lie; the bias goes with the columns, or stays whole.
// RUN: dshard-opt %s --dshard-tensor-parallel="plan=%S/Inputs/mlp.json" | FileCheck %s
// RUN: dshard-opt %s --dshard-tensor-parallel="plan=%S/Inputs/mlp-gathered.json" | FileCheck %s --check-prefix=GATHERED

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=4>} {
  // CHECK-LABEL: func.func @run
  // CHECK-SAME: tensor<4x16x64xf32>,
  // CHECK-SAME: tensor<256x64xf32> {dshard.origin = #dshard.origin<"tensor-parallel plan {{.*}}mlp.json: blocks.*.up = colwise">, dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}
  // CHECK-SAME: tensor<256xf32> {{{.*}}dshard.sharding = #dshard.sharding<[{"tp"} ]>}
  // CHECK-SAME: tensor<256x64xf32> {dshard.origin = #dshard.origin<"tensor-parallel plan {{.*}}: blocks.*.down = rowwise">, {{.*}}dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}
  // CHECK-SAME: tensor<64xf32> {{{.*}}dshard.sharding = #dshard.sharding<[{} ]>}
  // CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {"tp"} ]>]
  // CHECK: dshard.add {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {"tp"} ]>]
  // CHECK: dshard.gelu
  // CHECK-NOT: dshard.shardings
  // CHECK: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {} ]>]
  // CHECK: dshard.add {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {} ]>]

  // GATHERED: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {} ]>]
  // GATHERED: dshard.add {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {?}, {} ]>]
  // GATHERED: dshard.matmul {{.*}}dshard.shardings = [#dshard.sharding<[{?}, {"tp"}, {} ]>]
  func.func @run(%x: tensor<4x16x64xf32>,
                 %w1: tensor<256x64xf32> {dshard.role = #dshard.role<param>},
                 %b1: tensor<256xf32> {dshard.role = #dshard.role<param>},
                 %w2: tensor<256x64xf32> {dshard.role = #dshard.role<param>},
                 %b2: tensor<64xf32> {dshard.role = #dshard.role<param>}) -> tensor<4x16x64xf32> {
    %0 = dshard.matmul %x, %w1 {path = "blocks.0.up", part = #dshard.part<forward>, transpose_rhs} : (tensor<4x16x64xf32>, tensor<256x64xf32>) -> tensor<4x16x256xf32>
    %1 = dshard.add %0, %b1 {path = "blocks.0.up", part = #dshard.part<forward>} : (tensor<4x16x256xf32>, tensor<256xf32>) -> tensor<4x16x256xf32>
    %2 = dshard.gelu %1 {path = "blocks.0", part = #dshard.part<forward>} : (tensor<4x16x256xf32>) -> tensor<4x16x256xf32>
    %3 = dshard.matmul %2, %w2 {path = "blocks.0.down", part = #dshard.part<forward>} : (tensor<4x16x256xf32>, tensor<256x64xf32>) -> tensor<4x16x64xf32>
    %4 = dshard.add %b2, %3 {path = "blocks.0.down", part = #dshard.part<forward>} : (tensor<64xf32>, tensor<4x16x64xf32>) -> tensor<4x16x64xf32>
    return %4 : tensor<4x16x64xf32>
  }
}
