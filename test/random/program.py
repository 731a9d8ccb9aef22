"""Programs of the random tests: values, ops and shardings, printed as MLIR.

A program is one function of a module `@pSEED`, so that many go through one run of
dshard-opt. Inputs are arrays drawn from the program's seed; every value knows an
interval that holds its elements, so that no op leaves its domain.
"""

import copy
import dataclasses
import math
import zlib

import numpy as np

AXES = ["dp_replicate", "dp_shard", "cp", "tp"]  # canonical order; pp shards no tensor
NUMPY = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "i64": np.int64, "i32": np.int32, "i1": np.bool_}
FLOATS = ("f32", "f64", "f16", "bf16")
BYTES = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2}
FAN_IN = 3  # random weights are uniform in +- sqrt(3 / fan_in)
LINKS = ["", "", " intra", " inter"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A mesh axis or a factor of it: `size` that starts after a major factor `pre`."""

    name: str
    pre: int
    size: int

    def text(self, mesh):
        whole = self.pre == 1 and self.size == mesh[self.name]
        return f'"{self.name}"' + ("" if whole else f":({self.pre}){self.size}")

    def overlaps(self, other):
        return self.name == other.name and self.pre < other.pre * other.size and other.pre < self.pre * self.size


@dataclasses.dataclass
class Sharding:
    """Per dim a list of pieces, major to minor; open dims; pending pieces."""

    dims: list
    open: list
    partial: list = dataclasses.field(default_factory=list)
    kind: str = "sum"

    @staticmethod
    def replicated(rank):
        return Sharding([[] for _ in range(rank)], [False] * rank)

    def pieces(self):
        return [piece for dim in self.dims for piece in dim] + list(self.partial)

    def text(self, mesh):
        dims = []
        for pieces, is_open in zip(self.dims, self.open):
            words = [piece.text(mesh) for piece in pieces] + (["?"] if is_open else [])
            dims.append("{" + ", ".join(words) + "}")
        partial = ""
        if self.partial:
            partial = ", partial = {" + ", ".join(p.text(mesh) for p in self.partial) + f"}}, kind = {self.kind}"
        return "<[" + ", ".join(dims) + " ]" + partial + ">"

    def fits(self, shape):
        return all(size % math.prod(p.size for p in pieces) == 0 for size, pieces in zip(shape, self.dims))


def tensor_type(shape, dtype):
    return "tensor<" + "".join(f"{size}x" for size in shape) + dtype + ">"


@dataclasses.dataclass(eq=False)
class Value:
    shape: tuple
    dtype: str
    low: float = -1.0
    high: float = 1.0
    exact: bool = True  # no rounding and no order of summation shows in it
    usable: bool = True  # may be an operand (an infinite log-sum-exp may not)
    sharding: object = None

    @property
    def type(self):
        return tensor_type(self.shape, self.dtype)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def largest(self):
        return max(abs(self.low), abs(self.high))

    @property
    def is_float(self):
        return self.dtype in FLOATS


@dataclasses.dataclass(eq=False)
class Argument(Value):
    name: str = ""
    role: str = "input"
    weight: bool = False  # stored in a file, so that passes may pad it: drawn, never given
    needs: str = ""  # "padding": some rows of a mask without a key

    def array(self, seed):
        """The input; None where the tool draws one in [-1, 1) or fills a weight."""
        if self.weight or (self.is_float and (self.low, self.high) == (-1.0, 1.0)):
            return None
        random = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        if self.dtype == "i1":
            mask = random.random(self.shape) < 0.7
            if self.needs == "padding" and random.random() < 0.5:
                mask[0] = False  # a batch that attends nothing
            return mask
        if self.is_float:
            values = random.uniform(self.low, self.high, self.shape)
            return values.astype(NUMPY.get(self.dtype, np.float32))
        return random.integers(int(self.low), int(self.high) + 1, self.shape).astype(NUMPY[self.dtype])


@dataclasses.dataclass(eq=False)
class Node:
    op: str
    operands: list
    results: list
    attributes: str = ""
    target: Sharding = None  # of a reshard
    reads: list = dataclasses.field(default_factory=list)  # arguments that it names, no operands
    # Of a repeat: the values its region starts with (the iteration first), its ops, and
    # what it yields. The region may read what lies outside.
    starts: list = dataclasses.field(default_factory=list)
    body: list = dataclasses.field(default_factory=list)
    yields: list = dataclasses.field(default_factory=list)

    def nested(self):
        """This op and those of its region."""
        return [self] + [inner for node in self.body for inner in node.nested()]

    def uses(self):
        """Whatever must be there for it."""
        return self.operands + self.reads + self.yields + [value for node in self.body for value in node.uses()]

    def text(self, names, mesh, path):
        inherent = f'path = "{path}", part = #dshard.part<forward>'
        left = ", ".join(names[result] for result in self.results)
        if self.op == "constant":
            return f"{left} = dshard.constant {self.attributes} : {self.results[0].type}"
        if self.op == "reshard":
            value = names[self.operands[0]]
            return (
                f"{left} = dshard.reshard {value} to {self.target.text(mesh)} "
                f'why "test {path}" {{{inherent}}} : {self.results[0].type}'
            )
        words = [word for word in (self.attributes, inherent) if word]
        if any(result.sharding for result in self.results):
            shardings = []
            for result in self.results:
                sharding = result.sharding
                if sharding is None:
                    sharding = Sharding([[] for _ in result.shape], [True] * len(result.shape))
                shardings.append("#dshard.sharding" + sharding.text(mesh))
            words.append("dshard.shardings = [" + ", ".join(shardings) + "]")
        operands = ", ".join(names[operand] for operand in self.operands)
        types = ", ".join(operand.type for operand in self.operands)
        results = ", ".join(result.type for result in self.results)
        if len(self.results) > 1 or self.op == "repeat":
            results = f"({results})"
        if self.op == "repeat":
            starts = ", ".join(f"{names[value]}: {value.type}" for value in self.starts)
            lines = [f"{left} = dshard.repeat {self.attributes} init({operands}) {{{', '.join(words[1:])}}} : ({types}) -> {results} {{"]
            lines.append(f"  ^bb0({starts}):")
            lines += ["    " + node.text(names, mesh, f"{path}.{i}") for i, node in enumerate(self.body)]
            yields = ", ".join(names[value] for value in self.yields)
            lines.append(f"    dshard.yield {yields} : {', '.join(value.type for value in self.yields)}")
            return "\n".join(lines) + "\n  }"
        return f"{left} = dshard.{self.op} {operands} {{{', '.join(words)}}} : ({types}) -> {results}"


@dataclasses.dataclass
class Program:
    seed: int
    mesh: dict  # axis -> size, canonical order
    links: dict = dataclasses.field(default_factory=dict)  # axis -> " intra" or " inter"
    flags: list = dataclasses.field(default_factory=list)  # of the passes (checker.py)
    arguments: list = dataclasses.field(default_factory=list)
    nodes: list = dataclasses.field(default_factory=list)
    outputs: list = dataclasses.field(default_factory=list)  # (value, sharding or None)
    resolved: bool = False  # of phase resolve: every value has a closed sharding
    gradient: bool = False  # what is compared is its vector-Jacobian product @run_vjp
    pairs: set = dataclasses.field(default_factory=set)  # pairs of layouts it reshards between

    @property
    def name(self):
        return f"p{self.seed}"

    @property
    def ranks(self):
        return math.prod(self.mesh.values())

    def all_nodes(self):
        return [inner for node in self.nodes for inner in node.nested()]

    def clone(self):
        return copy.deepcopy(self)

    def remove_dead(self):
        """Drops ops and arguments that no output depends on."""
        live = {id(value) for value, _ in self.outputs}
        kept = []
        for node in reversed(self.nodes):
            if any(id(result) in live for result in node.results):
                kept.append(node)
                live.update(id(value) for value in node.uses())
        self.nodes = kept[::-1]
        self.arguments = [a for a in self.arguments if id(a) in live]

    def text(self):
        names = {}
        for argument in self.arguments:
            names[argument] = "%" + argument.name
        count = 0
        for node in self.all_nodes():
            for value in node.results + node.starts:
                names[value] = f"%v{count}"
                count += 1
        lines = []
        for argument in self.arguments:
            words = [f'dshard.name = "{argument.name}"', f"dshard.role = #dshard.role<{argument.role}>"]
            if argument.sharding:
                words.append("dshard.sharding = #dshard.sharding" + argument.sharding.text(self.mesh))
            if argument.weight:
                length = argument.size * BYTES[argument.dtype]
                words.append(
                    f'dshard.weight = #dshard.weight<"{argument.name}", "absent.data", offset = 0, length = {length}, '
                    f"type = {argument.type}, fan_in = {FAN_IN}>"
                )
            lines.append(f"    {names[argument]}: {argument.type} {{{', '.join(words)}}}")
        results = []
        for index, (value, sharding) in enumerate(self.outputs):
            words = [f'dshard.name = "o{index}"'] if self.gradient else []
            if sharding:
                words.append("dshard.sharding = #dshard.sharding" + sharding.text(self.mesh))
            results.append(value.type + (f" {{{', '.join(words)}}}" if words else ""))
        mesh = ", ".join(f'"{name}"={size}{self.links.get(name, "")}' for name, size in self.mesh.items())
        body = "\n".join("  " + node.text(names, self.mesh, f"m{i}") for i, node in enumerate(self.nodes))
        values = ", ".join(names[value] for value, _ in self.outputs)
        types = ", ".join(value.type for value, _ in self.outputs)
        return (
            f"module @{self.name} attributes {{dshard.mesh = #dshard.mesh<{mesh}>}} {{\n"
            f"func.func @run(\n" + ",\n".join(lines) + f")\n    -> ({', '.join(results)}) {{\n"
            f"{body}\n  return {values} : {types}\n}}\n}}\n"
        )

    @property
    def entry(self):
        return "run_vjp" if self.gradient else "run"

    def drawn_inputs(self):
        """Names of inputs that the tools draw themselves: arguments and cotangents."""
        given = self.arrays()
        names = [a.name for a in self.arguments if not a.weight and a.name not in given]
        return names + [f"o{i}.cotangent" for i, (v, _) in enumerate(self.outputs) if self.gradient and v.is_float]

    def output_names(self):
        if self.gradient:
            return [f"{a.name}.grad" for a in self.arguments if a.is_float]
        return [str(i) for i in range(len(self.outputs))]

    def arrays(self):
        """Inputs that are not the tool's own random ones."""
        arrays = {argument.name: argument.array(self.seed) for argument in self.arguments}
        return {name: array for name, array in arrays.items() if array is not None}


def random_mesh(random, max_ranks=8):
    """Axes of sizes 1, 2, 3, 4, 8 with 2 to max_ranks ranks; some axes absent."""
    while True:
        mesh = {}
        for name in AXES:
            if random.random() < 0.6:
                mesh[name] = random.choice([1, 2, 2, 2, 3, 4, 4, 8])
        if 2 <= math.prod(mesh.values()) <= max_ranks:
            return mesh


def mesh_pieces(random, mesh, split=0.35):
    """The mesh as disjoint pieces: axes of 4 and 8 are sometimes cut in factors."""
    pieces = []
    for name, size in mesh.items():
        if size in (4, 8) and random.random() < split:
            first = random.choice([2, 4]) if size == 8 else 2
            pieces += [Piece(name, 1, first), Piece(name, first, size // first)]
        elif size > 1:
            pieces.append(Piece(name, 1, size))
    return pieces


def random_sharding(random, mesh, shape, density=0.6, open_dims=0.0):
    """A legal sharding of a tensor; each piece of the mesh on a random dim that divides."""
    sharding = Sharding.replicated(len(shape))
    rest = list(shape)
    pieces = mesh_pieces(random, mesh)
    random.shuffle(pieces)
    for piece in pieces:
        dims = [dim for dim, size in enumerate(rest) if size % piece.size == 0]
        if not dims or random.random() > density:
            continue
        dim = random.choice(dims)
        # Neighbouring factors in order print merged; in another order they stay apart.
        sharding.dims[dim].append(piece)
        rest[dim] //= piece.size
    sharding.open = [random.random() < open_dims for _ in shape]
    return sharding
