// What fully sharded storage refuses.
// RUN: not dshard-opt %s --dshard-fully-shard=mode=weights 2>&1 | FileCheck %s --check-prefix=MODE
// RUN: not dshard-opt %s --dshard-fully-shard=unit=model.layer.* 2>&1 | FileCheck %s --check-prefix=UNIT
// RUN: sed 's/attributes {dshard.mesh.*/{/' %s > %t.mesh.mlir
// RUN: not dshard-opt %t.mesh.mlir --dshard-fully-shard 2>&1 | FileCheck %s --check-prefix=MESH

// MODE: error: unknown fully-sharded mode 'weights'; the modes are none, optimizer, gradients, parameters
// UNIT: error: --fsdp-unit=model.layer.* matches no module; the modules are model, model.layers, model.layers.*, model.layers.*.up
// MESH: error: module has no dshard.mesh; give it one with --mesh
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2>} {
  func.func @run(%w: tensor<4xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{} ]>})
      -> (tensor<4xf32> {dshard.sharding = #dshard.sharding<[{} ]>}) {
    %0 = dshard.neg %w {path = "model.layers.0.up", part = #dshard.part<forward>, dshard.shardings = [#dshard.sharding<[{} ]>]} : (tensor<4xf32>) -> tensor<4xf32>
    return %0 : tensor<4xf32>
  }
}
