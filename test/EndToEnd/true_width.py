"""Families at true width: `families.py --true-width DIR [STYLE/NAME ...] [--mesh MESH ...] [--write]`.

DIR is what `scripts/export-families --true-width DIR` wrote: graphs without weights. One after the other gets its
weights, is compiled, run on 1 rank and on meshes, compared with onnxruntime, and timed against it on one thread; then
the weights are deleted. `--write` also writes the rows of docs/families.md, each with its date and commit.

Where the difference from onnxruntime is more than the rule for fp32 allows, the same model in double precision (onnx's
own reference evaluator, none of our code) says whose error it is: ours must be at most 2 x onnxruntime's + 2e-6 x the
largest value, which is the ladder's rule for a sharded run, with onnxruntime in place of the unsharded one.
"""

import contextlib
import datetime
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

import families
import tools

CONTEST = tools.ROOT / "test" / "benchmarks" / "contest.py"
MESHES = ["", "tp=2", "tp=4", "dp_shard=2,tp=2"]
# Every mesh for one style.
MESHES_OF = {"dynamo": MESHES}
DEFAULT_MESHES = ["", "tp=2"]
# onnxruntime has a copy of an expert's weights per token and expert in its file of the batched form.
TOKENS = {"qwen3-moe": 32}
MEMORY_BYTES = 10 << 30  # a plan that takes more is not run
CALLS_SECONDS = 5  # about what the timed calls of a case may take
# RSS of a child counts from its parent's, which has had models in memory: a small parent measures.
MEASURE = """import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))"""


