"""The checked-in graphs of model families (test/models/families): inputs, oracle, meshes.

`.venv/bin/python test/EndToEnd/families.py [STYLE/NAME ...] [--mesh MESH ...]` tries graphs on meshes and prints one
line per try; `--write` also writes docs/families.md. test_families.py asserts the same.

`... families.py --true-width DIR [STYLE/NAME ...]` does it with the graphs that `scripts/export-families --true-width DIR`
wrote, one model at a time (up to 8 GiB of memory and 4 GiB of disk); see true_width.py.
"""

import argparse
import contextlib
import dataclasses
import io
import pathlib
import re
import sys
import tempfile

import numpy as np
import onnx

import tools

FAMILIES = tools.MODELS / "families"
TABLE = tools.ROOT / "docs" / "families.md"
TRUE_WIDTH = "## True width\n"  # what follows in TABLE is of true_width.py
STYLES = ["dynamo", "dynamo23", "genai", "genai-int4", "hf", "hf-gen", "legacy", "optimum"]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the inputs."""

    batch: int = 2
    seq: int = 12
    decoder_seq: int = 8
    past: int = 5
    vocab: int = 97
    image: int = 32
    features: tuple = (16, 64)
    head: int = 16

    def fixed(self, name):
        """The shape of an input that is the same for all exporters, or None."""
        if name == "pixel_values":
            return (self.batch, 3, self.image, self.image)
        return (self.batch, *self.features) if name == "input_features" else None

    def named(self, symbol):
        """Some exporters name dims for what they are."""
        return {
            "batch_size": self.batch,
            "sequence_length": self.seq,
            "encoder_sequence_length": self.seq,
            "decoder_sequence_length": self.decoder_seq,
            "past_sequence_length": self.past,
            "past_decoder_sequence_length": self.past,
            "num_channels": 3,
            "height": self.image,
            "width": self.image,
        }[symbol]


SMALL = Sizes()
MESHES = ["", "dp_shard=2", "tp=2", "tp=4", "dp_shard=2,tp=2", "dp_shard=2,tp=2 sp"]
# What the table has: every mesh for one style, the ends of the range for others.
ENDS = ["", "dp_shard=2,tp=2 sp"]
MESHES_OF = {"dynamo": MESHES, "hf": ENDS, "legacy": ENDS, "genai": ["", "tp=2"], "genai-int4": ["", "tp=2"]}
# Of the native op RotaryEmbedding with tables of batch 1 onnxruntime wants one table per batch: the oracle is the same
# model at opset 20, which has the same parameters.
ORACLE_STYLE = {"dynamo23": "dynamo"}


def all_cases():
    """STYLE/NAME of every graph."""
    return sorted(f"{path.parent.name}/{path.stem}" for path in FAMILIES.glob("*/*.onnx"))


def meshes_of(case):
    return MESHES_OF.get(case.partition("/")[0], [""])


def path_of(case):
    return FAMILIES / f"{case}.onnx"


def graph_inputs(model):
    given = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in given]


def size_of_dim(name, index, symbol, style, decodes, sizes):
    if style == "optimum":
        return 1 if symbol == "decoder_sequence_length" and decodes else sizes.named(symbol)
    if sizes.fixed(name):
        return sizes.fixed(name)[index]
    if name.startswith("past_key_values"):  # genai: a cache that is empty
        return {0: sizes.batch, 2: 0, 3: sizes.head}[index]
    if name.startswith("input.past"):
        return {0: sizes.batch, 2: sizes.past}[index]
    if index == 0:
        return sizes.batch
    if decodes:
        return sizes.past + 1
    return sizes.decoder_seq if name == "decoder_input_ids" else sizes.seq


def dims_of(model, style, sizes=SMALL):
    """The sizes of all symbols of the inputs."""
    decodes = style in ("optimum", "hf-gen") and any("past" in value.name for value in graph_inputs(model))
    symbols = {}
    for value in graph_inputs(model):
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param.isidentifier():
                symbols[dim.dim_param] = size_of_dim(value.name, i, dim.dim_param, style, decodes, sizes)
    return symbols


def shape_of(value, symbols):
    """Sizes of an input; a dim may be an expression, or digits."""
    dims = value.type.tensor_type.shape.dim
    return [eval(d.dim_param, {}, symbols) if d.dim_param else d.dim_value for d in dims]


def inputs_of(model, style, padding="right", seed=0, sizes=SMALL):
    """Values of all inputs; the last row of text is padded."""
    symbols = dims_of(model, style, sizes)
    random = np.random.default_rng(seed)
    decodes = style in ("optimum", "hf-gen") and any("past" in value.name for value in graph_inputs(model))
    past = sizes.past if decodes else 0
    values = {}
    for value in graph_inputs(model):
        shape, name = shape_of(value, symbols), value.name
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            values[name] = random.standard_normal(shape).astype(np.float32)
        elif value.type.tensor_type.elem_type == onnx.TensorProto.BOOL:
            values[name] = np.ones(shape, bool)
        elif "mask" in name:
            values[name] = np.ones(shape, np.int64)
            padded = shape[1] // 4
            if padding == "left" or past:
                values[name][-1, :padded] = 0
            elif padding == "right":
                values[name][-1, -padded:] = 0
        elif name == "token_type_ids":
            values[name] = random.integers(0, 2, shape, dtype=np.int64)
        elif name == "position_ids":
            values[name] = np.broadcast_to(past + np.arange(shape[-1], dtype=np.int64), shape).copy()
        else:
            # 0 to 2 have meanings of their own in some models (padding, begin, end).
            values[name] = random.integers(3, sizes.vocab, shape, dtype=np.int64)
    return values


# 5e-3 in place of 1e-4 for files that ask for activations of 8 bits (accuracy_level 4): where two sums differ by
# their last bit, so may the numbers that they are rounded to.
ROUNDED_SLACK = 50


class Case:
    """A graph with weights, its inputs and what onnxruntime computes."""

    def __init__(self, case, folder, sizes=SMALL):
        self.style, self.name = case.split("/")
        self.sizes = sizes
        self.model = prepare(case, folder)
        loaded = onnx.load(str(self.model), load_external_data=False)
        self.outputs = [value.name for value in loaded.graph.output]
        attributes = [a for node in loaded.graph.node for a in node.attribute]
        self.slack = ROUNDED_SLACK if any(a.name == "accuracy_level" and a.i == 4 for a in attributes) else 1
        if self.style.startswith("genai"):  # the cache of padded tokens is anything
            self.outputs = ["logits"]
        self.dims = dims_of(loaded, self.style, sizes)
        self.graph = loaded
        # A condition that chooses a branch is fixed at compile time; a plan has no such input.
        kinds = {value.name: value.type.tensor_type.elem_type for value in graph_inputs(loaded)}
        self.fixed = [name for name, kind in kinds.items() if kind == onnx.TensorProto.BOOL]
        self.folder = folder / self.style / f"{self.name}-runs"
        self.oracle, style = self.model, ORACLE_STYLE.get(self.style)
        if style:
            self.oracle = prepare(f"{style}/{self.name}", folder)
        self.expected = {}

    def inputs_and_expected(self, padding):
        """Inputs, and onnxruntime's outputs of them."""
        if padding not in self.expected:
            inputs = inputs_of(self.graph, self.style, padding, sizes=self.sizes)
            theirs = tools.onnxruntime_outputs(self.oracle, inputs)
            # The twin's outputs have the same order, maybe other names.
            self.expected[padding] = inputs, dict(zip(self.outputs, theirs.values()))
        return self.expected[padding]

    def compile(self, mesh, *flags):
        """The plan, or tools.CommandFailed."""
        mesh, _, parallel = mesh.partition(" ")
        if parallel:
            flags += ("--sequence-parallel",)
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = self.folder / "model.dsplan"
        flags += tuple(f"--const={name}=true" for name in self.fixed)
        tools.compile_plan(self.model, plan, mesh, self.dims, *flags)
        return plan

    def run(self, plan, padding="right"):
        """The outputs, and the report."""
        inputs, _ = self.inputs_and_expected(padding)
        given = {name: value for name, value in inputs.items() if name not in self.fixed}
        return tools.run_plan(plan, given, self.outputs, self.folder)

    def compared(self, outputs, padding="right"):
        """(ours, onnxruntime's) of each output, as far as they must be alike."""
        inputs, expected = self.inputs_and_expected(padding)
        for name, theirs in expected.items():
            got = outputs[name]
            if self.style.startswith("genai"):  # rows past a sequence's end are anything
                real = inputs["attention_mask"].astype(bool)
                got, theirs = got[real], theirs[real]
            if got.shape != theirs.shape or got.size:
                yield got, theirs

    def difference(self, mesh, padding="right"):
        """The largest difference of any output, in units of its tolerance."""
        ours, _ = self.run(self.compile(mesh), padding)
        return worst_difference(self.compared(ours, padding)) / self.slack

    def attentions(self):
        """(raised, left in single ops): attentions, and softmaxes, of the graph phase."""
        arguments = tools.compile_arguments(self.model, "", self.dims)
        arguments += [f"--const={name}=true" for name in self.fixed]
        text = tools.run("dshard-opt", *arguments, "--to=graph").stdout
        # The softmax of a router has no heads: two dims.
        left = re.findall(r"= dshard\.softmax .*: \(tensor<(?:\d+x){3,}", text)
        return text.count("= dshard.attention"), len(left)


