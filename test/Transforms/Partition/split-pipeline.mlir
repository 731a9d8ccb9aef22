// One stage is left alone; more are refused.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-split-pipeline | FileCheck %s

// CHECK: module attributes {dshard.mesh = #dshard.mesh<"tp"=2>}
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
}

// -----

// expected-error@+1 {{mesh axis pp=2: pipeline parallelism is not built yet; use tp}}
module attributes {dshard.mesh = #dshard.mesh<"pp"=2, "tp"=2>} {
}