def sizes_of(name, batch, seq):
    base = tools.script("export-families").TRUE[name]
    vocab = base.settings.get("vocab_size", 0)
    heads = base.settings.get("head_dim", 64)
    return families.Sizes(batch, seq, max(2, seq * 3 // 5), 5, vocab, base.image, (80, 3000), heads)


class TrueCase(families.Case):
    """A model of true width; `exact` is what it computes in double precision."""

    def __init__(self, case, folder, sizes, padding):
        super().__init__(case, folder, sizes)
        self.padding, self.doubled = padding, None
        if self.name == "t5":
            for model in {self.model, self.oracle}:
                scale_queries(model, sizes.head**-0.5)

    def compile_measured(self, mesh):
        """(plan, CPU seconds, MiB at the peak) of dshard-opt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = self.folder / f"{mesh or 'one'}.dsplan"
        flags = [f"--const={name}=true" for name in self.fixed]
        command = [tools.build_dir() / "bin" / "dshard-opt", *tools.compile_arguments(self.model, mesh, self.dims)]
        command = [sys.executable, "-S", "-c", MEASURE, *command, *flags, "-o", plan]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise tools.CommandFailed(done.stderr)
        seconds, peak = done.stdout.split()
        return plan, float(seconds), float(peak)

    def exact(self):
        if self.doubled is None:
            inputs, _ = self.inputs_and_expected(self.padding)
            values = in_double(self.oracle, inputs)
            self.doubled = dict(zip(self.outputs, values))
        return self.doubled

    def errors(self, outputs):
        """The largest (ours, onnxruntime's) distance from the exact values, in tolerances, and what ours may be."""
        _, theirs = self.inputs_and_expected(self.padding)
        worst, bound, peer = 0.0, 0.0, 0.0
        for name, exact in self.exact().items():
            tolerance = tools.tolerance(exact)
            ours, other = (tools.largest_difference(values[name], exact) for values in (outputs, theirs))
            allowed = 2 * other + 2e-6 * float(np.abs(exact).max())
            if bound == 0 or ours / allowed > worst / bound:
                worst, peer, bound = ours / tolerance, other / tolerance, allowed / tolerance
        return worst, peer, bound


def scale_queries(path, factor):
    """T5 has no 1/√d in its scores; its initialisation puts that into q. Weights of gain 1 would make every softmax
    choose one key, and 24 of them in a row amplify fp32's last bit to a tenth of the logits, whoever computes them."""
    model = onnx.load(str(path), load_external_data=False)
    names = tools.script("fill-weights").parameter_names(model.graph)
    readers = {name: node.name for node in model.graph.node for name in node.input}
    scaled = 0
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place or not re.search(r"[./]q[./]", f"{names.get(tensor.name)} {readers[tensor.name]}"):
            continue
        count, offset = int(place["length"]) // 4, int(place["offset"])
        weights = np.memmap(path.with_name(place["location"]), np.float32, "r+", offset, (count,))
        weights *= np.float32(factor)
        weights.flush()
        scaled += 1
    assert scaled == 36, f"{path}: {scaled} weights of queries, not 36"


def in_double(path, inputs):
    """The outputs of a model whose floats, weights and casts included, are doubles. Integers that it computes from
    floats (T5's buckets: the floor of a logarithm that is whole at every power of 2) stay what fp32 gives."""
    from onnx.reference import ReferenceEvaluator

    indices = rounded_indices(path, inputs)
    model = onnx.load(str(path))
    nodes = [node for node in model.graph.node if node.output[0] not in indices]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for tensor in model.graph.initializer:
        widen(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            elif attribute.type == onnx.AttributeProto.TENSOR:
                widen(attribute.t)
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in indices.items())
    values = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}
    with np.errstate(all="ignore"), warnings.catch_warnings():  # of values that a Where throws away
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(model).run(None, values)


def rounded_indices(path, inputs):
    """name -> value of the integers that are cast from floats which depend on no weight, as onnxruntime has them."""
    model = onnx.load(str(path), load_external_data=False)
    weights = {t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    weights |= {v.name for v in families.graph_inputs(model) if inputs[v.name].dtype == np.float32}
    whole, known, kept = {TensorProto.INT64, TensorProto.INT32}, set(), []
    wanted, floats = [], set()
    for node in model.graph.node:  # in the order of computation
        if weights & set(node.input):
            weights.update(node.output)
            continue
        kept.append(node)
        known.update(node.output)
        to = [attribute.i for attribute in node.attribute if node.op_type == "Cast" and attribute.name == "to"]
        if to and to[0] == TensorProto.FLOAT:
            floats.update(node.output)
        elif to and to[0] in whole and floats & set(node.input):
            wanted.append(node.output[0])
        elif not to and node.op_type not in ("Shape", "Less", "Greater", "Equal") and floats & set(node.input):
            floats.update(node.output)
    if not wanted:
        return {}
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    small = [t for t in model.graph.initializer if t.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(small)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name: inputs[value.name] for value in session.get_inputs()}
    return dict(zip(wanted, session.run(wanted, given)))


def widen(tensor):
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def time_ratio(case, plan):
    """CPU time of a call of ours / onnxruntime's, one thread each, best of some alternating calls; ours in ms."""
    inputs, _ = case.inputs_and_expected(case.padding)
    given = {name: case.folder / f"in-{name}.npy" for name in inputs if name not in case.fixed}
    if len(given) < len(inputs):
        return None
    names = {"dshard": {"plan": str(plan)}, "onnxruntime": {"file": str(case.oracle)}}
    task = {
        "model": str(case.model),
        "inputs": {name: str(path) for name, path in given.items()},
        "rounds": max(1, min(5, round(CALLS_SECONDS * 1e3 / case.milliseconds / 2) - 2)),
        "pause": 0.05,
        "torch": None,
        "contestants": [{"kind": kind, "name": kind, "threads": 1, **more} for kind, more in names.items()],
    }
    done = subprocess.run([sys.executable, CONTEST], input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        raise tools.CommandFailed(done.stderr.strip().splitlines()[-1])
    best = {name: min(cpu for _, cpu in calls) for name, calls in json.loads(done.stdout)["samples"].items()}
    return best["dshard"] / best["onnxruntime"], best["dshard"]


def attempt(case, mesh, row):
    """"ok", "ok (fp64)", or what is wrong; fills the figures of the row."""
    try:
        plan, seconds, peak = case.compile_measured(mesh)
        planned = tools.plan_stat(plan)["peak_all_ranks"]
        if planned > MEMORY_BYTES:
            return f"not tried: {planned / 2**30:.1f} GiB of memory in all ranks"
        outputs, report = case.run(plan, case.padding)
    except tools.CommandFailed as error:
        return families.reason(error)
    case.milliseconds = tools.median_milliseconds(report)
    difference = families.worst_difference(case.compared(outputs, case.padding))
    row["difference"] = max(difference, row.get("difference", 0.0))
    result = "ok"
    if not difference <= 1:
        ours, theirs, bound = case.errors(outputs)
        row["error"] = max((ours, theirs), row.get("error", (0.0, 0.0)))
        result = "ok (fp64)" if ours <= bound else f"WRONG: {ours:.3g} tolerances from fp64, onnxruntime {theirs:.3g}"
    if not mesh:
        row["compile"], row["memory"] = seconds, peak
        row["ratio"] = time_ratio(case, plan)
    plan.unlink()
    return result


def measure(name, args, folder):
    """One row: {"results": {mesh: text}, figures}."""
    family = name.split("/")[1]
    sizes = sizes_of(family, args.batch, args.seq or TOKENS.get(family, 100))
    with contextlib.redirect_stdout(io.StringIO()):
        case = TrueCase(name, folder, sizes, args.padding)
    data = case.model.with_name(case.model.name + ".data")
    row = {"bytes": data.stat().st_size if data.exists() else case.model.stat().st_size, "results": {}}
    for mesh in args.mesh or MESHES_OF.get(case.style, DEFAULT_MESHES):
        row["results"][mesh] = attempt(case, mesh, row)
        print(f"{name} [{mesh}]: {row['results'][mesh]}")
    return row


#
# The second table of docs/families.md
#

COLUMNS = ["family", "style", "weights", "1 rank", *MESHES[1:], "difference", "error", "compile", "memory", "run", "when"]
HEAD = f"""{families.TRUE_WIDTH}
The same families at the size of their usual base model: 768 wide, 12 layers, true vocabulary and heads (`TRUE` in
`scripts/export-families` has all sizes). Two rows of 100 tokens (60 in a decoder beside an encoder, 32 in Qwen3-MoE), the second one padded;
images of 224 (SegFormer 512), 30 s of sound. *Difference*: the largest one from onnxruntime, all meshes, in units of the
rule for fp32 (1 is allowed). Where that is missed, *error* is the distance of ours / of onnxruntime from the same model in
double precision (onnx's reference evaluator), in the same units, and *ok (fp64)* means that ours is at most
2 x onnxruntime's + 2e-6 x the largest value: the model amplifies what fp32 rounds, whoever rounds it. *Compile* and *memory*: CPU
seconds and peak of dshard-opt, 1 rank; *run*: CPU time of a call on one thread, as a ratio to onnxruntime's (best of up to 5
alternating calls each, on a shared machine), and in ms. *When*: the day, and the tree's last commit then.

Weights have gain 1 (`scripts/fill-weights`), but for the queries of T5, which has no 1/√d in its scores: its own
initialisation has it in these weights. With gain 1 there, too, its softmaxes choose one key each, and 24 in a row amplify: ours is
then 500 and onnxruntime's 380 units from the double precision, for logits of either that differ by a twentieth of the largest.
The same with 3 rows of 77 tokens padded on the left (`--batch 3 --seq 77 --padding left`) for GPT-2, Llama, BERT, RoBERTa:
equal on 1 rank and tp=2.

`.venv-peers/bin/python scripts/export-families --true-width DIR`, then
`.venv/bin/python test/EndToEnd/families.py --true-width DIR --write` writes these rows again.
"""


def cells_of(name, row, when):
    style, family = name.split("/")
    results = [row["results"].get(mesh, "") for mesh in MESHES]
    error = "{:.2g} / {:.2g}".format(*row["error"]) if "error" in row else ""
    difference = f"{row['difference']:.2g}" if "difference" in row else ""
    figures = [f"{row['compile']:.1f} s", f"{row['memory']:.0f} MiB"] if "compile" in row else ["", ""]
    run = "{:.2f} x ({:.0f} ms)".format(*row["ratio"]) if row.get("ratio") else ""
    return [family, style, f"{row['bytes'] / 1e6:.0f} MB", *results, difference, error, *figures, run, when]


def read_rows():
    """(family, style) -> cells, as they were written before."""
    text = families.TABLE.read_text().partition(families.TRUE_WIDTH)[2]
    reasons = {f"[{number}]": line for number, line in re.findall(r"^(\d+)\. `(.*)`$", text, re.M)}
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if len(cells) == len(COLUMNS) and cells[1] in families.STYLES:
            rows[cells[0], cells[1]] = [reasons.get(cell, cell) for cell in cells]
    return rows


def write_rows(rows):
    reasons = []

    def short(index, cell):
        if not 3 <= index < 3 + len(MESHES) or cell.startswith("ok") or not cell:
            return cell
        if cell not in reasons:
            reasons.append(cell)
        return f"[{reasons.index(cell) + 1}]"

    lines = [HEAD, "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for key in sorted(rows):
        lines.append("| " + " | ".join(short(i, cell) for i, cell in enumerate(rows[key])) + " |")
    bases = tools.script("export-families").TRUE.items()
    cut = [f"{name}: {base.of}" + (f" ({base.note})" if base.note else "") for name, base in bases]
    lines += ["", f"Whose sizes these are, and what is not of true size: {'; '.join(cut)}."]
    styles = {name: sum(family == name for family, _ in rows) for name, _ in bases}
    if single := [name for name, count in styles.items() if count < 2]:
        lines += ["", f"Not in two styles yet: {', '.join(single)}."]
    if reasons:
        lines += ["", "Not run, and why:"] + [f"{i + 1}. `{text}`" for i, text in enumerate(reasons)]
    before = families.TABLE.read_text().partition(families.TRUE_WIDTH)[0].rstrip("\n")
    families.TABLE.write_text(before + "\n\n" + "\n".join(lines) + "\n")


def main(args):
    families.FAMILIES = args.true_width
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=tools.ROOT, capture_output=True, text=True)
    when = f"{datetime.date.today()} {commit.stdout.strip()}"
    failed = 0
    for name in args.cases or families.all_cases():
        folder = pathlib.Path(tempfile.mkdtemp(dir=args.keep))
        try:
            row = measure(name, args, folder)
        finally:
            if not args.keep:
                shutil.rmtree(folder)
        cells = cells_of(name, row, when)
        print(f"{name}: " + " | ".join(cells[2:]))
        failed += any("WRONG" in cell for cell in cells)
        if args.write:
            rows = read_rows()
            rows[cells[0], cells[1]] = cells
            write_rows(rows)
    return 1 if failed else 0
