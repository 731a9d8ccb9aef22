#!/usr/bin/env python3
"""CPU seconds and memory of dshard-opt on Llamas of 70B and 405B parameters.

Usage: .venv/bin/python test/benchmarks/scale.py [70b] [405b] [--check] [--write] [--rounds N] [--no-training]

Compiles each (import to plan, kernels included) for 64 and for 4,096 ranks, one sequence of 128 tokens per
dp_shard; inference, and the training step. The weights are sparse files: 282 GB and 1.6 TB that take no room.
  --check        exit status 1 outside the bounds: 20 CPU seconds and 1 GiB for 70b, 30 and 2 GiB for 405b, and at
                 most 10 % between 64 and 4,096 ranks; the training step has no bound of its own yet and is held to
                 the same
  --write        also write test/benchmarks/results/scale-DATE.txt
  --rounds N     compilations of each (default: 3); the bounds on time judge the median, their ratio the best
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

import large_llama  # noqa: E402
import measure  # noqa: E402
import tools  # noqa: E402

SHAPES = {"70b": large_llama.LLAMA_70B, "405b": large_llama.LLAMA_405B}
CPU_SECONDS = {"70b": 20.0, "405b": 30.0}
GIBIBYTES = {"70b": 1.0, "405b": 2.0}
BETWEEN_RANKS = 0.10
TP, DATA_PARALLEL = 8, (8, 512)
SEQUENCE = 128


def compile_once(arguments):
    """(CPU seconds, GiB at the peak) of one dshard-opt."""
    command = [str(tools.build_dir() / "bin" / "dshard-opt"), *map(str, arguments), "--quiet"]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def contestant(model, folder, dp, train):
    arguments = [model, f"--mesh=dp_shard={dp},tp={TP}", "--dim", f"batch={dp}", "--dim", f"seq={SEQUENCE}"]
    arguments += [f"--train={train}"] if train else []
    plan = folder / f"{model.stem}-{dp}.dsplan"
    name = f"{model.stem} {'training' if train else 'inference'}, {dp * TP} ranks"
    result = measure.Contestant(name, None)
    result.peak = result.plan_bytes = 0

    def turn():
        seconds, peak = compile_once([*arguments, "-o", plan])
        result.peak = max(result.peak, peak)
        result.plan_bytes = plan.stat().st_size
        return [seconds]

    result.turn = turn
    return result


def scale(names, rounds, folder, with_training):
    """(text, samples, missed bounds, share of the CPUs in other hands)"""
    train = folder / "train.json"
    train.write_text(json.dumps({"shift_labels": True, "clip_norm": 1.0}))
    rows, missed, groups, worst = [], [], [], 0.0
    for name in names:
        model = folder / f"{name}.onnx"
        large_llama.write(model, SHAPES[name])
        for config in [None, train] if with_training else [None]:
            pair = [contestant(model, folder, dp, config) for dp in DATA_PARALLEL]
            worst = max(worst, measure.compete(pair, rounds))
            groups.append((name, pair))
            ratio = pair[1].best() / pair[0].best()
            for one in pair:
                failures = []
                if one.median() > CPU_SECONDS[name]:
                    failures.append(f"{one.median():.1f} CPU seconds > {CPU_SECONDS[name]:.0f}")
                if one.peak > GIBIBYTES[name]:
                    failures.append(f"{one.peak:.2f} GiB > {GIBIBYTES[name]:.0f}")
                if one is pair[1] and ratio > 1 + BETWEEN_RANKS:
                    failures.append(f"{ratio:.2f} x the seconds of {DATA_PARALLEL[0] * TP} ranks")
                missed += [f"{one.name}: {failure}" for failure in failures]
                rows.append(
                    [
                        one.name,
                        f"{one.median():.2f} s",
                        f"{one.best():.2f} s",
                        f"{one.best() / pair[0].best():.2f}",
                        f"{CPU_SECONDS[name]:.0f} s",
                        f"{one.peak:.2f} GiB",
                        f"{GIBIBYTES[name]:.0f} GiB",
                        f"{one.plan_bytes / 2**20:.1f} MiB",
                        "NO" if failures else "yes",
                    ]
                )
    header = ["dshard-opt", "median", "best", "to 64 ranks", "bound", "memory", "bound", "plan", "within"]
    return measure.table(header, rows), measure.samples_text(groups, "CPU seconds"), missed, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-training", action="store_true")
    arguments = parser.parse_args()
    names = arguments.names or list(SHAPES)
    for name in names:
        if name not in SHAPES:
            parser.error(f"unknown model '{name}'; there are: {', '.join(SHAPES)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    heading = measure.heading("scale", f"test/benchmarks/scale.py {' '.join(names)} --rounds {arguments.rounds}")
    with tempfile.TemporaryDirectory() as folder:
        text, samples, missed, others = scale(
            names, arguments.rounds, pathlib.Path(folder), not arguments.no_training
        )
    text = f"{heading}\nothers    {100 * others:.0f} % of the CPUs were used by other processes\n\n{text}"
    print(text, flush=True)
    if arguments.write:
        print(f"written: {measure.write('scale', text + chr(10) * 2 + samples)}")
    if arguments.check:
        for line in missed:
            print(f"out of bounds: {line}", file=sys.stderr)
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
