"""Collectives of the interpreter on random meshes against numpy.

Meshes of two or three axes with sizes that are no powers of two, groups over one
or two axes in any order, and sub-axes. The oracle here finds the groups by
coordinates of its own.
"""

import os
import pathlib
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
INTERPRET = pathlib.Path(os.environ.get("TESTED_BUILD", ROOT / "build")) / "bin" / "dshard-interpret"


class Digit:
    """A whole axis, or the factor of `size` after the major factor `pre` of it."""

    def __init__(self, axis, total, pre, size):
        self.axis, self.total, self.pre, self.size = axis, total, pre, size

    def __str__(self):
        whole = self.pre == 1 and self.size == self.total
        return f'"{self.axis}"' if whole else f'"{self.axis}":({self.pre}){self.size}'

    def of(self, coordinates):
        return coordinates[self.axis] // (self.total // (self.pre * self.size)) % self.size


def draw_mesh(random):
    names = sorted(random.choice(3, random.integers(2, 4), replace=False))
    while True:
        mesh = {["dp_shard", "cp", "tp"][i]: int(random.choice([2, 3, 4, 6])) for i in names}
        if np.prod(list(mesh.values())) <= 24:
            return mesh


def draw_axes(mesh, random):
    axes = []
    for name in random.permutation(list(mesh))[: random.integers(1, 3)]:
        total = mesh[name]
        factors = [(1, total)] + [(p, s) for s in (2, 3) for p in (1, 2, 3) if total % (p * s) == 0 and s < total]
        pre, size = factors[random.integers(len(factors))]
        axes.append(Digit(str(name), total, pre, size))
    return axes


def coordinates(rank, mesh):
    result = {}
    for name in reversed(mesh):
        result[name] = rank % mesh[name]
        rank //= mesh[name]
    return result


def group_of(rank, mesh, axes):
    """The ranks that differ from `rank` in these digits alone, by their index in them."""

    def rest(r):
        place = coordinates(r, mesh)
        for digit in axes:
            place[digit.axis] -= digit.of(place) * (digit.total // (digit.pre * digit.size))
        return place

    def index(r):
        number = 0
        for digit in axes:
            number = number * digit.size + digit.of(coordinates(r, mesh))
        return number

    world = int(np.prod(list(mesh.values())))
    return sorted((r for r in range(world) if rest(r) == rest(rank)), key=index)


def expected(op, blocks, mesh, axes, flags):
    results = []
    for rank in range(len(blocks)):
        group = group_of(rank, mesh, axes)
        me, n = group.index(rank), len(group)
        members = [blocks[r] for r in group]
        if op == "all_gather":
            results.append(np.concatenate(members, flags["dim"]))
        elif op == "all_reduce":
            results.append(flags["function"](members, axis=0))
        elif op == "reduce_scatter":
            results.append(np.split(flags["function"](members, axis=0), n, flags["dim"])[me])
        elif op == "all_to_all":
            results.append(np.concatenate([np.split(m, n, flags["dim"])[me] for m in members], 1 - flags["dim"]))
        elif op == "broadcast":
            results.append(members[flags["root"] % n])
        elif op == "permute":
            results.append(members[(me - flags["shift"]) % n])
        elif op == "local_slice":
            results.append(np.split(blocks[rank], n, flags["dim"])[me])
    return results


def text_of(op, n, flags, over):
    kind, dim = flags.get("kind"), flags.get("dim")
    middle = {
        "all_gather": f"%x dims [{dim}]",
        "all_reduce": f"{kind} %x",
        "reduce_scatter": f"{kind} %x dims [{dim}]",
        "all_to_all": f"%x split {dim} concat {1 - (dim or 0)}",
        "broadcast": f"%x root {flags.get('root', 0) % n}",
        "permute": f"%x shift {flags.get('shift')}",
        "local_slice": f"%x dim {dim}",
    }[op]
    return f"dshard.{op} {middle} over {over} why \"test\""


@pytest.mark.parametrize("seed", range(20))
def test_collectives(seed, tmp_path):
    random = np.random.default_rng(seed)
    mesh = draw_mesh(random)
    axes = draw_axes(mesh, random)
    world = int(np.prod(list(mesh.values())))
    n = int(np.prod([digit.size for digit in axes]))
    block = (n, 2 * n)
    blocks = [random.integers(-9, 9, block).astype(np.float64) for _ in range(world)]
    over = "[" + ", ".join(map(str, axes)) + "]"
    all_axes = ", ".join(f'"{name}"' for name in mesh)
    sharding = f"dshard.sharding = #dshard.sharding<[{{{all_axes}}}, {{}} ]>"
    kinds = {"sum": np.sum, "max": np.max, "min": np.min, "mean": np.mean, "product": np.prod}
    cases = [("all_gather", {"dim": d}) for d in (0, 1)]
    cases += [("all_reduce", {"kind": k, "function": f}) for k, f in kinds.items()]
    cases += [("reduce_scatter", {"kind": "sum", "function": np.sum, "dim": d}) for d in (0, 1)]
    cases += [("all_to_all", {"dim": d}) for d in (0, 1)]
    cases += [("broadcast", {"root": 1}), ("permute", {"shift": 1}), ("permute", {"shift": n - 1})]
    cases += [("local_slice", {"dim": d}) for d in (0, 1)]

    def tensor(shape, ranks=1):
        return f"tensor<{shape[0] * ranks}x{shape[1]}xf64>"

    body, results, want = [], [], []
    for i, (op, flags) in enumerate(cases):
        value = expected(op, blocks, mesh, axes, flags)
        body.append(f"  %r{i} = {text_of(op, n, flags, over)} : ({tensor(block)}) -> {tensor(value[0].shape)}")
        results.append(f"{tensor(value[0].shape)} {{dshard.global = {tensor(value[0].shape, world)}, {sharding}}}")
        want.append(np.concatenate(value))
    kinds_of_results = ", ".join(r.split(" {")[0] for r in results)
    sizes = ", ".join(f'"{name}"={size}' for name, size in mesh.items())
    (tmp_path / "op.mlir").write_text(
        f"module attributes {{dshard.mesh = #dshard.mesh<{sizes}>}} {{\n"
        f"func.func @run(%x: {tensor(block)} {{dshard.global = {tensor(block, world)}, {sharding}}})\n"
        f"    -> ({', '.join(results)}) attributes {{dshard.spmd}} {{\n"
        + "\n".join(body)
        + f"\n  return {', '.join(f'%r{i}' for i in range(len(cases)))} : {kinds_of_results}\n}}\n}}\n"
    )
    np.save(tmp_path / "x.npy", np.concatenate(blocks))
    command = [str(INTERPRET), "op.mlir", "--input", "0=x.npy"]
    for i in range(len(cases)):
        command += ["--output", f"{i}=y{i}.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for i, (op, flags) in enumerate(cases):
        ours = np.load(tmp_path / f"y{i}.npy")
        np.testing.assert_allclose(ours, want[i], rtol=1e-12, err_msg=f"{op} {flags} over {over} of {mesh}")
