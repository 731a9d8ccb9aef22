"""Small faults, each with the check that must see it.

`edit` changes the text of one phase of a base (bases.py); it fails when its pattern is
no longer there, so that no mutation goes stale. `says` is part of what the check must
say: a program that is red for another reason does not count.
"""

import dataclasses
import re
import typing

from bases import (
    EXECUTION, LOCAL_GATE, OP_VERIFIER, PARTIAL_GATE, PASSES, PLAN_VERIFIER, PYTORCH, RANDOM, RESOLVED_GATE, SCHEDULE_GATE, TRAIN_GATE,
    TRAINING,
)

DIFFERS = "differs by up to"


@dataclasses.dataclass
class Mutation:
    name: str
    base: str
    red: str  # the name of a check
    edit: typing.Callable
    says: str = DIFFERS
    phase: str = ""  # default: the check's


MUTATIONS = []


def mutation(name, base, red, edit, says=DIFFERS, phase=""):
    MUTATIONS.append(Mutation(name, base, red, edit, says, phase))


def sub(pattern, replacement, at=0):
    """Replaces the at-th match (multi-line, `.` stays in its line)."""

    def edit(text):
        matches = list(re.finditer(pattern, text, re.MULTILINE))
        assert len(matches) > at, f"nothing matches {pattern!r} any more: mend the mutation"
        match = matches[at]
        return text[: match.start()] + match.expand(replacement) + text[match.end() :]

    return edit


def drop_op(pattern):
    """Drops an op of one operand and one result; its users read the operand."""

    def edit(text):
        match = re.search(rf"^ *(%\w+) = dshard\.(?:{pattern}).*$", text, re.MULTILINE)
        assert match, f"no op matches {pattern!r} any more: mend the mutation"
        operand = re.search(r"(%\w+)", match.group(0).split(" = ", 1)[1]).group(1)
        text = text[: match.start()] + text[match.end() + 1 :]
        return re.sub(re.escape(match.group(1)) + r"\b", operand, text)

    return edit


def bias_before_reduction(text):
    """add(all_reduce(p), bias) becomes all_reduce(add(p, bias))."""
    match = re.search(
        r"^( *)(%\w+) = dshard\.all_reduce  ?sum (%\w+) (over.*)$\n^ *(%\w+) = dshard\.add (%\w+), (%arg\w+) (.*)$", text, re.MULTILINE
    )
    assert match and match.group(6) == match.group(2), "no bias behind an all_reduce any more: mend the mutation"
    pad, reduced, partial, rest, added, _, bias, add_rest = match.groups()
    lines = f"{pad}{reduced} = dshard.add {partial}, {bias} {add_rest}\n{pad}{added} = dshard.all_reduce sum {reduced} {rest}"
    return text[: match.start()] + lines + text[match.end() :]


def gradient_before_reduction(text):
    match = re.search(r"(%\w+) = dshard\.reshard (%\w+#\d+) to .*reduce gradient of lm_head\.weight", text)
    assert match, "no gradient is reduced any more: mend the mutation"
    return text.replace(f"dshard.gradient {match[1]} ", f"dshard.gradient {match[2]} ")


def collective_reads_another(text):
    """The reduce_scatter takes the operand of the first all_reduce."""
    operand = re.search(r"dshard\.all_reduce +sum (%\w+)", text).group(1)
    return sub(r"(dshard\.reduce_scatter +sum )%\w+", rf"\g<1>{operand}")(text)


# Collectives of the local phase.

mutation("drop an all_reduce of a row-parallel product", "llama", PASSES, drop_op(r"all_reduce  ?sum .*o_proj"))
mutation("drop the all_reduce of the vocabulary-parallel look-up", "llama", PASSES, drop_op(r"all_reduce  ?sum .*vocabulary"))
mutation("all_reduce takes the maximum", "mlp", PASSES, sub(r"(dshard\.all_reduce +)sum", r"\1max"))
mutation("a pending maximum is summed", "mixed", RANDOM, sub(r"(dshard\.all_reduce +)max", r"\1sum"))
mutation("reduce_scatter takes the maximum", "mixed", RANDOM, sub(r"(dshard\.reduce_scatter +)sum", r"\1max"))
mutation("add the bias tp times", "mixed", RANDOM, bias_before_reduction)
mutation("attention forgets its bias", "mixed", RANDOM, sub(r"(dshard\.attention %\w+, %\w+, %\w+), %\w+ (.*), tensor<1x2x4x4xf32>\)", r"\1 \2)"))
mutation("reduce over another axis of the same size", "mixed", RANDOM,
         sub(r'(all_reduce .*over \[)"tp"(\] why "row-parallel output of product")', r'\1"tp":(1)2, "dp_shard"\2'), "should hold the same values")
