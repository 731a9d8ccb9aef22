// What propagation refuses.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-propagate

// expected-error@+1 {{module has no dshard.mesh; give it one with --mesh}}
module {
  func.func @no_mesh(%x: tensor<4xf32>) -> tensor<4xf32> {
    return %x : tensor<4xf32>
  }
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  func.func @control(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{'dshard.repeat' op is not sharded yet}}
    %0 = dshard.repeat 2 init(%x) {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%i: tensor<i64>, %v: tensor<4xf32>):
      dshard.yield %v : tensor<4xf32>
    }
    return %0 : tensor<4xf32>
  }
}
