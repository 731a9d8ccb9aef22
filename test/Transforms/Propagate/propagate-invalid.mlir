// What propagation refuses.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-propagate

// expected-error@+1 {{module has no dshard.mesh; give it one with --mesh}}
module {
  func.func @no_mesh(%x: tensor<4xf32>) -> tensor<4xf32> {
    return %x : tensor<4xf32>
  }
}
