// The batch is followed through merged and moved dims; what mixes its rows is refused.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-verify-rows

func.func @fine(%x: tensor<4x3x8xf32> {dshard.micro_batched}, %w: tensor<8x8xf32>) -> (tensor<4x3x8xf32> {dshard.micro_batched})
    attributes {dshard.micro_batches = 2 : i64} {
  %flat = dshard.reshape %x : (tensor<4x3x8xf32>) -> tensor<12x8xf32>
  %y = dshard.matmul %flat, %w : (tensor<12x8xf32>, tensor<8x8xf32>) -> tensor<12x8xf32>
  %z = dshard.reshape %y : (tensor<12x8xf32>) -> tensor<4x3x8xf32>
  %t = dshard.transpose %z {permutation = array<i64: 1, 0, 2>} : (tensor<4x3x8xf32>) -> tensor<3x4x8xf32>
  %u = dshard.softmax %t {dim = 2 : i64} : (tensor<3x4x8xf32>) -> tensor<3x4x8xf32>
  %v = dshard.transpose %u {permutation = array<i64: 1, 0, 2>} : (tensor<3x4x8xf32>) -> tensor<4x3x8xf32>
  // The same for all rows.
  %c = dshard.constant dense<[[[1.0]], [[1.0]], [[1.0]], [[1.0]]]> : tensor<4x1x1xf32>
  %r = dshard.add %v, %c : (tensor<4x3x8xf32>, tensor<4x1x1xf32>) -> tensor<4x3x8xf32>
  return %r : tensor<4x3x8xf32>
}

// With one micro-batch there is nothing to check.
func.func @one(%x: tensor<4x8xf32> {dshard.micro_batched}) -> tensor<8xf32> attributes {dshard.micro_batches = 1 : i64} {
  %y = dshard.reduce %x {dims = array<i64: 0>, kind = #dshard<reduction sum>} : (tensor<4x8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// -----

func.func @rows_c1(%x: tensor<4x8xf32> {dshard.micro_batched}) -> tensor<8xf32> attributes {dshard.micro_batches = 2 : i64} {
  // expected-error@+1 {{--micro-batches=2: dshard.reduce of 'norm' reduces over the batch, so its rows cannot go through one part after another}}
  %y = dshard.reduce %x {path = "norm", dims = array<i64: 0>, kind = #dshard<reduction sum>} : (tensor<4x8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// -----

func.func @rows_c1_each_with_each(%x: tensor<4x8xf32> {dshard.micro_batched}) -> tensor<4x4xf32> attributes {dshard.micro_batches = 2 : i64} {
  // expected-error@+1 {{combines each row of the batch with each other}}
  %y = dshard.matmul %x, %x {transpose_rhs} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x4xf32>
  return %y : tensor<4x4xf32>
}

// -----

func.func @rows_c1_merged(%x: tensor<4x3x8xf32> {dshard.micro_batched}) -> tensor<12x8xf32> attributes {dshard.micro_batches = 2 : i64} {
  %t = dshard.transpose %x {permutation = array<i64: 1, 0, 2>} : (tensor<4x3x8xf32>) -> tensor<3x4x8xf32>
  // expected-error@+1 {{mixes the rows of the batch with another dim}}
  %y = dshard.reshape %t : (tensor<3x4x8xf32>) -> tensor<12x8xf32>
  return %y : tensor<12x8xf32>
}

// -----

func.func @rows_c2(%x: tensor<4x8xf32> {dshard.micro_batched}) -> (tensor<4x8xf32> {dshard.micro_batched}) attributes {dshard.micro_batches = 2 : i64} {
  %c = dshard.constant dense<[[0.0], [1.0], [2.0], [3.0]]> : tensor<4x1xf32>
  // expected-error@+1 {{dshard.add meets the batch with operand 1, which differs from row to row}}
  %y = dshard.add %x, %c : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  return %y : tensor<4x8xf32>
}

// -----

// expected-error@+1 {{--micro-batches: output 'y' does not have the batch in dim 0}}
func.func @rows_c3(%x: tensor<4x8xf32> {dshard.micro_batched}) -> (tensor<8x4xf32> {dshard.name = "y"}) attributes {dshard.micro_batches = 2 : i64} {
  %y = dshard.transpose %x {permutation = array<i64: 1, 0>} : (tensor<4x8xf32>) -> tensor<8x4xf32>
  return %y : tensor<8x4xf32>
}

// -----

// expected-error@+1 {{--micro-batches: output 'y' has a batch dim that is not that of the inputs}}
func.func @rows_c3_other(%x: tensor<4x8xf32> {dshard.micro_batched}) -> (tensor<4xf32> {dshard.micro_batched, dshard.name = "y"}) attributes {dshard.micro_batches = 2 : i64} {
  %y = dshard.constant dense<1.0> : tensor<4xf32>
  return %y : tensor<4xf32>
}
