// The gate of the annotate phase, one refusal per constraint.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-annotated

// annotated_c1
// expected-error@+1 {{module has no dshard.mesh; give it one with --mesh}}
module {
}

// -----

// annotated_c2
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
// expected-error@+1 {{input x has a dynamic dim in 'tensor<?x4xf32>'; bind it with --dim NAME=SIZE}}
func.func @dynamic(%x: tensor<?x4xf32> {dshard.name = "x"}) -> tensor<?x4xf32> {
  return %x : tensor<?x4xf32>
}
}

// -----

// annotated_c4
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @no_path(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.exp' op has no 'path'}}
  %0 = dshard.exp %x {part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @no_part(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{'dshard.exp' op has no 'part'}}
  %0 = dshard.exp %x {path = ""} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}

// -----

// annotated_c5
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @callee(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
func.func @no_rule(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{'func.call' op has no sharding rule}}
  %0 = func.call @callee(%x) : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
}
