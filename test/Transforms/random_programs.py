#!/usr/bin/env python3
"""Random programs x meshes x shardings, sharded and compared with themselves.

Each seed gives one program in the dshard dialect with random annotations and
reshards. dshard-opt resolves it and makes it local; dshard-interpret runs both
forms on all ranks against the annotated one, in fp64. Any failure prints the
seed, the program and the tool's message. Ends with the coverage: programs per op
and collectives per kind.

usage: random_programs.py DSHARD_OPT DSHARD_INTERPRET FOLDER [--seeds FIRST LAST]
"""
import argparse
import collections
import os
import random
import re
import subprocess
import sys

RESOLVE = ["--dshard-verify-annotated", "--dshard-pad", "--dshard-propagate", "--dshard-insert-reshards",
           "--dshard-verify-partial", "--dshard-verify-resolved"]
LOCAL = ["--dshard-split-pipeline", "--dshard-decompose-reshards", "--dshard-partition", "--canonicalize",
         "--dshard-fold-collectives", "--dshard-bucket-collectives", "--dshard-verify-local"]
KINDS = ["all_gather", "all_reduce", "reduce_scatter", "all_to_all", "local_slice"]
SIZES = [2, 4, 8, 12]


def tensor(shape, element="f32"):
    return "tensor<" + "".join(f"{size}x" for size in shape) + element + ">"


