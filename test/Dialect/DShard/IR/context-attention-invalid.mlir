// What an attention over a sharded sequence refuses: what the strategy refuses as well, and what only IR can say.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-partition

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @parts(%q: tensor<1x3x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x3x8x4xf32> {dshard.sharding = #s}) {
  // expected-error@+1 {{its sequence lies in zigzag order of 4 parts, but is sharded over cp of 2 ranks; use --cp-layout=contiguous}}
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 4 : i64, path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>) -> (tensor<1x3x8x4xf32>, tensor<1x3x8xf32>)
  return %0#0 : tensor<1x3x8x4xf32>
}
}

// -----

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @window(%q: tensor<1x3x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x3x8x4xf32> {dshard.sharding = #s}) {
  // expected-error@+1 {{a sliding window of 3 and --cp-method=ring do not go together; use all_gather or all_to_all}}
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, window = 3 : i64, parts = 2 : i64, path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>) -> (tensor<1x3x8x4xf32>, tensor<1x3x8xf32>)
  return %0#0 : tensor<1x3x8x4xf32>
}
}

// -----

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @offset(%q: tensor<1x3x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x3x8x4xf32> {dshard.sharding = #s}) {
  // expected-error@+1 {{a causal offset of 1 and --cp-method=ring do not go together; use all_gather or all_to_all}}
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, offset = 1 : i64, parts = 2 : i64, path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>) -> (tensor<1x3x8x4xf32>, tensor<1x3x8xf32>)
  return %0#0 : tensor<1x3x8x4xf32>
}
}

// -----

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @striped(%q: tensor<1x3x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x3x8x4xf32> {dshard.sharding = #s}) {
  // expected-error@+1 {{--cp-method=all_gather and --cp-layout=striped do not go together; use zigzag or contiguous}}
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, layout = #dshard.layout<striped>, parts = 2 : i64, dshard.cp_method = "all_gather", path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>) -> (tensor<1x3x8x4xf32>, tensor<1x3x8xf32>)
  return %0#0 : tensor<1x3x8x4xf32>
}
}

// -----

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @heads(%q: tensor<1x3x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x3x8x4xf32> {dshard.sharding = #s}) {
  // expected-error@+1 {{--cp-method=all_to_all exchanges the sequence for heads, but 2 ranks do not divide its 3 query heads and 3 KV heads on a rank; use ring or all_gather}}
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, parts = 2 : i64, dshard.cp_method = "all_to_all", path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>, tensor<1x3x8x4xf32>) -> (tensor<1x3x8x4xf32>, tensor<1x3x8xf32>)
  return %0#0 : tensor<1x3x8x4xf32>
}
}

// -----

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @bias(%q: tensor<1x2x8x4xf32> {dshard.sharding = #s}, %b: tensor<1x2x1x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>}) -> (tensor<1x2x8x4xf32> {dshard.sharding = #s}) {
  // expected-error@+1 {{a bias of the scores and --cp-method=hierarchical do not go together; use ring, all_gather or all_to_all}}
  %0:2 = dshard.attention %q, %q, %q, %b {scale = 0.5 : f64, parts = 2 : i64, dshard.cp_method = "hierarchical", path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x1x8xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}
}