mutation("reduce over half of the axis", "mixed", RANDOM, sub(r'(all_reduce .*over \[)"tp"(\] why "row-parallel)', r'\1"tp":(1)2\2'), "should hold the same values")
mutation("reduce over one axis too many", "mixed", RANDOM, sub(r'(all_reduce .*over \[)"tp"(\] why "partial output of mean)', r'\1"dp_shard", "tp"\2'))
mutation("gather over exchanged factors of the axis", "mixed", RANDOM, sub(r'(all_gather .*over \[)"tp"', r'\1"tp":(2)2, "tp":(1)2'))
mutation("gather along another dim", "mixed", OP_VERIFIER, sub(r"(all_gather %\w+ dims \[)1", r"\g<1>0"), "expected 'tensor")
mutation("exchange shards in the wrong direction", "mixed", LOCAL_GATE, sub(r"split (\d) concat (\d)", r"split \2 concat \1"), "all_to_all")
mutation("exchange shards over exchanged factors", "mixed", RANDOM, sub(r'(all_to_all .*over \[)"tp"', r'\1"tp":(2)2, "tp":(1)2'))
mutation("scatter shards in the wrong order", "mixed", RANDOM, sub(r'(reduce_scatter .*over \[)"tp"', r'\1"tp":(2)2, "tp":(1)2'))
mutation("two collectives read one product", "mixed", RANDOM, collective_reads_another)
mutation("a constant is sliced by another axis", "mixed", RANDOM, sub(r'(local_slice .*over \[)"tp"', r'\1"tp":(1)2, "dp_shard"'))
mutation("a constant is sliced by exchanged factors", "mixed", RANDOM, sub(r'(local_slice .*over \[)"tp"', r'\1"tp":(2)2, "tp":(1)2'))
mutation("drop the rank's offset of a count", "mixed", RANDOM, sub(r"= dshard\.add (%\w+), (%\w+) (.*tensor<4x4xi64>, tensor<i64>\))", r"= dshard.sub \1, \2 \3"))
mutation("a mean forgets the shards", "mixed", RANDOM, drop_op(r"(?:mul|div) .*path = \"mean\""))
mutation("the query heads are shared out by the minor factor", "mixed", RANDOM,
         sub(r'(dshard\.name = "k".*?dshard\.sharding = #dshard\.sharding<\[\{"dp_shard"\}, \{"tp":\()1(\)2)', r"\g<1>2\2"))
mutation("an argument has its shards on another axis", "mixed", RANDOM,
         sub(r'(dshard\.name = "v".*?dshard\.sharding = #dshard\.sharding<\[\{\}, \{)"tp"', r'\1"tp":(2)2, "tp":(1)2'))
mutation("a result is said to be sharded the other way", "mixed", RANDOM,
         sub(r'(dshard\.name = "scattered".*?dshard\.sharding = #dshard\.sharding<\[\{"dp_shard"\}, \{)"tp"', r'\1"tp":(2)2, "tp":(1)2'))

# Ops of the local phase.

mutation("shift the causal offset", "llama", PASSES, sub(r"\{causal, ", r"{causal, offset = 1 : i64, "))
mutation("forget the causal mask", "llama", PASSES, sub(r"\{causal, ", "{"))
mutation("a row without a key is zero", "llama", PASSES, sub(r"fully_masked<uniform>", "fully_masked<zero>"))
mutation("drop the key padding", "llama", PASSES,
         sub(r"(dshard\.attention %\w+, %\w+, %\w+), %\w+ (.*), tensor<2x16xi1>\)", r"\1 \2)"))
mutation("another scale", "llama", PASSES, sub(r"scale = 2\.500000e-01", "scale = 1.250000e-01"))
mutation("query heads read a key head too far", "llama-tp4", PASSES,
         sub(r'(\{"tp":\()1(\)2\} \]>, dshard\.weight = #dshard\.weight<"model\.layers\.0\.self_attn\.k_proj)', r"\g<1>2\2"))