class Program:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.mesh = {name: size for name, size in (("dp_shard", self.random.choice([1, 2, 3])), ("cp", self.random.choice([1, 1, 2])),
                                                   ("tp", self.random.choice([2, 4]))) if size > 1}
        self.arguments = []
        self.lines = []
        self.values = []  # (name, shape), all f32
        self.ops = collections.Counter()
        self.count = 0

    # Shardings.

    def sharding(self, shape, may_be_open):
        axes = []
        for name, size in self.mesh.items():
            if size == 4 and self.random.random() < 0.4:
                axes += [(f'"{name}":(1)2', 2), (f'"{name}":(2)2', 2)]
            else:
                axes.append((f'"{name}"', size))
        self.random.shuffle(axes)
        dims = [[] for _ in shape]
        rest = list(shape)
        for text, size in axes:
            if not shape or self.random.random() < 0.4:
                continue
            dim = self.random.randrange(len(shape))
            if rest[dim] % size == 0:
                dims[dim].append(text)
                rest[dim] //= size
        words = []
        for dim in dims:
            if may_be_open and self.random.random() < 0.4:
                dim = dim + ["?"]
            words.append("{" + ", ".join(dim) + "}")
        return "<[" + ", ".join(words) + " ]>"

    # Values.

    def new(self):
        self.count += 1
        return f"%v{self.count}"

    def argument(self, shape, element="f32", role="input"):
        name = f"%a{len(self.arguments)}"
        attrs = f'dshard.name = "{name[1:]}", dshard.role = #dshard.role<{role}>'
        if self.random.random() < 0.6:
            attrs += f", dshard.sharding = #dshard.sharding{self.sharding(shape, False)}"
        self.arguments.append(f"    {name}: {tensor(shape, element)} {{{attrs}}}")
        return name

    def pick(self, condition=lambda shape: True):
        found = [value for value in self.values if condition(value[1])]
        if found and self.random.random() < 0.85:
            return self.random.choice(found)
        for _ in range(100):
            shape = [self.random.choice(SIZES) for _ in range(self.random.randint(1, 4))]
            if condition(shape):
                break
        else:
            return None
        value = (self.argument(shape), shape)
        self.values.append(value)
        return value

    def other(self, shape, element="f32"):
        """An operand of a given shape: a value that has it, or a parameter."""
        found = [name for name, own in self.values if own == list(shape)]
        if element == "f32" and found and self.random.random() < 0.5:
            return self.random.choice(found)
        return self.argument(shape, element, "param" if element == "f32" else "input")

    def emit(self, op, operands, operand_types, shape, attrs="", element="f32", more=()):
        name = self.new()
        text = f'path = "m{self.count}", part = #dshard.part<forward>'
        if attrs:
            text = attrs + ", " + text
        shapes = [(shape, element), *more]
        if self.random.random() < 0.25:
            text += ", dshard.shardings = [" + ", ".join(f"#dshard.sharding{self.sharding(own, True)}" for own, _ in shapes) + "]"
        results = ", ".join(tensor(own, kind) for own, kind in shapes)
        if more:
            results = f"({results})"
        left = ", ".join([name, *(self.new() for _ in more)])
        self.lines.append(f"  {left} = dshard.{op} {', '.join(operands)} {{{text}}} : ({', '.join(operand_types)}) -> {results}")
        self.ops[op] += 1
        if element == "f32":
            self.values.append((name, list(shape)))
        return name

    # One op each.

    def unary(self):
        name, shape = self.pick()
        self.emit(self.random.choice(["gelu", "tanh", "neg", "silu", "sigmoid", "cos"]), [name], [tensor(shape)], shape)

    def binary(self):
        name, shape = self.pick()
        other = list(shape)
        if self.random.random() < 0.3:
            other = other[self.random.randrange(len(other)):]
        elif self.random.random() < 0.3:
            other[self.random.randrange(len(other))] = 1
        right = self.other(other)
        self.emit(self.random.choice(["add", "sub", "mul", "swiglu", "max"]), [name, right], [tensor(shape), tensor(other)], shape)

    def matmul(self):
        name, shape = self.pick(lambda shape: len(shape) >= 2)
        columns = self.random.choice(SIZES)
        transpose = self.random.random() < 0.5
        batch = shape[:-2] if self.random.random() < 0.3 else []
        weight = batch + ([columns, shape[-1]] if transpose else [shape[-1], columns])
        self.emit("matmul", [name, self.other(weight)], [tensor(shape), tensor(weight)], shape[:-1] + [columns],
                  "transpose_rhs" if transpose else "")

    def norm(self):
        name, shape = self.pick()
        self.emit("rms_norm", [name, self.other(shape[-1:])], [tensor(shape), tensor(shape[-1:])], shape, "epsilon = 1.0e-3 : f64")

    def softmax(self):
        name, shape = self.pick()
        self.emit("softmax", [name], [tensor(shape)], shape, f"dim = {self.random.randrange(len(shape))} : i64")

    def reduce(self):
        name, shape = self.pick(lambda shape: len(shape) >= 2)
        dims = sorted(self.random.sample(range(len(shape)), self.random.randint(1, len(shape) - 1)))
        keep = self.random.random() < 0.4
        result = [1 if dim in dims else size for dim, size in enumerate(shape) if keep or dim not in dims]
        kind = self.random.choice(["sum", "max", "min", "mean"])
        self.emit("reduce", [name], [tensor(shape)], result,
                  f"kind = #dshard<reduction {kind}>, dims = array<i64: {', '.join(map(str, dims))}>" + (", keep_dims" if keep else ""))

    def reshape(self):
        name, shape = self.pick()
        result = list(shape)
        if len(result) >= 2 and self.random.random() < 0.5:
            at = self.random.randrange(len(result) - 1)
            result[at:at + 2] = [result[at] * result[at + 1]]
        else:
            at = self.random.randrange(len(result))
            factor = self.random.choice([n for n in range(1, result[at] + 1) if result[at] % n == 0])
            result[at:at + 1] = [factor, result[at] // factor]
        self.emit("reshape", [name], [tensor(shape)], result)

    def transpose(self):
        name, shape = self.pick(lambda shape: len(shape) >= 2)
        order = self.random.sample(range(len(shape)), len(shape))
        self.emit("transpose", [name], [tensor(shape)], [shape[dim] for dim in order], f"permutation = array<i64: {', '.join(map(str, order))}>")

    def broadcast_to(self):
        name, shape = self.pick(lambda shape: len(shape) <= 3)
        self.emit("broadcast_to", [name], [tensor(shape)], [self.random.choice(SIZES), *shape])

    def concat(self):
        name, shape = self.pick()
        dim = self.random.randrange(len(shape))
        result = list(shape)
        result[dim] *= 2
        self.emit("concat", [name, self.other(shape)], [tensor(shape)] * 2, result, f"dim = {dim} : i64")

    def slice(self):
        name, shape = self.pick(lambda shape: max(shape) > 1)
        dim = max(range(len(shape)), key=lambda dim: shape[dim])
        starts, strides, result = [0] * len(shape), [1] * len(shape), list(shape)
        result[dim] //= 2
        starts[dim] = self.random.choice([0, shape[dim] - result[dim]])
        self.emit("slice", [name], [tensor(shape)], result,
                  f"starts = array<i64: {', '.join(map(str, starts))}>, strides = array<i64: {', '.join(map(str, strides))}>")

    def pad(self):
        name, shape = self.pick()
        low, high = [0] * len(shape), [0] * len(shape)
        dim = self.random.randrange(len(shape))
        low[dim], high[dim] = self.random.choice([(1, 1), (0, 2), (2, 0)])
        result = list(shape)
        result[dim] += 2
        self.emit("pad", [name], [tensor(shape)], result,
                  f"low = array<i64: {', '.join(map(str, low))}>, high = array<i64: {', '.join(map(str, high))}>, value = 0.5 : f64")

    def gather(self):
        table, ids = [self.random.choice([8, 12, 16]), self.random.choice(SIZES)], [self.random.choice(SIZES) for _ in range(self.random.randint(1, 2))]
        self.emit("gather", [self.other(table), self.argument(ids, "i64")], [tensor(table), tensor(ids, "i64")], ids + table[1:], "dim = 0 : i64")

    def iota(self):
        shape = [self.random.choice(SIZES) for _ in range(self.random.randint(1, 3))]
        self.emit("iota", [], [], shape, f"dim = {self.random.randrange(len(shape))} : i64, start = 0.125 : f64, step = 0.25 : f64")

    def constant(self):
        shape = [self.random.choice(SIZES) for _ in range(2)]
        rows = ", ".join("[" + ", ".join(f"{self.random.random():.3f}" for _ in range(shape[1])) + "]" for _ in range(shape[0]))
        name = self.new()
        self.lines.append(f"  {name} = dshard.constant dense<[{rows}]> : {tensor(shape)}")
        self.ops["constant"] += 1
        self.values.append((name, shape))

    def attention(self):
        batch, length, width = self.random.choice([2, 4]), self.random.choice([4, 8]), self.random.choice([4, 8])
        kv = self.random.choice([1, 2, 4])
        heads = kv * self.random.choice([1, 2, 4])
        query, key = [batch, heads, length, width], [batch, kv, length, width]
        q, k, v = self.other(query), self.other(key), self.other(key)
        if self.random.random() < 0.5:
            table = [1, length, width // 2]
            q = self.emit("rotary", [q, self.other(table), self.other(table)], [tensor(query), tensor(table), tensor(table)], query)
        operands, types = [q, k, v], [tensor(query), tensor(key), tensor(key)]
        if self.random.random() < 0.5:
            operands.append(self.argument([batch, length], "i1"))
            types.append(tensor([batch, length], "i1"))
        self.emit("attention", operands, types, query, "scale = 0.5 : f64" + (", causal" if self.random.random() < 0.5 else ""),
                  more=[(query[:3], "f32")])

    def select(self):
        name, shape = self.pick()
        condition = self.argument(shape, "i1")
        self.emit("select", [condition, name, self.other(shape)], [tensor(shape, "i1"), tensor(shape), tensor(shape)], shape)

    def reshard(self):
        name, shape = self.pick()
        result = self.new()
        self.lines.append(f'  {result} = dshard.reshard {name} to {self.sharding(shape, False)} why "test" '
                          f'{{path = "m{self.count}", part = #dshard.part<forward>}} : {tensor(shape)}')
        self.ops["reshard"] += 1
        self.values.append((result, shape))

    def build(self):
        makers = [self.unary, self.binary, self.matmul, self.matmul, self.norm, self.softmax, self.reduce, self.reshape, self.reshape,
                  self.transpose, self.broadcast_to, self.concat, self.slice, self.pad, self.gather, self.iota, self.constant,
                  self.attention, self.select, self.reshard, self.reshard]
        for _ in range(self.random.randint(3, 14)):
            self.values = [value for value in self.values if len(value[1]) <= 5]
            self.random.choice(makers)()
        outputs = self.values[-3:]
        results = ", ".join(f"{tensor(shape)}" + (f" {{dshard.sharding = #dshard.sharding{self.sharding(shape, False)}}}"
                                                  if self.random.random() < 0.3 else "") for _, shape in outputs)
        mesh = ", ".join(f'"{name}"={size}' for name, size in self.mesh.items())
        return (f"module attributes {{dshard.mesh = #dshard.mesh<{mesh}>}} {{\nfunc.func @run(\n" + ",\n".join(self.arguments)
                + f")\n    -> ({results}) {{\n" + "\n".join(self.lines)
                + f"\n  return {', '.join(name for name, _ in outputs)} : {', '.join(tensor(shape) for _, shape in outputs)}\n}}\n}}\n")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("opt")
    parser.add_argument("interpret")
    parser.add_argument("folder")
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 50], metavar=("FIRST", "LAST"))
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    failures, ops, collectives, meshes = 0, collections.Counter(), collections.Counter(), collections.Counter()
    for seed in range(*options.seeds):
        program = Program(seed)
        paths = {phase: os.path.join(options.folder, f"{seed}.{phase}.mlir") for phase in ("annotated", "resolved", "local")}
        with open(paths["annotated"], "w") as file:
            file.write(program.build())
        steps = [[options.opt, paths["annotated"], *RESOLVE, "-o", paths["resolved"]],
                 [options.opt, paths["resolved"], *LOCAL, "-o", paths["local"]],
                 [options.interpret, paths["annotated"], "--against", paths["resolved"], f"--random-inputs={seed}"],
                 [options.interpret, paths["annotated"], "--against", paths["local"], f"--random-inputs={seed}"]]
        for step in steps:
            code, text = run(step)
            if code:
                failures += 1
                print(f"seed {seed} failed with {code}: {' '.join(step)}\n{text}")
                break
        else:
            ops.update(program.ops)
            meshes[" ".join(f"{name}={size}" for name, size in program.mesh.items())] += 1
            with open(paths["local"]) as file:
                for kind in re.findall(r"dshard\.(\w+)", file.read()):
                    if kind in KINDS:
                        collectives[kind] += 1
            for path in paths.values():
                os.remove(path)
    print("ops:", ", ".join(f"{name} {count}" for name, count in sorted(ops.items())))
    print("collectives:", ", ".join(f"{kind} {collectives[kind]}" for kind in KINDS))
    print("meshes:", ", ".join(f"{mesh} {count}" for mesh, count in sorted(meshes.items())))
    programs = options.seeds[1] - options.seeds[0]
    print(f"{programs - failures} of {programs} programs equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
