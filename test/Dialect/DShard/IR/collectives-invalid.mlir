// Collectives and reshards check groups, dims and sizes.
// RUN: dshard-opt %s -split-input-file -verify-diagnostics

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @reshard_c1(%x: tensor<3xf32>) {
  // expected-error@+1 {{reshard: dim 0 of size 3 is not divisible by tp=2; sizes that divide: 2, 4}}
  %0 = dshard.reshard %x to <[{"tp"} ]> why "w" : tensor<3xf32>
  return
}
}

// -----

func.func @reshard_c2(%x: tensor<4xf32>) {
  // expected-error@+1 {{why is empty; say what the change is for}}
  %0 = dshard.reshard %x to <[{} ]> why "" : tensor<4xf32>
  return
}

// -----

func.func @no_mesh(%x: tensor<4xf32>) {
  // expected-error@+1 {{the module has no dshard.mesh}}
  %0 = dshard.all_gather %x dims [0] over ["tp"] why "w" : (tensor<4xf32>) -> tensor<8xf32>
  return
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_gather_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{axes are empty}}
  %0 = dshard.all_gather %x dims [0] over [] why "w" : (tensor<4xf32>) -> tensor<4xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=1, "tp"=2>} {
func.func @all_gather_c1_size(%x: tensor<4xf32>) {
  // expected-error@+1 {{axis "dp_shard" has size 1; leave it out}}
  %0 = dshard.all_gather %x dims [0] over ["dp_shard", "tp"] why "w" : (tensor<4xf32>) -> tensor<8xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_gather_c2(%x: tensor<4xf32>) {
  // expected-error@+1 {{2 dims for 1 operands}}
  %0 = dshard.all_gather %x dims [0, 0] over ["tp"] why "w" : (tensor<4xf32>) -> tensor<8xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_gather_c3(%x: tensor<4xf32>) {
  // expected-error@+1 {{result 0 is 'tensor<4xf32>', expected 'tensor<8xf32>' (group of 2)}}
  %0 = dshard.all_gather %x dims [0] over ["tp"] why "w" : (tensor<4xf32>) -> tensor<4xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_reduce_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{axes: unknown axis "cp"; the mesh has tp}}
  %0 = dshard.all_reduce sum %x over ["cp"] why "w" : (tensor<4xf32>) -> tensor<4xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_reduce_c2(%x: tensor<4xf32>) {
  // expected-error@+1 {{result 0 is 'tensor<2xf32>', expected the operand's 'tensor<4xf32>'}}
  %0 = dshard.all_reduce sum %x over ["tp"] why "w" : (tensor<4xf32>) -> tensor<2xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_reduce_mean(%x: tensor<4xi64>) {
  // expected-error@+1 {{mean is not for the integers of 'tensor<4xi64>'}}
  %0 = dshard.all_reduce mean %x over ["tp"] why "w" : (tensor<4xi64>) -> tensor<4xi64>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @reduce_scatter_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{axis "tp" is used twice in one value (tp and tp)}}
  %0 = dshard.reduce_scatter sum %x dims [0] over ["tp", "tp"] why "w" : (tensor<4xf32>) -> tensor<1xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @reduce_scatter_c2(%x: tensor<3xf32>) {
  // expected-error@+1 {{dim 0 of operand 0 has size 3, which the group of 2 does not divide}}
  %0 = dshard.reduce_scatter sum %x dims [0] over ["tp"] why "w" : (tensor<3xf32>) -> tensor<1xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_to_all_c1(%x: tensor<4x4xf32>) {
  // expected-error@+1 {{axes are empty}}
  %0 = dshard.all_to_all %x split 0 concat 1 over [] why "w" : (tensor<4x4xf32>) -> tensor<2x8xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_to_all_c2(%x: tensor<4x4xf32>) {
  // expected-error@+1 {{split and concat dim are both 0}}
  %0 = dshard.all_to_all %x split 0 concat 0 over ["tp"] why "w" : (tensor<4x4xf32>) -> tensor<4x4xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @all_to_all_c2_sizes(%x: tensor<4x4xf32>) {
  // expected-error@+1 {{result 0 is 'tensor<8x2xf32>', expected 'tensor<2x8xf32>' (group of 2)}}
  %0 = dshard.all_to_all %x split 0 concat 1 over ["tp"] why "w" : (tensor<4x4xf32>) -> tensor<8x2xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @broadcast_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{root 2 is not in a group of 2}}
  %0 = dshard.broadcast %x root 2 over ["tp"] why "w" : (tensor<4xf32>) -> tensor<4xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @permute_c1(%x: tensor<4xf32>) {
  // expected-error@+1 {{result 0 is 'tensor<2xf32>', expected the operand's 'tensor<4xf32>'}}
  %0 = dshard.permute %x shift 1 over ["tp"] why "w" : (tensor<4xf32>) -> tensor<2xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
func.func @send_peer(%x: tensor<4xf32>) {
  // expected-error@+1 {{peer 2 is not in a group of 2}}
  dshard.send %x to 2 tag 0 over ["pp"] why "w" : tensor<4xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @local_slice_c1(%x: tensor<3xf32>) {
  // expected-error@+1 {{dim 0 of operand 0 has size 3, which the group of 2 does not divide}}
  %0 = dshard.local_slice %x dim 0 over ["tp"] why "w" : (tensor<3xf32>) -> tensor<1xf32>
  return
}
}

// -----

module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @rank_index() {
  // expected-error@+1 {{result is 'tensor<i32>', expected 'tensor<i64>'}}
  %0 = dshard.rank_index over ["tp"] : tensor<i32>
  return
}
}
