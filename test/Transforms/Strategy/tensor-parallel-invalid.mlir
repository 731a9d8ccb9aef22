// Every wrong plan is refused with one error that says what, where and a way out.
// RUN: %python %S/Inputs/errors.py dshard-opt %s %t | FileCheck %s
// RUN: not dshard-opt %s --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefix=NONE
// RUN: sed 's/module attributes.*/module {/' %s | not dshard-opt --dshard-tensor-parallel 2>&1 | FileCheck %s --check-prefix=MESH

// CHECK: typo: status 1, 1 error: {{.*}}typo.json: key 'blok.up' matches no module (did you mean block.up
// CHECK: far: status 1, 1 error: {{.*}}key 'transformer.h.*.attn' matches no module; the modules are block, block.down, block.up, tied, tied_again
// CHECK: style: status 1, 1 error: {{.*}}key 'block.up': unknown style 'sideways'; the styles are colwise, rowwise,
// CHECK: sequence: status 1, 1 error: {{.*}}sequence_parallel is not built yet
// CHECK: number: status 1, 1 error: {{.*}}expected a style or an object
// CHECK: field: status 1, 1 error: {{.*}}unknown field 'output'; the fields are style, in, out
// CHECK: layout: status 1, 1 error: {{.*}}field out must be "replicate" or "shard(DIM)"
// CHECK: no-style: status 1, 1 error: {{.*}}the object has no style
// CHECK: no-layout: status 1, 1 error: {{.*}}prepare_output needs the field out
// CHECK: no-linear: status 1, 1 error: plan key 'block' matches 'block', which has no Linear or Embedding for colwise
// CHECK: features: status 1, 1 error: block.down: dim 1 of size 6 of '{{.*}}' is not divisible by tp=4 (block.down = colwise)
// CHECK: shared: status 1, 1 error: parameter '{{.*}}' is shared, and sharded in two ways: by tied = colwise and by tied_again = rowwise
// CHECK: in: status 1, 1 error: block.up: 'in' of block.up is not supported for colwise
// CHECK: dim: status 1, 1 error: block.up: shard(7) of block.up is out of range
// CHECK: empty: status 1, 1 error: {{.*}}the plan is empty
// CHECK: list: status 1, 1 error: {{.*}}expected an object
// CHECK: absent: status 1, 1 error: tensor-parallel plan '{{.*}}absent.json' is no file and no built-in plan (llama, default, gpt2, neox, opt, bert, t5, vit, resnet, resnet-bottleneck, genai)
// CHECK: text: status 1, 1 error: {{.*}}text.json: is not JSON:
// CHECK: llama: status 1, 1 error: the built-in tensor-parallel plan 'llama' matches no module of the model
// NONE: error: no built-in tensor-parallel plan (llama, default, gpt2, neox, opt, bert, t5, vit, resnet, resnet-bottleneck, genai) matches the model; give --tp-plan=FILE with keys from its modules: block, block.down, block.up, tied, tied_again
// MESH: error: module has no dshard.mesh; give it one with --mesh
module attributes {dshard.mesh = #dshard.mesh<"tp"=4>} {
  func.func @run(%x: tensor<2x8xf32>, %w1: tensor<8x16xf32> {dshard.role = #dshard.role<param>},
                 %w2: tensor<16x6xf32> {dshard.role = #dshard.role<param>},
                 %w3: tensor<8x8xf32> {dshard.role = #dshard.role<param>}) -> (tensor<2x6xf32>, tensor<2x8xf32>) {
    %0 = dshard.matmul %x, %w1 {path = "block.up"} : (tensor<2x8xf32>, tensor<8x16xf32>) -> tensor<2x16xf32>
    %1 = dshard.relu %0 {path = "block"} : (tensor<2x16xf32>) -> tensor<2x16xf32>
    %2 = dshard.matmul %1, %w2 {path = "block.down"} : (tensor<2x16xf32>, tensor<16x6xf32>) -> tensor<2x6xf32>
    %3 = dshard.relu %2 {path = "block"} : (tensor<2x6xf32>) -> tensor<2x6xf32>
    %4 = dshard.matmul %x, %w3 {path = "tied"} : (tensor<2x8xf32>, tensor<8x8xf32>) -> tensor<2x8xf32>
    %5 = dshard.matmul %4, %w3 {path = "tied_again"} : (tensor<2x8xf32>, tensor<8x8xf32>) -> tensor<2x8xf32>
    return %3, %5 : tensor<2x6xf32>, tensor<2x8xf32>
  }
}
