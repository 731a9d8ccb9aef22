// What data parallelism refuses, with the way out.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-data-parallel

// expected-error@+1 {{module has no dshard.mesh; give it one with --mesh}}
module {
}

// -----

// data_parallel_c1
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "dp_shard"=4>} {
// expected-error@+1 {{mesh axes dp_replicate=2, dp_shard=4 shard the batch, but no input has a batch dim; name one with --dims INPUT=batch,...}}
func.func @run(%x: tensor<6xf32> {dshard.dim_names = ["seq"]}, %step: tensor<f32>,
               %w: tensor<8x8xf32> {dshard.role = #dshard.role<param>}) -> tensor<6xf32> {
  return %x : tensor<6xf32>
}
}

// -----

// data_parallel_c2
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
// expected-error@+1 {{input 'ids': batch dim 0 of size 3 is not divisible by dp_shard=2; sizes that divide: 2, 4}}
func.func @run(%ids: tensor<3x6xi64> {dshard.name = "ids"}) -> tensor<3x6xi64> {
  return %ids : tensor<3x6xi64>
}
}

// -----

// data_parallel_c2: a batch of one alone is no broadcast.
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=2, "dp_shard"=2>} {
// expected-error@+1 {{argument 0: batch dim 0 of size 1 is not divisible by dp_replicate=2, dp_shard=2; sizes that divide: 4}}
func.func @run(%x: tensor<1x6xf32>) -> tensor<1x6xf32> {
  return %x : tensor<1x6xf32>
}
}
