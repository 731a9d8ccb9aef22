// The local forms of an attention whose sequence is sharded over cp; that they give the
// value is checked by test_context_parallel.py.
// RUN: dshard-opt %s --dshard-partition --dshard-verify-local | FileCheck %s -enable-var-scope
// RUN: dshard-opt %s --dshard-partition -o %t.mlir
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry zigzag
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry contiguous
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry full
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry gather
// RUN: dshard-interpret %s --against %t.mlir --random-inputs --entry exchange

#s = #dshard.sharding<[{}, {}, {"cp"}, {} ]>
#l = #dshard.sharding<[{}, {}, {"cp"} ]>
#m = #dshard.sharding<[{}, {"cp"} ]>
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {

// Keys, values and padding go round in one permute. Own rows and keys are causal among
// themselves; a rank that holds later rows lets them all attend the first chunk of what
// came, one that holds earlier rows its second chunk of rows attend all of it. Values
// come by as well, for rows that attend nothing.
// CHECK-LABEL: func.func @zigzag(
// CHECK-SAME: %[[Q:.*]]: tensor<1x2x4x4xf32> {{.*}}%[[K:.*]]: tensor<1x1x4x4xf32> {{.*}}%[[V:.*]]: tensor<1x1x4x3xf32> {{.*}}%[[M:.*]]: tensor<1x4xi1>
// CHECK: %[[N:.*]]:3 = dshard.permute %[[K]], %[[V]], %[[M]] shift 1 over ["cp"] why "pass keys and values around the ring, step 1 of 1, of a"
// CHECK: dshard.attention %[[Q]], %[[K]], %[[V]], %[[M]] {causal,
// CHECK: %[[R:.*]] = dshard.rank_index over ["cp"]
// CHECK: %[[C:.*]] = dshard.compare %[[R]], %{{.*}} predicate = #dshard.predicate<ge>
// CHECK: dshard.if %[[C]]
// CHECK: %[[K1:.*]] = dshard.slice %[[N]]#0 {{.*}} -> tensor<1x1x2x4xf32>
// CHECK-NOT: causal
// CHECK: dshard.attention %[[Q]], %[[K1]], {{.*}}tensor<1x2x4x4xf32>, tensor<1x1x2x4xf32>
// CHECK: } else {
// CHECK-NOT: causal
// CHECK: dshard.attention %{{.*}}, %[[N]]#0, %[[N]]#1, %[[N]]#2 {{.*}}tensor<1x2x2x4xf32>, tensor<1x1x4x4xf32>
// CHECK: dshard.concat
// CHECK: dshard.reduce %[[N]]#1
// CHECK: dshard.select
// CHECK: return
func.func @zigzag(%q: tensor<1x2x8x4xf32> {dshard.sharding = #s, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64},
                  %k: tensor<1x1x8x4xf32> {dshard.sharding = #s, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64},
                  %v: tensor<1x1x8x3xf32> {dshard.sharding = #s, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64},
                  %m: tensor<1x8xi1> {dshard.sharding = #m, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 1 : i64})
    -> (tensor<1x2x8x3xf32> {dshard.sharding = #s, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %k, %v, %m {scale = 0.5 : f64, causal, fully_masked = #dshard.fully_masked<uniform>, layout = #dshard.layout<zigzag>, parts = 2 : i64, path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x2x8x4xf32>, tensor<1x1x8x4xf32>, tensor<1x1x8x3xf32>, tensor<1x8xi1>) -> (tensor<1x2x8x3xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x3xf32>
}

// In contiguous parts a rank skips keys that come later.
// CHECK-LABEL: func.func @contiguous(
// CHECK: dshard.permute
// CHECK: dshard.if
// CHECK: dshard.attention
// CHECK: } else {
// CHECK-NEXT: dshard.yield
func.func @contiguous(%q: tensor<1x2x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x2x8x4xf32> {dshard.sharding = #s}) {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, parts = 2 : i64, path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}

// Without a causal mask all ranks do the same.
// CHECK-LABEL: func.func @full(
// CHECK: dshard.permute
// CHECK-NOT: dshard.if
// CHECK: return
func.func @full(%q: tensor<1x2x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x2x8x4xf32> {dshard.sharding = #s}) {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, parts = 2 : i64, path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}

// All keys and values on every rank, in natural order; two chunks of rows, each from its
// own position: chunk r and chunk 3 - r of size 2.
// CHECK-LABEL: func.func @gather(
// CHECK: dshard.all_gather %{{.*}} dims [2] over ["cp"] why "gather the keys of a"
// CHECK: dshard.all_gather %{{.*}} dims [2] over ["cp"] why "gather the values of a"
// CHECK: dshard.reorder {{.*}}inverse
// CHECK: %[[F:.*]] = dshard.mul
// CHECK: %[[B:.*]] = dshard.sub %{{.*}}, %[[F]]
// CHECK: dshard.attention {{.*}}, %[[F]] {causal{{.*}} : (tensor<1x2x2x4xf32>, tensor<1x2x8x4xf32>
// CHECK: dshard.attention {{.*}}, %[[B]] {causal{{.*}} : (tensor<1x2x2x4xf32>, tensor<1x2x8x4xf32>
// CHECK: dshard.concat
func.func @gather(%q: tensor<1x2x8x4xf32> {dshard.sharding = #s, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64})
    -> (tensor<1x2x8x4xf32> {dshard.sharding = #s, dshard.layout = #dshard.layout<zigzag>, dshard.layout_dim = 2 : i64}) {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, window = 5 : i64, layout = #dshard.layout<zigzag>, parts = 2 : i64, dshard.cp_method = "all_gather", path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}

// The sequence for heads, and back.
// CHECK-LABEL: func.func @exchange(
// CHECK-COUNT-3: dshard.all_to_all %{{.*}} split 1 concat 2 over ["cp"]
// CHECK: dshard.attention {{.*}} : (tensor<1x1x8x4xf32>, tensor<1x1x8x4xf32>
// CHECK: dshard.all_to_all %{{.*}} split 2 concat 1 over ["cp"] why "exchange heads for the sequence of a"
func.func @exchange(%q: tensor<1x2x8x4xf32> {dshard.sharding = #s}) -> (tensor<1x2x8x4xf32> {dshard.sharding = #s}) {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, parts = 2 : i64, dshard.cp_method = "all_to_all", path = "a", part = #dshard.part<forward>, dshard.shardings = [#s, #l]} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}
}
