// Meshes and shardings that cannot be are refused by name, with a way out.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics

// axis_c1
// expected-error@+1 {{sub-axis of "tp" has size 1, expected at least 2}}
func.func private @axis_c1_size(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp":(1)1} ]>})

// -----

// axis_c1
// expected-error@+1 {{sub-axis of "tp" starts after a factor 0, expected at least 1}}
func.func private @axis_c1_pre(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp":(0)2} ]>})

// -----

// axis_c2
module attributes {dshard.mesh = #dshard.mesh<"tp"=8>} {
  // expected-error@+1 {{argument 0: sub-axis tp:(2)3 does not divide tp=8: 2 * 3 = 6}}
  func.func private @axis_c2(%a: tensor<12xf32> {dshard.sharding = #dshard.sharding<[{"tp":(2)3} ]>})
}

// -----

// mesh_c1
// expected-error@+1 {{mesh has an unknown axis "ep"; known are pp, dp_replicate, dp_shard, cp, tp}}
module attributes {dshard.mesh = #dshard.mesh<"ep"=8>} {
}

// -----

// mesh_c1
// expected-error@+1 {{mesh has the axis "tp" twice}}
module attributes {dshard.mesh = #dshard.mesh<"tp"=8, "tp"=2>} {
}

// -----

// mesh_c1
// expected-error@+1 {{mesh axis "dp_shard" stands after "tp"; the order is pp, dp_replicate, dp_shard, cp, tp}}
module attributes {dshard.mesh = #dshard.mesh<"tp"=8, "dp_shard"=2>} {
}

// -----

// mesh_c2
// expected-error@+1 {{mesh axis "tp" has size 0, expected at least 1}}
module attributes {dshard.mesh = #dshard.mesh<"tp"=0>} {
}

// -----

// mesh_c2
// expected-error@+1 {{mesh has more than 1048576 ranks; a size is mistyped}}
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=4294967296, "tp"=4294967296>} {
}

// -----

// axis_c2: a product that would overflow.
// expected-error@+1 {{sub-axis of "tp" is larger than a mesh of 1048576 ranks}}
func.func private @axis_large(%a: tensor<12xf32> {dshard.sharding = #dshard.sharding<[{"tp":(4294967296)4294967296} ]>})

// -----

// sharding_c1
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: sharding has 1 dims, 'tensor<4x4xf32>' has 2}}
  func.func private @sharding_c1(%a: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>})
}

// -----

// sharding_c2
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: axis "tp" is used twice in one value (tp and tp)}}
  func.func private @sharding_c2(%a: tensor<4x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {"tp"} ]>})
}

// -----

// sharding_c2: sub-axes that overlap.
module attributes {dshard.mesh = #dshard.mesh<"tp"=8>} {
  // expected-error@+1 {{argument 0: axis "tp" is used twice in one value (tp:(1)4 and tp:(2)4)}}
  func.func private @sharding_c2_overlap(%a: tensor<8x8xf32> {dshard.sharding = #dshard.sharding<[{"tp":(1)4}, {"tp":(2)4} ]>})
}

// -----

// sharding_c2: a dim and a partial axis.
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: axis "tp" is used twice in one value (tp and tp)}}
  func.func private @sharding_c2_partial(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ], partial = {"tp"}, kind = sum>})
}

// -----

// An axis that the mesh does not have.
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
  // expected-error@+1 {{argument 0: unknown axis "cp"; the mesh has dp_shard, tp}}
  func.func private @unknown_axis(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"cp"} ]>})
}

// -----

// expected-error@+1 {{argument 0: sharded over tp, but the module has no mesh}}
func.func private @no_mesh(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"tp"} ]>})

// -----

// sharding_c3
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: dim 0 of size 197 is not divisible by tp=2; sizes that divide: 196, 198}}
  func.func private @sharding_c3(%a: tensor<197x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>})
}

// -----

// sharding_c3
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: dim 0 is dynamic and cannot be sharded over tp=2; bind it with --dim}}
  func.func private @sharding_c3_dynamic(%a: tensor<?x4xf32> {dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>})
}

// -----

// sharding_c4
// expected-error@+1 {{axis "pp" shards a tensor; it only splits the program into stages}}
func.func private @sharding_c4(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{"pp"} ]>})

// -----

// sharding_c5
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: partial kind mean is not for the integers of 'tensor<4xi64>'; use sum}}
  func.func private @sharding_c5(%a: tensor<4xi64> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = mean>})
}

