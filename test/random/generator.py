"""Random annotated programs: 2 to 40 ops over every compute op of the dialect.

`generate(seed)` gives the same program for the same seed. Each op has a maker in
`MAKERS`; test/random/op_coverage.py fails when an op of the .td files has none.
"""

import math
import random

import program as p
from program import Argument, Node, Piece, Program, Sharding, Value, random_mesh, random_sharding

SIZES = [1, 1, 2, 2, 3, 4, 4, 6, 8, 8, 12, 16]
MAX_ELEMENTS = 4096
MAX_VALUE = 1e4
LINEAR = "add sub concat mul div swiglu matmul transpose reshape sum mean neg slice pad gather cast broadcast_to".split() + ["matmul of it"]
MAKERS = {}
NO_GRADIENT = ("adamw", "attention_grad", "gradient")  # what a backward pass ends in


def maker(*ops):
    def register(function):
        for op in ops:
            MAKERS[op] = function
        return function

    return register


def hull(*points):
    return min(points), max(points)


def interval_product(x, y):
    return hull(*(a * b for a in (x.low, x.high) for b in (y.low, y.high)))


def broadcast(*shapes):
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in dims if size != 1), 1) for dims in zip(*padded))


def integers(values):
    return "array<i64: " + ", ".join(map(str, values)) + ">"