mutation("drop the rank's offset of the look-up", "llama", PASSES, sub(r"= dshard\.rank_index over .*$", "= dshard.constant dense<0> : tensor<i64>"), "should hold the same values|differs by up to")
mutation("forget that negative ids count from the end", "llama", PASSES, sub(r"= dshard\.select (%\w+), (%\w+), (%\w+) (.*embed_tokens)", r"= dshard.select \1, \3, \3 \4"))
mutation("keys and queries turn differently", "llama", PASSES, sub(r"(dshard\.rotary %\w+, )(%\w+), (%\w+)", r"\1\3, \2", at=1))
mutation("another epsilon", "llama", PASSES, sub(r"epsilon = 9\.99\d+E-7", "epsilon = 1.0E-5"))
mutation("gate and up exchanged", "llama", PASSES, sub(r"(dshard\.swiglu) (%\w+), (%\w+)", r"\1 \3, \2"))
mutation("residual of another layer", "llama", PASSES, sub(r"(dshard\.add )(%\w+)(, %\w+ .*layers\.1\")", r"\1%11\3"))

# Fused projections.

INTERLEAVE = r"dshard\.interleave = \{dim = 1 : i64, parts = 2 : i64, sizes = array<i64: "
mutation("a fused weight keeps the file's order", "gpt2", PASSES, sub(INTERLEAVE + r"64, 64, 64>\}, ", ""))
mutation("a fused bias keeps the file's order", "gpt2", PASSES, sub(INTERLEAVE.replace("dim = 1", "dim = 0") + r"64, 64, 64>\}, ", ""))
mutation("the segments of a fused weight have other ends", "gpt2", PASSES, sub("(" + INTERLEAVE + ")64, 64, 64", r"\g<1>32, 96, 64"))

# Fully-sharded parameters and sequence parallelism.

mutation("a unit is gathered over tp", "llama-sharded", RANDOM, sub(r'(over \[)"dp_shard"(\] why "gather the 9 parameters of model\.layers\.0")', r'\1"tp"\2'))
mutation("two parameters of a unit are exchanged", "llama-sharded", RANDOM, sub(r"(dshard\.all_gather %arg\d+, %arg\d+, )(%arg\d+), (%arg\d+)", r"\1\3, \2", at=1))
mutation("a sequence shard is summed as a maximum", "llama-sharded", RANDOM, sub(r"(dshard\.reduce_scatter +)sum", r"\1max"))
mutation("the sequence is gathered over dp_shard", "llama-sharded", RANDOM, sub(r'(all_gather %\d+ dims \[1\] over \[)"tp"', r'\1"dp_shard"'))
mutation("a residual skips its reduce_scatter", "llama-sharded", RANDOM,
         sub(r"dshard\.reduce_scatter +sum (%\w+) dims \[1\] (over.*o_proj)", r"dshard.local_slice \1 dim 1 \2"))
mutation("stored shards lie in the order of the other axis first", "llama-sharded", RANDOM,
         sub(r'(\{"tp"), "dp_shard"(\}, \{\} \]>, dshard\.weight = #dshard\.weight<"model\.embed_tokens)', r'{"dp_shard", "tp"\2'))

# Gates of the phases.

mutation("drop the reshard of a partial product", "mixed", PARTIAL_GATE, drop_op(r'reshard .*row-parallel output of product'), "partial")
mutation("a partial value meets a non-linear op", "mixed", PARTIAL_GATE,
         sub(r"dshard\.add (%\w+), %arg3 (.*) : \(tensor<8x24xf32>, tensor<24xf32>\)", r"dshard.exp %0 \2 : (tensor<8x24xf32>)"), "partial")
mutation("a partial axis is dropped", "mixed", PARTIAL_GATE, sub(r', partial = \{"tp"\}, kind = sum', ""), "partial")
mutation("drop the reshard before a product", "mixed", RESOLVED_GATE, drop_op(r'reshard .*gather output of wide'), "differently|one axis")
mutation("a result is sharded as no operand is", "mixed", RESOLVED_GATE,
         sub(r'(dshard\.tanh .*#dshard\.sharding<\[)\{"dp_shard"\}, \{"tp"\}', r'\1{"tp"}, {"dp_shard"}'), "differently")
