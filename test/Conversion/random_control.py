#!/usr/bin/env python3
"""Random programs with states, scalars, repeats and branches, compiled to plans and run.

Each is a program of the phase `local` on two ranks: sharded inputs, states that it reads and
writes (also swapped, or one value for two), a scalar, nested repeats that carry values, branches
that the rank decides, operations that may work in place. Three steps of its plan must give what
three steps of the interpreter give in fp64. What it is about is who may overwrite what, and when.

usage: random_control.py DSHARD_OPT DSHARD_INTERPRET DSHARD_PLAN DSHARD_RUN FOLDER [--seeds FIRST LAST]
"""
import argparse
import collections
import os
import random
import subprocess
import sys

import numpy as np

T = "tensor<8x8xf32>"
SHARD = 'dshard.global = tensor<16x8xf32>, dshard.sharding = #dshard.sharding<[{"tp"}, {} ]>'
PLACE = 'path = "p", part = #dshard.part<forward>'


class Program:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.count = 0
        self.lines = []
        self.kinds = collections.Counter()
        self.branches = 0  # around the current op; ranks part there

    def name(self):
        self.count += 1
        return f"%v{self.count}"

    def emit(self, indent, text):
        name = self.name()
        self.lines.append("  " * indent + f"{name} = {text}")
        return name

    def operation(self, indent, pool):
        """One op on values of the pool; what it gives is bounded."""
        rng = self.rng
        kind = rng.choice(["add", "sub", "mul", "tanh", "matmul", "residual", "reduce", "reshape", "scalar", "rank",
                           "all_reduce" if not self.branches else "add"])
        self.kinds[kind] += 1
        a, b, c = (rng.choice(pool) for _ in range(3))
        if kind in ("add", "sub", "mul"):
            value = self.emit(indent, f"dshard.{kind} {a}, {b} {{{PLACE}}} : ({T}, {T}) -> {T}")
            if rng.random() < 0.5:
                return value
            return self.emit(indent, f"dshard.tanh {value} {{{PLACE}}} : ({T}) -> {T}")
        if kind == "tanh":
            return self.emit(indent, f"dshard.tanh {a} {{{PLACE}}} : ({T}) -> {T}")
        if kind in ("matmul", "residual"):
            flags = rng.choice(["", "transpose_lhs, ", "transpose_rhs, "])
            value = self.emit(indent, f"dshard.matmul {a}, {b} {{{flags}{PLACE}}} : ({T}, {T}) -> {T}")
            if kind == "residual":
                value = self.emit(indent, f"dshard.add {value}, {c} {{{PLACE}}} : ({T}, {T}) -> {T}")
            return self.emit(indent, f"dshard.tanh {value} {{{PLACE}}} : ({T}) -> {T}") if rng.random() < 0.7 else value
        if kind == "reduce":
            row = "tensor<1x8xf32>"
            total = self.emit(indent, f"dshard.reduce {a} {{kind = #dshard<reduction mean>, dims = array<i64: 0>, "
                                      f"keep_dims, {PLACE}}} : ({T}) -> {row}")
            return self.emit(indent, f"dshard.sub {b}, {total} {{{PLACE}}} : ({T}, {row}) -> {T}")
        if kind == "reshape":
            flat = "tensor<64xf32>"
            value = self.emit(indent, f"dshard.reshape {a} {{{PLACE}}} : ({T}) -> {flat}")
            if rng.random() < 0.5:
                value = self.emit(indent, f"dshard.neg {value} {{{PLACE}}} : ({flat}) -> {flat}")
            return self.emit(indent, f"dshard.reshape {value} {{{PLACE}}} : ({flat}) -> {T}")
        if kind == "all_reduce":
            return self.emit(indent, f'dshard.all_reduce mean {a} over ["tp"] why "w" {{{PLACE}}} : ({T}) -> {T}')
        if kind == "scalar":
            return self.emit(indent, f"dshard.mul {a}, %lr {{{PLACE}}} : ({T}, tensor<f32>) -> {T}")
        index = self.emit(indent, f'dshard.rank_index over ["tp"] {{{PLACE}}} : tensor<i64>')
        index = self.emit(indent, f"dshard.cast {index} {{{PLACE}}} : (tensor<i64>) -> tensor<f32>")
        return self.emit(indent, f"dshard.add {a}, {index} {{{PLACE}}} : ({T}, tensor<f32>) -> {T}")

    def block(self, indent, pool, length, depth, iteration=None):
        """Appends ops to the lines and their values to the pool."""
        rng = self.rng
        for _ in range(length):
            choice = rng.random()
            if depth and choice < 0.15:
                self.repeat(indent, pool, depth)
            elif depth and choice < 0.3:
                self.branch(indent, pool, depth)
            elif iteration and choice < 0.4:
                self.kinds["iteration"] += 1
                number = self.emit(indent, f"dshard.cast {iteration} {{{PLACE}}} : (tensor<i64>) -> tensor<f32>")
                pool.append(self.emit(indent, f"dshard.sub {rng.choice(pool)}, {number} {{{PLACE}}} : "
                                              f"({T}, tensor<f32>) -> {T}"))
            elif choice < 0.47:
                self.kinds["constant"] += 1
                pool.append(self.emit(indent, f"dshard.constant dense<{rng.choice(['0.0', '0.5'])}> : {T}"))
            else:
                pool.append(self.operation(indent, pool))

    def results(self, number):
        """Fresh names for the results of one op, and how they are written."""
        base = self.name()
        return base, [base] if number == 1 else [f"{base}#{i}" for i in range(number)]

    def repeat(self, indent, pool, depth):
        rng = self.rng
        self.kinds["repeat"] += 1
        number = rng.randint(1, 3)
        initial = [rng.choice(pool) for _ in range(number)]
        base, results = self.results(number)
        iteration, carried = self.name(), [self.name() for _ in range(number)]
        left = base if number == 1 else f"{base}:{number}"
        types = ", ".join([T] * number)
        self.lines.append("  " * indent + f"{left} = dshard.repeat {rng.randint(1, 3)} init({', '.join(initial)}) : "
                                          f"({types}) -> ({types}) {{")
        self.lines.append("  " * indent + f"^bb0({iteration}: tensor<i64>, "
                          + ", ".join(f"{c}: {T}" for c in carried) + "):")
        inner = pool + carried * 2
        self.block(indent + 1, inner, rng.randint(1, 4), depth - 1, iteration)
        recent = inner[len(pool):]
        yielded = [rng.choice(recent if rng.random() < 0.8 else inner) for _ in range(number)]
        self.lines.append("  " * (indent + 1) + f"dshard.yield {', '.join(yielded)} : {types}")
        self.lines.append("  " * indent + "}")
        pool += results

    def branch(self, indent, pool, depth):
        rng = self.rng
        self.kinds["if"] += 1
        number = rng.randint(1, 2)
        index = self.emit(indent, f'dshard.rank_index over ["tp"] {{{PLACE}}} : tensor<i64>')
        limit = self.emit(indent, f"dshard.constant dense<{rng.randint(0, 2)}> : tensor<i64>")
        condition = self.emit(indent, f"dshard.compare {index}, {limit} {{predicate = #dshard.predicate<lt>, {PLACE}}} "
                                      ": (tensor<i64>, tensor<i64>) -> tensor<i1>")
        base, results = self.results(number)
        left = base if number == 1 else f"{base}:{number}"
        types = ", ".join([T] * number)
        self.lines.append("  " * indent + f"{left} = dshard.if {condition} : (tensor<i1>) -> ({types}) {{")
        for side in range(2):
            inner = list(pool)
            self.branches += 1
            self.block(indent + 1, inner, rng.randint(0, 3), depth - 1)
            self.branches -= 1
            recent = inner[len(pool):] or inner
            yielded = [rng.choice(recent if rng.random() < 0.7 else inner) for _ in range(number)]
            self.lines.append("  " * (indent + 1) + f"dshard.yield {', '.join(yielded)} : {types}")
            self.lines.append("  " * indent + ("}" if side else "} else {"))
        pool += results

    def build(self):
        rng = self.rng
        states = [f"s{i}" for i in range(rng.randint(1, 3))]
        arguments = [f'%x{i}: {T} {{dshard.name = "x{i}", dshard.role = #dshard.role<input>, {SHARD}}}' for i in range(2)]
        arguments += [f'%{s}: {T} {{dshard.state = "{s}", dshard.role = #dshard.role<optimizer_state>, {SHARD}}}'
                      for s in states]
        arguments.append('%lr: tensor<f32> {dshard.scalar = "lr", dshard.role = #dshard.role<input>}')
        pool = ["%x0", "%x1"] + [f"%{s}" for s in states] * 2
        self.block(1, pool, rng.randint(4, 12), 2)
        written = [s for s in states if rng.random() < 0.9]
        self.outputs = rng.randint(1, 3)
        values = [rng.choice(pool[-6:] if rng.random() < 0.7 else pool) for _ in range(self.outputs + len(written))]
        if len(written) > 1 and rng.random() < 0.3:
            values[self.outputs:self.outputs + 2] = [f"%{written[1]}", f"%{written[0]}"]  # swapped
        results = [f'{T} {{dshard.name = "y{i}", {SHARD}}}' for i in range(self.outputs)]
        results += [f'{T} {{dshard.state = "{s}", {SHARD}}}' for s in written]
        order = list(range(len(values)))
        rng.shuffle(order)
        return "\n".join(
            ['module attributes {dshard.mesh = #dshard.mesh<"tp"=2>} {',
             f"func.func @step({', '.join(arguments)})",
             f"    -> ({', '.join(results[i] for i in order)}) attributes {{dshard.spmd}} {{",
             *self.lines,
             f"  return {', '.join(values[i] for i in order)} : {', '.join([T] * len(values))}",
             "}", "}", ""])


