// What has no plan yet is refused at its op.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-convert-to-plan

// convert_to_plan_c1
func.func @repeat(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  // expected-error @+1 {{[convert_to_plan_c1] control ops are not compiled into plans yet}}
  %0 = dshard.repeat 2 init(%x) : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%i: tensor<i64>, %c: tensor<4xf32>):
    dshard.yield %c : tensor<4xf32>
  }
  return %0 : tensor<4xf32>
}

// -----

// A global program has no plan.
// expected-error @+1 {{[convert_to_plan_c1] has no function of phase 'schedule' (with dshard.spmd)}}
module {
func.func @global(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
}

// -----

module {
func.func @one(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  return %x : tensor<4xf32>
}
// expected-error @+1 {{[convert_to_plan_c1] a plan of several stages is not built yet}}
func.func @two(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  return %x : tensor<4xf32>
}
}

// -----

// convert_to_plan_c2
// expected-error @+1 {{[convert_to_plan_c2] argument 0 is the state 'cache'; programs that keep state are not compiled into plans yet}}
func.func @state(%x: tensor<4xf32> {dshard.state = "cache"}) -> (tensor<4xf32> {dshard.state = "cache"}) attributes {dshard.spmd} {
  return %x : tensor<4xf32>
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