mutation("a dim stays open", "mixed", RESOLVED_GATE, sub(r'(dshard\.tanh .*\{"tp")\}', r"\1, ?}"), "still open")
mutation("a reshard is left behind", "mixed", LOCAL_GATE,
         sub(r"(%\w+) = dshard\.neg (%\w+) .*: \((\S+)\) -> \S+$",
             r'\1 = dshard.reshard \2 to <[{}, {} ]> why "w" {path = "", part = #dshard.part<forward>} : \3'), "reshard")
mutation("a local type that its sharding does not give", "mixed", LOCAL_GATE,
         sub(r'(dshard\.name = "x".*?dshard\.sharding = #dshard\.sharding<\[\{"dp_shard"\}, \{)"tp"', r"\1"), "local type")
mutation("an op without its path", "llama", LOCAL_GATE, sub(r'(dshard\.swiglu .*), path = "[^"]*"', r"\1"), "path")
mutation("an op outside of every kernel", "llama", SCHEDULE_GATE,
         sub(r"^( *)return (%[\w#]+)(.*?) : (\S+)", r'\1%mutated = dshard.neg \2 {path = "", part = #dshard.part<forward>} : (\4) -> \4\n\1return %mutated\3 : \4'),
         "dshard.neg")
mutation("scheduling drops an all_reduce", "llama", PASSES, drop_op(r"all_reduce  ?sum .*down_proj"), phase="schedule")

# The plan. First what the verifier proves, then what only execution shows.

mutation("shorten a lifetime: a buffer takes the place of one that is still read", "llama", PLAN_VERIFIER,
         sub(r'(plan\.buffer "node_linear_5" offset )\d+', r"\g<1>0"), "plan_v1")
mutation("the arena is too small", "llama", PLAN_VERIFIER, sub(r'(plan\.program "run" stage 0 arena )\d+', r"\g<1>1024"), "arena|buffer")
mutation("swap the operands of a product", "llama", PLAN_VERIFIER, sub(r"plan\.matmul lhs\((%\w+)\) rhs\((%\w+)\)", r"plan.matmul lhs(\2) rhs(\1)"), "plan_v")
mutation("a product reads past its operand", "llama", PLAN_VERIFIER, sub(r"(plan\.matmul .*k = 64, lda = )64", r"\g<1>96"), "plan_v4")
mutation("a product writes past its result", "llama", PLAN_VERIFIER, sub(r"(plan\.matmul .*ldc = )32", r"\g<1>64"), "plan_v4")
mutation("the keys of attention overlap", "llama", PLAN_VERIFIER, sub(r"(plan\.attention .*k_strides = \[)256", r"\g<1>4096"), "plan_v4")
mutation("an output is not written", "llama", PLAN_VERIFIER, sub(r"^ *plan\.matmul .*n = 128, k = 64.*\n", ""), "plan_v1")
mutation("a weight is not loaded", "llama", PLAN_VERIFIER, sub(r"^ *plan\.load_slice .*input_layernorm.*\n", ""), "plan_v")
mutation("states overlap", "llama", PLAN_VERIFIER, sub(r'(plan\.state "model\.norm\.weight" .*offset )\d+', r"\g<1>0"), "offset 0, expected")
mutation("an output port of another shape", "llama", PLAN_VERIFIER,
         sub(r'(plan\.output "logits" .*sharding <\[\{\}, \{\}, \{)"tp"', r"\1"), "plan_v9|local")
mutation("ranks of one group issue different collectives", "llama", PLAN_VERIFIER, sub(r"(plan\.all_reduce .*reduction = )0", r"\1#plan.table<4>"), "table|literal|plan_v")

mutation("a reduce_scatter is missing", "llama-sharded", PLAN_VERIFIER, sub(r"^ *plan\.reduce_scatter .*o_proj.*\n", ""), "plan_v1")

