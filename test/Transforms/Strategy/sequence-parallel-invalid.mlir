// What sequence parallelism refuses, with the way out, and what it remarks on.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-sequence-parallel
// RUN: not dshard-opt %models/llama-small.onnx --dim batch=2 --dim seq=16 --sequence-parallel -o %t 2>&1 | FileCheck %s --check-prefix=NO-TP
// RUN: not dshard-opt %models/llama-small.onnx --dim batch=2 --dim seq=15 --mesh=tp=2 --sequence-parallel --quiet -o %t 2>&1 | FileCheck %s --check-prefix=ODD
// RUN: dshard-opt %models/mlp.onnx --dim batch=16 --mesh=tp=2 --tp-plan=%models/mlp-tp.json --sequence-parallel -o %t 2>&1 | FileCheck %s --check-prefix=MLP

// sequence_parallel_c1
// NO-TP: error: --sequence-parallel shards over tp, which has size 1; give --mesh=tp=N, or leave it out
// sequence_parallel_c4
// ODD: node 'node_embedding': --sequence-parallel: sequence dim 1 of size 15 of the output of model.embed_tokens is not divisible by tp=2; sizes that divide: 14, 16
// Where nothing has a sequence dim, the flag says that it does nothing.
// MLP: remark: --sequence-parallel: [[N:[0-9]+]] of [[N]] row-parallel outputs stay whole, because they have no sequence dim (--dims INPUT=batch,seq names that of an input): {{.*}}

// expected-error@+1 {{module has no dshard.mesh; give it one with --mesh}}
module {
}

// -----

// Merged with the batch it is not followed.
// expected-remark@unknown {{--sequence-parallel: 1 of 1 row-parallel outputs stay whole, because they have no sequence dim (--dims INPUT=batch,seq names that of an input): embed}}
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(%ids: tensor<2x4xi64>,
    %table: tensor<8x6xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>}) -> tensor<8x6xf32> {
  %0 = dshard.reshape %ids {path = "", part = #dshard.part<forward>} : (tensor<2x4xi64>) -> tensor<8xi64>
  %1 = dshard.gather %table, %0 {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<8x6xf32>, tensor<8xi64>) -> tensor<8x6xf32>
  return %1 : tensor<8x6xf32>
}
}

// -----

// sequence_parallel_c2 has no place in the model: it is about the plan.
// expected-error@unknown {{--sequence-parallel: the tensor-parallel plan has no row-parallel module whose output could be sharded on the sequence; give one the style rowwise}}
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
func.func @run(%ids: tensor<2x4xi64>,
    %table: tensor<8x6xf32> {dshard.role = #dshard.role<param>, dshard.sharding = #dshard.sharding<[{}, {"tp"} ]>}) -> tensor<2x4x6xf32> {
  %0 = dshard.gather %table, %ids {dim = 0 : i64, path = "embed", part = #dshard.part<forward>} : (tensor<8x6xf32>, tensor<2x4xi64>) -> tensor<2x4x6xf32>
  return %0 : tensor<2x4x6xf32>
}
}
