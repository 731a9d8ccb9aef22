// A sharded sequence of attention takes context parallelism; it is never cut silently.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics --dshard-partition

module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @causal_queries(%q: tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>},
    %k: tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>})
    -> (tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}) {
  // expected-error@+1 {{the query sequence of size 6 is sharded under a causal mask; that takes context parallelism (a cp axis)}}
  %0:2 = dshard.attention %q, %k, %k {scale = 1.0 : f64, causal, path = "a", part = #dshard.part<forward>,
      dshard.shardings = [#dshard.sharding<[{}, {}, {"cp"}, {} ]>, #dshard.sharding<[{}, {}, {"cp"} ]>]}
    : (tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x4x6xf32>)
  return %0#0 : tensor<2x4x6x8xf32>
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @keys(%q: tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>},
    %k: tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>})
    -> (tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>}) {
  // expected-error@+1 {{the key sequence of size 6 is sharded; that takes context parallelism (a cp axis)}}
  %0:2 = dshard.attention %q, %k, %k {scale = 1.0 : f64, path = "a", part = #dshard.part<forward>,
      dshard.shardings = [#dshard.sharding<[{}, {}, {}, {} ]>, #dshard.sharding<[{}, {}, {} ]>]}
    : (tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x4x6xf32>)
  return %0#0 : tensor<2x4x6x8xf32>
}
}

// -----

// Nor is that of its gradient, which no context parallelism computes.
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @gradient(%q: tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>},
    %k: tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>}, %l: tensor<2x4x6xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"} ]>})
    -> (tensor<2x4x6x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}) {
  // expected-error@+1 {{the query sequence of size 6 is sharded; training with a sharded attention sequence (a cp axis) is not supported}}
  %0:3 = dshard.attention_grad %q, %k, %k, %q, %l, %q {scale = 1.0 : f64, path = "a", part = #dshard.part<backward>,
      dshard.shardings = [#dshard.sharding<[{}, {}, {"cp"}, {} ]>, #dshard.sharding<[{}, {}, {}, {} ]>, #dshard.sharding<[{}, {}, {}, {} ]>]}
    : (tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6xf32>, tensor<2x4x6x8xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>)
  return %0#0 : tensor<2x4x6x8xf32>
}
}
