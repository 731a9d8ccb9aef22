// The gate of the resolve phase, one refusal per constraint.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-resolved

// resolved_c1: no sharding.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{input x has no sharding; run dshard-propagate}}
func.func @none(%x: tensor<4xf32> {dshard.name = "x"}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
}

// -----

// resolved_c1: an open dim.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{argument 0: dim 1 is still open; run dshard-propagate}}
func.func @open(%x: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{}, {?} ]>}) -> tensor<4x4xf32> {
  return %x : tensor<4x4xf32>
}
}

// -----

// resolved_c2
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @differs(
    // expected-note@+1 {{argument 0 is [{"dp_shard"} ] (from the plan)}}
    %x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>, dshard.origin = #dshard.origin<"from the plan">},
    // expected-note@+1 {{argument 1 is [{"tp"} ]}}
    %y: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) {
  // expected-error@+1 {{'dshard.mul' op is sharded differently along one factor: dim 0 of operand 0 {"dp_shard"}, dim 0 of operand 1 {"tp"}; reshard one of them}}
  %0 = dshard.mul %x, %y {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"} ]>]} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// resolved_c2: a minor factor that the merged dim cannot say.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-note@+1 {{argument 0 is [{}, {"tp"} ]}}
func.func @reshape(%x: tensor<8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<32xf32> {
  // expected-note@+2 {{output of reshape is [{} ]}}
  // expected-error@+1 {{'dshard.reshape' op is sharded differently along one factor: dim 1 of operand 0 {"tp"}, dim 0 of result 0 {}}}
  %0 = dshard.reshape %x {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<8x4xf32>) -> tensor<32xf32>
  return %0 : tensor<32xf32>
}
}

// -----

// resolved_c3: no single tensor has the axis twice.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @twice(%table: tensor<8x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>},
    %ids: tensor<6xi64> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) -> tensor<6x4xf32> {
  // expected-error@+1 {{'dshard.gather' op is sharded over one axis along two factors: dim 0 of operand 1 {"tp"} and dim 0 of operand 0 {"tp"}; gather one of them}}
  %0 = dshard.gather %table, %ids {dim = 0 : i64, path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"}, {} ]>]} : (tensor<8x4xf32>, tensor<6xi64>) -> tensor<6x4xf32>
  return %0 : tensor<6x4xf32>
}
}

// -----

// resolved_c4
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @whole(%x: tensor<4x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<4x8xf32> {
  // expected-error@+1 {{'dshard.softmax' op needs the whole dim 1 of operand 0 (gather factor), but it is sharded {"tp"}; gather it first}}
  %0 = dshard.softmax %x {dim = 1 : i64, path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{}, {"tp"} ]>]} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %0 : tensor<4x8xf32>
}
}

// -----

// resolved_c5
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @declared(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) {
  // expected-error@+1 {{'func.return' op gives result 0 as [{} ], declared [{"tp"} ]; run dshard-insert-reshards}}
  return %x : tensor<4xf32>
}
}

// -----

// resolved_c6
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @gradient(%w: tensor<4xf32> {dshard.name = "w", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"} ]>},
    %g: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<4xf32> {dshard.name = "w", dshard.role = #dshard.role<grad>, dshard.sharding = #dshard.sharding<[{} ]>}) {
  // expected-error@+1 {{'func.return' op gives the gradient of 'w' as [{} ], but the parameter is stored as [{"tp"} ]; reshard the gradient}}
  return %g : tensor<4xf32>
}
}

// -----

// resolved_c7
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @state(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<4xf32> {dshard.state = "cache", dshard.sharding = #dshard.sharding<[{} ]>}) {
  // expected-error@+1 {{'func.return' op writes state 'cache', which no argument declares}}
  return %x : tensor<4xf32>
}
}

// -----

// resolved_c8
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @path(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) {
  // expected-error@+1 {{'dshard.exp' op has no 'path'}}
  %0 = dshard.exp %x {part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// resolved_c7: written as it is not stored.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @state_sharding(%cache: tensor<4xf32> {dshard.state = "cache", dshard.sharding = #dshard.sharding<[{"tp"} ]>},
    %x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>})
    -> (tensor<4xf32> {dshard.state = "cache", dshard.sharding = #dshard.sharding<[{} ]>}) {
  // expected-error@+1 {{'func.return' op writes state 'cache' as [{} ], but it is stored as [{"tp"} ]}}
  return %x : tensor<4xf32>
}
}

// -----

// resolved_c6: of the op that names a gradient.
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
func.func @gradient_op(%w: tensor<4xf32> {dshard.state = "w", dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>},
    %g: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) {
  // expected-error@+1 {{'dshard.gradient' op gives the gradient of 'w' as [{} ], but the parameter is stored as [{"dp_shard"} ]; reshard the gradient}}
  %0 = dshard.gradient %g {of = "w", path = "", part = #dshard.part<backward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// resolved_c6
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
func.func @gradient_of_nothing(%g: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) {
  // expected-error@+1 {{'dshard.gradient' op is of 'w', which is no parameter of this function}}
  %0 = dshard.gradient %g {of = "w", path = "", part = #dshard.part<backward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// resolved_c7: a repeat declares no state either.
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
func.func @moment(%m: tensor<4xf32> {dshard.state = "w.exp_avg", dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>})
    -> (tensor<4xf32> {dshard.state = "w.exp_avg_sq", dshard.sharding = #dshard.sharding<[{"dp_shard"} ]>}) {
  // expected-error@+1 {{'func.return' op writes state 'w.exp_avg_sq', which no argument declares}}
  return %m : tensor<4xf32>
}
}

// -----

// resolved_c9
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @initial(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>}) {
  // expected-error@+1 {{'dshard.repeat' op hands on operand 0 as [{} ], but the value that it becomes is [{"tp"} ]; reshard it first}}
  %0 = dshard.repeat 2 init(%x) {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{"tp"} ]>]} : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%i: tensor<i64>, %v: tensor<4xf32>):
    dshard.yield %v : tensor<4xf32>
  }
  return %0 : tensor<4xf32>
}
}
