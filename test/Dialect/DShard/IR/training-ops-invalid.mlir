// Errors of the verifiers of the ops of a training step.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics

// weight_grad_c1: the number of dims.
func.func @f(%x: tensor<2x3x4xf32>, %g: tensor<6x5xf32>) -> tensor<4x5xf32> {
  // expected-error@+1 {{operands have 3 and 2 dims, expected the same number, at least 2}}
  %0 = dshard.weight_grad %x, %g {path = "", part = #dshard.part<backward>} : (tensor<2x3x4xf32>, tensor<6x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}

// -----

// weight_grad_c1: leading dims.
func.func @f(%x: tensor<2x3x4xf32>, %g: tensor<2x6x5xf32>) -> tensor<4x5xf32> {
  // expected-error@+1 {{leading dim 1 differs: 3 != 6}}
  %0 = dshard.weight_grad %x, %g {path = "", part = #dshard.part<backward>} : (tensor<2x3x4xf32>, tensor<2x6x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}

// -----

// weight_grad_c1: element types.
func.func @f(%x: tensor<3x4xf32>, %g: tensor<3x5xbf16>) -> tensor<4x5xf32> {
  // expected-error@+1 {{element types differ: 'f32' x 'bf16' -> 'f32'}}
  %0 = dshard.weight_grad %x, %g {path = "", part = #dshard.part<backward>} : (tensor<3x4xf32>, tensor<3x5xbf16>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}

// -----

// weight_grad_c2
func.func @f(%x: tensor<3x4xf32>, %g: tensor<3x5xf32>) -> tensor<5x4xf32> {
  // expected-error@+1 {{result is 'tensor<5x4xf32>', expected 'tensor<4x5xf32>'}}
  %0 = dshard.weight_grad %x, %g {path = "", part = #dshard.part<backward>} : (tensor<3x4xf32>, tensor<3x5xf32>) -> tensor<5x4xf32>
  return %0 : tensor<5x4xf32>
}

// -----

// scatter_add_c1: the updates.
func.func @f(%i: tensor<2x3xi64>, %u: tensor<2x4xf32>) -> tensor<9x4xf32> {
  // expected-error@+1 {{updates are 'tensor<2x4xf32>', expected 'tensor<2x3x4xf32>'}}
  %0 = dshard.scatter_add %i, %u {dim = 0 : i64, path = "", part = #dshard.part<backward>} : (tensor<2x3xi64>, tensor<2x4xf32>) -> tensor<9x4xf32>
  return %0 : tensor<9x4xf32>
}

// -----

// scatter_add_c1: the dim.
func.func @f(%i: tensor<2xi64>, %u: tensor<2xf32>) -> tensor<9xf32> {
  // expected-error@+1 {{dim 1 is not one of 1}}
  %0 = dshard.scatter_add %i, %u {dim = 1 : i64, path = "", part = #dshard.part<backward>} : (tensor<2xi64>, tensor<2xf32>) -> tensor<9xf32>
  return %0 : tensor<9xf32>
}

// -----

// scatter_add_c1: indices.
func.func @f(%i: tensor<2xf32>, %u: tensor<2xf32>) -> tensor<9xf32> {
  // expected-error@+1 {{indices have element type 'f32', expected integers}}
  %0 = dshard.scatter_add %i, %u {dim = 0 : i64, path = "", part = #dshard.part<backward>} : (tensor<2xf32>, tensor<2xf32>) -> tensor<9xf32>
  return %0 : tensor<9xf32>
}

// -----

// scatter_add_c2
func.func @f(%i: tensor<2xi64>, %u: tensor<2xf32>, %o: tensor<1xi64>) -> tensor<9xf32> {
  // expected-error@+1 {{offset is 'tensor<1xi64>', expected tensor<i64>}}
  %0 = dshard.scatter_add %i, %u, %o {dim = 0 : i64, path = "", part = #dshard.part<backward>} : (tensor<2xi64>, tensor<2xf32>, tensor<1xi64>) -> tensor<9xf32>
  return %0 : tensor<9xf32>
}

// -----

// reorder_c1: what divides.
func.func @f(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
  // expected-error@+1 {{layout zigzag of 2 parts needs a sequence that 4 divides, its size is 6}}
  %0 = dshard.reorder %x {dim = 1 : i64, layout = #dshard.layout<zigzag>, parts = 2 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  return %0 : tensor<4x6xf32>
}

// -----

// reorder_c1: the parts.
func.func @f(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
  // expected-error@+1 {{has 0 parts, expected at least 1}}
  %0 = dshard.reorder %x {dim = 1 : i64, layout = #dshard.layout<striped>, parts = 0 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  return %0 : tensor<4x6xf32>
}

// -----

// reorder_c1: too many parts to count.
func.func @f(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
  // expected-error@+1 {{has too many parts: 9223372036854775807}}
  %0 = dshard.reorder %x {dim = 1 : i64, layout = #dshard.layout<zigzag>, parts = 9223372036854775807 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  return %0 : tensor<4x6xf32>
}

// -----

// reorder_c1: the dim.
func.func @f(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
  // expected-error@+1 {{dim 2 is not one of 2}}
  %0 = dshard.reorder %x {dim = 2 : i64, layout = #dshard.layout<striped>, parts = 2 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  return %0 : tensor<4x6xf32>
}

// -----

// reorder_c2
func.func @f(%x: tensor<4x6xf32>) -> tensor<6x4xf32> {
  // expected-error@+1 {{result is 'tensor<6x4xf32>', expected 'tensor<4x6xf32>'}}
  %0 = dshard.reorder %x {dim = 0 : i64, layout = #dshard.layout<striped>, parts = 2 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>) -> tensor<6x4xf32>
  return %0 : tensor<6x4xf32>
}

// -----

// cross_entropy_c1: a label per row.
func.func @f(%x: tensor<4x6xf32>, %l: tensor<6xi64>) -> tensor<6xf32> {
  // expected-error@+1 {{labels are 'tensor<6xi64>', expected the dims of the logits 'tensor<4x6xf32>' but the last}}
  %0, %1 = dshard.cross_entropy %x, %l {path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>, tensor<6xi64>) -> (tensor<6xf32>, tensor<6xf32>)
  return %0 : tensor<6xf32>
}

// -----

// cross_entropy_c1: labels count.
func.func @f(%x: tensor<4x6xf32>, %l: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{labels have element type 'f32', expected integers}}
  %0, %1 = dshard.cross_entropy %x, %l {path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0 : tensor<4xf32>
}

// -----

// cross_entropy_c1: logits are floats.
func.func @f(%x: tensor<4x6xi64>, %l: tensor<4xi64>) -> tensor<4xf32> {
  // expected-error@+1 {{logits have element type 'i64', expected a float}}
  %0, %1 = dshard.cross_entropy %x, %l {path = "", part = #dshard.part<forward>} : (tensor<4x6xi64>, tensor<4xi64>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0 : tensor<4xf32>
}

// -----

// cross_entropy_c2
func.func @f(%x: tensor<4x6xbf16>, %l: tensor<4xi64>) -> tensor<4xbf16> {
  // expected-error@+1 {{result is 'tensor<4xbf16>', expected 'tensor<4xf32>'}}
  %0, %1 = dshard.cross_entropy %x, %l {path = "", part = #dshard.part<forward>} : (tensor<4x6xbf16>, tensor<4xi64>) -> (tensor<4xbf16>, tensor<4xf32>)
  return %0 : tensor<4xbf16>
}

// -----

// cross_entropy_c1: what is ignored is a label.
func.func @f(%x: tensor<4x6xf32>, %l: tensor<4xi32>) -> tensor<4xf32> {
  // expected-error@+1 {{ignore_index 2147483648 is no value of labels of type 'i32'; -100 is customary}}
  %0, %1 = dshard.cross_entropy %x, %l {ignore_index = 2147483648 : i64, path = "", part = #dshard.part<forward>} : (tensor<4x6xf32>, tensor<4xi32>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0 : tensor<4xf32>
}

// -----

// gradient_c1: types.
func.func @f(%g: tensor<4xf32>) -> tensor<5xf32> {
  // expected-error@+1 {{result is 'tensor<5xf32>', expected 'tensor<4xf32>'}}
  %0 = dshard.gradient %g {of = "w", path = "", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<5xf32>
  return %0 : tensor<5xf32>
}

// -----

// gradient_c1: the parameter.
func.func @f(%g: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{names no parameter}}
  %0 = dshard.gradient %g {of = "", path = "", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// adamw_c1: one type.
func.func @f(%p: tensor<4xf32>, %g: tensor<4xbf16>, %s: tensor<f32>, %e: tensor<i1>) -> tensor<4xf32> {
  // expected-error@+1 {{grad is 'tensor<4xbf16>', param 'tensor<4xf32>'}}
  %0, %1, %2 = dshard.adamw %p, %g, %p, %p, %s, %s, %s, %s, %e {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.1 : f64, path = "", part = #dshard.part<optimizer>} : (tensor<4xf32>, tensor<4xbf16>, tensor<4xf32>, tensor<4xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<i1>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>)
  return %0 : tensor<4xf32>
}

// -----

// adamw_c1: a float.
func.func @f(%p: tensor<4xi64>, %s: tensor<i64>, %e: tensor<i1>) -> tensor<4xi64> {
  // expected-error@+1 {{param has element type 'i64', expected a float}}
  %0, %1, %2 = dshard.adamw %p, %p, %p, %p, %s, %s, %s, %s, %e {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.1 : f64, path = "", part = #dshard.part<optimizer>} : (tensor<4xi64>, tensor<4xi64>, tensor<4xi64>, tensor<4xi64>, tensor<i64>, tensor<i64>, tensor<i64>, tensor<i64>, tensor<i1>) -> (tensor<4xi64>, tensor<4xi64>, tensor<4xi64>)
  return %0 : tensor<4xi64>
}

// -----

// adamw_c2: scalars.
func.func @f(%p: tensor<4xf32>, %s: tensor<f32>, %c: tensor<1xf32>, %e: tensor<i1>) -> tensor<4xf32> {
  // expected-error@+1 {{correction2 is 'tensor<1xf32>', expected 'tensor<f32>'}}
  %0, %1, %2 = dshard.adamw %p, %p, %p, %p, %s, %s, %c, %s, %e {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.1 : f64, path = "", part = #dshard.part<optimizer>} : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<f32>, tensor<f32>, tensor<1xf32>, tensor<f32>, tensor<i1>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>)
  return %0 : tensor<4xf32>
}

// -----

// adamw_c2: the switch.
func.func @f(%p: tensor<4xf32>, %s: tensor<f32>, %e: tensor<f32>) -> tensor<4xf32> {
  // expected-error@+1 {{enabled is 'tensor<f32>', expected 'tensor<i1>'}}
  %0, %1, %2 = dshard.adamw %p, %p, %p, %p, %s, %s, %s, %s, %e {beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.1 : f64, path = "", part = #dshard.part<optimizer>} : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>)
  return %0 : tensor<4xf32>
}

// -----

// attention_grad_c1: the gradient of the result.
func.func @f(%q: tensor<2x4x6x8xf32>, %k: tensor<2x2x5x8xf32>, %o: tensor<2x4x6x8xf32>, %l: tensor<2x4x6xf32>, %g: tensor<2x4x5x8xf32>) -> tensor<2x4x6x8xf32> {
  // expected-error@+1 {{result_grad has shape 2x4x5x8, expected 2x4x6x8}}
  %0, %1, %2 = dshard.attention_grad %q, %k, %k, %o, %l, %g {scale = 1.0 : f64, path = "", part = #dshard.part<backward>} : (tensor<2x4x6x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6xf32>, tensor<2x4x5x8xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>)
  return %0 : tensor<2x4x6x8xf32>
}

// -----

// attention_grad_c1: a gradient is shaped as its value.
func.func @f(%q: tensor<2x4x6x8xf32>, %k: tensor<2x2x5x8xf32>, %o: tensor<2x4x6x8xf32>, %l: tensor<2x4x6xf32>) -> tensor<2x4x6x8xf32> {
  // expected-error@+1 {{key_grad has shape 2x4x5x8, expected 2x2x5x8}}
  %0, %1, %2 = dshard.attention_grad %q, %k, %k, %o, %l, %o {scale = 1.0 : f64, path = "", part = #dshard.part<backward>} : (tensor<2x4x6x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6xf32>, tensor<2x4x6x8xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x4x5x8xf32>, tensor<2x2x5x8xf32>)
  return %0 : tensor<2x4x6x8xf32>
}

// -----

// attention_grad_c1: the bias is the forward's.
func.func @f(%q: tensor<2x4x6x8xf32>, %l: tensor<2x4x6xf32>, %b: tensor<3x4x6x6xf32>) -> tensor<2x4x6x8xf32> {
  // expected-error@+1 {{bias has size 3 in dim 0, expected 1 or 2}}
  %0, %1, %2 = dshard.attention_grad %q, %q, %q, %q, %l, %q, %b {scale = 1.0 : f64, path = "", part = #dshard.part<backward>} : (tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6xf32>, tensor<2x4x6x8xf32>, tensor<3x4x6x6xf32>) -> (tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>, tensor<2x4x6x8xf32>)
  return %0 : tensor<2x4x6x8xf32>
}
