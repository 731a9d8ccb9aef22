// What the gate of the graph phase refuses.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics -dshard-verify-graph

func.func @good(%x: tensor<4xf32>) -> tensor<4xf32> {
  %c = dshard.constant dense<1.0> : tensor<f32>
  %0 = dshard.add %x, %c {path = "", part = #dshard.part<forward>} : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @graph_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{'dshard.all_gather' op belongs to a later phase}}
  %0 = dshard.all_gather %x dims [0] over ["tp"] why "w" {path = "", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<8xf32>
  return
}
}

// -----

func.func private @callee()

func.func @graph_c1_foreign() {
  // expected-error@+1 {{'func.call' op is left in the graph; it belongs to no op family of dshard}}
  func.call @callee() : () -> ()
  return
}

// -----

func.func @graph_c2_path(%x: tensor<4xf32>) {
  // expected-error@+1 {{has no 'path'; every op carries its module path and its part of a step}}
  %0 = dshard.neg %x {part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @graph_c2_part(%x: tensor<4xf32>) {
  // expected-error@+1 {{has no 'part'; every op carries its module path and its part of a step}}
  %0 = dshard.neg %x {path = "m"} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

// expected-error@+1 {{argument 0 is 'tensor<?xf32>', expected a tensor with static dims; bind them with --dim NAME=SIZE}}
func.func @graph_c3(%x: tensor<?xf32>) {
  return
}
