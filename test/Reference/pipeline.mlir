// Stages in the interpreter: messages between them, and what it refuses.
// RUN: split-file %s %t
// RUN: dshard-interpret %t/fine.mlir --random-inputs | FileCheck %s --check-prefix=FINE
// RUN: not dshard-interpret %t/tag.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=TAG
// RUN: not dshard-interpret %t/left.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=LEFT
// RUN: not dshard-interpret %t/type.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=TYPE
// RUN: not dshard-interpret %t/missing.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=MISSING
// RUN: not dshard-interpret %t/mesh.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=MESH
// RUN: not dshard-interpret %t/result.mlir --random-inputs 2>&1 | FileCheck %s --check-prefix=RESULT

//--- fine.mlir
// Each rank of tp sends its own half: 4 ranks, two messages; two micro-batches.
// FINE: y : tensor<8xi64> = [2, 2, 2, 2, 2, 2, 2, 2]
module attributes {dshard.mesh = #dshard.mesh<"pp"=2, "tp"=2>} {
  func.func private @run.0(%x: tensor<2xi64> {dshard.index = 0 : i64, dshard.global = tensor<4xi64>, dshard.sharding = #dshard.sharding<[{"tp"} ]>}) attributes {dshard.spmd, dshard.stage = 0 : i64} {
    dshard.send %x to 1 tag 0 over ["pp"] why "test" : tensor<2xi64>
    return
  }
  func.func private @run.1() -> (tensor<2xi64> {dshard.index = 0 : i64, dshard.global = tensor<4xi64>, dshard.sharding = #dshard.sharding<[{"tp"} ]>}) attributes {dshard.spmd, dshard.stage = 1 : i64} {
    %h = dshard.recv from 0 tag 0 over ["pp"] why "test" : tensor<2xi64>
    %y = dshard.add %h, %h : (tensor<2xi64>, tensor<2xi64>) -> tensor<2xi64>
    return %y : tensor<2xi64>
  }
  func.func private @run(tensor<4xi64> {dshard.name = "x", dshard.micro_batched}) -> (tensor<4xi64> {dshard.name = "y", dshard.micro_batched})
      attributes {dshard.micro_batches = 2 : i64, dshard.stages = ["run.0", "run.1"]}
}
//--- tag.mlir
// TAG: 'dshard.recv' op stage 1 waits for ever: 0 has sent nothing with tag 1
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<2xf32>) attributes {dshard.stage = 0 : i64} {
    dshard.send %x to 1 tag 0 over ["pp"] why "test" : tensor<2xf32>
    return
  }
  func.func private @run.1() -> tensor<2xf32> attributes {dshard.stage = 1 : i64} {
    %h = dshard.recv from 0 tag 1 over ["pp"] why "test" : tensor<2xf32>
    return %h : tensor<2xf32>
  }
  func.func private @run(tensor<2xf32>) -> tensor<2xf32> attributes {dshard.stages = ["run.0", "run.1"]}
}
//--- left.mlir
// LEFT: value with tag 7 sent by stage 0 to 1 is never received
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<2xf32>) -> tensor<2xf32> attributes {dshard.stage = 0 : i64} {
    dshard.send %x to 1 tag 7 over ["pp"] why "test" : tensor<2xf32>
    return %x : tensor<2xf32>
  }
  func.func private @run.1() attributes {dshard.stage = 1 : i64} {
    return
  }
  func.func private @run(tensor<2xf32>) -> tensor<2xf32> attributes {dshard.stages = ["run.0", "run.1"]}
}
//--- type.mlir
// TYPE: stage 1 receives 'tensor<2xf32>', expected 'tensor<3xf32>'
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<2xf32>) attributes {dshard.stage = 0 : i64} {
    dshard.send %x to 1 tag 0 over ["pp"] why "test" : tensor<2xf32>
    return
  }
  func.func private @run.1() -> tensor<3xf32> attributes {dshard.stage = 1 : i64} {
    %h = dshard.recv from 0 tag 0 over ["pp"] why "test" : tensor<3xf32>
    return %h : tensor<3xf32>
  }
  func.func private @run(tensor<2xf32>) -> tensor<3xf32> attributes {dshard.stages = ["run.0", "run.1"]}
}
//--- missing.mlir
// MISSING: names stages in dshard.stages that are no functions, or not of one phase
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run(tensor<2xf32>) -> tensor<2xf32> attributes {dshard.stages = ["run.0"]}
}
//--- mesh.mlir
// MESH: has 1 stages, the mesh has pp=2
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<2xf32> {dshard.global = tensor<2xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) -> (tensor<2xf32> {dshard.global = tensor<2xf32>, dshard.sharding = #dshard.sharding<[{} ]>}) attributes {dshard.spmd, dshard.stage = 0 : i64} {
    return %x : tensor<2xf32>
  }
  func.func private @run(tensor<2xf32>) -> tensor<2xf32> attributes {dshard.stages = ["run.0"]}
}
//--- result.mlir
// RESULT: result 1 is of no stage
module attributes {dshard.mesh = #dshard.mesh<"pp"=2>} {
  func.func private @run.0(%x: tensor<2xf32>) -> tensor<2xf32> attributes {dshard.stage = 0 : i64} {
    return %x : tensor<2xf32>
  }
  func.func private @run(tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>) attributes {dshard.stages = ["run.0"]}
}
