#!/usr/bin/env python3
"""Benchmarks of dshard on CPU ranks; needs a built tree and .venv.

Usage: .venv/bin/python test/benchmarks/run.py [NAME...] [--check] [--write] [--rounds N]

  compile-time   CPU seconds of dshard-opt on the 4-layer Llama, kernels included (20 s)
  llama          a run of that Llama: 1 rank, tensor-parallel, and onnxruntime (2 minutes)
  bert-base, llama-12, llama-12-decode, llama-12-decode-bf16, -int8, -int4, -int4-int8,
  prefill-int4-int8-8, -32, -128, attention, attention-causal
                 runs of these against onnxruntime, OpenVINO and PyTorch, on one thread and on two;
                 made before by .venv-peers/bin/python test/benchmarks/models.py (5 minutes)

Without a name: all of them.
  --check      exit status 1 when a bound is missed or another process disturbed the run
  --write      also write test/benchmarks/results/NAME-DATE.txt with every sample
  --rounds N   turns of each contestant (default: 5)
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "EndToEnd"))

import numpy as np  # noqa: E402

import measure  # noqa: E402
import speed  # noqa: E402
import tools  # noqa: E402

MESHES = ("tp=1", "tp=2", "tp=4")
BATCH = 2
SEQUENCES = (128, 512)
# The bounds of --check. A run has none of its own yet: 2 only says that it is sane.
COMPILE_CPU_SECONDS = 5.0
RATIO_TO_ONNXRUNTIME = 2.0
# Above this share of the machine in other hands no bound on a time is judged.
DISTURBED = 0.10


def program(name):
    return tools.build_dir() / "bin" / name


def compile_command(model, mesh, seq, plan):
    arguments = tools.compile_arguments(model, mesh, {"batch": BATCH, "seq": seq})
    return [program("dshard-opt"), *arguments, "-o", plan]


def compile_time(rounds, folder):
    """The graph is enough: dshard-opt never reads weights."""
    model = folder / "llama.onnx"
    model.write_bytes((tools.MODELS / "llama.onnx").read_bytes())

    def turn(mesh):
        command = compile_command(model, mesh, 512, folder / "compile.dsplan")
        return lambda: [measure.cpu_seconds(command)]

    contestants = [measure.Contestant(mesh, turn(mesh)) for mesh in MESHES]
    others = measure.compete(contestants, rounds)
    rows, missed = [], []
    for contestant in contestants:
        within = contestant.median() <= COMPILE_CPU_SECONDS
        rows.append(
            [
                contestant.name,
                f"{contestant.median():.3f} s",
                f"{contestant.best():.3f} s",
                f"{100 * contestant.spread():.0f} %",
                f"{COMPILE_CPU_SECONDS:.1f} s",
                "yes" if within else "NO",
            ]
        )
        if not within:
            missed.append(f"compile-time {contestant.name}: {contestant.median():.2f} CPU seconds")
    header = ["dshard-opt, Llama S=512", "median", "best", "spread", "bound", "within"]
    return measure.table(header, rows), measure.samples_text([("S=512", contestants)], "CPU seconds"), missed, others


def run_dshard(plan, inputs, threads, warmup, repeat):
    flags = [f"--input={name}={path}" for name, path in inputs.items()]
    command = [program("dshard-run"), plan, *flags, "--report=json"]
    command += [f"--warmup={warmup}", f"--repeat={repeat}"]
    environment = dict(os.environ, DSHARD_THREADS=str(threads))
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"dshard-run {plan} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def run_onnxruntime(model, inputs, threads, warmup, repeat):
    command = [sys.executable, FOLDER / "onnxruntime_turn.py", model, threads, warmup, repeat]
    command += [f"{name}={path}" for name, path in inputs.items()]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def kinds_text(title, report):
    """Where the last turn's time went: the mean over ranks of each instruction kind."""
    parts = ", ".join(f"{k['kind']} {k['milliseconds']:.1f} ({k['count']})" for k in report["instructions"])
    return f"  {title}: {parts}"


