"""Makers of the ops of a training step, as ordinary ops of a random program.

What differentiation builds with them reaches few of their shapes and shardings; here
they meet all of them.
"""

from generator import maker
from program import Value, random_sharding


@maker("weight_grad")
def weight_grad(self, op):
    x = self.pick(lambda v: len(v.shape) >= 2)
    if x is None:
        return None
    y = self.other((*x.shape[:-1], self.size()), x.dtype)
    rows = x.size // x.shape[-1]
    high = rows * x.largest * y.largest
    return self.emit(op, [x, y], (x.shape[-1], y.shape[-1]), x.dtype, -high, high)


@maker("grouped_weight_grad")
def grouped_weight_grad(self, op):
    """Some groups have no rows, most have several."""
    x = self.pick(lambda v: len(v.shape) >= 2)
    if x is None:
        return None
    y = self.other((*x.shape[:-1], self.size()), x.dtype)
    count = self.size()
    groups = self.argument(x.shape[:-1], self.random.choice(["i64", "i32"]), 0, count - 1)
    high = x.size // x.shape[-1] * x.largest * y.largest
    return self.emit(op, [x, y, groups], (count, x.shape[-1], y.shape[-1]), x.dtype, -high, high)


@maker("scatter_add")
def scatter_add(self, op):
    """The gradient of a look-up: indices repeat, count from the end, and lie outside."""
    updates = self.pick(lambda v: v.shape, dtype=self.random.choice([None, None, None, "i64"]))
    if updates is None:
        return None
    dim = self.random.randrange(len(updates.shape))
    rank = self.random.randint(0, min(2, len(updates.shape) - dim))
    size = self.size()
    low = self.random.choice([0, -size])
    indices = self.argument(updates.shape[dim : dim + rank], self.random.choice(["i64", "i32"]), low, size - 1)
    shape = (*updates.shape[:dim], size, *updates.shape[dim + rank :])
    high = max(indices.size, 1) * updates.largest
    exact = not updates.is_float
    return self.emit(op, [indices, updates], shape, updates.dtype, -high, high, f"dim = {dim} : i64", exact=exact)


@maker("reorder")
def reorder(self, op):
    layout, parts = self.random.choice(["zigzag", "striped", "contiguous"]), self.random.choice([1, 2, 3, 4])
    chunks = 2 * parts if layout == "zigzag" else parts
    x = self.any_value(lambda v: any(size % chunks == 0 for size in v.shape))
    if x is None:
        return None
    dim = self.random.choice([d for d, size in enumerate(x.shape) if size % chunks == 0])
    words = f"dim = {dim} : i64, layout = #dshard.layout<{layout}>, parts = {parts} : i64"
    return self.move(op, x, x.shape, words + (", inverse" if self.chance(0.4) else ""))


@maker("cross_entropy")
def cross_entropy(self, op):
    x = self.pick(lambda v: v.shape and v.largest < 50)
    if x is None:
        return None
    ignored = self.random.choice([-100, 0, x.shape[-1] - 1])
    dtype = self.random.choice(["i64", "i32"])
    # Some labels are ignored where the value lies among them.
    labels = self.argument(x.shape[:-1], dtype, 0, x.shape[-1] - 1)
    wide = "f64" if x.dtype == "f64" else "f32"
    high = 2 * x.largest + 10
    lse = Value(x.shape[:-1], wide, -high, high, False)
    return self.emit(op, [x, labels], x.shape[:-1], wide, 0.0, high, f"ignore_index = {ignored} : i64", more=[lse])


@maker("gradient")
def gradient(self, op):
    parameters = [a for a in self.program.arguments if a.role == "param" and a.usable]
    if not parameters:
        return None
    parameter = self.random.choice(parameters)
    x = self.other(parameter.shape, parameter.dtype)
    result = self.emit(op, [x], x.shape, x.dtype, x.low, x.high, f'of = "{parameter.name}"', exact=True)
    if result:
        self.program.nodes[-1].reads = [parameter]
    return result


@maker("adamw")
def adamw(self, op):
    param = self.pick(lambda v: v.largest <= 100)
    if param is None:
        return None
    shape, dtype = param.shape, param.dtype
    grad, exp_avg = self.other(shape, dtype), self.other(shape, dtype)
    if grad.largest > 50 or exp_avg.largest > 50:
        return None
    # Away from zero, where the square root turns rounding into noise.
    exp_avg_sq = self.argument(shape, dtype, 0.25, 1.0)
    scalars = [self.argument((), dtype, *bounds) for bounds in ((0.01, 0.1), (0.1, 1.0), (0.1, 1.0), (0.5, 1.0))]
    enabled = self.argument((), "i1", 0, 1)
    # Numbers that every float type holds: the decomposition has them as constants.
    words = "beta1 = 0.875 : f64, beta2 = 0.9375 : f64, epsilon = 0.0009765625 : f64, weight_decay = 0.125 : f64"
    m = max(exp_avg.largest, grad.largest)
    v = 1.0 + 0.0625 * grad.largest**2
    high = 1.1 * param.largest + 0.1 * (m / 0.1) / 0.45
    more = [Value(shape, dtype, -m, m, False), Value(shape, dtype, 0.2, v, False)]
    for value in more:
        if self.chance(self.annotated):
            value.sharding = random_sharding(self.random, self.mesh, shape, 0.5, 0.5)
    return self.emit(op, [param, grad, exp_avg, exp_avg_sq, *scalars, enabled], shape, dtype, -high, high, words, more=more)
