// Instructions have the layout of the instruction table.
// RUN: dshard-opt %s --split-input-file --verify-diagnostics

plan.program "run" stage 0 arena 64 scratch 0 {
  %x = plan.buffer "x" offset 0 size 16 : tensor<4xf32>
  // expected-error @+1 {{[instruction_c1] use 'out' has 0 buffers}}
  "plan.copy"(%x) {segments = array<i32: 1, 0>, values = [1, 4, 0, 1, 0, 1]} : (!plan.buffer) -> ()
}

// -----

plan.program "run" stage 0 arena 64 scratch 0 {
  %x = plan.buffer "x" offset 0 size 16 : tensor<4xf32>
  // expected-error @+1 {{[instruction_c1] has 5 values, expected 6}}
  "plan.copy"(%x, %x) {segments = array<i32: 1, 1>, values = [1, 4, 0, 1, 0]} : (!plan.buffer, !plan.buffer) -> ()
}

// -----

plan.program "run" stage 0 arena 64 scratch 0 {
  %x = plan.buffer "x" offset 0 size 16 : tensor<4xf32>
  // expected-error @+1 {{[instruction_c1] the count of 'sizes' is not a literal}}
  "plan.copy"(%x, %x) {segments = array<i32: 1, 1>, values = [#plan.table<0>, 4, 0, 1, 0, 1]} : (!plan.buffer, !plan.buffer) -> ()
}

// -----

plan.program "run" stage 0 arena 64 scratch 0 {
  %x = plan.buffer "x" offset 0 size 16 : tensor<4xf32>
  // expected-error @+1 {{[instruction_c1] has a value that is no number: "four"}}
  "plan.fill"(%x) {segments = array<i32: 1>, values = ["four"]} : (!plan.buffer) -> ()
}
