"""Compiles programs and compares what every pass makes of them, on all ranks.

Many programs go through one dshard-opt (--split-input-file); the IR after each pass
is taken from its dumps. dshard-interpret then runs all of them in fp64 against the
program that was written. The limit is 1e-9 of the largest value (and 1e-12, for sums
that cancel to nothing): double precision leaves seven digits of room, so only a wrong
program exceeds it.

The plan of a program is executed in fp32 by dshard-run. There the limit is what fp32
allows: 1e-4 of the largest value, and 1e-5; ops like exp and 1/x multiply rounding
errors by up to their derivative, which the generator bounds to some 50.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# In front of them: what the graph phase does with ops taken apart. Constants are not
# folded: that rounds them.
GRAPH = [
    "--dshard-decompose", "--dshard-canonicalize-graph",
    "--dshard-raise-grouped-matmul", "--dshard-unflatten-rows", "--dshard-canonicalize-graph",
    "--dshard-raise-rms-norm", "--dshard-raise-rotary", "--dshard-raise-swiglu", "--dshard-raise-gelu",
    "--dshard-raise-attention", "--dshard-sink-transposes", "--dshard-canonicalize-graph", "--dshard-cse",
    "--dshard-verify-graph",
]
RESOLVE = [
    "--dshard-verify-annotated", "--dshard-pad", "--dshard-fully-shard", "--dshard-propagate",
    "--dshard-insert-reshards", "--dshard-verify-partial", "--dshard-verify-resolved",
]
LOCAL = [
    "--dshard-split-pipeline", "--dshard-decompose-reshards", "--dshard-partition", "--canonicalize",
    "--dshard-fold-collectives", "--dshard-bucket-collectives", "--dshard-verify-local",
]
SCHEDULE = ["--dshard-form-kernels", "--dshard-schedule", "--dshard-verify-schedule"]
DUMP = re.compile(r"^// -----// IR Dump After \w+(?: Failed)? \(([\w-]+)\).*$", re.MULTILINE)
TIMEOUT = 300


def tool(name):
    build = pathlib.Path(os.environ.get("TESTED_BUILD", ROOT / "build"))
    return str(build / "bin" / name)


@dataclasses.dataclass
class Verdict:
    """kind: equal, refused, or a failure: crash, different, invalid."""

    kind: str
    where: str = ""  # the pass or the tool
    message: str = ""
    commands: list = dataclasses.field(default_factory=list)
    ops: set = dataclasses.field(default_factory=set)  # in the program or any of the dumps
    features: set = dataclasses.field(default_factory=set)  # of the compiled program

    @property
    def failed(self):
        return self.kind not in ("equal", "refused")

    def same_failure(self, other):
        return self.kind == other.kind and self.summary() == other.summary()

    def summary(self):
        """The message without names and numbers."""
        if self.kind == "different":
            return "different"
        text = re.sub(r"%?\w*\d[\w.]*", "N", self.message)
        text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|tensor<[^>]*>|'dshard\.\w+' op", "", text)
        return re.sub(r"\s+", " ", text)[:120]


def run(command, text=None, cwd=None):
    try:
        done = subprocess.run(
            command, input=text, cwd=cwd, timeout=TIMEOUT, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired as stuck:
        return subprocess.CompletedProcess(command, -9, stuck.stdout or "", f"error: no end within {TIMEOUT} s")
    return done


def choose_flags(program, graph=False):
    """Sets the passes of a program. One that is resolved as written only passes the gates
    of that phase."""
    resolve = list(RESOLVE)
    if program.resolved:
        resolve = ["--dshard-verify-partial", "--dshard-verify-resolved"]
    elif program.seed % 3 == 0:
        resolve[resolve.index("--dshard-fully-shard")] += "=mode=none"
    first = list(GRAPH) if graph else []
    if any(node.op == "cross_entropy" for node in program.all_nodes()):
        first.insert(0, "--dshard-decompose=ops=cross_entropy")  # as the train phase does
    if program.gradient:
        first.insert(0, "--dshard-differentiate")
    program.flags = first + resolve + LOCAL + SCHEDULE


def dumps_of(stderr):
    """Module name -> [(pass, text)] in order."""
    found = {}
    marks = list(DUMP.finditer(stderr))
    for mark in marks:
        if " Failed " in mark.group(0):
            continue
        end = stderr.find("\n}\n", mark.end())
        text = stderr[mark.end() : end + 3].lstrip("\n")
        name = re.match(r"module @(\w+)", text)
        if name:
            found.setdefault(name.group(1), []).append((mark.group(1), text))
    return found


def compile_batch(programs, flags):
    """dshard-opt on many programs at once: module name -> dumps of those that passed."""
    command = [tool("dshard-opt"), "-", "--split-input-file", "--mlir-print-ir-after-all", "--mlir-disable-threading"]
    command += ["--mlir-diagnostic-verbosity-level=errors", *flags]
    done = run(command, "\n// -----\n".join(program.text() for program in programs))
    complete = set(re.findall(r"^module @(\w+)", done.stdout, re.MULTILINE))
    return {name: dumps for name, dumps in dumps_of(done.stderr).items() if name in complete}, done


def is_crash(status):
    return status < 0 or status >= 128


def judge_compilation(program, folder):
    """Why one program did not compile: a refusal, a crash, or a gate that a pass upset."""
    path = folder / f"{program.name}.mlir"
    path.write_text(program.text())
    command = [tool("dshard-opt"), str(path), *program.flags, "--mlir-diagnostic-verbosity-level=errors"]
    done = run([*command, "--mlir-print-ir-after-all"])
    dumps = dumps_of(done.stderr).get(program.name, [])
    passed = [name for name, _ in dumps]
    flags = [flag[2:].split("=")[0] for flag in program.flags]
    where = flags[len(passed)] if len(passed) < len(flags) else "dshard-opt"
    errors = re.findall(r"error: (.*)", done.stderr)
    message = errors[0] if errors else f"exit status {done.returncode} without an error"
    if is_crash(done.returncode):
        head = re.findall(r"(?:Assertion|Stack dump|terminate).*", done.stderr)
        return Verdict("crash", where, f"signal {done.returncode}: {(head or [message])[0]}", [command])
    if not errors:
        return Verdict("invalid", where, message, [command])
    # A gate behind a pass says that the pass was wrong, not the program.
    is_gate = "verify" in where and where != "dshard-verify-annotated"
    broken = "verification failed" in message or "operation was not" in message or "failed to verify" in message
    if is_gate or broken or where in ("canonicalize", "dshard-fold-collectives", "dshard-bucket-collectives", "dshard-schedule"):
        return Verdict("invalid", where, message, [command])
    return Verdict("refused", where, message, [command])


def write_inputs(program, folder):
    flags = [f"--random-inputs={program.seed}"]
    for name, array in program.arrays().items():
        path = folder / f"{program.name}.{name}.npy"
        np.save(path, array)
        flags += ["--input", f"{name}={path}"]
    if any(argument.weight for argument in program.arguments):
        flags.append(f"--random-weights={program.seed}")
    return flags


def compare(program, dumps, folder):
    """dshard-interpret: the program against each different dump. That of a gradient is
    what dshard-differentiate made of it."""
    base = folder / f"{program.name}.mlir"
    text = dumps[0][1] if program.gradient else program.text()
    base.write_text(text)
    seen, against, passes = {text}, [], []
    for i, (name, text) in enumerate(dumps):
        if text in seen:
            continue
        seen.add(text)
        path = folder / f"{program.name}.{i:02}-{name}.mlir"
        path.write_text(text)
        against.append(path)
        passes.append(name)
    command = [tool("dshard-interpret"), str(base), *write_inputs(program, folder), "--atol", "1e-12"]
    command += ["--entry", program.entry]
    for path in against:
        command += ["--against", str(path)]
    if not against:
        return Verdict("equal")
    done = run(command)
    ops = set()
    for text in seen:
        ops |= set(re.findall(r"\bdshard\.(\w+) ", text))
    features = {"a partial accumulator"} if any(re.search(r"dshard\.repeat .*partial = ", text) for _, text in dumps) else set()
    if done.returncode == 0:
        return Verdict("equal", ops=ops, features=features)
    if is_crash(done.returncode):
        return Verdict("crash", "dshard-interpret", f"signal {done.returncode}", [command])
    errors = re.findall(r"error: (.*)", done.stderr)
    message = errors[0] if errors else f"exit status {done.returncode}"
    wrong = next((name for name, path in zip(passes, against) if str(path) in done.stderr), "dshard-interpret")
    kind = "different" if "differs by" in message or "differ by" in message else "invalid"
    return Verdict(kind, wrong, message, [command])


def run_plan(program, dumps, folder):
    """dshard-opt --from=schedule writes the plan, dshard-run executes it on all ranks."""
    scheduled = folder / f"{program.name}.schedule.mlir"
    text = dumps[-1][1]
    if program.gradient:  # alone: both share their parameters, but each decides how they lie
        text = re.sub(r"^  func\.func @run\(.*?^  }\n", "", text, count=1, flags=re.DOTALL | re.MULTILINE)
    scheduled.write_text(text)
    plan = folder / f"{program.name}.dsplan"
    make = [tool("dshard-opt"), str(scheduled), "--from=schedule", "--quiet", "-o", str(plan)]
    done = run(make)
    if done.returncode:
        errors = re.findall(r"error: (.*)", done.stderr)
        kind = "refused" if errors and not is_crash(done.returncode) else "crash"
        return Verdict(kind, "dshard-convert-to-plan", errors[0] if errors else f"signal {done.returncode}", [make])
    inputs, names = write_inputs(program, folder), program.output_names()
    execute = [tool("dshard-run"), str(plan), f"--random-weights={program.seed}", "--entry", program.entry]
    for name in program.arrays():
        execute += ["--input", f"{name}={folder / f'{program.name}.{name}.npy'}"]
    for name in program.drawn_inputs():
        execute += ["--input", f"{name}=random:{program.seed}"]
    interpret = [tool("dshard-interpret"), str(folder / f"{program.name}.mlir"), *inputs, "--entry", program.entry]
    for name in names:
        execute += ["--output", f"{name}={folder / f'{program.name}.ran{name}.npy'}"]
        interpret += ["--output", f"{name}={folder / f'{program.name}.out{name}.npy'}"]
    commands = [make, execute, interpret]
    for command in (execute, interpret):
        done = run(command)
        if done.returncode:
            errors = re.findall(r"error: (.*)", done.stderr)
            kind = "crash" if is_crash(done.returncode) else "invalid"
            return Verdict(kind, "dshard-run", errors[0] if errors else f"status {done.returncode}", commands)
    for name in names:
        ran = np.load(folder / f"{program.name}.ran{name}.npy").astype(np.float64)
        right = np.load(folder / f"{program.name}.out{name}.npy").astype(np.float64)
        finite = np.isfinite(right)
        largest = np.max(np.abs(right[finite]), initial=0.0)
        same_special = np.array_equal(ran[~finite], right[~finite], equal_nan=True)
        difference = np.max(np.abs(ran[finite] - right[finite]), initial=0.0)
        if not same_special or not difference <= 1e-5 + 1e-4 * largest:
            special = "" if same_special else "; what is not finite differs"
            text = f"output '{name}' differs by up to {difference:.3g} of {largest:.3g}{special}"
            return Verdict("different", "dshard-run", text, commands)
    return Verdict("equal")


def check_batch(programs, folder, plans=False):
    """One verdict per program."""
    verdicts = {}
    compiled = {}
    for flags in {tuple(program.flags) for program in programs}:
        compiled.update(compile_batch([program for program in programs if tuple(program.flags) == flags], flags)[0])
    for program in programs:
        dumps = compiled.get(program.name)
        if dumps is None:
            # Alone: the cause may be another program of the batch (a crash).
            alone, _ = compile_batch([program], program.flags)
            dumps = alone.get(program.name)
        if dumps is None:
            verdicts[program.name] = judge_compilation(program, folder)
            continue
        verdict = compare(program, dumps, folder)
        if plans and verdict.kind == "equal":
            ran = run_plan(program, dumps, folder)
            ran.ops, ran.features = verdict.ops, verdict.features
            verdict = ran
        verdicts[program.name] = verdict
        if not verdict.failed:
            for path in folder.glob(f"{program.name}.*"):
                path.unlink()
    return [verdicts[program.name] for program in programs]


def check_spoiled(program, text, folder):
    """A wrong program: refused with an error, or equal to itself when compiled."""
    path = folder / f"{program.name}.spoiled.mlir"
    path.write_text(text)
    out = folder / f"{program.name}.compiled.mlir"
    command = [tool("dshard-opt"), str(path), *program.flags, "--mlir-diagnostic-verbosity-level=errors", "-o", str(out)]
    done = run(command)
    errors = re.findall(r"error: (.*)", done.stderr)
    if is_crash(done.returncode):
        return Verdict("crash", "dshard-opt", f"signal {done.returncode}", [command])
    if done.returncode:
        # mlir-opt says nothing but the error; a gate that finds what a pass left is no clear one.
        return Verdict("refused" if errors else "invalid", "dshard-opt", errors[0] if errors else "no error", [command])
    compare = [tool("dshard-interpret"), str(path), "--against", str(out), "--entry", "run", "--atol", "1e-12", *write_inputs(program, folder)]
    done = run(compare)
    if done.returncode == 0:
        return Verdict("equal")
    errors = re.findall(r"error: (.*)", done.stderr)
    message = errors[0] if errors else f"exit status {done.returncode}"
    if is_crash(done.returncode):
        return Verdict("crash", "dshard-interpret", message, [command, compare])
    # The interpreter may refuse the program itself: then there is nothing to compare.
    alone = run([tool("dshard-interpret"), str(path), *write_inputs(program, folder)])
    kind = "different" if alone.returncode == 0 else "refused"
    return Verdict(kind, "dshard-interpret", message, [command, compare])


def check(program, folder, plans=False):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return check_batch([program], folder, plans)[0]