def worst_difference(pairs):
    """The largest of (ours, theirs), in units of the tolerance."""
    return max([tools.largest_difference(got, theirs) / tools.tolerance(theirs) for got, theirs in pairs], default=0.0)


def prepare(case, folder):
    """A copy of the graph in `folder`, with its weights; its path."""
    model = folder / f"{case}.onnx"
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(path_of(case).read_bytes())
        tools.script("fill-weights").fill(model, 0, model.parent)
    return model


def reason(error):
    """The line of an error that says what is wrong, alike for all models that have it."""
    lines = str(error).splitlines()
    said = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return shorten((said or [line for line in lines if "exit status" in line] or lines or ["no error is told"])[0])


def shorten(text):
    """Without the names of file, node and type, and without lists."""
    text = re.sub(r"^\S*\.onnx: ", "", text)
    text = re.sub(r"^node '[^']*'( \(\w+\))?: ", "", text)
    text = re.sub(r"the output of [\w.]+(, 'tensor<[^']*',)?", "the output of a layer", text)
    text = re.sub(r" with keys from its modules.*", " with keys of your own", text)
    return text[:300].replace("|", "/").replace("`", "'")


def attempt(case, mesh):
    """What a try gives: "ok", or why not."""
    try:
        difference = case.difference(mesh)
    except tools.CommandFailed as error:
        return reason(error)
    return "ok" if difference <= 1 else f"WRONG by {difference:.3g} tolerances"


