// What no training step can be made of, each with a way out.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-build-train-step=config=%S/Inputs/plain.json

// build_train_step_c2
// expected-error@+1 {{--train: the model has no output 'y' for the loss; its outputs are logits (key logits)}}
func.func @run(%x: tensor<4x5xf32>) -> (tensor<4x5xf32> {dshard.name = "logits"}) {
  return %x : tensor<4x5xf32>
}

// -----

// build_train_step_c2
// expected-error@+1 {{--train: logits 'y' are 'tensor<5xf32>'; cross_entropy needs floats [batch, ..., classes]}}
func.func @run(%x: tensor<5xf32>) -> (tensor<5xf32> {dshard.name = "y"}) {
  return %x : tensor<5xf32>
}

// -----

// build_train_step_c2
// expected-error@+1 {{--train: the model has an argument 'labels' already; name the input of the labels otherwise (key labels)}}
func.func @run(%x: tensor<4x5xf32> {dshard.name = "labels"}) -> (tensor<4x5xf32> {dshard.name = "y"}) {
  return %x : tensor<4x5xf32>
}

// -----

// build_train_step_c3
// expected-error@+1 {{--train: no parameter of the model changes 'y'; there is nothing to train}}
func.func @run(%x: tensor<4x5xf32> {dshard.name = "x"}) -> (tensor<4x5xf32> {dshard.name = "y"}) {
  return %x : tensor<4x5xf32>
}

// -----

// build_train_step_c3
// expected-error@+1 {{--train: parameter 'w' is 'tensor<5xbf16>'; training needs f32 parameters, mixed precision is not built yet}}
func.func @run(%x: tensor<4x5xbf16> {dshard.name = "x"},
               %w: tensor<5xbf16> {dshard.weight = #dshard.weight<"w", "m.data", offset = 0, length = 10, type = tensor<5xbf16>, fan_in = 0>})
    -> (tensor<4x5xbf16> {dshard.name = "y"}) {
  %0 = dshard.mul %x, %w {path = "", part = #dshard.part<forward>} : (tensor<4x5xbf16>, tensor<5xbf16>) -> tensor<4x5xbf16>
  return %0 : tensor<4x5xbf16>
}

// -----

func.func @run(%x: tensor<4x5xf32>) -> (tensor<4x5xf32> {dshard.name = "y"}) {
  return %x : tensor<4x5xf32>
}
// expected-error@+1 {{--train: the module has several functions, 'run' and 'decode'; training is made from one}}
func.func @decode(%x: tensor<4x5xf32>) -> (tensor<4x5xf32> {dshard.name = "y"}) {
  return %x : tensor<4x5xf32>
}

// -----

func.func @run(%x: tensor<4x5xf32>) -> (tensor<4x5xf32> {dshard.name = "y"}) {
  return %x : tensor<4x5xf32>
}
// expected-error@+1 {{--train: the module holds 'train_step' already}}
func.func @train_step(%x: tensor<4x5xf32>) -> (tensor<4x5xf32> {dshard.name = "y"}) {
  return %x : tensor<4x5xf32>
}
