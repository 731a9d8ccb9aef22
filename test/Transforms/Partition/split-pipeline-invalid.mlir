// What cannot be split into stages.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-split-pipeline

module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  // expected-error@+1 {{argument 0 is the state 'cache'; pipelines of programs that keep state are not built yet}}
  func.func @run(%s: tensor<4xf32> {dshard.state = "cache"}) -> (tensor<4xf32> {dshard.state = "cache"}) {
    return %s : tensor<4xf32>
  }
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  // expected-error@+1 {{pp=2: the model has no numbered list of layers to divide; use --pp-split=cost}}
  func.func @run(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = dshard.neg %x {path = "fc", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    return %y : tensor<4xf32>
  }
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"pp"=3>} {
  // expected-error@+1 {{pp=3 stages are more than the 2 layers 'layers.9' to 'layers.10'; use at most pp=2}}
  func.func @run(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = dshard.neg %x {path = "layers.9", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    %z = dshard.neg %y {path = "layers.10", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    return %z : tensor<4xf32>
  }
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func @run(%x: tensor<4xf32>, %w: tensor<4xf32> {dshard.weight = #dshard.weight<"w", "f", offset = 0, length = 16, type = tensor<4xf32>, fan_in = 4>}) -> tensor<4xf32> {
    %y = dshard.mul %x, %w {path = "layers.1", part = #dshard.part<forward>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    // expected-error@+1 {{'dshard.neg' op of layer 'layers.0' (stage 0) reads a value of 'layers.1' (stage 1); values go from stage to stage forward only}}
    %z = dshard.neg %y {path = "layers.0", part = #dshard.part<forward>} : (tensor<4xf32>) -> tensor<4xf32>
    return %z : tensor<4xf32>
  }
}