def raised(case):
    """"2 of 2": attentions that are one op, of all that the graph has."""
    try:
        found, left = case.attentions()
    except tools.CommandFailed:
        return "-"
    return f"{found} of {found + left}"


#
# docs/families.md: what every graph does, which the test compares with
#

COLUMNS = ["1 rank", "dp_shard=2", "tp=2", "tp=4", "dp_shard=2,tp=2", "the same, sequence parallel"]
HEAD = """# Model families

What the checked-in graphs of `test/models/families` do: small configurations (hidden 64, 2 layers, vocabulary 97), written by
`scripts/export-families` with the usual exporters: torch.onnx (`dynamo` at opset 20, `dynamo23` at 23), TorchScript
(`legacy`), transformers' own exporter (`hf`, and its pair for generation, `hf-gen`), optimum (`optimum`: opset 18, decoders
with a cache), onnxruntime-genai's builder (`genai`, and with packed weights of 4 bits `genai-int4`, in several block sizes,
with and without zero points; Llama, Qwen3 and Gemma 3 ask for activations of 8 bits). Weights are random
(`scripts/fill-weights`), batches have a padded row; *ok* means equal to onnxruntime by the rule for fp32:
|ours − theirs| ≤ 1e-4 · max(1, largest |value|), and 5e-3 where activations are of 8 bits. *Attention* counts those that
became one op, without a tensor of scores; those of gpt-oss have sinks, which keep them in single ops.

Sequence parallelism applies to what has a sequence: the patches of a picture and the frames of a sound, too (the 17 tokens of ViT
are padded to 18); of convolution nets (ConvNeXt, ResNet) it changes nothing and says so. On tp=4 every rank computes SegFormer's
attentions of 2 heads whole. Fused projections (GPT-2, GPT-NeoX, BLOOM, Phi-3, the builder's) cost two all_reduces a layer, as
separate ones do (`test_tensor_plans.py`); in a training step GPT-2's and Phi-3's are gathered.

A cell is empty where the style is not tried on that mesh (`families.py --mesh` tries any).
`test/EndToEnd/test_families.py` checks the table; `.venv/bin/python test/EndToEnd/families.py --write` writes it again.
"""


