// pad_pass_c1: only the vocabulary is padded.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-pad

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{parameter proj: dim 0 of size 197 is not divisible by {"tp"} of 2 ranks; sizes that divide: 196, 198}}
func.func @contraction(%w: tensor<197x8xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>,
      dshard.weight = #dshard.weight<"proj", "w.data", offset = 0, length = 6304, type = tensor<197x8xf32>, fan_in = 197>},
    %x: tensor<4x197xf32>) -> tensor<4x8xf32> {
  // expected-note@+1 {{only a vocabulary dim is padded; this matmul uses the dim otherwise}}
  %0 = dshard.matmul %x, %w {path = "proj", part = #dshard.part<forward>} : (tensor<4x197xf32>, tensor<197x8xf32>) -> tensor<4x8xf32>
  return %0 : tensor<4x8xf32>
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{dim 1 of size 5 is not divisible by {"tp"} of 2 ranks; sizes that divide: 4, 6}}
func.func @added(%b: tensor<4x5xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}, %x: tensor<4x5xf32>) -> tensor<4x5xf32> {
  // expected-note@+1 {{this add uses the dim otherwise}}
  %0 = dshard.add %x, %b {path = "proj", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<4x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}
}
