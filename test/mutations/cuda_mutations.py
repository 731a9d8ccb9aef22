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