def run(command):
    process = subprocess.run(command, capture_output=True, text=True)
    return process.returncode, process.stdout + process.stderr


def check(seed, options, kinds):
    program = Program(seed)
    path = lambda name: os.path.join(options.folder, name)  # noqa: E731
    with open(path("local.mlir"), "w") as file:
        file.write(program.build())
    rng = np.random.default_rng(seed)
    common = ["--steps", "3", "--scalar", "lr=0.25"]
    for i in range(2):
        np.save(path(f"x{i}.npy"), rng.uniform(-1, 1, (3, 16, 8)).astype(np.float32))
        common += ["--input", f"x{i}={path(f'x{i}.npy')}"]
    outputs = lambda who: [f for i in range(program.outputs)  # noqa: E731
                           for f in ("--output", f"y{i}={path(f'{who}{i}.npy')}")]
    for step in ([options.opt, path("local.mlir"), "--from=local", "--to=plan", "--emit=plan", "-o", path("run.dsplan")],
                 [options.plan, "verify", path("run.dsplan")],
                 [options.interpret, path("local.mlir"), *common, *outputs("theirs")],
                 [options.run, path("run.dsplan"), *common, *outputs("ours")]):
        code, text = run(step)
        if code:
            return f"{' '.join(step)}\n{text}"
    for i in range(program.outputs):
        ours, theirs = np.load(path(f"ours{i}.npy")).astype(np.float64), np.load(path(f"theirs{i}.npy"))
        if ours.shape != theirs.shape:
            return f"y{i}: shape {ours.shape}, expected {theirs.shape}"
        bound = 1e-4 * np.maximum(1, np.abs(theirs).max())
        if not np.all(np.abs(ours - theirs) <= bound):
            step = np.argmax(np.abs(ours - theirs).reshape(3, -1).max(axis=1) > bound)
            return f"y{i} differs by {np.abs(ours - theirs).max()} from step {step} on"
    kinds.update(set(program.kinds))
    return None


def main():
    parser = argparse.ArgumentParser()
    for tool in ("opt", "interpret", "plan", "run"):
        parser.add_argument(tool)
    parser.add_argument("folder")
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 25))
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    kinds, failed = collections.Counter(), 0
    for seed in range(*options.seeds):
        if error := check(seed, options, kinds):
            failed += 1
            print(f"seed {seed}: {error}")
            if failed == 3:
                break
    total = options.seeds[1] - options.seeds[0]
    print(f"{total - failed} of {total} plans equal;", ", ".join(f"{k} {n}" for k, n in sorted(kinds.items())))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
