// A pending sum does not pass through ops that are not linear in it, whatever an
// annotation asks for: casts to integers, divisions of integers, attention (its
// log-sum-exp is not linear in the value). Shrunk cases of test/random.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-propagate --dshard-insert-reshards

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @cast(%x: tensor<2x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<4xi64> {
  %0 = dshard.reduce %x {kind = #dshard<reduction sum>, dims = array<i64: 0>, path = "sum", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<2x4xf32>) -> tensor<4xf32>
  // expected-error@+1 {{result 0 is to be [{} ], partial = {"tp"}, but the op gives [{} ]; no collective makes a value partial}}
  %1 = dshard.cast %0 {path = "cast", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xf32>) -> tensor<4xi64>
  return %1 : tensor<4xi64>
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @divide(%x: tensor<2x4xi32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}, %y: tensor<i32>) -> tensor<4xi32> {
  %0 = dshard.reduce %x {kind = #dshard<reduction sum>, dims = array<i64: 0>, path = "sum", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<2x4xi32>) -> tensor<4xi32>
  // expected-error@+1 {{no collective makes a value partial}}
  %1 = dshard.div %0, %y {path = "divide", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ], partial = {"tp"}, kind = sum>]} : (tensor<4xi32>, tensor<i32>) -> tensor<4xi32>
  return %1 : tensor<4xi32>
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @attention(%q: tensor<1x2x4x4xf32>, %v: tensor<2x1x2x4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {}, {}, {}, {} ]>}) -> (tensor<1x2x4x4xf32>, tensor<1x2x4xf32>) {
  %0 = dshard.reduce %v {kind = #dshard<reduction sum>, dims = array<i64: 0>, path = "sum", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {}, {}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<2x1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  // expected-error@+1 {{no collective makes a value partial}}
  %1:2 = dshard.attention %q, %q, %0 {scale = 0.5 : f64, path = "attend", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {}, {}, {} ], partial = {"tp"}, kind = sum>, #dshard.sharding<[{}, {}, {} ], partial = {"tp"}, kind = sum>]} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> (tensor<1x2x4x4xf32>, tensor<1x2x4xf32>)
  return %1#0, %1#1 : tensor<1x2x4x4xf32>, tensor<1x2x4xf32>
}
}
