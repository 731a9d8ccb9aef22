"""Resolved programs of reshards between every kind of pair of layouts.

They cover dshard-decompose-reshards and dshard-partition: a value that has layout A,
by its argument or as the pending result of an op, is resharded to B. `PAIRS` lists
all pairs of kinds that some collectives can do; a program takes the next dozen of
them, with random axes, dims and a random mesh.
"""

import random

from program import AXES, Argument, Node, Piece, Program, Sharding, Value, random_mesh, random_sharding

MESHES = [  # two axes, one of them with factors, for every kind of layout
    {"dp_shard": 2, "tp": 4},
    {"dp_replicate": 4, "cp": 2},
    {"cp": 2, "tp": 4},
    {"dp_replicate": 1, "dp_shard": 4, "tp": 2},
    {"dp_shard": 2, "cp": 1, "tp": 4},
]
ONE_AXIS = [{"tp": 8}, {"dp_shard": 3, "tp": 2}, {"tp": 3}, {"dp_replicate": 2, "dp_shard": 2, "tp": 2}]
SHAPE = (24, 16, 48)
PER_PROGRAM = 12

# Kind of layout -> (sharding of a value of SHAPE) from two axes a, b, factors of one of
# them, and two dims i, j. Entries of a dict: dim -> pieces, or the kind of a reduction.
KINDS = {
    "replicated": lambda a, b, f, i, j: {},
    "dim": lambda a, b, f, i, j: {i: [a]},
    "other dim": lambda a, b, f, i, j: {j: [a]},
    "dim over another axis": lambda a, b, f, i, j: {i: [b]},
    "two dims": lambda a, b, f, i, j: {i: [a], j: [b]},
    "two dims, exchanged": lambda a, b, f, i, j: {i: [b], j: [a]},
    "two axes": lambda a, b, f, i, j: {i: [a, b]},
    "two axes, exchanged": lambda a, b, f, i, j: {i: [b, a]},
    "major factor": lambda a, b, f, i, j: {i: [f[0]]},
    "minor factor": lambda a, b, f, i, j: {i: [f[1]]},
    "factors on two dims": lambda a, b, f, i, j: {i: [f[0]], j: [f[1]]},
    "factors exchanged": lambda a, b, f, i, j: {i: [f[1], f[0]]},
    "partial sum": lambda a, b, f, i, j: {"sum": [a]},
    "partial max": lambda a, b, f, i, j: {"max": [a]},
    "partial min": lambda a, b, f, i, j: {"min": [a]},
    "partial sum of a dim": lambda a, b, f, i, j: {"sum": [a], i: [b]},
    "partial max of a dim": lambda a, b, f, i, j: {"max": [a], j: [b]},
    "partial min of a dim": lambda a, b, f, i, j: {"min": [b], i: [a]},
    "partial sum over two axes": lambda a, b, f, i, j: {"sum": [a, b]},
    "partial sum over a factor": lambda a, b, f, i, j: {"sum": [f[1]], i: [f[0]]},
}


def is_partial(kind):
    return kind.startswith("partial")


# No collective makes a value partial, so a partial target has a source with more of it.
PAIRS = [(source, target) for source in KINDS for target in KINDS if not is_partial(target)] + [
    ("partial sum", "partial sum of a dim"),
    ("partial max", "partial max of a dim"),
    ("partial sum of a dim", "partial sum"),
    ("partial max of a dim", "partial max"),
    ("partial sum over two axes", "partial sum"),
    ("partial sum over two axes", "partial sum of a dim"),
]


def layout_of(kind, *arguments):
    sharding = Sharding.replicated(len(SHAPE))
    for key, pieces in KINDS[kind](*arguments).items():
        if isinstance(key, int):
            sharding.dims[key] = list(pieces)
        else:
            sharding.partial, sharding.kind = list(pieces), key
    return sharding


class Builder:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.program = Program(seed, dict(self.random.choice(MESHES)), resolved=True)

    def choose(self):
        """Two axes, the factors of one, and two dims."""
        mesh = self.program.mesh
        a, b = self.random.sample([Piece(name, 1, size) for name, size in mesh.items() if size > 1], 2)
        long = a if a.size == 4 else b
        factors = (Piece(long.name, 1, 2), Piece(long.name, 2, 2))
        i, j = self.random.sample(range(len(SHAPE)), 2)
        return a, b, factors, i, j

    def source(self, sharding):
        """A value that has the layout: an argument, or what an op leaves pending."""
        name = f"a{len(self.program.arguments)}"
        dtype = self.random.choice(["f32"] * 5 + ["f64", "bf16", "i64"])
        low, high = (-9, 9) if dtype == "i64" else (-1.0, 1.0)
        if not sharding.partial or self.random.random() < 0.3:
            value = Argument(SHAPE, dtype, low, high, name=name, sharding=sharding)
            self.program.arguments.append(value)
            return value
        # Reduces a leading dim that is sharded over the pending axes.
        count = 1
        for piece in sharding.partial:
            count *= piece.size
        dims = [list(sharding.partial)] + sharding.dims
        argument = Argument(
            (count, *SHAPE), dtype, low, high, name=name, sharding=Sharding(dims, [False] * len(dims))
        )
        self.program.arguments.append(argument)
        value = Value(SHAPE, dtype, sharding=sharding)
        words = f"kind = #dshard<reduction {sharding.kind}>, dims = array<i64: 0>"
        self.program.nodes.append(Node("reduce", [argument], [value], words))
        return value

    def add(self, pair):
        chosen = self.choose()
        source, target = (layout_of(kind, *chosen) for kind in pair)
        value = self.source(source)
        result = Value(value.shape, value.dtype)
        self.program.nodes.append(Node("reshard", [value], [result], target=target))
        self.program.outputs.append((result, target))
        self.program.pairs.add(pair)


def generate(seed, number):
    """The `number`-th program of this family: the next PER_PROGRAM of the shuffled pairs."""
    order = list(PAIRS)
    random.Random(0).shuffle(order)
    builder = Builder(seed)
    start = number * PER_PROGRAM
    for k in range(PER_PROGRAM):
        builder.add(order[(start + k) % len(order)])
    return builder.program


def generate_random(seed):
    """Reshards in a row between random layouts on any mesh; of no named kind."""
    chooser = random.Random(seed)
    mesh = random_mesh(chooser) if chooser.random() < 0.7 else dict(chooser.choice(ONE_AXIS))
    mesh = {name: mesh[name] for name in AXES if name in mesh}
    program = Program(seed, mesh, resolved=True)
    for count in range(chooser.randint(1, 4)):
        shape = tuple(chooser.choice([1, 4, 6, 8, 12, 16, 24]) for _ in range(chooser.randint(1, 3)))
        value = Argument(shape, "f32", name=f"a{count}", sharding=random_sharding(chooser, mesh, shape))
        program.arguments.append(value)
        for _ in range(chooser.randint(1, 4)):
            target = random_sharding(chooser, mesh, shape, chooser.choice([0.4, 0.8, 1.0]))
            result = Value(shape, "f32")
            program.nodes.append(Node("reshard", [value], [result], target=target))
            value = result
            if chooser.random() < 0.5:
                program.outputs.append((value, target))
        program.outputs.append((value, target))
    return program
