"""Run dshard's command line and onnxruntime; used by the tests and by the demo."""

import contextlib
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
import pytest

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


not_sanitized = pytest.mark.skipif(
    sanitized(), reason="sanitizers take time and memory of their own; scripts/test without --sanitize runs it"
)


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


@contextlib.contextmanager
def emulated_gpus(count):
    """Lets the runtime find the emulator in place of the CUDA driver, cuBLASLt and NCCL."""
    library = build_dir() / "test" / "emulator" / "libdshard-cuda-emulator.so"
    assert library.exists(), f"{library} is missing: run scripts/build"
    values = {f"DSHARD_{name}_LIBRARY": str(library) for name in ["CUDA", "CUBLASLT", "NCCL"]}
    values["DSHARD_EMULATOR_DEVICES"] = str(count)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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


def widened(array, kind):
    """A bf16 or fp16 output as float32. numpy has no bfloat16: its file holds the bits, as a 2-byte type."""
    if kind == "bf16" and array.dtype != np.float32:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def largest_difference(ours, theirs):
    """The largest |ours - theirs|; infinite if a value is not finite or a shape differs."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))


def tolerance(theirs):
    """The fp32 rule: 1e-4 · max(1, largest |value|)."""
    return 1e-4 * max(1.0, float(np.max(np.abs(theirs))))


#
# Training steps that PyTorch has done as well (scripts/training-reference)
#

REFERENCE_CASES = {
    "mlp": dict(dims={"batch": 16}, logits="y", shift=False, no_decay=["*.bias"]),
    "llama-small": dict(
        dims={"batch": 4, "seq": 16}, logits="logits", shift=True, no_decay=["*norm.weight"]
    ),
}


def training_reference(name):
    """PyTorch's values and the inputs, by the names that scripts/training-reference gives them."""
    with np.load(MODELS / f"{name}-training.npz") as file:
        return {key: file[key] for key in file.files}


def write_reference_config(name, folder):
    """--train with the settings of scripts/training-reference."""
    case = REFERENCE_CASES[name]
    config = dict(
        logits=case["logits"],
        shift_labels=case["shift"],
        optimizer={"betas": [0.9, 0.98], "weight_decay": 0.1, "no_decay": case["no_decay"]},
        clip_norm=0.5,
        outputs=["loss", "grad_norm", "gradients"],
    )
    path = folder / "train.json"
    path.write_text(json.dumps(config))
    return path


def interpret_step(program, inputs, outputs, folder, *flags):
    """dshard-interpret on @train_step: the named outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [program, "--entry=train_step"]
    for name, array in inputs.items():
        np.save(folder / f"in-{name}.npy", array)
        arguments += ["--input", f"{name}={folder / f'in-{name}.npy'}"]
    for name in outputs:
        arguments += ["--output", f"{name}={folder / f'out-{name}.npy'}"]
    run("dshard-interpret", *arguments, *flags)
    return {name: np.load(folder / f"out-{name}.npy") for name in outputs}


def reference_parameters(theirs):
    return [key[6:] for key in theirs if key.startswith("param.")]


def interpret_reference_steps(name, program, folder, theirs):
    """Our losses, gradients and parameters of the same steps, in fp64."""
    parameters = reference_parameters(theirs)
    outputs = ["loss", "grad_norm"] + parameters
    outputs += [f"{parameter}.grad" for parameter in parameters]
    inputs = {key[3:]: value for key, value in theirs.items() if key.startswith("in.")}
    steps = len(theirs["loss"])
    return interpret_step(program, inputs, outputs, folder, f"--steps={steps}", "--scalar=lr=0.01")


def run_reference_steps(plan, folder, theirs, *flags):
    """Our losses, gradients and parameters of the same steps, by a plan."""
    parameters = reference_parameters(theirs)
    inputs = {key[3:]: value for key, value in theirs.items() if key.startswith("in.")}
    flags += ("--entry=train_step", f"--steps={len(theirs['loss'])}", "--scalar=lr=0.01")
    outputs = ["loss", "grad_norm"] + [f"{parameter}.grad" for parameter in parameters]
    ours, _ = run_plan(plan, inputs, outputs, folder, f"--save-state={folder / 'state'}", *flags)
    for name in parameters:
        ours[name] = np.load(folder / "state" / f"{name}.npy")
    return ours


def compare_with_reference(ours, theirs, slack=1):
    """None, or what differs: loss and norm of every step by 1e-6 of them, gradients of the first
    step by 1e-6 of the largest one, parameters after the last step by 1e-5; each times `slack`."""

    def sampled(array, wanted):
        return array.reshape(-1)[np.linspace(0, array.size - 1, wanted.size).astype(int)]

    def distance(got, wanted):
        difference = np.abs(got - wanted)
        return float(difference.max()) if np.isfinite(difference).all() else float("inf")

    for key in ("loss", "grad_norm"):
        if not (difference := distance(ours[key] / theirs[key], 1)) <= slack * 1e-6:
            return f"{key} differs by up to {difference:.3g} of it"
    for name in reference_parameters(theirs):
        gradient, wanted = ours[f"{name}.grad"][0], theirs[f"grad.{name}"]
        scale = float(np.abs(gradient).max())
        difference = distance(sampled(gradient, wanted), wanted)
        if not 0 < scale or not difference <= slack * 1e-6 * scale:
            return f"the gradient of {name} differs by up to {difference:.3g}"
        wanted = theirs[f"param.{name}"]
        if not (difference := distance(sampled(ours[name], wanted), wanted)) <= slack * 1e-5:
            return f"parameter {name} differs by up to {difference:.3g}"
    return None
