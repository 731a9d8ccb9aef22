#!/usr/bin/env python3
"""Random programs x meshes x shardings, compiled to plans, run and compared.

The programs are those of test/Transforms/random_programs.py. Each becomes a plan
(kernels, library calls, buffers, collectives), which the plan verifier proves and
dshard-run runs on all its ranks; the outputs must be those of the interpreter on the
unsharded program in fp64, within f32 rounding. Ends with the coverage: plans per
instruction.

usage: random_plans.py DSHARD_OPT DSHARD_INTERPRET DSHARD_PLAN DSHARD_RUN FOLDER [--seeds FIRST LAST]
"""
import argparse
import collections
import os
import re
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Transforms"))
from random_programs import LOCAL, RESOLVE, Program, run  # noqa: E402

TYPES = {"f32": np.float32, "i64": np.int64, "i1": np.bool_}


def write_inputs(program, folder, seed):
    """One .npy per argument; gives the flags of both tools."""
    rng = np.random.default_rng(seed)
    flags = []
    for line in program.arguments:
        name, shape, element = re.match(r"\s*%(\w+): tensor<((?:\d+x)*)(\w+)>", line).groups()
        shape = [int(size) for size in shape.split("x") if size]
        if element == "f32":
            value = rng.uniform(-1, 1, shape).astype(np.float32)
        elif element == "i64":
            value = rng.integers(0, 8, shape)  # below every table of the generator
        else:
            value = rng.uniform(0, 1, shape) < 0.7
        path = os.path.join(folder, f"{name}.npy")
        np.save(path, value.astype(TYPES[element]))
        flags += ["--input", f"{name}={path}"]
    return flags


def check(program, options, seed, instructions):
    """The first command that fails with its text, or None."""
    path = lambda name: os.path.join(options.folder, name)  # noqa: E731
    with open(path("annotated.mlir"), "w") as file:
        file.write(program.build())
    inputs = write_inputs(program, options.folder, seed)
    outputs = re.search(r"return (.*) :", open(path("annotated.mlir")).read()).group(1).count("%")
    ours = [flag for i in range(outputs) for flag in ("--output", f"{i}={path(f'ours{i}.npy')}")]
    theirs = [flag for i in range(outputs) for flag in ("--output", f"{i}={path(f'theirs{i}.npy')}")]
    for step in ([options.opt, path("annotated.mlir"), *RESOLVE, "-o", path("resolved.mlir")],
                 [options.opt, path("resolved.mlir"), *LOCAL, "-o", path("local.mlir")],
                 [options.opt, path("local.mlir"), "--from=local", "--to=plan", "--emit=plan", "-o", path("run.dsplan")],
                 [options.plan, "verify", path("run.dsplan")],
                 [options.interpret, path("annotated.mlir"), *inputs, *theirs],
                 [options.run, path("run.dsplan"), *inputs, *ours]):
        code, text = run(step)
        if code:
            return f"exit status {code} of {' '.join(step)}\n{text}"
    for i in range(outputs):
        a, b = np.load(path(f"ours{i}.npy")), np.load(path(f"theirs{i}.npy"))
        largest = np.abs(b).max(initial=1.0)
        difference = np.abs(a.astype(np.float64) - b).max(initial=0.0)
        if a.shape != b.shape or not difference <= 2e-5 * largest:
            return f"output {i} differs by {difference} of {largest}, shapes {a.shape} and {b.shape}"
    _, text = run([options.plan, "print", path("run.dsplan")])
    instructions.update(set(re.findall(r"^\s+\d+: (\w+)\(", text, re.M)))
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("opt", "interpret", "plan", "run", "folder"):
        parser.add_argument(name)
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 50], metavar=("FIRST", "LAST"))
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    failures, instructions = 0, collections.Counter()
    for seed in range(*options.seeds):
        error = check(Program(seed), options, seed, instructions)
        if error:
            failures += 1
            print(f"seed {seed}: {error}")
    print("instructions:", ", ".join(f"{kind} {count}" for kind, count in sorted(instructions.items())))
    programs = options.seeds[1] - options.seeds[0]
    print(f"{programs - failures} of {programs} plans equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
