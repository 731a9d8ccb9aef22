// Every collective, a sub-axis, a mean, a count along a sharded dim, a merged sharded
// dim and grouped heads in one annotated program, for the mutations.
module @mixed attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=4>} {
func.func @run(
    %x: tensor<8x16xf32> {dshard.name = "x", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>},
    %w: tensor<16x24xf32> {dshard.name = "w", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %v: tensor<16x24xf32> {dshard.name = "v", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %bias: tensor<24xf32> {dshard.name = "bias", dshard.role = #dshard.role<param>},
    %q: tensor<2x8x4x4xf32> {dshard.name = "q", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"}, {}, {} ]>},
    %k: tensor<2x2x4x4xf32> {dshard.name = "k", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp":(1)2}, {}, {} ]>},
    %b: tensor<1x8x4x4xf32> {dshard.name = "b", dshard.role = #dshard.role<param>},
    %t: tensor<8x16xf32> {dshard.name = "t", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %u: tensor<4x8x16xf32> {dshard.name = "u", dshard.role = #dshard.role<input>, dshard.sharding = #dshard.sharding<[{"tp"}, {"dp_shard"}, {} ]>})
    -> (tensor<8x24xf32> {dshard.name = "product", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
        tensor<8x24xf32> {dshard.name = "scattered", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>},
        tensor<8xf32> {dshard.name = "mean", dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>},
        tensor<8x16xf32> {dshard.name = "largest", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>},
        tensor<2x4x32xf32> {dshard.name = "heads", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {}, {} ]>},
        tensor<8x16xf32> {dshard.name = "exchanged", dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
        tensor<8x16xf32> {dshard.name = "counted", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {"tp"} ]>},
        tensor<8x24xf32> {dshard.name = "wide", dshard.sharding = #dshard.sharding<[{"dp_shard"}, {} ]>}) {
  %0 = dshard.matmul %x, %w {path = "product", part = #dshard.part<forward>} : (tensor<8x16xf32>, tensor<16x24xf32>) -> tensor<8x24xf32>
  %1 = dshard.add %0, %bias {path = "product", part = #dshard.part<forward>} : (tensor<8x24xf32>, tensor<24xf32>) -> tensor<8x24xf32>
  %2 = dshard.tanh %x {path = "scattered", part = #dshard.part<forward>} : (tensor<8x16xf32>) -> tensor<8x16xf32>
  %3 = dshard.matmul %2, %w {path = "scattered", part = #dshard.part<forward>} : (tensor<8x16xf32>, tensor<16x24xf32>) -> tensor<8x24xf32>
  %4 = dshard.reduce %x {path = "mean", part = #dshard.part<forward>, kind = #dshard<reduction mean>, dims = array<i64: 1>} : (tensor<8x16xf32>) -> tensor<8xf32>
  %5 = dshard.reduce %u {path = "largest", part = #dshard.part<forward>, kind = #dshard<reduction max>, dims = array<i64: 0>} : (tensor<4x8x16xf32>) -> tensor<8x16xf32>
  %6:2 = dshard.attention %q, %k, %k, %b {path = "heads", part = #dshard.part<forward>, scale = 0.5 : f64, causal} : (tensor<2x8x4x4xf32>, tensor<2x2x4x4xf32>, tensor<2x2x4x4xf32>, tensor<1x8x4x4xf32>) -> (tensor<2x8x4x4xf32>, tensor<2x8x4xf32>)
  %7 = dshard.transpose %6#0 {path = "heads", part = #dshard.part<forward>, permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x8x4x4xf32>) -> tensor<2x4x8x4xf32>
  %8 = dshard.reshape %7 {path = "heads", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>) -> tensor<2x4x32xf32>
  %9 = dshard.neg %t {path = "exchanged", part = #dshard.part<forward>} : (tensor<8x16xf32>) -> tensor<8x16xf32>
  %10 = dshard.iota {path = "counted", part = #dshard.part<forward>, dim = 1 : i64, dshard.shardings = [#dshard.sharding<[{"dp_shard"}, {"tp"} ]>]} : () -> tensor<8x16xf32>
  %11 = dshard.mul %10, %x {path = "counted", part = #dshard.part<forward>} : (tensor<8x16xf32>, tensor<8x16xf32>) -> tensor<8x16xf32>
  %12 = dshard.constant dense<[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]> : tensor<16xf32>
  %13 = dshard.mul %11, %12 {path = "counted", part = #dshard.part<forward>} : (tensor<8x16xf32>, tensor<16xf32>) -> tensor<8x16xf32>
  %14 = dshard.sin %x {path = "wide", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"dp_shard"}, {} ]>]} : (tensor<8x16xf32>) -> tensor<8x16xf32>
  %15 = dshard.matmul %14, %v {path = "wide", part = #dshard.part<forward>} : (tensor<8x16xf32>, tensor<16x24xf32>) -> tensor<8x24xf32>
  %16 = dshard.exp %15 {path = "wide", part = #dshard.part<forward>} : (tensor<8x24xf32>) -> tensor<8x24xf32>
  return %1, %3, %4, %5, %8, %9, %13, %16 : tensor<8x24xf32>, tensor<8x24xf32>, tensor<8xf32>, tensor<8x16xf32>, tensor<2x4x32xf32>, tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x24xf32>
}
}
