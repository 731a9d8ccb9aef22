// The gate of the local phase, one refusal per constraint.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-local

// local_c1: not partitioned.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{function is not dshard.spmd; run dshard-partition}}
func.func @global(%x: tensor<4xf32>) {
  return
}
}

// -----

// local_c1: a sharding attribute inside.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @sharding(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  // expected-error@+1 {{'dshard.exp' op carries dshard.shardings in the local phase, where types are local}}
  %0 = dshard.exp %x {path = "", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<4xf32>) -> tensor<4xf32>
  return
}
}

// -----

// local_c1: a reshard.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @reshard(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  // expected-error@+1 {{'dshard.reshard' op is left in the local phase; run dshard-partition}}
  %0 = dshard.reshard %x to <[{"tp"} ]> why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
  return
}
}

// -----

// local_c3: no global type.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{argument 0 has no dshard.global or no dshard.sharding; the loader needs both}}
func.func @no_global(%x: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  return
}
}

// -----

// local_c4
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{argument 0: weight 'w' is 'tensor<16xf32>' in its file, but the program wants 'tensor<8xf32>'}}
func.func @weight(%x: tensor<4xf32> {dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>, dshard.role = #dshard.role<param>,
    dshard.weight = #dshard.weight<"w", "w.data", offset = 0, length = 64, type = tensor<16xf32>, fan_in = 0>}) attributes {dshard.spmd} {
  return
}
}

// -----

// local_c5
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @divergent(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>},
    %c: tensor<i1> {dshard.global = tensor<i1>, dshard.sharding = #dshard.sharding<[ ]>}) attributes {dshard.spmd} {
  %0 = dshard.if %c {path = "", part = #dshard.part<forward>} : (tensor<i1>) -> tensor<4xf32> {
    // expected-error@+1 {{'dshard.all_reduce' op lies in a dshard.if: ranks that take the other branch would wait for ever; move it out}}
    %1 = dshard.all_reduce sum %x over ["tp"] why "test" {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    dshard.yield %1 : tensor<4xf32>
  } else {
    dshard.yield %x : tensor<4xf32>
  }
  return
}
}

// -----

// local_c6
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @send(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  // expected-error@+1 {{'dshard.send' op with tag 7 : i64 has no recv}}
  dshard.send %x to 1 tag 7 over ["tp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
  return
}
}

// -----

// local_c7
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @path(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  // expected-error@+1 {{'dshard.exp' op has no 'path'}}
  %0 = dshard.exp %x {part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return
}
}

// -----

// The receive of stage 1 waits for what stage 0 does not send.
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 0 : i64} {
    // expected-error@+1 {{'dshard.send' op with tag 0 : i64 has no recv}}
    dshard.send %x to 1 tag 0 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    return
  }
  func.func private @run.1() -> (tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 1 : i64} {
    %y = dshard.recv from 0 tag 1 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    return %y : tensor<4xf32>
  }
  func.func private @run(tensor<4xf32>) -> tensor<4xf32> attributes {dshard.stages = ["run.0", "run.1"]}
}

// -----

// The peer is the sender itself.
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 0 : i64} {
    // expected-error@+1 {{'dshard.send' op with tag 0 : i64 has no recv}}
    dshard.send %x to 0 tag 0 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    return
  }
  func.func private @run.1() -> (tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 1 : i64} {
    %y = dshard.recv from 0 tag 0 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    return %y : tensor<4xf32>
  }
  func.func private @run(tensor<4xf32>) -> tensor<4xf32> attributes {dshard.stages = ["run.0", "run.1"]}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 0 : i64} {
    // expected-error@+1 {{'dshard.send' op with tag 0 : i64 is of 'tensor<4xf32>', its recv is of 'tensor<2xf32>'}}
    dshard.send %x to 1 tag 0 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<4xf32>
    return
  }
  func.func private @run.1() -> (tensor<2xf32> {dshard.global = tensor<2xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 1 : i64} {
    %y = dshard.recv from 0 tag 0 over ["pp"] why "test" {path = "", part = #dshard.part<forward>} : tensor<2xf32>
    return %y : tensor<2xf32>
  }
  func.func private @run(tensor<4xf32>) -> tensor<2xf32> attributes {dshard.stages = ["run.0", "run.1"]}
}
