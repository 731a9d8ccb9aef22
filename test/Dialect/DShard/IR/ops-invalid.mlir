// Every labelled constraint of an op is checked, with both numbers in the message.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics

func.func @pointwise_c1(%x: tensor<2x4xf32>, %y: tensor<3xf32>) {
  // expected-error@+1 {{operand 1 does not broadcast to the result: dim 0 has size 3 != 4}}
  %0 = dshard.add %x, %y : (tensor<2x4xf32>, tensor<3xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @pointwise_c1_result(%x: tensor<1x4xf32>) {
  // expected-error@+1 {{result dim 0 has size 2, the operands give 1}}
  %0 = dshard.neg %x : (tensor<1x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @pointwise_c1_rank(%x: tensor<1x4xf32>) {
  // expected-error@+1 {{operand 0 has 2 dims, the result 1}}
  %0 = dshard.neg %x : (tensor<1x4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @pointwise_c2(%x: tensor<4xf32>, %y: tensor<4xbf16>) {
  // expected-error@+1 {{operand 1 has element type 'bf16', the result 'f32'}}
  %0 = dshard.mul %x, %y : (tensor<4xf32>, tensor<4xbf16>) -> tensor<4xf32>
  return
}

// -----

func.func @pointwise_c2_bits(%x: tensor<4xf32>) {
  // expected-error@+1 {{result has element type 'f32', expected integers}}
  %0 = dshard.bit_and %x, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @pointwise_c2_bit_cast(%x: tensor<4xf32>) {
  // expected-error@+1 {{reads 'f32' as 'i64'; their widths must agree, and booleans have none}}
  %0 = dshard.bit_cast %x : (tensor<4xf32>) -> tensor<4xi64>
  return
}

// -----

func.func @pointwise_c2_compare(%x: tensor<4xf32>) {
  // expected-error@+1 {{result has element type 'f32', expected i1}}
  %0 = dshard.compare %x, %x {predicate = #dshard.predicate<lt>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @pointwise_c2_select(%x: tensor<4xf32>) {
  // expected-error@+1 {{condition has element type 'f32', expected i1}}
  %0 = dshard.select %x, %x, %x : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @pointwise_c2_float(%x: tensor<4xi32>) {
  // expected-error@+1 {{result has element type 'i32', expected a float}}
  %0 = dshard.exp %x : (tensor<4xi32>) -> tensor<4xi32>
  return
}

// -----

func.func @pointwise_c2_atan(%x: tensor<4xi64>) {
  // expected-error@+1 {{result has element type 'i64', expected a float}}
  %0 = dshard.atan %x : (tensor<4xi64>) -> tensor<4xi64>
  return
}

// -----

func.func @dynamic(%x: tensor<?xf32>) {
  // expected-error@+1 {{must be statically shaped tensor}}
  %0 = dshard.exp %x : (tensor<?xf32>) -> tensor<?xf32>
  return
}

// -----

func.func @matmul_c1(%x: tensor<4xf32>, %y: tensor<4x4xf32>) {
  // expected-error@+1 {{operands have 1 and 2 dims, expected at least 2}}
  %0 = dshard.matmul %x, %y : (tensor<4xf32>, tensor<4x4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @matmul_c1_types(%x: tensor<4x4xf32>, %y: tensor<4x4xbf16>) {
  // expected-error@+1 {{element types differ: 'f32' x 'bf16' -> 'f32'}}
  %0 = dshard.matmul %x, %y : (tensor<4x4xf32>, tensor<4x4xbf16>) -> tensor<4x4xf32>
  return
}

// -----

func.func @matmul_c2(%x: tensor<4x8xf32>, %y: tensor<4x8xf32>) {
  // expected-error@+1 {{contracted sizes differ: 8 != 4}}
  %0 = dshard.matmul %x, %y : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @matmul_c3(%x: tensor<2x4x8xf32>, %y: tensor<3x8x4xf32>) {
  // expected-error@+1 {{batch dim 0 does not broadcast: 2 != 3}}
  %0 = dshard.matmul %x, %y : (tensor<2x4x8xf32>, tensor<3x8x4xf32>) -> tensor<2x4x4xf32>
  return
}

// -----

func.func @matmul_c3_result(%x: tensor<2x4x8xf32>, %y: tensor<8x5xf32>) {
  // expected-error@+1 {{result is 5 x 4, expected 4 x 5}}
  %0 = dshard.matmul %x, %y : (tensor<2x4x8xf32>, tensor<8x5xf32>) -> tensor<2x5x4xf32>
  return
}

// -----

func.func @attention_c1(%q: tensor<2x4x5x8xf32>, %k: tensor<2x3x5x8xf32>) {
  // expected-error@+1 {{3 KV heads do not divide 4 query heads}}
  %0:2 = dshard.attention %q, %k, %k {scale = 1.0 : f64} : (tensor<2x4x5x8xf32>, tensor<2x3x5x8xf32>, tensor<2x3x5x8xf32>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return
}

// -----

func.func @attention_c1_shape(%q: tensor<2x4x5x8xf32>, %k: tensor<2x4x5x4xf32>) {
  // expected-error@+1 {{key has shape 2x4x5x4, expected 2x4x5x8}}
  %0:2 = dshard.attention %q, %k, %q {scale = 1.0 : f64} : (tensor<2x4x5x8xf32>, tensor<2x4x5x4xf32>, tensor<2x4x5x8xf32>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return
}

// -----

func.func @attention_c2(%q: tensor<2x4x5x8xf32>, %p: tensor<2x4xi1>) {
  // expected-error@+1 {{key_padding has shape 2x4, expected 2x5}}
  %0:2 = dshard.attention %q, %q, %q, %p {scale = 1.0 : f64} : (tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<2x4xi1>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return
}

// -----

func.func @attention_c3(%q: tensor<2x4x5x8xbf16>) {
  // expected-error@+1 {{log_sum_exp has element type 'bf16', expected f32}}
  %0:2 = dshard.attention %q, %q, %q {scale = 1.0 : f64} : (tensor<2x4x5x8xbf16>, tensor<2x4x5x8xbf16>, tensor<2x4x5x8xbf16>) -> (tensor<2x4x5x8xbf16>, tensor<2x4x5xbf16>)
  return
}

// -----

func.func @rotary_c1(%x: tensor<2x4x5x8xf32>, %t: tensor<1x5x8xf32>) {
  // expected-error@+1 {{cos has last dim 8, expected 4}}
  %0 = dshard.rotary %x, %t, %t : (tensor<2x4x5x8xf32>, tensor<1x5x8xf32>, tensor<1x5x8xf32>) -> tensor<2x4x5x8xf32>
  return
}

// -----

func.func @rotary_c1_odd(%x: tensor<2x4x5x7xf32>, %t: tensor<1x5x3xf32>) {
  // expected-error@+1 {{rotates pairs of the last dim, its size 7 is odd}}
  %0 = dshard.rotary %x, %t, %t : (tensor<2x4x5x7xf32>, tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<2x4x5x7xf32>
  return
}

// -----

func.func @rms_norm_c1(%x: tensor<2x4xf32>, %w: tensor<2xf32>) {
  // expected-error@+1 {{weight is 'tensor<2xf32>', expected one dim of size 4}}
  %0 = dshard.rms_norm %x, %w {epsilon = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<2xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @layer_norm_c1(%x: tensor<2x4xf32>, %w: tensor<4xf32>, %b: tensor<1x4xf32>) {
  // expected-error@+1 {{bias is 'tensor<1x4xf32>', expected one dim of size 4}}
  %0 = dshard.layer_norm %x, %w, %b {epsilon = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<4xf32>, tensor<1x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @softmax_c1(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{dim 2 is not one of 2}}
  %0 = dshard.softmax %x {dim = 2} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @reduce_c1(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{dims are not sorted and unique: 0 after 1}}
  %0 = dshard.reduce %x {kind = #dshard<reduction sum>, dims = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<f32>
  return
}

// -----

func.func @reduce_c2(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{result is 'tensor<2xf32>', expected 'tensor<2x1xf32>'}}
  %0 = dshard.reduce %x {kind = #dshard<reduction sum>, dims = array<i64: 1>, keep_dims} : (tensor<2x4xf32>) -> tensor<2xf32>
  return
}

// -----

func.func @reduce_c3(%x: tensor<2x4xi64>) {
  // expected-error@+1 {{mean is not for the integers of 'tensor<2x4xi64>'}}
  %0 = dshard.reduce %x {kind = #dshard<reduction mean>, dims = array<i64: 1>} : (tensor<2x4xi64>) -> tensor<2xi64>
  return
}

// -----

func.func @constant_type() {
  // expected-error@+1 {{failed to verify that all of {value, result} have same type}}
  %0 = "dshard.constant"() {value = dense<1.0> : tensor<2xf32>} : () -> tensor<3xf32>
  return
}

// -----

func.func @reshape_c1(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{input has 8 elements, the result 9}}
  %0 = dshard.reshape %x : (tensor<2x4xf32>) -> tensor<9xf32>
  return
}

// -----

func.func @transpose_c1(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{permutation names dim 0 twice}}
  %0 = dshard.transpose %x {permutation = array<i64: 0, 0>} : (tensor<2x4xf32>) -> tensor<2x2xf32>
  return
}

// -----

func.func @transpose_c1_shape(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{result is 'tensor<2x4xf32>', expected 'tensor<4x2xf32>'}}
  %0 = dshard.transpose %x {permutation = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @broadcast_to_c1(%x: tensor<2xf32>) {
  // expected-error@+1 {{input dim 0 has size 2, expected 1 or 3}}
  %0 = dshard.broadcast_to %x : (tensor<2xf32>) -> tensor<4x3xf32>
  return
}

// -----

func.func @concat_c1(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{sizes of dim 0 sum up to 4, the result has 5}}
  %0 = dshard.concat %x, %x {dim = 0} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<5x4xf32>
  return
}

// -----

func.func @slice_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{dim 0 takes elements 1 to 5, the input has 4}}
  %0 = dshard.slice %x {starts = array<i64: 1>, strides = array<i64: 2>} : (tensor<4xf32>) -> tensor<3xf32>
  return
}

// -----

func.func @slice_c1_stride(%x: tensor<4xf32>) {
  // expected-error@+1 {{stride of dim 0 is 0}}
  %0 = dshard.slice %x {starts = array<i64: 1>, strides = array<i64: 0>} : (tensor<4xf32>) -> tensor<3xf32>
  return
}

// -----

func.func @pad_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{dim 0 of the result has size 6, expected 1 + 4 + 2}}
  %0 = dshard.pad %x {low = array<i64: 1>, high = array<i64: 2>, value = 0.0 : f64} : (tensor<4xf32>) -> tensor<6xf32>
  return
}

// -----

func.func @gather_c1(%x: tensor<10x4xf32>, %i: tensor<3xi64>) {
  // expected-error@+1 {{result is 'tensor<4x3xf32>', expected 'tensor<3x4xf32>'}}
  %0 = dshard.gather %x, %i {dim = 0} : (tensor<10x4xf32>, tensor<3xi64>) -> tensor<4x3xf32>
  return
}

// -----

func.func @gather_c2(%x: tensor<10x4xf32>, %i: tensor<3xi64>, %o: tensor<1xi64>) {
  // expected-error@+1 {{offset is 'tensor<1xi64>', expected tensor<i64>}}
  %0 = dshard.gather %x, %i, %o {dim = 0} : (tensor<10x4xf32>, tensor<3xi64>, tensor<1xi64>) -> tensor<3x4xf32>
  return
}

// -----

func.func @gather_nd_c1(%x: tensor<10x4xf32>, %i: tensor<5x3xi64>) {
  // expected-error@+1 {{index tuples have 3 entries, expected 1 to 2}}
  %0 = dshard.gather_nd %x, %i : (tensor<10x4xf32>, tensor<5x3xi64>) -> tensor<5xf32>
  return
}

// -----

func.func @iota_c1() {
  // expected-error@+1 {{dim 1 is not one of 1}}
  %0 = dshard.iota {dim = 1} : () -> tensor<4xi64>
  return
}

// -----

func.func @repeat_c1_count(%x: tensor<4xf32>) {
  // expected-error@+1 {{count is 0, expected at least 1}}
  %0 = dshard.repeat 0 init(%x) : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%i: tensor<i64>, %c: tensor<4xf32>):
    dshard.yield %c : tensor<4xf32>
  }
  return
}

// -----

func.func @repeat_c1_types(%x: tensor<4xf32>, %y: tensor<2xf32>) {
  // expected-error@+1 {{yielded values: value 0 is 'tensor<2xf32>', expected 'tensor<4xf32>'}}
  %0 = dshard.repeat 2 init(%x) : (tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%i: tensor<i64>, %c: tensor<4xf32>):
    dshard.yield %y : tensor<2xf32>
  }
  return
}

// -----

func.func @if_c1(%x: tensor<4xf32>, %c: tensor<1xi1>) {
  // expected-error@+1 {{condition is 'tensor<1xi1>', expected 'tensor<i1>'}}
  %0 = dshard.if %c : (tensor<1xi1>) -> tensor<4xf32> {
    dshard.yield %x : tensor<4xf32>
  } else {
    dshard.yield %x : tensor<4xf32>
  }
  return
}

// -----

func.func @if_c1_else(%x: tensor<4xf32>, %c: tensor<i1>) {
  // expected-error@+1 {{else region: 0 values, expected 1}}
  %0 = dshard.if %c : (tensor<i1>) -> tensor<4xf32> {
    dshard.yield %x : tensor<4xf32>
  } else {
    dshard.yield
  }
  return
}

// -----

func.func @fused_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{arguments of the region: value 0 is 'tensor<2xf32>', expected 'tensor<4xf32>'}}
  %0 = dshard.fused %x : (tensor<4xf32>) -> tensor<2xf32> {
  ^bb0(%a: tensor<2xf32>):
    dshard.yield %a : tensor<2xf32>
  }
  return
}

// -----

// attention_c4: rows and keys lie in one order.
func.func @attention_c4(%q: tensor<1x2x4x8xf32>, %k: tensor<1x2x8x8xf32>) {
  // expected-error@+1 {{layout zigzag needs as many rows as keys: 4 != 8}}
  %0:2 = dshard.attention %q, %k, %k {scale = 1.0 : f64, layout = #dshard.layout<zigzag>, parts = 2 : i64} : (tensor<1x2x4x8xf32>, tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> (tensor<1x2x4x8xf32>, tensor<1x2x4xf32>)
  return
}

// -----

// attention_c4: the parts divide them.
func.func @attention_c4_parts(%q: tensor<1x2x6x8xf32>) {
  // expected-error@+1 {{layout zigzag of 2 parts needs a sequence that 4 divides, its size is 6}}
  %0:2 = dshard.attention %q, %q, %q {scale = 1.0 : f64, layout = #dshard.layout<zigzag>, parts = 2 : i64} : (tensor<1x2x6x8xf32>, tensor<1x2x6x8xf32>, tensor<1x2x6x8xf32>) -> (tensor<1x2x6x8xf32>, tensor<1x2x6xf32>)
  return
}

// -----

// attention_c5 (a fourth operand without dims is the offset)
func.func @attention_c5(%q: tensor<1x2x4x8xf32>, %offset: tensor<i32>) {
  // expected-error@+1 {{query_offset is 'tensor<i32>', expected tensor<i64>}}
  %0:2 = dshard.attention %q, %q, %q, %offset {scale = 1.0 : f64} : (tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>, tensor<i32>) -> (tensor<1x2x4x8xf32>, tensor<1x2x4xf32>)
  return
}

// -----

func.func @attention_operands(%q: tensor<1x2x4x8xf32>) {
  // expected-error@+1 {{has 2 operands, expected 3 to 6}}
  %0:2 = dshard.attention %q, %q {scale = 1.0 : f64} : (tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>) -> (tensor<1x2x4x8xf32>, tensor<1x2x4xf32>)
  return
}

// -----

// attention_c6
func.func @attention_c6_size(%q: tensor<2x4x5x8xf32>, %b: tensor<1x4x5x4xf32>) {
  // expected-error@+1 {{bias has size 4 in dim 3, expected 1 or 5}}
  %0:2 = dshard.attention %q, %q, %q, %b {scale = 1.0 : f64} : (tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<1x4x5x4xf32>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return
}

// -----

// attention_c6
func.func @attention_c6_type(%q: tensor<2x4x5x8xf32>, %b: tensor<1x4x5x5xf64>) {
  // expected-error@+1 {{bias has element type 'f64', query 'f32'}}
  %0:2 = dshard.attention %q, %q, %q, %b {scale = 1.0 : f64} : (tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<1x4x5x5xf64>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return
}

// -----

// A bias says itself which dims it repeats.
func.func @attention_dims(%q: tensor<2x4x5x8xf32>, %b: tensor<4x5x5xf32>) {
  // expected-error@+1 {{operand 3 is 'tensor<4x5x5xf32>', which no optional operand here may be}}
  %0:2 = dshard.attention %q, %q, %q, %b {scale = 1.0 : f64} : (tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<2x4x5x8xf32>, tensor<4x5x5xf32>) -> (tensor<2x4x5x8xf32>, tensor<2x4x5xf32>)
  return
}
