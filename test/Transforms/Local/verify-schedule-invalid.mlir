// What phase `schedule` may not hold.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-schedule

// verify_schedule_c1
func.func @outside(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.spmd} {
  // expected-error @+1 {{[verify_schedule_c1] is in no kernel, library call, collective or control op}}
  %0 = dshard.exp %x : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// verify_schedule_c2
func.func @call(%x: tensor<4x4xf64>) -> tensor<4x4xf64> attributes {dshard.spmd} {
  // expected-error @+1 {{[verify_schedule_c2] is no library call 'matmul'}}
  %0 = dshard.fused %x {dshard.call = "matmul"} : (tensor<4x4xf64>) -> tensor<4x4xf64> {
  ^bb0(%a: tensor<4x4xf64>):
    %1 = dshard.matmul %a, %a : (tensor<4x4xf64>, tensor<4x4xf64>) -> tensor<4x4xf64>
    dshard.yield %1 : tensor<4x4xf64>
  }
  return %0 : tensor<4x4xf64>
}

// -----

// verify_schedule_c3
func.func @kernel(%q: tensor<1x1x2x4xf32>) -> tensor<1x1x2x4xf32> attributes {dshard.spmd} {
  %0 = dshard.fused %q : (tensor<1x1x2x4xf32>) -> tensor<1x1x2x4xf32> {
  ^bb0(%a: tensor<1x1x2x4xf32>):
    // expected-error @+1 {{[verify_schedule_c3] cannot be generated inside a kernel}}
    %r = dshard.gradient %a {of = "w"} : (tensor<1x1x2x4xf32>) -> tensor<1x1x2x4xf32>
    dshard.yield %r : tensor<1x1x2x4xf32>
  }
  return %0 : tensor<1x1x2x4xf32>
}
