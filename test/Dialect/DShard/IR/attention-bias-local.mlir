// The local forms of attention with a bias: sharded over batch and heads, and with its sequence on two ranks.
// RUN: dshard-opt %s --dshard-propagate --dshard-insert-reshards --dshard-decompose-reshards --dshard-partition --dshard-verify-local -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir -enable-var-scope
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry heads
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry batch
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry ring
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry ring_rows
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry ring_keys
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry ring_contiguous
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry ring_striped
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry gather
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry gather_full
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry gather_contiguous
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry exchange
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry exchange_heads
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --rtol 1e-5 --entry exchange_rows

module attributes {dshard.mesh = #dshard.mesh<"cp"=2, "tp"=2>} {
// CHECK-LABEL: func.func @heads(
// CHECK: dshard.attention {{.*}} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x8xf32>)
func.func @heads(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {"tp"}, {}, {} ]>}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {"tp"}, {}, {} ]>}, %b: tensor<1x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {"tp"}, {}, {} ]>}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {"tp"}, {}, {} ]>}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<1x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @batch(
// CHECK: dshard.attention {{.*}}, tensor<1x1x1x8xf32>)
func.func @batch(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {"tp"}, {}, {} ]>}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {"tp"}, {}, {} ]>}, %b: tensor<2x1x1x8xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {}, {}, {} ]>}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{"cp"}, {"tp"}, {}, {} ]>}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x1x1x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @ring(
// Keys of the bias in the layout's order, and of these the block that comes by.
// CHECK: dshard.reorder %{{.*}} {dim = 3
// CHECK: dshard.gather %{{.*}} {dim = 3
// CHECK-COUNT-3: dshard.attention
func.func @ring(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %b: tensor<1x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 2 : i64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<1x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @ring_rows(
// CHECK-NOT: dshard.gather
// CHECK: return
func.func @ring_rows(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %b: tensor<1x1x8x1xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 2 : i64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<1x1x8x1xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @ring_keys(
// CHECK: dshard.gather
func.func @ring_keys(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}, %b: tensor<2x4x1x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, layout = #dshard.layout<striped>, parts = 2 : i64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x1x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @ring_contiguous(
// CHECK: dshard.gather
func.func @ring_contiguous(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}, %b: tensor<2x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, parts = 2 : i64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @ring_striped(
// CHECK: dshard.gather
func.func @ring_striped(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}, %b: tensor<2x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, layout = #dshard.layout<striped>, parts = 2 : i64, path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @gather(
// CHECK-COUNT-2: dshard.attention {{.*}}tensor<1x4x2x8xf32>)
func.func @gather(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %b: tensor<1x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 2 : i64, dshard.cp_method = "all_gather", path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<1x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @gather_full(
// CHECK: dshard.attention {{.*}}tensor<2x4x4x8xf32>)
func.func @gather_full(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}, %b: tensor<2x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<striped>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, layout = #dshard.layout<striped>, parts = 2 : i64, dshard.cp_method = "all_gather", path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @gather_contiguous(
// CHECK: dshard.attention
func.func @gather_contiguous(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}, %b: tensor<2x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, parts = 2 : i64, dshard.cp_method = "all_gather", path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @exchange(
// CHECK-COUNT-4: dshard.all_to_all %{{.*}} split 1 concat 2 over ["cp"]
// CHECK: dshard.attention {{.*}}tensor<1x2x8x8xf32>)
func.func @exchange(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %b: tensor<1x4x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 2 : i64, dshard.cp_method = "all_to_all", path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<1x4x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @exchange_heads(
// CHECK: dshard.local_slice %{{.*}} dim 1 over ["cp"] why "keep the bias of this rank's heads of a"
func.func @exchange_heads(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %b: tensor<2x4x1x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {}, {} ]>}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, causal, layout = #dshard.layout<zigzag>, parts = 2 : i64, dshard.cp_method = "all_to_all", path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x1x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}

// CHECK-LABEL: func.func @exchange_rows(
// CHECK: dshard.all_gather %{{.*}} dims [2] over ["cp"] why "gather the rows of the bias of a"
func.func @exchange_rows(%q: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %k: tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}, %b: tensor<2x1x8x8xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) -> (tensor<2x4x8x4xf32> {dshard.sharding = #dshard.sharding<[{}, {}, {"cp"}, {} ]>, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %k, %b {scale = 0.5 : f64, layout = #dshard.layout<zigzag>, parts = 2 : i64, dshard.cp_method = "all_to_all", path = "a", part = #dshard.part<forward>} : (tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x4x8x4xf32>, tensor<2x1x8x8xf32>) -> (tensor<2x4x8x4xf32>, tensor<2x4x8xf32>)
  return %0#0 : tensor<2x4x8x4xf32>
}
}