def llama(rounds, folder):
    model = tools.model_with_weights("llama", folder)
    cores = len(os.sched_getaffinity(0))
    groups, rows, missed, kinds, worst = [], [], [], [], 0.0
    for seq in SEQUENCES:
        inputs = {}
        for name, array in tools.llama_inputs(32000, BATCH, seq, "none").items():
            inputs[name] = folder / f"{name}-{seq}.npy"
            np.save(inputs[name], array)
        warmup, repeat = (3, 10) if seq <= 128 else (1, 4)
        reports = {}

        def ours(mesh, threads):
            plan = folder / f"{seq}-{mesh}.dsplan"
            measure.cpu_seconds(compile_command(model, mesh, seq, plan))

            def turn():
                report = run_dshard(plan, inputs, threads, warmup, repeat)
                reports[mesh] = report
                latency = report["latency_ms"]
                return [latency[figure] for figure in ("min", "median", "max")]

            return turn

        peer = measure.Contestant(
            f"onnxruntime, {cores} threads", lambda: run_onnxruntime(model, inputs, cores, warmup, repeat)
        )
        contestants = [
            measure.Contestant(f"1 rank x {cores} threads", ours("tp=1", cores)),
            peer,
            measure.Contestant(f"tp=2 x {max(1, cores // 2)} thread", ours("tp=2", max(1, cores // 2))),
        ]
        worst = max(worst, measure.compete(contestants, rounds))
        groups.append((f"S={seq}", contestants))
        kinds += [kinds_text(f"S={seq} {mesh}", report) for mesh, report in reports.items()]
        for contestant in contestants:
            ratio = contestant.ratio(peer)
            rows.append(
                [
                    f"S={seq}",
                    contestant.name,
                    f"{contestant.median():.1f} ms",
                    f"{contestant.best():.1f} ms",
                    f"{100 * contestant.spread():.0f} %",
                    f"{ratio:.2f}",
                    f"{contestant.best() / peer.best():.2f}",
                ]
            )
            if ratio > RATIO_TO_ONNXRUNTIME:
                missed.append(f"llama S={seq} {contestant.name}: {ratio:.2f} x onnxruntime's time")
    header = [f"Llama, batch {BATCH}", "", "median", "best", "spread", "time ratio", "of the best"]
    text = measure.table(header, rows) + "\nmilliseconds per instruction kind (count), last turn\n" + "\n".join(kinds)
    return text, measure.samples_text(groups, "milliseconds"), missed, worst


BENCHMARKS = {"compile-time": compile_time, "llama": llama, **speed.BENCHMARKS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark '{name}'; there are: {', '.join(BENCHMARKS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    missed = []
    for name in arguments.names or BENCHMARKS:
        heading = measure.heading(name, f"test/benchmarks/run.py {name} --rounds {arguments.rounds}")
        with tempfile.TemporaryDirectory() as folder:
            text, samples, failures, others = BENCHMARKS[name](arguments.rounds, pathlib.Path(folder))
        text = f"{heading}\nothers    {100 * others:.0f} % of the CPUs were used by other processes\n\n{text}"
        print(text + "\n", flush=True)
        if arguments.write:
            print(f"written: {measure.write(name, text + chr(10) * 2 + samples)}\n")
        # CPU seconds are judged on a busy machine too, times of runs are not.
        if others > DISTURBED and name != "compile-time":
            failures = [f"{name}: other processes used {100 * others:.0f} % of the CPUs; run it on a quiet machine"]
        missed += failures
    if arguments.check:
        for line in missed:
            print(f"out of bounds: {line}", file=sys.stderr)
        return 1 if missed else 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, tools.CommandFailed, subprocess.CalledProcessError) as error:
        sys.exit(f"run.py: error: {error}")
