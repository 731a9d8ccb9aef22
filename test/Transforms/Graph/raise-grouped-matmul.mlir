// A row times a matrix that is looked up for it: no copies of matrices are left.
// RUN: dshard-opt %s -dshard-raise-grouped-matmul -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry left
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry right
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry negative

// [e, n, k] on the left of a column, by tuples of one number.
// CHECK-LABEL: func.func @left
// CHECK-NOT: gather
// CHECK: %[[G:.*]] = dshard.reshape %{{.*}} : (tensor<6x1xi64>) -> tensor<6xi64>
// CHECK: %[[Y:.*]] = dshard.grouped_matmul %{{.*}}, %arg1, %[[G]] {part = #dshard.part<forward>, path = "e", transpose_weights} : (tensor<6x4xf64>, tensor<3x5x4xf64>, tensor<6xi64>) -> tensor<6x5xf64>
// CHECK: dshard.reshape %[[Y]] {{.*}} : (tensor<6x5xf64>) -> tensor<6x5x1xf64>
func.func @left(%x: tensor<6x4xf64>, %w: tensor<3x5x4xf64>) -> tensor<6x5x1xf64> {
  %ids = dshard.constant dense<[[2], [0], [2], [1], [1], [2]]> : tensor<6x1xi64>
  %0 = dshard.gather_nd %w, %ids {path = "e", part = #dshard.part<forward>} : (tensor<3x5x4xf64>, tensor<6x1xi64>) -> tensor<6x5x4xf64>
  %1 = dshard.reshape %x {path = "e", part = #dshard.part<forward>} : (tensor<6x4xf64>) -> tensor<6x4x1xf64>
  %2 = dshard.matmul %0, %1 {path = "e", part = #dshard.part<forward>} : (tensor<6x5x4xf64>, tensor<6x4x1xf64>) -> tensor<6x5x1xf64>
  return %2 : tensor<6x5x1xf64>
}

// A row on the left, of two dims of tokens.
// CHECK-LABEL: func.func @right
// CHECK-NOT: gather
// CHECK: dshard.grouped_matmul %{{.*}}, %arg1, %{{.*}} {part = #dshard.part<forward>, path = "e"} : (tensor<2x3x4xf64>, tensor<3x4x5xf64>, tensor<2x3xi64>) -> tensor<2x3x5xf64>
func.func @right(%x: tensor<2x3x1x4xf64>, %w: tensor<3x4x5xf64>) -> tensor<2x3x1x5xf64> {
  %ids = dshard.constant dense<[[2, 0, 2], [1, 1, 2]]> : tensor<2x3xi64>
  %0 = dshard.gather %w, %ids {dim = 0 : i64, path = "e", part = #dshard.part<forward>} : (tensor<3x4x5xf64>, tensor<2x3xi64>) -> tensor<2x3x4x5xf64>
  %1 = dshard.matmul %x, %0 {path = "e", part = #dshard.part<forward>} : (tensor<2x3x1x4xf64>, tensor<2x3x4x5xf64>) -> tensor<2x3x1x5xf64>
  return %1 : tensor<2x3x1x5xf64>
}

// Two rows of one look-up are a matrix: no product by row.
// CHECK-LABEL: func.func @other
// CHECK: dshard.gather
// CHECK-NOT: grouped
func.func @other(%x: tensor<6x2x4xf64>, %w: tensor<3x4x5xf64>) -> tensor<6x2x5xf64> {
  %ids = dshard.constant dense<[2, 0, 2, 1, 1, 2]> : tensor<6xi64>
  %0 = dshard.gather %w, %ids {dim = 0 : i64, path = "e", part = #dshard.part<forward>} : (tensor<3x4x5xf64>, tensor<6xi64>) -> tensor<6x4x5xf64>
  %1 = dshard.matmul %x, %0 {path = "e", part = #dshard.part<forward>} : (tensor<6x2x4xf64>, tensor<6x4x5xf64>) -> tensor<6x2x5xf64>
  return %1 : tensor<6x2x5xf64>
}

// A look-up counts negative numbers from the end; groups of a product do not.
// CHECK-LABEL: func.func @negative
// CHECK: %[[G:.*]] = dshard.select
// CHECK: dshard.grouped_matmul %{{.*}}, %arg1, %[[G]]
func.func @negative(%x: tensor<2x1x4xf64>, %w: tensor<3x4x5xf64>) -> tensor<2x1x5xf64> {
  %ids = dshard.constant dense<[-1, 1]> : tensor<2xi64>
  %0 = dshard.gather %w, %ids {dim = 0 : i64, path = "e", part = #dshard.part<forward>} : (tensor<3x4x5xf64>, tensor<2xi64>) -> tensor<2x4x5xf64>
  %1 = dshard.matmul %x, %0 {path = "e", part = #dshard.part<forward>} : (tensor<2x1x4xf64>, tensor<2x4x5xf64>) -> tensor<2x1x5xf64>
  return %1 : tensor<2x1x5xf64>
}