def write_table(rows):
    """`rows`: {case: {"attention": "2 of 2", mesh: result}}."""
    reasons = []

    def cell(text):
        if text in ("ok", "-", ""):
            return text
        if text not in reasons:
            reasons.append(text)
        return f"[{reasons.index(text) + 1}]"

    lines = [HEAD, "| family | style | attention | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (3 + len(COLUMNS)) + "|")
    for case in sorted(rows, key=lambda case: case.split("/")[::-1]):
        style, name = case.split("/")
        cells = [name, style, rows[case]["attention"]] + [cell(rows[case].get(mesh, "")) for mesh in MESHES]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Refused"]
    lines += [f"{i + 1}. `{text}`" for i, text in enumerate(reasons)] or ["Nothing."]
    _, marker, rest = TABLE.read_text().partition(TRUE_WIDTH)
    TABLE.write_text("\n".join(lines) + "\n\n" + marker + rest)


def read_table():
    """{case: {"attention": "2 of 2", mesh: result}}."""
    text = TABLE.read_text().partition(TRUE_WIDTH)[0]
    reasons = {f"[{number}]": line for number, line in re.findall(r"^(\d+)\. `(.*)`$", text, re.M)}
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if len(cells) == 3 + len(COLUMNS) and cells[1] in STYLES:
            results = [reasons.get(cell, cell) for cell in cells[2:]]
            rows[f"{cells[1]}/{cells[0]}"] = dict(zip(["attention"] + MESHES, results))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="STYLE/NAME; default: all")
    parser.add_argument("--mesh", action="append")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for models and plans")
    parser.add_argument("--models", type=pathlib.Path, help="a folder of STYLE/NAME.onnx; default: the checked-in ones")
    parser.add_argument("--true-width", type=pathlib.Path, metavar="DIR", help="a folder of graphs of true width")
    parser.add_argument("--batch", type=int, default=2, help="of --true-width")
    parser.add_argument("--seq", type=int, help="tokens per row, of --true-width (default: 100)")
    parser.add_argument("--padding", choices=["right", "left", "none"], default="right", help="of --true-width")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    global FAMILIES
    if args.true_width:
        import true_width

        return true_width.main(args)
    FAMILIES = args.models or FAMILIES
    folder = args.keep or pathlib.Path(tempfile.mkdtemp())
    rows = {}
    for name in args.cases or all_cases():
        with contextlib.redirect_stdout(io.StringIO()):
            case = Case(name, folder)
        rows[name] = {"attention": raised(case)}
        print(f"{name}: attention {rows[name]['attention']}")
        for mesh in args.mesh or meshes_of(name):
            rows[name][mesh] = attempt(case, mesh)
            print(f"{name} [{mesh}]: {rows[name][mesh]}")
    if args.write:
        write_table(rows)


if __name__ == "__main__":
    sys.exit(main())
