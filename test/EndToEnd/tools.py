"""Run dshard's command line and onnxruntime; used by the tests and by the demo."""

import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "test" / "models"
CHAR_DIMS = {"batch": 8, "seq": 128}
CHAR_TRAIN = ["--entry=train_step", "--scalar=lr=3e-3"]


def build_dir():
    return pathlib.Path(os.environ.get("TESTED_BUILD", ROOT / "build"))


def sanitized():
    """Whether the build has sanitizers, which take time and memory of their own."""
    cache = build_dir() / "CMakeCache.txt"
    return cache.exists() and "DSHARD_SANITIZE:BOOL=ON" in cache.read_text()


class CommandFailed(Exception):
    """A tool's exit status was not 0; the text is its standard error."""


@dataclasses.dataclass
class Finished:
    status: int
    stdout: str
    stderr: str
    wall_seconds: float
    cpu_seconds: float

    def lines(self):
        """What a failed command said, remarks and warnings aside."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return [line for line in lines if "remark:" not in line and "warning:" not in line]


def start(tool, *arguments, cwd=None, timeout=600, shows_progress=False):
    """Runs build/bin/TOOL to its end, whatever its exit status. What it says on the way goes to
    the terminal if `shows_progress`, else into the result."""
    path = build_dir() / "bin" / tool
    if not path.exists():
        raise CommandFailed(f"{path} is missing: run scripts/build")
    command = [str(path)] + [str(a) for a in arguments]
    before, begin = os.times(), time.monotonic()
    done = subprocess.run(
        command,
        cwd=cwd,
        timeout=timeout,
        stdout=subprocess.PIPE,
        stderr=None if shows_progress else subprocess.PIPE,
        text=True,
        errors="replace",
    )
    after = os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return Finished(done.returncode, done.stdout, done.stderr or "", time.monotonic() - begin, cpu)


def run(tool, *arguments, **options):
    """As start, but a failure raises with the command and its message."""
    done = start(tool, *arguments, **options)
    if done.status != 0:
        text = " ".join([tool] + [str(a) for a in arguments])
        # A compiler's note may hold a whole program.
        said = "\n".join(line[:1000] for line in done.stderr.splitlines()[:12])
        raise CommandFailed(f"{text}\nexit status {done.status}\n{said}")
    return done


def script(name):
    """A script of scripts/, as a module."""
    loader = importlib.machinery.SourceFileLoader(
        name.replace("-", "_"), str(ROOT / "scripts" / name)
    )
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def fill_weights(model, seed=0):
    """Writes the external weights beside the graph."""
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fill-weights"), str(model), "--seed", str(seed)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def model_with_weights(name, folder, seed=0):
    """A copy of a committed graph in `folder`, with its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{name}.onnx"
    shutil.copyfile(MODELS / f"{name}.onnx", model)
    fill_weights(model, seed)
    return model


def compile_arguments(model, mesh="", dims=()):
    """The arguments that compile a model; the MLP is in no built-in tensor-parallel plan."""
    arguments = [model] + ([f"--mesh={mesh}"] if mesh else [])
    if mesh and pathlib.Path(model).stem == "mlp":
        arguments.append(f"--tp-plan={MODELS / 'mlp-tp.json'}")
    for name, size in dict(dims).items():
        arguments += ["--dim", f"{name}={size}"]
    return arguments


def compile_plan(model, plan, mesh="", dims=(), *flags, **options):
    """dshard-opt: model → plan. `dims` is a dict or pairs, e.g. batch=2."""
    arguments = compile_arguments(model, mesh, dims)
    return run("dshard-opt", *arguments, *flags, "-o", plan, **options)


def run_plan(plan, inputs, outputs, folder, *flags, **options):
    """dshard-run: the named outputs, and its report. Arrays travel as .npy files."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [plan]
    for name, array in inputs.items():
        np.save(folder / f"in-{name}.npy", array)
        arguments += ["--input", f"{name}={folder / f'in-{name}.npy'}"]
    for name in outputs:
        arguments += ["--output", f"{name}={folder / f'out-{name}.npy'}"]
    done = run("dshard-run", *arguments, "--report=json", *flags, **options)
    results = {name: np.load(folder / f"out-{name}.npy") for name in outputs}
    return results, json.loads(done.stdout)


def plan_stat(plan):
    return json.loads(run("dshard-plan", "stat", "--json", plan).stdout)


def stage_programs(stat, name="run"):
    """The programs of an entry point: one, or one per pipeline stage."""
    stages = [program for program in stat["programs"] if program["name"].rpartition(".")[0] == name]
    return stages or [entry_program(stat, name)]


def entry_program(stat, name="run"):
    return next(program for program in stat["programs"] if program["name"] == name)


def collectives(stat):
    """Of one run: kind, axes, count and bytes of operands per rank."""
    return entry_program(stat)["collectives"]


def thread_scratch(stat):
    return entry_program(stat)["thread_scratch_per_thread"]


def peak_memory(report):
    """(planned, measured) bytes of all ranks together."""
    memory = report["peak_memory"]
    return memory["planned_sum"], memory["measured_sum"]


def planned_per_rank(report):
    return report["peak_memory"]["planned_per_rank"]


def median_milliseconds(report):
    return report["latency_ms"]["median"]


def onnxruntime_outputs(model, inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(model) if isinstance(model, pathlib.Path) else model,
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs)))


def mlp_inputs(batch, seed=0):
    values = np.random.default_rng(seed).standard_normal((batch, 64))
    return {"x": values.astype(np.float32)}


def llama_inputs(vocab, batch, seq, padding="right", seed=0):
    """Token ids, and a mask that pads the last row on one side."""
    ids = np.random.default_rng(seed).integers(0, vocab, (batch, seq), dtype=np.int64)
    mask = np.ones((batch, seq), dtype=np.int64)
    if padding == "right":
        mask[-1, seq - seq // 4 :] = 0
    elif padding == "left":
        mask[-1, : seq // 4] = 0
    return {"input_ids": ids, "attention_mask": mask}


def text_batches(steps, batch, seq, seed=0):
    """Random windows of the Python standard library's own sources, as bytes [steps, batch, seq]."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(library.glob("*.py")))
    data = np.frombuffer(text, dtype=np.uint8)
    starts = np.random.default_rng(seed).integers(0, data.size - seq, (steps, batch))
    return data[starts[..., None] + np.arange(seq)].astype(np.int64)


def char_inputs(steps):
    """Inputs of the character model: the labels are the ids (--train shifts them)."""
    ids = text_batches(steps, CHAR_DIMS["batch"], CHAR_DIMS["seq"])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}


def largest_difference(ours, theirs):
    """The largest |ours - theirs|; infinite if a value is not finite or a shape differs."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))


def tolerance(theirs):
    """The fp32 rule: 1e-4 · max(1, largest |value|)."""
    return 1e-4 * max(1.0, float(np.max(np.abs(theirs))))
