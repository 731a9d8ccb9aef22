// Partial values where they would give a silently wrong answer.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-partial

// partial_c1
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-note@+1 {{input x is partial over {"tp"} (rowwise)}}
func.func @not_linear(%x: tensor<4xf32> {dshard.name = "x", dshard.origin = #dshard.origin<"rowwise">, dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.gelu' op is not linear in operand 0, which is partial over {"tp"}; reshard it first}}
  %0 = dshard.gelu %x {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c2: a bias would be added once per rank.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-note@+1 {{argument 0 is partial over {"tp"}}}
func.func @bias(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>},
    %b: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.add' op takes one operand partial over {"tp"} and one over {}: the whole one would be added once per rank}}
  %0 = dshard.add %x, %b {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c3
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @product(
    // expected-note@+1 {{argument 0 is partial over {"tp"}}}
    %x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>},
    // expected-note@+1 {{argument 1 is partial over {"tp"}}}
    %y: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.mul' op combines 2 partial values: a product of sums is not the sum of products}}
  %0 = dshard.mul %x, %y {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c4: dropped.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @dropped(%x: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>},
    %w: tensor<8x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4x4xf32> {
  // expected-error@+1 {{'dshard.matmul' op has a result partial over {}, but its operands make it partial over {"tp"}; only a dshard.reshard reduces a value}}
  %0 = dshard.matmul %x, %w {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {} ]>]} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  return %0 : tensor<4x4xf32>
}
}

// -----

// partial_c4: introduced.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @introduced(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.neg' op has a result partial over {"tp"}, but its operands make it partial over {}}}
  %0 = dshard.neg %x {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c4: by a reshard.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @reshard(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.reshard' op makes a value that is partial over {} partial over {"tp"}; no collective does that}}
  %0 = dshard.reshard %x to <[{} ], partial = {"tp"}, kind = sum> why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c5: the kind of a result.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @kinds(%x: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.reduce' op has a result with a pending sum, but its operands give a pending max}}
  %0 = dshard.reduce %x {kind = #dshard<reduction max>, dims = array<i64: 1>, path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4x8xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c5: two kinds in one op.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-note@+2 {{argument 0 is partial over {"tp"}}}
// expected-note@+1 {{argument 1 is partial over {"tp"}}}
func.func @mixed_kinds(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>}, %y: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = max>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.add' op takes operand 1 with a pending max; only a pending sum passes through an op}}
  %0 = dshard.add %x, %y {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c5: only a sum passes.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-note@+1 {{argument 0 is partial over {"tp"}}}
func.func @max(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = max>}) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.neg' op takes operand 0 with a pending max; only a pending sum passes through an op}}
  %0 = dshard.neg %x {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = max>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c6
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @returned(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>}) -> tensor<4xf32> {
  // expected-error@+1 {{'func.return' op gives result 0 partial over {"tp"}, which it does not declare; reshard it first}}
  return %x : tensor<4xf32>
}
}

// -----

// partial_c7: the start would count once per rank.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @start(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = sum>}) {
  // expected-error@+1 {{'dshard.repeat' op hands on operand 0 partial over {} as a value partial over {"tp"}; reshard it first}}
  %0 = dshard.repeat 2 init(%x) {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%i: tensor<i64>, %v: tensor<4xf32>):
    dshard.yield %v : tensor<4xf32>
  }
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c4: only zeros are the sum of themselves.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @ones() -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) {
  %zeros = dshard.constant {dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} dense<0.0> : tensor<4xf32>
  // expected-error@+1 {{'dshard.constant' op has a result partial over {"tp"}, but its operands make it partial over {}}}
  %ones = dshard.constant {dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} dense<1.0> : tensor<4xf32>
  %0 = dshard.reshard %zeros to <[{} ]> why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// partial_c1: a gradient is finished where it is named.
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
// expected-note@+1 {{argument 0 is partial over {"dp_shard"}}}
func.func @gradient(%g: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"dp_shard"}, kind = sum>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"dp_shard"}, kind = sum>}) {
  // expected-error@+1 {{'dshard.gradient' op is not linear in operand 0, which is partial over {"dp_shard"}; reshard it first}}
  %0 = dshard.gradient %g {of = "w", path = "", part = #dshard.part<backward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"dp_shard"}, kind = sum>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}