mutation("the plan's gather interleaves a weight", "llama-sharded", EXECUTION, sub(r"outer = \[1, 1, 1\], inner = \[64, 1, 128\]", "outer = [1, 1, 32], inner = [64, 1, 128]"), "differs by up to|plan_v4")
mutation("the plan gathers a unit over tp", "llama-sharded", EXECUTION, sub(r"(plan\.all_gather .*group = )0(.*gather the 9)", r"\g<1>1\2"))
mutation("the plan stores shards in the order of the other axis first", "llama-sharded", EXECUTION, sub(r"\[0, 128, 64, 192\]", "[0, 64, 128, 192]"))
mutation("the plan's reduce_scatter takes the maximum", "llama-sharded", EXECUTION, sub(r"(plan\.reduce_scatter .*reduction = )0", r"\g<1>1"))
mutation("the plan's gather interleaves the sequence", "llama-sharded", EXECUTION, sub(r"(plan\.all_gather in\(%\w+\) .*)outer = \[1\], inner = \[64\]", r"\1outer = [8], inner = [64]"), "differs by up to|plan_v4")
mutation("the plan drops an all_reduce", "llama", EXECUTION, sub(r"^ *plan\.all_reduce .*o_proj.*\n", ""))
mutation("the plan's all_reduce takes the maximum", "llama", EXECUTION, sub(r"(plan\.all_reduce .*reduction = )0", r"\g<1>1"))
mutation("every rank loads the first shard", "llama", EXECUTION, sub(r"plan\.table over \[0\] \[0, 32\]", "plan.table over [0] [0, 0]"))
mutation("ranks load each other's rows of the vocabulary", "llama", EXECUTION, sub(r"plan\.table over \[0\] \[0, 128\]", "plan.table over [0] [128, 0]"))
mutation("the rank's offset of the look-up is the other rank's", "llama", EXECUTION, sub(r"plan\.table over \[0\] \[0, (\d{6,})\]", r"plan.table over [0] [\1, 0]"))
mutation("a product reads the weight of another layer", "llama", EXECUTION, sub(r"(plan\.matmul lhs\(%26\) rhs\()%\w+", r"\g<1>%9"))
mutation("keys and values exchanged in attention", "llama", EXECUTION, sub(r"(plan\.attention q\(%\w+\)) k\((%\w+)\) v\((%\w+)\)", r"\1 k(\3) v(\2)"), "differs by up to|plan_v4")
mutation("the plan's attention is not causal", "llama", EXECUTION, sub(r"causal = 1", "causal = 0"))
mutation("the plan's causal offset is shifted", "llama", EXECUTION, sub(r"causal = 1, offset = 0", "causal = 1, offset = 1"))
mutation("the plan's attention drops its mask", "llama", EXECUTION, sub(r"(plan\.attention .*) mask\(%\w+\)", r"\1"))
mutation("the plan's attention has another scale", "llama", EXECUTION, sub(r"scale_bits = 2\.500000e-01", "scale_bits = 2.000000e-01"))
mutation("the plan's row without a key is zero", "llama", EXECUTION, sub(r"fully_masked = 1", "fully_masked = 0"))
mutation("the result of attention has exchanged strides", "llama", EXECUTION, sub(r"out_strides = \[512, 16, 32\]", "out_strides = [512, 256, 16]"))
mutation("gate and up exchanged in a launch", "llama", EXECUTION, sub(r"plan\.launch in\(%34, %35\)", "plan.launch in(%35, %34)"), "differs by up to|plan_v3")
mutation("a weight is loaded at a shifted place", "llama", EXECUTION, sub(r"(plan\.source <\"model\.layers\.0\.self_attn\.q_proj\.weight\".*offset = )(\d+), length", r"\g<1>65540, length"), "differs by up to|weight|file")

# Pipelines.

mutation("a stage waits for a message that is not sent", "llama-pipeline", LOCAL_GATE, sub(r"(dshard\.recv from 0 tag )0", r"\g<1>1"), "has no recv")
mutation("a stage hands on the value before its last sum", "llama-pipeline", PASSES,
         sub(r"(dshard\.add (%\w+), .*\n *dshard\.send )%\w+", r"\1\2"))
mutation("a stage hands its value on over tp", "llama-pipeline", LOCAL_GATE, sub(r'(dshard\.send .* over \[)"pp"', r'\1"tp"'), "has no recv")
mutation("micro-batches share the place of an output", "llama-pipeline", PLAN_VERIFIER,
         sub(r"(plan\.buffer .*size 8192) copies 2", r"\1"), "needs one slot")