// -----

// expected-error@+1 {{unknown reduction kind 'avg', expected sum, max, min, mean or product}}
func.func private @unknown_kind(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ], partial = {"tp"}, kind = avg>})

// -----

// expected-error@+1 {{expected '?' to end the list of axes}}
func.func private @question_first(%a: tensor<4xf32> {dshard.sharding = #dshard.sharding<[{?, "tp"} ]>})

// -----

// expected-error@+1 {{argument 0: sharding on type 'i32', which is not a tensor}}
func.func private @no_tensor(%a: i32 {dshard.sharding = #dshard.sharding<[]>})

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
  // expected-error@+1 {{argument 0: local type 'tensor<4xf32>' is not that of 'tensor<4xf32>' under #dshard.sharding<[{"tp"} ]>, expected 'tensor<2xf32>'}}
  func.func private @local_type(%a: tensor<4xf32> {dshard.global = tensor<4xf32>, dshard.sharding = #dshard.sharding<[{"tp"} ]>})
}

// -----

// expected-error@+1 {{argument 0: unknown attribute dshard.shard; known are dshard.sharding, dshard.role}}
func.func private @unknown_argument_attribute(%a: tensor<4xf32> {dshard.shard = 1})

// -----

func.func @unknown_op_attribute(%a: tensor<4xf32>) {
  // expected-error@+1 {{unknown attribute dshard.sharding on an op; known are dshard.mesh}}
  %0 = dshard.neg %a {dshard.sharding = #dshard.sharding<[{} ]>} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @shardings_count(%a: tensor<4xf32>) {
  // expected-error@+1 {{expected a list of 1 shardings, one per result}}
  %0 = dshard.neg %a {dshard.shardings = []} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @op_sharding(%a: tensor<3xf32>) {
  // expected-error@+1 {{'dshard.neg' op result 0: dim 0 of size 3 is not divisible by tp=2; sizes that divide: 2, 4}}
  %0 = dshard.neg %a {dshard.shardings = [#dshard.sharding<[{"tp"} ]>]} : (tensor<3xf32>) -> tensor<3xf32>
  return
}
}

// -----

// expected-error@+1 {{dshard.mesh belongs to the module}}
func.func private @mesh_elsewhere() attributes {dshard.mesh = #dshard.mesh<"tp"=2>}

// -----

// expected-error@+1 {{expected a ranked tensor type, got 'f32'}}
func.func private @weight_type(%a: tensor<4xf32> {dshard.weight = #dshard.weight<"w", "f", offset = 0, length = 4, type = f32, fan_in = 0>})

// -----

// expected-error@+1 {{unknown field 'packed' of a weight, expected transposed, file_size or identity}}
func.func private @weight_field(%a: tensor<4xf32> {dshard.weight = #dshard.weight<"w", "f", offset = 0, length = 4, type = tensor<1xf32>, fan_in = 0, packed>})

// -----

// expected-error@+1 {{argument 0: dshard.interleave is {dim = 0 : i64, parts = 2 : i64, sizes = array<i64: 4, 3>}, expected {dim, parts, sizes} of a weight of 'tensor<8xf32>', with sizes that parts divides}}
func.func private @interleave_sizes(%a: tensor<8xf32> {dshard.weight = #dshard.weight<"w", "f", offset = 0, length = 32, type = tensor<8xf32>, fan_in = 0>, dshard.interleave = {dim = 0, parts = 2, sizes = array<i64: 4, 3>}})

// -----

// expected-error@+1 {{argument 0: dshard.interleave is {dim = 1 : i64, parts = 2 : i64, sizes = array<i64: 4, 4>}, expected {dim, parts, sizes} of a weight of 'tensor<8xf32>'}}
func.func private @interleave_dim(%a: tensor<8xf32> {dshard.weight = #dshard.weight<"w", "f", offset = 0, length = 32, type = tensor<8xf32>, fan_in = 0>, dshard.interleave = {dim = 1, parts = 2, sizes = array<i64: 4, 4>}})

// -----

// expected-error@+1 {{argument 0: dshard.interleave is {dim = 0 : i64, parts = 2 : i64, sizes = array<i64: 4, 4>}, expected {dim, parts, sizes} of a weight}}
func.func private @interleave_no_weight(%a: tensor<8xf32> {dshard.interleave = {dim = 0, parts = 2, sizes = array<i64: 4, 4>}})
