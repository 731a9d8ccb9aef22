// Errors of the verifiers of products by group.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics

// grouped_matmul_c1: the matrices.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<4x5xf32>, %g: tensor<6xi64>) -> tensor<6x5xf32> {
  // expected-error@+1 {{weights have 2 dims, expected 3}}
  %0 = dshard.grouped_matmul %x, %w, %g {path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<4x5xf32>, tensor<6xi64>) -> tensor<6x5xf32>
  return %0 : tensor<6x5xf32>
}

// -----

// grouped_matmul_c1: element types.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<3x4x5xbf16>, %g: tensor<6xi64>) -> tensor<6x5xf32> {
  // expected-error@+1 {{element types differ: 'f32' x 'bf16' -> 'f32'}}
  %0 = dshard.grouped_matmul %x, %w, %g {path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<3x4x5xbf16>, tensor<6xi64>) -> tensor<6x5xf32>
  return %0 : tensor<6x5xf32>
}

// -----

// grouped_matmul_c2: integers.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<3x4x5xf32>, %g: tensor<6xf32>) -> tensor<6x5xf32> {
  // expected-error@+1 {{groups have element type 'f32', expected integers}}
  %0 = dshard.grouped_matmul %x, %w, %g {path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<3x4x5xf32>, tensor<6xf32>) -> tensor<6x5xf32>
  return %0 : tensor<6x5xf32>
}

// -----

// grouped_matmul_c2: one for each row.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<3x4x5xf32>, %g: tensor<5xi64>) -> tensor<6x5xf32> {
  // expected-error@+1 {{groups are 'tensor<5xi64>', expected one for each row of 'tensor<6x4xf32>'}}
  %0 = dshard.grouped_matmul %x, %w, %g {path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<3x4x5xf32>, tensor<5xi64>) -> tensor<6x5xf32>
  return %0 : tensor<6x5xf32>
}

// -----

// grouped_matmul_c3: contracted sizes.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<3x4x5xf32>, %g: tensor<6xi64>) -> tensor<6x4xf32> {
  // expected-error@+1 {{contracted sizes differ: 4 != 5}}
  %0 = dshard.grouped_matmul %x, %w, %g {transpose_weights, path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<3x4x5xf32>, tensor<6xi64>) -> tensor<6x4xf32>
  return %0 : tensor<6x4xf32>
}

// -----

// grouped_matmul_c3: the result.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<3x4x5xf32>, %g: tensor<6xi64>) -> tensor<6x4xf32> {
  // expected-error@+1 {{result is 'tensor<6x4xf32>', expected 'tensor<6x5xf32>'}}
  %0 = dshard.grouped_matmul %x, %w, %g {path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<3x4x5xf32>, tensor<6xi64>) -> tensor<6x4xf32>
  return %0 : tensor<6x4xf32>
}

// -----

// grouped_matmul_c4
func.func @f(%x: tensor<6x4xf32>, %w: tensor<3x4x5xf32>, %g: tensor<6xi64>, %o: tensor<i32>) -> tensor<6x5xf32> {
  // expected-error@+1 {{offset is 'tensor<i32>', expected tensor<i64>}}
  %0 = dshard.grouped_matmul %x, %w, %g, %o {path = "", part = #dshard.part<forward>} : (tensor<6x4xf32>, tensor<3x4x5xf32>, tensor<6xi64>, tensor<i32>) -> tensor<6x5xf32>
  return %0 : tensor<6x5xf32>
}

// -----

// grouped_weight_grad_c1: the number of dims.
func.func @f(%x: tensor<2x3x4xf32>, %w: tensor<6x5xf32>, %g: tensor<6xi64>) -> tensor<3x4x5xf32> {
  // expected-error@+1 {{operands have 3 and 2 dims, expected the same number, at least 2}}
  %0 = dshard.grouped_weight_grad %x, %w, %g {path = "", part = #dshard.part<backward>} : (tensor<2x3x4xf32>, tensor<6x5xf32>, tensor<6xi64>) -> tensor<3x4x5xf32>
  return %0 : tensor<3x4x5xf32>
}

// -----

// grouped_weight_grad_c1: leading dims.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<7x5xf32>, %g: tensor<6xi64>) -> tensor<3x4x5xf32> {
  // expected-error@+1 {{leading dims differ: 'tensor<6x4xf32>' and 'tensor<7x5xf32>'}}
  %0 = dshard.grouped_weight_grad %x, %w, %g {path = "", part = #dshard.part<backward>} : (tensor<6x4xf32>, tensor<7x5xf32>, tensor<6xi64>) -> tensor<3x4x5xf32>
  return %0 : tensor<3x4x5xf32>
}

// -----

// grouped_weight_grad_c1: element types.
func.func @f(%x: tensor<6x4xf32>, %w: tensor<6x5xbf16>, %g: tensor<6xi64>) -> tensor<3x4x5xf32> {
  // expected-error@+1 {{element types differ: 'f32' x 'bf16' -> 'f32'}}
  %0 = dshard.grouped_weight_grad %x, %w, %g {path = "", part = #dshard.part<backward>} : (tensor<6x4xf32>, tensor<6x5xbf16>, tensor<6xi64>) -> tensor<3x4x5xf32>
  return %0 : tensor<3x4x5xf32>
}

// -----

// grouped_weight_grad_c2
func.func @f(%x: tensor<6x4xf32>, %w: tensor<6x5xf32>, %g: tensor<6xi1>) -> tensor<3x4x5xf32> {
  // expected-error@+1 {{groups have element type 'i1', expected integers}}
  %0 = dshard.grouped_weight_grad %x, %w, %g {path = "", part = #dshard.part<backward>} : (tensor<6x4xf32>, tensor<6x5xf32>, tensor<6xi1>) -> tensor<3x4x5xf32>
  return %0 : tensor<3x4x5xf32>
}

// -----

// grouped_weight_grad_c3
func.func @f(%x: tensor<6x4xf32>, %w: tensor<6x5xf32>, %g: tensor<6xi64>) -> tensor<3x5x4xf32> {
  // expected-error@+1 {{result is 'tensor<3x5x4xf32>', expected e x 4 x 5}}
  %0 = dshard.grouped_weight_grad %x, %w, %g {path = "", part = #dshard.part<backward>} : (tensor<6x4xf32>, tensor<6x5xf32>, tensor<6xi64>) -> tensor<3x5x4xf32>
  return %0 : tensor<3x5x4xf32>
}

// -----

// grouped_weight_grad_c4
func.func @f(%x: tensor<6x4xf32>, %w: tensor<6x5xf32>, %g: tensor<6xi64>, %o: tensor<1xi64>) -> tensor<3x4x5xf32> {
  // expected-error@+1 {{offset is 'tensor<1xi64>', expected tensor<i64>}}
  %0 = dshard.grouped_weight_grad %x, %w, %g, %o {path = "", part = #dshard.part<backward>} : (tensor<6x4xf32>, tensor<6x5xf32>, tensor<6xi64>, tensor<1xi64>) -> tensor<3x4x5xf32>
  return %0 : tensor<3x4x5xf32>
}
