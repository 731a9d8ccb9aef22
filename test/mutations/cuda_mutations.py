"""Small faults of plans for GPUs: in the order of streams, and in the PTX itself."""

from bases import EMULATION, PLAN_VERIFIER
from mutations import DIFFERS, mutation, sub

LATE = "has not waited for it"

# Streams, which the plan's verifier knows.
mutation("nobody waits for a sum", "llama-cuda", PLAN_VERIFIER, sub(r"^ *plan\.wait \{event = \d+\}(?!.*stream).*\n", ""), LATE)
mutation("a sum begins before its operand is there", "llama-cuda", PLAN_VERIFIER, sub(r"^ *plan\.wait .*stream = 1.*\n", ""), LATE)
mutation("a sum's event is recorded on another stream", "llama-cuda", PLAN_VERIFIER, sub(r"^( *plan\.record .*)\{stream = 1 : i64\}", r"\1"), LATE)
mutation("a wait for an event that comes later", "llama-cuda", PLAN_VERIFIER, sub(r"(plan\.wait \{event = )0(\}.*stream = 1)", r"\g<1>2\2"), "before it is recorded")

# Code, which only running it shows.
mutation("a row's sum leaves out lanes", "llama-cuda", EMULATION, sub(r"(shfl\.sync\.bfly\.b32 \\09%r\d+, %r\d+, )16", r"\g<1>8"))
mutation("a kernel reads behind its buffer", "llama-cuda", EMULATION, sub(r"(ld\.global\.nc\.v4\.b32 \\09\{[^}]*\}, \[%rd\d+)\]", r"\1+4096]"), "behind the end|of a buffer")
mutation("a vector that is not aligned", "llama-cuda", EMULATION, sub(r"(ld\.global\.nc\.v4\.b32 \\09\{[^}]*\}, \[%rd\d+)\]", r"\1+4]"), "aligned")
mutation("half of the blocks", "llama-cuda", EMULATION, sub(r'(plan\.kernel "k\d+_\w*rms_norm.* grid )32', r"\g<1>16"), DIFFERS)
mutation("a buffer is shorter than its kernel writes", "llama-cuda", EMULATION,
         sub(r'("node__to_copy" offset \d+ size )32 : tensor<2x16xi1>', r"\g<1>16 : tensor<1x16xi1>"), "out of bounds of global memory")
mutation("every block takes the first rows", "llama-cuda", EMULATION, sub(r"%ctaid\.x", "0"), "two threads write one word|differs by up to")
mutation("gate and up of a launch exchanged", "llama-cuda", EMULATION, sub(r"(plan\.launch in\()(%\d+), (%\d+)(\) .*kernel = 7, inputs = 2)", r"\1\3, \2\4"))
mutation("a kernel without its last store", "llama-cuda", EMULATION, sub(r"(k\d+_swiglu\(.*?)st\.global[^;]*;", r"\1"))