mutation("both stages load the weights of the first", "llama-pipeline", PLAN_VERIFIER, sub(r"plan\.if #plan\.table<0>", "plan.if 1"), "is not held by rank")
mutation("a parameter of the other stage", "llama-pipeline", PLAN_VERIFIER,
         sub(r'(plan\.state "model\.norm\.weight" .*stage )1', r"\g<1>0"), "offset|belongs to stage")

# Context parallelism.

mutation("the ring turns the other way", "llama-context", PASSES, sub(r"(dshard\.permute .* shift )1", r"\g<1>3"))
mutation("the padding of keys stays at home", "llama-context", PASSES, sub(r"(%\w+)(:3 = dshard\.permute %\w+, %\w+, )(%\w+)((?:.*\n)*?.*dshard\.slice )\1#2", r"\1\2\3\4\3"))
mutation("ranks take each other's branch", "llama-context", PASSES, sub(r"predicate<ge>", "predicate<lt>"))
mutation("a rank takes the branch of the next one", "llama-context", PASSES, sub(r"predicate<ge>", "predicate<gt>"))
mutation("rows attend the later chunk of keys", "llama-context", PASSES,
         sub(r"(dshard\.slice %\w+#0 .*starts = array<i64: 0, 0, )0(.*tensor<2x2x4x16xf32>\) -> tensor<2x2x2x16xf32>)", r"\g<1>2\2"))
mutation("results of two blocks are merged with exchanged weights", "llama-context", PASSES, sub(r"dshard\.div (%\w+), (%\w+) (.*tensor<2x4x4x1xf32>, tensor<2x4x4x1xf32>\))", r"dshard.div \2, \1 \3"))
mutation("rows without a key get more than the mean", "llama-context", PASSES, sub(r"dshard\.div (%\w+), (%\w+) (.*: \(tensor<2x2x1x16xf32>)", r"dshard.mul \1, \2 \3"))
mutation("an input lies in natural order", "llama-context", PASSES, sub(r"dshard\.layout = #dshard\.layout<zigzag>, dshard\.layout_dim = 1 : i64, ", ""))
mutation("chunks of gathered keys lie in the order of the ranks", "llama-context-gather", PASSES, drop_op(r"reorder .*inverse"))
mutation("the second chunk of rows stands where the first does", "llama-context-gather", PASSES, sub(r"= dshard\.sub (%\w+), (%\w+) (.*self_attn.*tensor<i64>, tensor<i64>)", r"= dshard.add \2, \2 \3"))
mutation("the plan's ranks take each other's branch", "llama-context", EXECUTION, sub(r"plan\.table over \[0\] \[0, 1, 1, 1\]", "plan.table over [0] [1, 0, 0, 0]"))
mutation("the plan's ring leaves out a rank", "llama-context", PLAN_VERIFIER, sub(r"plan\.table over \[0\] \[1, 2, 3, 0\]", "plan.table over [0] [1, 3, 2, 0]"), "plan_v")
mutation("the plan takes an input in natural order", "llama-context", EXECUTION, sub(r'(plan\.input "input_ids" .*) layout <zigzag> of 1 parts 4', r"\1"))
mutation("the plan gives its output in the order of the ranks", "llama-context", EXECUTION, sub(r'(plan\.output "logits" .*) layout <zigzag> of 1 parts 4', r"\1"))
mutation("the plan's second chunk of rows stands elsewhere", "llama-context-gather", EXECUTION, sub(r"plan\.table over \[0\] \[14, 12, 10, 8\]", "plan.table over [0] [14, 12, 8, 10]"))

# Training: the global step against PyTorch, the sharded one against it, the plan against PyTorch.

mutation("labels are not shifted", "train", PYTORCH, sub(r'(dshard\.slice .*path = "loss", starts = array<i64: 0, )1', r"\g<1>0"))
mutation("ignored labels are counted", "train", PYTORCH, sub(r"(dshard\.constant dense<)-100(> : tensor<i64>)", r"\g<1>-101\2"))
mutation("ignored labels have a loss", "train", PYTORCH, sub(r"(dshard\.constant dense<)-100(> : tensor<i64>)", r"\g<1>-101\2", at=1))
mutation("ignored labels have a gradient", "train", PYTORCH, sub(r"(dshard\.constant dense<)-100(> : tensor<i64>)", r"\g<1>-101\2", at=2))
mutation("the gradient is divided by another number", "train", PYTORCH, sub(r'dshard\.reciprocal (.*path = "loss")', r"dshard.rsqrt \1"))
mutation("a gradient turns the wrong way", "train", PYTORCH, drop_op(r"neg .*part<backward>.*self_attn"))
mutation("a micro-batch reads the ids of another", "train", PYTORCH,
         sub(r"(dshard\.gather %\w+, %\w+ \{dim = )1( .*\(tensor<2x2x16xi64>)", r"\g<1>0\2"))
