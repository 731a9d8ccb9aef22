// An attention whose result nobody uses still has a place to write it.
// RUN: dshard-opt %s --dshard-form-kernels --dshard-convert-to-plan=target=cpu:x86-64-v3 | FileCheck %s

// CHECK-DAG: %[[O:.*]] = plan.buffer {{.*}} : tensor<1x2x8x16xf32>
// CHECK-DAG: %[[L:.*]] = plan.buffer {{.*}} : tensor<1x2x8xf32>
// CHECK: plan.attention {{.*}} -> out(%{{.*}}) lse(%[[L]])
func.func @run(%q: tensor<1x2x8x16xf32>) -> tensor<1x2x8xf32> attributes {dshard.spmd} {
  %o, %lse = dshard.attention %q, %q, %q {scale = 0.25, causal, path = "a", part = #dshard.part<forward>}
      : (tensor<1x2x8x16xf32>, tensor<1x2x8x16xf32>, tensor<1x2x8x16xf32>) -> (tensor<1x2x8x16xf32>, tensor<1x2x8xf32>)
  return %lse : tensor<1x2x8xf32>
}
