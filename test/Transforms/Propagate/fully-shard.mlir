// Without data axes storage is compute; with them the pass says what is missing.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics --dshard-fully-shard | FileCheck %s

// CHECK: module attributes {dshard.mesh = #dshard.mesh<"tp"=2>}
module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {
}

// -----

// expected-error@+1 {{mesh axis dp_shard=2: fully-sharded data parallelism is not built yet; use tp}}
module attributes {dshard.mesh = #dshard.mesh<"dp_shard"=2, "tp"=2>} {
}

// -----

// expected-error@+1 {{mesh axis dp_replicate=4: replicated data parallelism is not built yet; use tp}}
module attributes {dshard.mesh = #dshard.mesh<"dp_replicate"=4>} {
}

// -----

// expected-error@+1 {{mesh axis cp=2: context parallelism is not built yet; use tp}}
module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
}
