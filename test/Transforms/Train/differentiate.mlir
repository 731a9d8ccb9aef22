// The backward ops stand behind the forward's, in reverse order, with part backward and the path of the op that they come from.
// RUN: dshard-opt %s --dshard-differentiate | FileCheck %s

// A weight's gradient contracts all leading dims; the input's is a product with the other flag. Two uses of %x are added.
// CHECK-LABEL: func.func @mlp_vjp
// CHECK-SAME: (%[[X:.*]]: tensor<2x3x4xf32> {dshard.name = "x"}, %[[W:.*]]: tensor<5x4xf32> {{.*}}, %[[G:[a-z0-9]*]]: tensor<2x3x5xf32> {dshard.name = "y.cotangent", dshard.role = #dshard.role<input>}, %[[H:[a-z0-9]*]]: tensor<2x3x4xf32> {dshard.role = #dshard.role<input>})
// CHECK-SAME: -> (tensor<2x3x4xf32> {dshard.name = "x.grad"}, tensor<5x4xf32> {dshard.name = "w.grad"})
// CHECK: %[[P:.*]] = dshard.matmul %[[X]], %[[W]] {part = #dshard.part<forward>, path = "m.up", transpose_rhs}
// CHECK-NOT: dshard.silu
// CHECK: dshard.sigmoid %[[P]] {part = #dshard.part<backward>, path = "m.act"}
// CHECK: %[[S:.*]] = dshard.mul %[[G]], %{{.*}} {part = #dshard.part<backward>, path = "m.act"}
// CHECK: %[[DX:.*]] = dshard.matmul %[[S]], %[[W]] {part = #dshard.part<backward>, path = "m.up"}
// CHECK: %[[DW:.*]] = dshard.weight_grad %[[S]], %[[X]] {part = #dshard.part<backward>, path = "m.up"}
// CHECK: %[[SUM:.*]] = dshard.add %{{.*}}, %[[DX]] {part = #dshard.part<backward>, path = "m.up"}
// CHECK: return %[[SUM]], %[[DW]]
func.func @mlp(%x: tensor<2x3x4xf32> {dshard.name = "x"},
               %w: tensor<5x4xf32> {dshard.role = #dshard.role<param>, dshard.weight = #dshard.weight<"w", "w.bin", offset = 0, length = 80, type = tensor<5x4xf32>, fan_in = 4>}) ->
    (tensor<2x3x5xf32> {dshard.name = "y"}, tensor<2x3x4xf32>) {
  %0 = dshard.matmul %x, %w {transpose_rhs, path = "m.up", part = #dshard.part<forward>} : (tensor<2x3x4xf32>, tensor<5x4xf32>) -> tensor<2x3x5xf32>
  %1 = dshard.silu %0 {path = "m.act", part = #dshard.part<forward>} : (tensor<2x3x5xf32>) -> tensor<2x3x5xf32>
  %2 = dshard.exp %x {path = "m", part = #dshard.part<forward>} : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  return %1, %2 : tensor<2x3x5xf32>, tensor<2x3x4xf32>
}

// Nothing is built for what no float argument reaches (a mask, a table), nor kept for an operand that needs no gradient.
// CHECK-LABEL: func.func @constants_vjp
// CHECK-SAME: (%[[X:.*]]: tensor<4xf32>, %[[I:.*]]: tensor<4xi64>, %[[U:.*]]: tensor<2xf32>, %[[G:.*]]: tensor<4xf32> {{.*}}) -> (tensor<4xf32>, tensor<2xf32>)
// CHECK-NEXT: %[[TABLE:.*]] = dshard.constant dense<{{.*}}> : tensor<4xf32>
// CHECK-NEXT: %[[D:.*]] = dshard.mul %[[G]], %[[TABLE]]
// CHECK-NEXT: %[[ZERO:.*]] = dshard.constant dense<0.000000e+00> : tensor<2xf32>
// CHECK-NEXT: return %[[D]], %[[ZERO]]
func.func @constants(%x: tensor<4xf32>, %i: tensor<4xi64>, %unused: tensor<2xf32>) -> (tensor<4xf32>, tensor<4xi64>) {
  %table = dshard.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>
  %0 = dshard.mul %x, %table : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %0, %i : tensor<4xf32>, tensor<4xi64>
}

// An embedding's gradient is a scatter_add over the ids, attention's one op.
// CHECK-LABEL: func.func @attend_vjp
// CHECK: %[[A:.*]], %[[L:.*]] = dshard.attention
// CHECK: dshard.attention_grad %{{.*}}, %{{.*}}, %{{.*}}, %[[A]], %[[L]], %{{.*}} {causal, part = #dshard.part<backward>, path = "a", scale = 5.000000e-01 : f64}
// CHECK-COUNT-2: dshard.add
// CHECK: dshard.scatter_add %{{.*}}, %{{.*}} {dim = 0 : i64, part = #dshard.part<backward>, path = "e"} : (tensor<1x3xi64>, tensor<1x3x4xf32>) -> tensor<7x4xf32>
func.func @attend(%ids: tensor<1x3xi64>, %table: tensor<7x4xf32>) -> tensor<1x1x3x4xf32> {
  %0 = dshard.gather %table, %ids {dim = 0, path = "e", part = #dshard.part<forward>} : (tensor<7x4xf32>, tensor<1x3xi64>) -> tensor<1x3x4xf32>
  %1 = dshard.reshape %0 {path = "a", part = #dshard.part<forward>} : (tensor<1x3x4xf32>) -> tensor<1x1x3x4xf32>
  %2:2 = dshard.attention %1, %1, %1 {scale = 0.5 : f64, causal, path = "a", part = #dshard.part<forward>} : (tensor<1x1x3x4xf32>, tensor<1x1x3x4xf32>, tensor<1x1x3x4xf32>) -> (tensor<1x1x3x4xf32>, tensor<1x1x3xf32>)
  return %2#0 : tensor<1x1x3x4xf32>
}
