// The gate of the phase train: what may not be there after it.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-train

// verify_train_c1
func.func @train_step(%x: tensor<4x5xf32>, %labels: tensor<4xi64>) -> tensor<4xf32> {
  // expected-error@+1 {{is left; dshard-decompose{ops=cross_entropy} replaces it at the end of the phase train}}
  %0:2 = dshard.cross_entropy %x, %labels {path = "", part = #dshard.part<forward>} : (tensor<4x5xf32>, tensor<4xi64>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0#0 : tensor<4xf32>
}

// -----

// verify_train_c1
// expected-error@+1 {{is still the model of one micro-batch; dshard-build-train-step makes the step from it}}
func.func @train_step(%x: tensor<4xf32>) -> tensor<4xf32> attributes {dshard.micro_batches = 2 : i64} {
  return %x : tensor<4xf32>
}

// -----

// verify_train_c2
func.func @train_step(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{has no 'part'; every op carries its module path and its part of a step}}
  %0 = dshard.neg %x {path = ""} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// verify_train_c3
// expected-error@+1 {{writes the state 'w', which is no argument}}
func.func @train_step(%x: tensor<4xf32>) -> (tensor<4xf32> {dshard.state = "w"}) {
  return %x : tensor<4xf32>
}

// -----

// verify_train_c3
// expected-error@+1 {{writes the state 'w' as 'tensor<4xf32>', it is 'tensor<4xi64>'}}
func.func @train_step(%x: tensor<4xf32>, %w: tensor<4xi64> {dshard.state = "w"}) -> (tensor<4xf32> {dshard.state = "w"}) {
  return %x : tensor<4xf32>
}

// -----

// verify_train_c3
// expected-error@+1 {{has two arguments for the state 'w'}}
func.func @train_step(%x: tensor<4xf32> {dshard.state = "w"}, %w: tensor<4xf32> {dshard.state = "w"}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// verify_train_c4
func.func @train_step(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{is of 'w', which is no state of 'train_step'}}
  %0 = dshard.gradient %x {of = "w", path = "", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// verify_train_c5
func.func @train_step(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-note@+1 {{which comes from here}}
  %0 = dshard.neg %x {path = "", part = #dshard.part<optimizer>} : (tensor<4xf32>) -> tensor<4xf32>
  // expected-error@+1 {{of part backward reads a value of part optimizer}}
  %1 = dshard.neg %0 {path = "", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}

// -----

// verify_train_c6
// expected-error@+1 {{names 1 values that must be finite in a result of type 'tensor<4xf32>'}}
func.func @train_step(%x: tensor<4xf32>) -> (tensor<4xf32> {dshard.finite = ["w"]}) {
  return %x : tensor<4xf32>
}

// -----

// verify_train_c6
// expected-error@+1 {{has the scalar 'lr' as 'tensor<1xf32>', expected no dims}}
func.func @train_step(%lr: tensor<1xf32> {dshard.scalar = "lr"}) -> tensor<1xf32> {
  return %lr : tensor<1xf32>
}
