// What has no plan yet is refused at its op.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-convert-to-plan

// convert_to_plan_c1
func.func @branch(%x: tensor<4xf32>, %c: tensor<i1>) -> tensor<4xf32> attributes {dshard.spmd} {
  // expected-error @+1 {{[convert_to_plan_c1] branches on a value of the run; only the rank and constants may choose a branch}}
  %0 = dshard.if %c : (tensor<i1>) -> tensor<4xf32> {
    dshard.yield %x : tensor<4xf32>
  } else {
    dshard.yield %x : tensor<4xf32>
  }
  return %0 : tensor<4xf32>
}

// -----

// A global program has no plan.
// expected-error @+1 {{[convert_to_plan_c1] is no function of phase 'schedule' (with dshard.spmd)}}
func.func @global(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{[convert_to_plan_c1] has no function of phase 'schedule' (with dshard.spmd)}}
module {
}

// -----

// expected-error @+1 {{[convert_to_plan_c1] is called 'load', which is the name of the plan's own load program}}
func.func @load(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  return %x : tensor<4xf32>
}

// -----

// convert_to_plan_c2: all entry points store a state alike.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @one(%w: tensor<4xf32> {dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 32, type = tensor<8xf32>, fan_in = 8>, dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>})
    -> tensor<4xf32> attributes {dshard.spmd} {
  return %w : tensor<4xf32>
}
// expected-error @+1 {{[convert_to_plan_c2] stores 'w' as tensor<8xf32>, but 'one' as tensor<8xf32> sharded #dshard.sharding<[{"tp"} ]>; all entry points share one state}}
func.func @two(%w: tensor<8xf32> {dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 32, type = tensor<8xf32>, fan_in = 8>, dshard.global = tensor<8xf32>, dshard.sharding = #dshard.sharding<[{} ]>})
    -> tensor<8xf32> attributes {dshard.spmd} {
  return %w : tensor<8xf32>
}
}

// -----

module {
func.func @one(%w: tensor<8xf32> {dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 32, type = tensor<8xf32>, fan_in = 8>}) -> tensor<8xf32> attributes {dshard.spmd} {
  return %w : tensor<8xf32>
}
// expected-error @+1 {{[convert_to_plan_c2] reads 'w' from other bytes than 'one'}}
func.func @two(%w: tensor<8xf32> {dshard.weight = #dshard.weight<"w", "m.data", offset = 32, length = 32, type = tensor<8xf32>, fan_in = 8>}) -> tensor<8xf32> attributes {dshard.spmd} {
  return %w : tensor<8xf32>
}
}

// -----

// expected-error @+1 {{[convert_to_plan_c2] writes the state "n", which is none of its arguments}}
func.func @unknown(%x: tensor<4xf32> {dshard.state = "m"}) -> (tensor<4xf32> {dshard.state = "n"}) attributes {dshard.spmd} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{[convert_to_plan_c2] has two arguments of the state "m"}}
func.func @twice(%x: tensor<4xf32> {dshard.state = "m"}, %y: tensor<4xf32> {dshard.state = "m"}) -> tensor<4xf32> attributes {dshard.spmd} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{[convert_to_plan_c2] has two results of the state "m"}}
func.func @results(%x: tensor<4xf32> {dshard.state = "m"}) -> (tensor<4xf32> {dshard.state = "m"}, tensor<4xf32> {dshard.state = "m"}) attributes {dshard.spmd} {
  return %x, %x : tensor<4xf32>, tensor<4xf32>
}

// -----

// What phase `schedule` may not hold is refused here too.
func.func @unscheduled(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  // expected-error @+1 {{[verify_schedule_c1] is in no kernel, library call, collective or control op}}
  %0 = dshard.exp %x : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// A call without its product.
func.func @empty_call(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  // expected-error @+1 {{[verify_schedule_c2] is no library call 'matmul'}}
  %0 = dshard.fused %x {dshard.call = "matmul"} : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%a: tensor<4xf32>):
    dshard.yield %a : tensor<4xf32>
  }
  return %0 : tensor<4xf32>
}

// -----

// convert_to_plan_c3
// expected-error @+1 {{[convert_to_plan_c3] has an argument of type 'tensor<?xf32>', expected a tensor of known sizes}}
func.func @dynamic(%x: tensor<?xf32>) -> tensor<?xf32> attributes {dshard.spmd} {
  return %x : tensor<?xf32>
}

// -----

// expected-error @+1 {{[convert_to_plan_c3] has 0 blocks, expected 1}}
func.func private @declared(tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd}

// -----

// The programs of an entry point's stages follow each other.
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.1() attributes {dshard.spmd, dshard.stage = 1 : i64} {
    return
  }
  func.func private @run.0() attributes {dshard.spmd, dshard.stage = 0 : i64} {
    return
  }
  // expected-error @+1 {{[convert_to_plan_c1] names stage 1 as "run.1", but its stages are not functions behind one another}}
  func.func private @run() attributes {dshard.stages = ["run.0", "run.1"]}
}

// -----

// A random program: the plan would have added the whole input once per rank.
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
// expected-error @+1 {{input 'x' is partial, but a caller gives whole values}}
func.func @partial(%x: tensor<4xf32> {dshard.name = "x", dshard.role = #dshard.role<input>, dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ], partial = {"cp"}, kind = sum>}) -> (tensor<4xf32> {dshard.name = "y", dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd} {
  %0 = dshard.all_reduce sum %x over ["cp"] why "input" {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}
