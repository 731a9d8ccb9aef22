// The model of one micro-batch becomes the body of a loop that carries the sum of the losses
// and of each gradient; sample j of micro-batch i is sample j * k + i of the batch.
// RUN: dshard-opt %s '--dshard-build-train-step=config=%S/Inputs/plain.json micro-batches=2' | FileCheck %s -enable-var-scope

// CHECK-LABEL: func.func @train_step
// CHECK-NOT: dshard.micro_batches
// CHECK-SAME: [[X:%[^ ]+]]: tensor<4x3xf32>
// CHECK-SAME: [[LABELS:%[^ ]+]]: tensor<4xi64>
// The number of labels is that of the whole batch.
// CHECK: dshard.reduce {{.*}} : (tensor<4xf32>) -> tensor<f32>
// CHECK: [[SCALE:%.+]] = dshard.reciprocal
// CHECK: [[SUMS:%.+]]:2 = dshard.repeat 2 init({{.*}}) {{.*}} : (tensor<f32>, tensor<3x5xf32>) -> (tensor<f32>, tensor<3x5xf32>) {
// CHECK: ^bb0([[I:%.+]]: tensor<i64>, [[LOSS:%.+]]: tensor<f32>, [[GRAD:%.+]]: tensor<3x5xf32>):
// CHECK: [[SPLIT:%.+]] = dshard.reshape [[X]] {{.*}} -> tensor<2x2x3xf32>
// CHECK: dshard.gather [[SPLIT]], [[I]] {dim = 1 : i64
// CHECK: dshard.cross_entropy
// CHECK: dshard.broadcast_to [[SCALE]]
// CHECK: [[PART:%.+]] = dshard.weight_grad
// CHECK: dshard.add [[LOSS]]
// CHECK: [[NEXT:%.+]] = dshard.add [[GRAD]], [[PART]]
// CHECK: dshard.yield {{.*}}, [[NEXT]]
// The gradient is finished behind the loop.
// CHECK: dshard.gradient [[SUMS]]#1 {of = "fc.w"
func.func @run(%x: tensor<4x3xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
               %w: tensor<3x5xf32> {dshard.name = "fc.w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"fc.w", "m.data", offset = 0, length = 60, type = tensor<3x5xf32>, fan_in = 3>})
    -> (tensor<4x5xf32> {dshard.name = "y"}) {
  %0 = dshard.matmul %x, %w {path = "fc", part = #dshard.part<forward>} : (tensor<4x3xf32>, tensor<3x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}
func.func @train_step(%x: tensor<2x3xf32> {dshard.name = "x", dshard.role = #dshard.role<input>},
               %w: tensor<3x5xf32> {dshard.name = "fc.w", dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"fc.w", "m.data", offset = 0, length = 60, type = tensor<3x5xf32>, fan_in = 3>})
    -> (tensor<2x5xf32> {dshard.name = "y"}) attributes {dshard.micro_batches = 2 : i64} {
  %0 = dshard.matmul %x, %w {path = "fc", part = #dshard.part<forward>} : (tensor<2x3xf32>, tensor<3x5xf32>) -> tensor<2x5xf32>
  return %0 : tensor<2x5xf32>
}