class Generator:
    def __init__(self, seed, plain=False, graph=False, gradient=False):
        """plain: f32, integers and i1 only, as the plan's executor is compared (checker.py).
        graph: as the graph phase sees programs: no shardings but those of arguments.
        gradient: every op has a vector-Jacobian product."""
        self.random = random.Random(seed)
        self.plain = plain
        self.graph = graph
        self.gradient = gradient
        self.inside = False  # of a repeat
        self.program = Program(seed, random_mesh(self.random), gradient=gradient)
        self.mesh = self.program.mesh
        self.float = "f32" if plain else self.random.choice(["f32"] * 6 + ["f64", "bf16", "f16"])
        self.pool = []
        self.read = set()
        self.program.links = {name: self.random.choice(p.LINKS) for name in self.mesh}
        self.annotated = 0.0 if graph else self.random.choice([0.0, 0.1, 0.3])  # results with a sharding
        self.sharded = self.random.choice([0.3, 0.6, 0.9])  # arguments with one

    # Values.

    def chance(self, probability):
        return self.random.random() < probability

    def size(self):
        if self.chance(0.3):
            return math.prod(self.mesh.values())
        return self.random.choice(SIZES)

    def shape(self, low=1, high=4):
        while True:
            shape = tuple(self.size() for _ in range(self.random.randint(low, high)))
            if math.prod(shape) <= MAX_ELEMENTS // 4:
                return shape

    def argument(self, shape, dtype=None, low=-1.0, high=1.0, role=None, **more):
        dtype = dtype or self.float
        if dtype == "bf16" and (low, high) != (-1.0, 1.0):  # .npy has no bf16
            wide = self.argument(shape, "f32", low, high, role)
            return self.emit("cast", [wide], wide.shape, dtype, low, high, exact=True)
        role = role or (self.random.choice(["param", "input"]) if dtype in p.FLOATS else "input")
        name = f"a{len(self.program.arguments)}"
        if role == "param":  # as stored in a file; its values are drawn in [-1, 1)
            more["weight"] = (low, high) == (-1.0, 1.0)
            role = "param" if more["weight"] else "input"
        argument = Argument(tuple(shape), dtype, low, high, name=name, role=role, **more)
        if not argument.sharding and self.chance(self.sharded):
            argument.sharding = random_sharding(self.random, self.mesh, argument.shape)
        self.program.arguments.append(argument)
        self.pool.append(argument)
        return argument

    def pick(self, condition=lambda value: True, dtype=None):
        """A value of the pool that fits, or a new argument."""
        fits = [
            value
            for value in self.pool
            if value.usable and condition(value) and (value.dtype == dtype if dtype else value.is_float)
        ]
        if fits and self.chance(0.85):
            # What nobody reads yet more often, so that programs grow deep as well as wide.
            unread = [value for value in fits if id(value) not in self.read]
            return self.random.choice(unread if unread and self.chance(0.6) else fits)
        for _ in range(200):
            value = Value(self.shape(), dtype or self.float)
            if condition(value):
                return self.argument(value.shape, value.dtype)
        return None

    def other(self, shape, dtype=None, condition=lambda value: True):
        """An operand of a given shape and type."""
        dtype = dtype or self.float
        fits = [v for v in self.pool if v.usable and v.shape == tuple(shape) and v.dtype == dtype and condition(v)]
        if fits and self.chance(0.6):
            return self.random.choice(fits)
        if dtype == "i1":
            return self.argument(shape, "i1", 0, 1)
        if dtype in ("i64", "i32"):
            return self.argument(shape, dtype, -9, 9)
        return self.argument(shape, dtype)

    def partner(self, value):
        """A second operand that broadcasts with `value`; gives both in random order."""
        shape = list(value.shape)
        how = self.random.random()
        if how < 0.3:
            shape = shape[self.random.randint(0, len(shape)) :]
        if 0.2 < how < 0.5 and shape:
            for dim in range(len(shape)):
                if self.chance(0.4):
                    shape[dim] = 1
        if 0.5 < how < 0.6 and len(shape) < 4 and value.size <= 256:
            shape = [self.random.choice([1, 2, 3, 4])] + shape
        pair = [value, self.other(shape, value.dtype)]
        if self.chance(0.4):
            pair.reverse()
        return pair

    def emit(self, op, operands, shape, dtype, low, high, attributes="", exact=False, more=()):
        """Adds an op; None if its result would be too large."""
        if math.prod(shape) > MAX_ELEMENTS or len(shape) > 5 or not max(abs(low), abs(high)) <= MAX_VALUE:
            return None
        results = [Value(tuple(shape), dtype, low, high, exact and all(o.exact for o in operands)), *more]
        if self.chance(self.annotated):
            for result in results:
                result.sharding = random_sharding(self.random, self.mesh, result.shape, 0.5, 0.5)
        self.program.nodes.append(Node(op, list(operands), results, attributes))
        self.read.update(id(operand) for operand in operands)
        self.pool += results
        return results[0]

    def scalar(self, number, dtype):
        text = f"dense<{number!r}>" if dtype in p.FLOATS else f"dense<{int(number)}>"
        value = Value((), dtype, number, number)
        self.program.nodes.append(Node("constant", [], [value], text))
        return value

    def positive(self, value):
        """`value`, or what lies above 0.25."""
        if value.low >= 0.1:
            return value
        value = self.emit("abs", [value], value.shape, value.dtype, 0.0, value.largest, exact=True)
        return value and self.emit(
            "add", [value, self.scalar(0.25, value.dtype)], value.shape, value.dtype, 0.25, value.high + 0.25
        )

    def bounded(self, value, limit):
        if value.largest <= limit:
            return value
        return self.emit("tanh", [value], value.shape, value.dtype, -1.0, 1.0)

    # Pointwise.

    @maker("neg", "abs", "sign", "relu")
    def sign_like(self, op):
        x = self.pick(dtype=self.random.choice([None, None, "i64", "i32"]))
        if op == "sign" and not x.exact:
            x = self.exact_float()
        low, high = {
            "neg": (-x.high, -x.low),
            "abs": (0.0 if x.low < 0 < x.high else min(abs(x.low), abs(x.high)), x.largest),
            "sign": (-1.0, 1.0),
            "relu": (max(x.low, 0.0), max(x.high, 0.0)),
        }[op]
        return self.emit(op, [x], x.shape, x.dtype, low, high, exact=True)

    def exact_float(self):
        """Discontinuous ops take values without rounding: a sum in another order may jump."""
        found = [v for v in self.pool if v.is_float and v.exact and v.usable]
        return self.random.choice(found) if found and self.chance(0.8) else self.argument(self.shape(), low=-5.0, high=5.0)

    @maker("floor", "ceil", "round")
    def rounding(self, op):
        x = self.exact_float()
        return self.emit(op, [x], x.shape, x.dtype, math.floor(x.low), math.ceil(x.high), exact=True)

    @maker("exp", "log", "sqrt", "rsqrt", "reciprocal")
    def with_domain(self, op):
        x = self.pick()
        x = self.bounded(x, 5) if op == "exp" else self.positive(x)
        if x is None:
            return None
        function = {
            "exp": math.exp, "log": math.log, "sqrt": math.sqrt,
            "rsqrt": lambda a: a**-0.5, "reciprocal": lambda a: 1 / a,
        }[op]
        return self.emit(op, [x], x.shape, x.dtype, *hull(function(x.low), function(x.high)))

    @maker("sin", "cos", "tanh", "erf", "sigmoid")
    def bounded_unary(self, op):
        x = self.pick()
        return self.emit(op, [x], x.shape, x.dtype, 0.0 if op == "sigmoid" else -1.0, 1.0)

    @maker("atan")
    def atan(self, op):
        x = self.pick()
        return self.emit(op, [x], x.shape, x.dtype, math.atan(x.low), math.atan(x.high))

    @maker("silu", "gelu")
    def gated(self, op):
        x = self.pick()
        attributes = "tanh_approximation" if op == "gelu" and self.chance(0.5) else ""
        return self.emit(op, [x], x.shape, x.dtype, -0.5, max(x.high, 0.0), attributes)

    @maker("is_nan")
    def is_nan(self, op):
        x = self.pick()
        return self.emit(op, [x], x.shape, "i1", 0, 1, exact=True)

    def boolean(self):
        found = [v for v in self.pool if v.dtype == "i1" and v.usable]
        return self.random.choice(found) if found and self.chance(0.7) else self.argument(self.shape(), "i1", 0, 1)

    @maker("not", "and", "or", "xor")
    def logical(self, op):
        operands = [self.boolean()]
        if op != "not":
            operands = self.partner(operands[0])
        return self.emit(op, operands, broadcast(*(o.shape for o in operands)), "i1", 0, 1, exact=True)

    @maker("bit_and", "bit_or", "bit_xor")
    def bitwise(self, op):
        x, y = self.partner(self.pick(dtype=self.random.choice(["i64", "i32"])))
        high = 2.0 ** max(int(x.largest).bit_length(), int(y.largest).bit_length())
        return self.emit(op, [x, y], broadcast(x.shape, y.shape), x.dtype, -high, high, exact=True)

    @maker("shift_left", "shift_right")
    def shift(self, op):
        x = self.pick(dtype=self.random.choice(["i64", "i32"]))
        by = self.argument(self.random.choice([x.shape, (), x.shape[1:]]), x.dtype, 0, 5)
        high = x.largest * (2**5 if op == "shift_left" else 1)
        return self.emit(op, [x, by], x.shape, x.dtype, -high, high, exact=True)

    @maker("bit_cast")
    def bit_cast(self, op):
        """There and back: the bits themselves are no numbers to compute with."""
        x = self.exact_float()
        if x.dtype not in ("f32", "f64"):
            return None
        bits = Value(x.shape, {"f32": "i32", "f64": "i64"}[x.dtype], -MAX_VALUE, MAX_VALUE, x.exact, usable=False)
        self.program.nodes.append(Node(op, [x], [bits], ""))
        return self.emit(op, [bits], x.shape, x.dtype, x.low, x.high, exact=True)

    @maker("compare")
    def compare(self, op):
        x = self.exact_float() if self.chance(0.6) else self.pick(dtype="i64")
        found = [v for v in self.pool if v.usable and v.exact and v.dtype == x.dtype and v.shape == x.shape]
        y = self.random.choice(found) if found and self.chance(0.5) else self.argument(x.shape, x.dtype, x.low, x.high)
        predicate = self.random.choice(["eq", "ne", "lt", "le", "gt", "ge"])
        return self.emit(op, [x, y], x.shape, "i1", 0, 1, f"predicate = #dshard.predicate<{predicate}>", exact=True)

    @maker("select")
    def select(self, op):
        x = self.pick(dtype=self.random.choice([None, None, "i64"]))
        a, b = self.partner(x)
        shape = broadcast(a.shape, b.shape)
        if math.prod(shape) > MAX_ELEMENTS:
            return None
        condition = self.other(self.random.choice([shape, shape[1:], tuple(1 for _ in shape)]), "i1")
        return self.emit(op, [condition, a, b], shape, x.dtype, min(a.low, b.low), max(a.high, b.high), exact=True)

    @maker("cast")
    def cast(self, op):
        target = self.random.choice(["i64", "i32", "i1", "f32"] + ([] if self.plain else ["f64", "bf16", "f16"]))
        source = self.random.choice(["float", "float", "i64", "i32", "i1"])
        if source != "float":
            x = self.boolean() if source == "i1" else self.pick(dtype=source)
        elif target in p.FLOATS:
            x = self.pick()
        else:
            x = self.exact_float()
        low, high = (0, 1) if target == "i1" else (x.low, x.high)
        if target in ("i64", "i32"):
            low, high = math.trunc(low), math.trunc(high)
        if target in ("bf16", "f16"):
            x = x if x.largest <= 1000 else None
        widens = target not in ("bf16", "f16") and not (x and x.dtype == "f64")
        return x and self.emit(op, [x], x.shape, target, low, high, exact=widens)

    @maker("add", "sub", "mul", "max", "min")
    def arithmetic(self, op):
        x, y = self.partner(self.pick(dtype=self.random.choice([None] * 4 + ["i64", "i32"])))
        low, high = {
            "add": lambda: (x.low + y.low, x.high + y.high),
            "sub": lambda: (x.low - y.high, x.high - y.low),
            "mul": lambda: interval_product(x, y),
            "max": lambda: (max(x.low, y.low), max(x.high, y.high)),
            "min": lambda: (min(x.low, y.low), min(x.high, y.high)),
        }[op]()
        exact = op in ("max", "min") or not x.is_float
        return self.emit(op, [x, y], broadcast(x.shape, y.shape), x.dtype, low, high, exact=exact)

    def nonzero(self, shape, dtype):
        low, high = (1, 9) if dtype in ("i64", "i32") else (0.25, 2.0)
        return self.argument(shape, dtype, low, high)

    @maker("div", "mod")
    def division(self, op):
        dtype = self.random.choice([None, None, "i64", "i32"])
        x = self.exact_float() if op == "mod" and dtype is None else self.pick(dtype=dtype)
        shape = self.random.choice([x.shape, x.shape[1:], tuple(1 for _ in x.shape)])
        y = self.positive(self.other(shape)) if x.dtype == self.float and op == "div" else None
        y = y or self.nonzero(shape, x.dtype)
        if op == "div":
            high = x.largest / min(abs(y.low), abs(y.high))
            return self.emit(op, [x, y], x.shape, x.dtype, -high, high, exact=not x.is_float)
        attributes = "fmod" if self.chance(0.5) else ""
        return self.emit(op, [x, y], x.shape, x.dtype, -y.high, y.high, attributes, exact=not x.is_float)

    @maker("pow")
    def power(self, op):
        x = self.pick()
        x = self.bounded(x, 4) and self.positive(self.bounded(x, 4))
        if x is None:
            return None
        y = self.argument(self.random.choice([x.shape, (), x.shape[1:]]), x.dtype, -2.0, 3.0)
        return self.emit(op, [x, y], x.shape, x.dtype, 0.0, max(x.high**3, x.low**-2.0))

    @maker("swiglu")
    def swiglu(self, op):
        gate, up = self.partner(self.pick())
        high = gate.largest * up.largest
        return self.emit(op, [gate, up], broadcast(gate.shape, up.shape), gate.dtype, -high, high)

    # Products, norms, reductions.

    @maker("matmul")
    def matmul(self, op):
        x = self.pick(lambda v: len(v.shape) >= 2)
        if x is None:
            return None
        flags = []
        *batch, m, k = x.shape
        if self.chance(0.2):
            flags.append("transpose_lhs")
            m, k = k, m
        n = self.size()
        how = self.random.random()
        if how < 0.55:
            lead = []
        elif how < 0.8:
            lead = list(batch)
        else:
            lead = [size if self.chance(0.5) else 1 for size in batch]
        weight = lead + [k, n]
        if self.chance(0.4):
            flags.append("transpose_rhs")
            weight[-2:] = weight[-1], weight[-2]
        y = self.other(weight, x.dtype)
        high = k * x.largest * y.largest
        return self.emit(op, [x, y], (*batch, m, n), x.dtype, -high, high, ", ".join(flags))

    @maker("grouped_matmul")
    def grouped_matmul(self, op):
        x = self.pick(lambda v: len(v.shape) >= 1)
        if x is None:
            return None
        count, k, n = self.size(), x.shape[-1], self.size()
        groups = self.argument(x.shape[:-1], self.random.choice(["i64", "i32"]), 0, count - 1)
        transposed = self.chance(0.5)
        weights = self.other((count, n, k) if transposed else (count, k, n), x.dtype)
        high = k * x.largest * weights.largest
        shape = (*x.shape[:-1], n)
        return self.emit(op, [x, weights, groups], shape, x.dtype, -high, high, "transpose_weights" if transposed else "")

    @maker("rms_norm", "layer_norm")
    def norm(self, op):
        x = self.pick(lambda v: v.shape and v.shape[-1] > 1)
        if x is None:
            return None
        # An epsilon of this size keeps the derivative small where a row is constant.
        epsilon = "epsilon = 0.0078125 : f64"
        operands = [x, self.other(x.shape[-1:], x.dtype)]
        high = math.sqrt(x.shape[-1]) * operands[1].largest
        if op == "layer_norm" and self.chance(0.5):
            operands.append(self.other(x.shape[-1:], x.dtype))
            high += operands[2].largest
        return self.emit(op, operands, x.shape, x.dtype, -high, high, epsilon)

    @maker("softmax")
    def softmax(self, op):
        x = self.pick(lambda v: v.shape and v.largest < 50)
        return x and self.emit(op, [x], x.shape, x.dtype, 0.0, 1.0, f"dim = {self.random.randrange(len(x.shape))} : i64")

    @maker("reduce")
    def reduce(self, op):
        x = self.pick(lambda v: v.shape, dtype=self.random.choice([None] * 4 + ["i64", "i32"]))
        dims = sorted(self.random.sample(range(len(x.shape)), self.random.randint(1, len(x.shape))))
        count = math.prod(x.shape[dim] for dim in dims)
        kinds = ["sum", "sum", "max", "min"]
        if x.is_float:
            kinds.append("mean")
        if count * math.log(max(x.largest, 1.0001)) < 8 and not self.gradient:
            kinds.append("product")
        kind = self.random.choice(kinds)
        keep = self.chance(0.4)
        shape = [1 if dim in dims else size for dim, size in enumerate(x.shape) if keep or dim not in dims]
        low, high = x.low, x.high
        if kind == "sum":
            low, high = hull(count * low, count * high)
        elif kind == "product":
            high = max(1.0, x.largest) ** count
            low = -high
        words = [f"kind = #dshard<reduction {kind}>", f"dims = {integers(dims)}"] + (["keep_dims"] if keep else [])
        exact = kind in ("max", "min") or not x.is_float
        return self.emit(op, [x], shape, x.dtype, low, high, ", ".join(words), exact=exact)

    # Layout.

    def any_value(self, condition=lambda value: True):
        return self.pick(condition, dtype=self.random.choice([None] * 5 + ["i64", "i1", "i32"]))

    def move(self, op, x, shape, attributes="", low=None, high=None, operands=None):
        low, high = x.low if low is None else low, x.high if high is None else high
        return self.emit(op, operands or [x], shape, x.dtype, low, high, attributes, exact=True)

    def heads(self):
        """A split of a sharded dim, as attention makes heads, and the merge back; the axes
        fit the major factor, or only both factors together, or neither."""
        piece = self.random.choice(p.mesh_pieces(self.random, self.mesh))
        major, minor = self.random.choice([1, 2, 3, 4, 8]), self.random.choice([1, 2, 3, 4, 8])
        if self.chance(0.6):
            major = piece.size * self.random.choice([1, 2])
        lead = self.shape(0, 1)
        shape = (*lead, major * minor, *self.shape(0, 1))
        if shape[len(lead)] % piece.size or math.prod(shape) > MAX_ELEMENTS:
            return None
        sharding = Sharding.replicated(len(shape))
        sharding.dims[len(lead)] = [piece]
        split = (*lead, major, minor, *shape[len(lead) + 1 :])
        if major % piece.size == 0 and self.chance(0.4):
            sharding.dims.insert(len(lead) + 1, [])
            sharding.open.append(False)
            return self.move("reshape", self.argument(split, sharding=sharding), shape)
        x = self.move("reshape", self.argument(shape, sharding=sharding), split)
        if x and self.chance(0.5):
            x = self.emit("sin", [x], x.shape, x.dtype, -1.0, 1.0)
        if x and self.chance(0.3):
            order = list(range(len(x.shape)))
            order[len(lead)], order[len(lead) + 1] = order[len(lead) + 1], order[len(lead)]
            x = self.move("transpose", x, [x.shape[dim] for dim in order], f"permutation = {integers(order)}")
        if x and self.chance(0.7):
            at = self.random.choice([len(lead), max(len(lead) - 1, 0)])
            merged = (*x.shape[:at], x.shape[at] * x.shape[at + 1], *x.shape[at + 2 :])
            x = self.move("reshape", x, merged)
        return x

    @maker("reshape")
    def reshape(self, op):
        if self.chance(0.5):
            return self.heads()
        x = self.any_value()
        shape = list(x.shape)
        for _ in range(self.random.randint(1, 2)):
            if len(shape) >= 2 and self.chance(0.5):
                at = self.random.randrange(len(shape) - 1)
                shape[at : at + 2] = [shape[at] * shape[at + 1]]
            elif len(shape) < 5 and shape:
                at = self.random.randrange(len(shape))
                factor = self.random.choice([n for n in range(1, shape[at] + 1) if shape[at] % n == 0])
                shape[at : at + 1] = [factor, shape[at] // factor]
            elif not shape:
                shape = [1]
        return self.move(op, x, shape)

    @maker("transpose")
    def transpose(self, op):
        x = self.any_value(lambda v: len(v.shape) >= 2)
        if x is None:
            return None
        order = self.random.sample(range(len(x.shape)), len(x.shape))
        return self.move(op, x, [x.shape[dim] for dim in order], f"permutation = {integers(order)}")

    @maker("broadcast_to")
    def broadcast_to(self, op):
        x = self.any_value(lambda v: len(v.shape) <= 3)
        if x is None:
            return None
        shape = [self.size() if size == 1 and self.chance(0.7) else size for size in x.shape]
        if self.chance(0.6):
            shape = [self.size()] + shape
        return self.move(op, x, shape)

    @maker("concat")
    def concat(self, op):
        x = self.any_value(lambda v: v.shape)
        dim = self.random.randrange(len(x.shape))
        operands = [x]
        for _ in range(self.random.randint(0, 2)):
            shape = list(x.shape)
            if self.chance(0.4):
                shape[dim] = self.size()
            operands.append(self.other(shape, x.dtype))
        shape = list(x.shape)
        shape[dim] = sum(o.shape[dim] for o in operands)
        low, high = min(o.low for o in operands), max(o.high for o in operands)
        return self.move(op, x, shape, f"dim = {dim} : i64", low, high, operands)

    @maker("slice")
    def slice(self, op):
        x = self.any_value(lambda v: v.shape)
        starts, strides, shape = [], [], []
        for size in x.shape:
            if self.chance(0.5):
                starts, strides, shape = starts + [0], strides + [1], shape + [size]
                continue
            stride = self.random.choice([1, 1, 2, -1])
            start = self.random.randrange(size)
            room = (size - 1 - start) // stride + 1 if stride > 0 else start // -stride + 1
            count = room if self.chance(0.5) else self.random.randint(1, room)
            starts, strides, shape = starts + [start], strides + [stride], shape + [count]
        return self.move(op, x, shape, f"starts = {integers(starts)}, strides = {integers(strides)}")

    @maker("pad")
    def pad(self, op):
        x = self.any_value(lambda v: v.shape and v.dtype != "i1")
        if x is None:
            return None
        low = [self.random.choice([0, 0, 1, 2]) for _ in x.shape]
        high = [self.random.choice([0, 0, 1, 2]) for _ in x.shape]
        shape = [a + size + b for a, size, b in zip(low, x.shape, high)]
        value = self.random.choice([0.0, 2.0, -1.0] + ([0.5] if x.is_float else []))
        attributes = f"low = {integers(low)}, high = {integers(high)}, value = {value} : f64"
        return self.move(op, x, shape, attributes, *hull(x.low, x.high, value))

    @maker("gather")
    def gather(self, op):
        if not self.plain and self.float == "f32" and self.chance(0.3):
            return self.vocabulary()
        x = self.any_value(lambda v: v.shape)
        dim = self.random.randrange(len(x.shape)) if self.chance(0.5) else 0
        size = x.shape[dim]
        indices = self.indices(size, self.random.choice([True, False]))
        shape = x.shape[:dim] + indices.shape + x.shape[dim + 1 :]
        return self.move(op, x, shape, f"dim = {dim} : i64", operands=[x, indices])

    def indices(self, size, negative):
        low = -size if negative else 0
        dtype = self.random.choice(["i64", "i32"])
        fits = [
            v for v in self.pool
            if v.usable and v.dtype == dtype and low <= v.low and v.high < size and len(v.shape) <= 2
        ]
        if fits and self.chance(0.5):
            return self.random.choice(fits)
        return self.argument(self.shape(0, 2), dtype, low, size - 1)

    def vocabulary(self):
        """A table whose look-up dim does not divide, as dshard-pad makes it do."""
        pieces = [piece for piece in p.mesh_pieces(self.random, self.mesh)]
        piece = self.random.choice(pieces)
        rows, width = self.random.choice([5, 7, 9, 10, 11, 14]), self.random.choice([2, 4, 8])
        sharding = Sharding([[piece], []], [False, False])
        table = self.argument((rows, width), role="param", weight=True, sharding=sharding)
        self.pool.remove(table)  # nothing but look-ups and the head may read it
        indices = self.indices(rows, True)
        high = 1.0
        x = self.emit("gather", [table, indices], (*indices.shape, width), table.dtype, -high, high, "dim = 0 : i64")
        if x and len(x.shape) >= 2 and self.chance(0.5):
            bound = width * high * high
            x = self.emit("matmul", [x, table], (*x.shape[:-1], rows), x.dtype, -bound, bound, "transpose_rhs")
        return x

    @maker("gather_nd")
    def gather_nd(self, op):
        x = self.any_value(lambda v: v.shape)
        batch = self.random.randint(0, min(1, len(x.shape) - 1))
        tuple_size = self.random.randint(1, min(2, len(x.shape) - batch))
        limit = min(x.shape[batch : batch + tuple_size])
        lead = x.shape[:batch] + self.shape(0 if batch else 1, 1)
        indices = self.argument((*lead, tuple_size), "i64", 0, limit - 1)
        shape = lead + x.shape[batch + tuple_size :]
        return self.move(op, x, shape, f"batch_dims = {batch} : i64", operands=[x, indices])

    @maker("iota")
    def iota(self, op):
        shape = self.shape()
        dim = self.random.randrange(len(shape))
        dtype = self.random.choice([self.float, "i64", "i32"])
        start, step = self.random.choice([(0.0, 1.0), (2.0, -1.0), (-3.0, 2.0)])
        if dtype in p.FLOATS and self.chance(0.5):
            start, step = 0.125, 0.25
        attributes = f"dim = {dim} : i64, start = {start} : f64, step = {step} : f64"
        return self.emit(op, [], shape, dtype, *hull(start, start + step * (shape[dim] - 1)), attributes, exact=True)

    @maker("constant")
    def constant(self, op):
        shape = self.shape(0, 3)
        if math.prod(shape) > 256:
            return None
        dtype = self.random.choice([self.float, self.float, "i64", "i1"])

        def element():
            if dtype == "i1":
                return self.random.choice(["true", "false"])
            return str(self.random.randint(-4, 4)) if dtype == "i64" else f"{self.random.randint(-16, 16) / 8!r}"

        def rows(dims):
            if not dims:
                return element()
            return "[" + ", ".join(rows(dims[1:]) for _ in range(dims[0])) + "]"

        text = f"dense<{element() if self.chance(0.3) else rows(shape)}>"
        low, high = {"i1": (0, 1), "i64": (-4, 4)}.get(dtype, (-2.0, 2.0))
        value = Value(tuple(shape), dtype, low, high)
        if self.chance(self.annotated):
            value.sharding = random_sharding(self.random, self.mesh, shape, 0.5, 0.5)
        node = Node("constant", [], [value], text)
        value.sharding = None  # printed by nothing: a constant follows its users
        self.program.nodes.append(node)
        self.pool.append(value)
        return value

    # Changes of sharding.

    def reshard(self):
        x = self.any_value()
        result = Value(x.shape, x.dtype, x.low, x.high, x.exact)
        target = random_sharding(self.random, self.mesh, x.shape)
        self.program.nodes.append(Node("reshard", [x], [result], target=target))
        self.pool.append(result)
        return result

    def pending_extreme(self):
        """A pending maximum or minimum that is read as it is annotated."""
        piece = self.random.choice(p.mesh_pieces(self.random, self.mesh))
        kind = self.random.choice(["max", "min", "product"])
        rows, shape = piece.size * self.random.choice([1, 2]), self.shape(1, 2)
        x = self.argument((rows, *shape), sharding=Sharding([[piece]] + [[] for _ in shape], [False] * (1 + len(shape))))
        words = f"kind = #dshard<reduction {kind}>, dims = array<i64: 0>"
        x = self.emit("reduce", [x], shape, x.dtype, -1.0, 1.0, words, exact=kind != "product")
        if x:
            x.sharding = Sharding([[] for _ in shape], [False] * len(shape), [piece], kind)
        return x

    def partial_chain(self):
        """A pending sum through ops: a row-parallel product annotated as partial, then a
        chain of annotated ops that are linear in it. The other operands have any sharding.
        A few ops are not linear: the annotation is then refused, or the value wrong."""
        pieces = p.mesh_pieces(self.random, self.mesh)
        piece = self.random.choice(pieces)

        def partial(rank):
            return Sharding([[] for _ in range(rank)], [False] * rank, [piece])

        def pending(m, n):
            k = piece.size * self.random.choice([1, 2])
            if self.chance(0.3):
                rows = self.argument((k, m, n), sharding=Sharding([[piece], [], []], [False] * 3))
                words = "kind = #dshard<reduction sum>, dims = array<i64: 0>"
                value = self.emit("reduce", [rows], (m, n), self.float, -k, k, words)
            else:
                lhs = self.argument((m, k), sharding=Sharding([[], [piece]], [False] * 2))
                rhs = self.argument((k, n), sharding=Sharding([[piece], []], [False] * 2))
                value = self.emit("matmul", [lhs, rhs], (m, n), self.float, -k, k)
            value.sharding = partial(2)
            return value

        def own(shape, low=-1.0, high=1.0):
            sharding = random_sharding(self.random, self.mesh, shape) if self.chance(0.2) else Sharding.replicated(len(shape))
            return self.argument(shape, low=low, high=high, sharding=sharding)

        x = pending(self.random.choice([1, 2, 4, 6]), self.random.choice([2, 4, 8]))
        for _ in range(self.random.randint(0, 5)):
            m, n = x.shape
            high = x.largest
            op = self.random.choice(LINEAR)
            if op in ("add", "sub", "concat"):
                y = pending(m, n)
                if op == "concat":
                    y = self.emit(op, [x, y], (2 * m, n), x.dtype, -high - y.high, high + y.high, "dim = 0 : i64")
                else:
                    y = self.emit(op, [x, y], (m, n), x.dtype, -high - y.high, high + y.high)
            elif op == "mul":
                pair = [x, own(self.random.choice([(), (n,), (m, n), (m, 1)]))]
                self.random.shuffle(pair)
                y = self.emit(op, pair, (m, n), x.dtype, -high, high)
            elif op == "div":
                y = self.emit(op, [x, own(self.random.choice([(), (n,)]), 0.5, 2.0)], (m, n), x.dtype, -2 * high, 2 * high)
            elif op == "swiglu":
                y = self.emit(op, [own((m, n)), x], (m, n), x.dtype, -high, high)
            elif op == "matmul":
                y = self.emit(op, [x, own((n, 2))], (m, 2), x.dtype, -n * high, n * high)
            elif op == "matmul of it":
                y = self.emit("matmul", [own((4, m)), x], (4, n), x.dtype, -m * high, m * high)
            elif op == "transpose":
                y = self.emit(op, [x], (n, m), x.dtype, x.low, x.high, "permutation = array<i64: 1, 0>")
            elif op == "reshape":
                y = self.emit(op, [x], (1, m * n), x.dtype, x.low, x.high)
            elif op in ("sum", "mean"):
                words = f"kind = #dshard<reduction {op}>, dims = array<i64: 0>, keep_dims"
                y = self.emit("reduce", [x], (1, n), x.dtype, -m * high, m * high, words)
            elif op == "neg":
                y = self.emit(op, [x], x.shape, x.dtype, -x.high, -x.low)
            elif op == "slice":
                words = "starts = array<i64: 0, 1>, strides = array<i64: 1, 1>"
                y = self.emit(op, [x], (m, n - 1), x.dtype, x.low, x.high, words) if n > 1 else None
            elif op == "pad":
                words = "low = array<i64: 0, 1>, high = array<i64: 1, 0>, value = 0.0 : f64"
                y = self.emit(op, [x], (m + 1, n + 1), x.dtype, x.low, x.high, words)
            elif op == "gather":
                y = self.emit(op, [x, self.argument((3,), "i64", -m, m - 1)], (3, n), x.dtype, x.low, x.high, "dim = 0 : i64")
            elif op == "cast":
                y = self.emit(op, [x], x.shape, "f64", x.low, x.high)
                if y is not None:
                    y.sharding = partial(2)
                    y = self.emit(op, [y], x.shape, self.float, x.low, x.high)
            else:
                y = self.emit("broadcast_to", [x], (m, n), x.dtype, x.low, x.high)
            if y is None:
                break
            y.sharding = partial(2)
            x = y
        return x

    # The whole.

    def build(self):
        low, high = math.log(2), math.log(40)
        target = round(math.exp(self.random.uniform(low, high)))
        ops = [op for op in MAKERS if not (self.gradient and op in NO_GRADIENT)]
        ops += ["matmul", "matmul", "add", "mul", "reshape", "reshape", "transpose", "attention", "reduce", "repeat"]
        for _ in range(20 * target):
            if len(self.program.nodes) >= target:
                break
            chance = self.random.random()
            if chance < 0.05 and not self.graph and not self.gradient:
                self.reshard()
            elif chance < 0.08 and not self.graph:
                self.partial_chain()
            elif chance < 0.09 and not self.graph:
                self.pending_extreme()
            else:
                op = self.random.choice(ops)
                MAKERS[op](self, op)
        self.choose_outputs()
        self.program.remove_dead()
        return self.program

    def choose_outputs(self):
        used = {id(operand) for node in self.program.nodes for operand in node.operands}
        results = [result for node in self.program.nodes for result in node.results]
        leaves = [value for value in results if id(value) not in used]
        if self.gradient:
            leaves = [value for value in leaves if value.is_float and value.usable]
            results = leaves
        outputs = leaves[-16:]
        if results and self.chance(0.3):
            outputs.append(self.random.choice(results))  # read inside as well
        if self.chance(0.05) and self.program.arguments:
            outputs.append(self.random.choice(self.program.arguments))
        for value in outputs:
            sharding = None
            if self.chance(0.35):
                sharding = random_sharding(self.random, self.mesh, value.shape)
            elif value.sharding and value.sharding.partial and self.chance(0.5) and not self.plain:
                sharding = Sharding(value.sharding.dims, [False] * len(value.shape), value.sharding.partial, value.sharding.kind)
            self.program.outputs.append((value, sharding))


def generate(seed, plain=False, graph=False, gradient=False):
    for attempt in range(50):
        generator = Generator(seed * 1000 + attempt, plain, graph, gradient)
        program = generator.build()
        if program.outputs and len(program.nodes) >= 2:
            program.seed = seed
            return program
    raise AssertionError(f"seed {seed}: no program in 50 attempts")


import attention_ops, control_ops, training_ops  # noqa: E402, E401, F401: register their makers