mutation("the last micro-batch counts twice", "train", PYTORCH,
         sub(r'dshard\.add %arg\w+, (%\w+) (.*part<backward>, path = "model\.embed_tokens")', r"dshard.add \1, \1 \2"))
mutation("the norm is not clipped but raised", "train", PYTORCH, sub(r"dshard\.min (.*part<optimizer>)", r"dshard.max \1"))
mutation("the correction lags a step", "train", PYTORCH, sub(r"(dshard\.constant dense<)1(> : tensor<i64>)", r"\g<1>2\2"))
mutation("a moment decays at the other's rate", "train", PYTORCH, sub(r"(dshard\.adamw .*beta2 = )0\.97\d+", r"\g<1>9.000000e-01"))
mutation("a norm's weight decays", "train", PYTORCH, sub(r"(dshard\.adamw .*weight_decay = )0\.0+e\+00", r"\g<1>1.000000e-01"))
mutation("the moments are exchanged", "train", PYTORCH, sub(r"(dshard\.adamw %\w+, %\w+, )(%\w+), (%\w+)", r"\1\3, \2"))
mutation("a gradient is finished before its reduction", "train", PARTIAL_GATE, gradient_before_reduction, "partial")
mutation("a gradient is of no parameter", "train", TRAIN_GATE, sub(r'(dshard\.gradient .*of = "model\.norm\.)weight', r"\1wait"), "no state")
mutation("a loss reads the optimizer", "train", TRAIN_GATE, sub(r'(dshard\.sqrt .*)part<optimizer>(, path = "")', r"\1part<forward>\2"), "reads a value of part optimizer")

mutation("drop the reduction of an input's gradient", "train", PASSES, drop_op(r"all_reduce  ?sum .*gradient of the input of lm_head"),
         "should hold the same values|differs by up to")
mutation("drop the sum over the vocabulary", "train", PASSES, drop_op(r"all_reduce  ?sum .*partial output of loss.*tensor<1x16xf32>\) ->"),
         "should hold the same values|differs by up to")
mutation("gradients of a unit take the maximum", "train", PASSES, sub(r"(dshard\.reduce_scatter +)sum(.*reduce the gradients)", r"\1max\2"))
mutation("the norm forgets the shards of tp", "train", PASSES, sub(r'(all_reduce .*over \[)"dp_shard", "tp"(\] why "16 values)', r'\1"dp_shard"\2'),
         "should hold the same values|differs by up to")
mutation("gradients of the look-up land at the wrong rows", "train", PASSES, sub(r"(dshard\.scatter_add %\w+, %\w+), %\w+ (.*), tensor<i64>\)", r"\1 \2)"),
         "should hold the same values|differs by up to")
mutation("two gradients of a unit are exchanged", "train", PASSES,
         sub(r"(dshard\.reduce_scatter +sum %\w+#\d+, )(%\w+#\d+), (%\w+#\d+)(.*reduce the gradients)", r"\1\3, \2\4"), "differs by up to|expected")

mutation("the plan leaves out a micro-batch", "train", TRAINING, sub(r"(plan\.repeat )2", r"\g<1>1"))
mutation("the plan's gradient of attention is not causal", "train", TRAINING, sub(r"(plan\.attention_grad .*causal = )1", r"\g<1>0"))
mutation("the plan's gradients take the maximum", "train", TRAINING, sub(r"(plan\.reduce_scatter .*reduction = )0(.*reduce the gradients)", r"\g<1>1\2"))
mutation("a moment starts from the weight's bytes", "train", PLAN_VERIFIER, sub(r'(plan\.state "model\.norm\.weight\.exp_avg" .*)init "zero"', r'\1init "load"'), "plan_v")
