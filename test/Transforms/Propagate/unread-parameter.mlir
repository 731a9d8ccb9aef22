// A parameter that nothing reads, or that is returned as it is, stays as it is stored; its
// gradient ends there all the same. (A random program.)
// RUN: dshard-opt %s --dshard-fully-shard --dshard-propagate --dshard-insert-reshards --dshard-verify-partial --dshard-verify-resolved | FileCheck %s

// CHECK: dshard.name = "unread"{{[^%]*}}dshard.sharding = #dshard.sharding<[{"tp"} ]>
// CHECK-SAME: dshard.name = "returned"{{[^%]*}}dshard.sharding = #dshard.sharding<[{} ]>
// CHECK: %[[G:.*]] = dshard.reshard %arg2 to <[{"tp"} ]> why "{{.*}}gradient of unread"
// CHECK: dshard.gradient %[[G]] {dshard.shardings = [#dshard.sharding<[{"tp"} ]>]
// CHECK: dshard.gradient %{{.*}} {dshard.shardings = [#dshard.sharding<[{} ]>]
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
func.func @run(%unread: tensor<4xf32> {dshard.name = "unread", dshard.role = #dshard.role<param>, dshard.state = "unread", dshard.sharding = #dshard.sharding<[{"tp"} ]>},
    %returned: tensor<4xf32> {dshard.name = "returned", dshard.role = #dshard.role<param>, dshard.state = "returned", dshard.sharding = #dshard.sharding<[{} ]>},
    %g: tensor<4xf32> {dshard.name = "g", dshard.role = #dshard.role<input>}) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %0 = dshard.gradient %g {of = "unread", path = "m", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  %1 = dshard.gradient %g {of = "returned", path = "m", part = #dshard.part<backward>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0, %1, %returned : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
}
