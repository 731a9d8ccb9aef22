"""Maker of repeats: a region that runs some times and hands values on.

A carried value is a sum over the rounds, as gradients are accumulated over micro-batches
(the compiler leaves it partial until after the loop, where it can), or is changed by any op. The region reads
values from outside, one of them by the iteration.
"""

from generator import MAKERS, MAX_VALUE, maker
from program import Node, Sharding, Value, mesh_pieces, random_sharding

OUTSIDE = ("repeat", "constant", "adamw", "gradient")  # never in a region


@maker("repeat")
def repeat(self, op):
    if self.gradient or self.graph or self.inside:
        return None
    count = self.random.choice([1, 2, 2, 3, 4])
    batch = self.argument((count, *self.shape(1, 3)), low=-1.0, high=1.0)
    outer, pool = self.program.nodes, list(self.pool)
    arguments = len(self.program.arguments)
    self.program.nodes, self.inside = [], True
    iteration = Value((), "i64", 0, count - 1)
    self.pool.append(iteration)
    part = self.emit("gather", [batch, iteration], batch.shape[1:], batch.dtype, -1.0, 1.0, "dim = 0 : i64")
    made = [part]
    sums = partial_sum(self, count, iteration) if self.chance(0.5) else None
    for _ in range(self.random.randint(1, 6)):
        name = self.random.choice([name for name in MAKERS if name not in OUTSIDE])
        value = MAKERS[name](self, name)
        if value is not None and value.is_float and value.usable and value.largest * count < MAX_VALUE / 2:
            made.append(value)
    starts, initial, yields, results = [iteration], [], [], []

    def carry(value, start, low, high, change):
        carried = Value(value.shape, value.dtype, low, high, False)
        starts.append(carried)
        initial.append(start)
        yields.append(change(carried))
        results.append(Value(value.shape, value.dtype, low, high, False))

    for value in self.random.sample(made, min(len(made), self.random.choice([1, 1, 2, 3]))):
        high = value.largest * count
        carry(value, zeros(outer, value), -high, high, lambda c: self.emit("add", [c, value], value.shape, value.dtype, -high, high))
    if sums:
        high = sums.largest * count
        carry(sums, zeros(outer, sums), -high, high, lambda c: self.emit("add", [c, sums], sums.shape, sums.dtype, -high, high))
    if self.chance(0.4):  # something that is no sum
        value = self.random.choice(made)
        start = self.other(value.shape, value.dtype, lambda v: v.largest <= 1 and any(v is p for p in pool))
        high = 1.0 + value.largest

        def change(carried):
            difference = self.emit("sub", [carried, value], value.shape, value.dtype, -high, high)
            return difference and self.emit("tanh", [difference], value.shape, value.dtype, -1.0, 1.0)

        if any(start is p for p in pool) or start in self.program.arguments:
            carry(value, start, -1.0, 1.0, change)
    body = self.program.nodes
    self.program.nodes, self.inside = outer, False
    # What was made inside is not seen outside, but arguments are.
    self.pool = pool + self.program.arguments[arguments:]
    if any(value is None for value in yields):
        return None
    for result in results:
        if self.chance(self.annotated):
            result.sharding = random_sharding(self.random, self.mesh, result.shape, 0.5, 0.5)
    node = Node("repeat", initial, results, str(count), starts=starts, body=body, yields=yields)
    self.program.nodes.append(node)
    self.pool += results
    self.read.update(id(value) for value in node.uses())
    return results[0]


def zeros(nodes, value):
    """What a sum starts from, outside of the region."""
    zero = Value(value.shape, value.dtype, 0.0, 0.0)
    nodes.append(Node("constant", [], [zero], "dense<0.0>"))
    return zero


def partial_sum(self, count, iteration):
    """A product over a sharded dim of one part of a batch: each rank has its share."""
    piece = self.random.choice(mesh_pieces(self.random, self.mesh))
    rows, m, n = piece.size * self.random.choice([1, 2]), self.random.choice([1, 2, 4]), self.random.choice([2, 4, 6])
    pair = []
    for width in (m, n):
        sharding = Sharding([[], [piece], []], [False] * 3)
        whole = self.argument((count, rows, width), sharding=sharding)
        pair.append(self.emit("gather", [whole, iteration], (rows, width), whole.dtype, -1.0, 1.0, "dim = 0 : i64"))
        pair[-1].sharding = None
    value = self.emit("weight_grad", pair, (m, n), pair[0].dtype, -rows, rows)
    value.sharding = None  # whether it stays pending is for the compiler to decide
    self.pool.remove(value)  # read by nothing but the sum, else it is reduced in each round
    return value
