"""Makers of attention and what belongs to it: heads, grouped heads, masks, gradients."""

from generator import MAKERS, MAX_VALUE, hull, maker
from program import Value, mesh_pieces, random_sharding


@maker("attention", "rotary")
def attention(self, op):
    r = self.random
    if op == "attention" and not self.gradient and not self.graph and self.chance(0.45):
        return context_parallel(self)
    batch, keys = r.choice([1, 2, 2, 4, 6]), r.choice([2, 3, 4, 8])
    length = keys if self.chance(0.6) else r.choice([1, 2, 4])
    kv = r.choice([1, 2, 2, 3, 4, 8])
    heads = kv * r.choice([1, 1, 2, 3, 4])
    depth, depth_v = r.choice([2, 4, 8]), r.choice([2, 4, 3])
    q = self.other((batch, heads, length, depth), condition=lambda v: v.largest <= 8)
    k = self.other((batch, kv, keys, depth), condition=lambda v: v.largest <= 8)
    if op == "rotary" or self.chance(0.3):
        table = (r.choice([1, batch]), length, depth // 2)
        cos, sin = self.other(table), self.other(table)
        high = q.largest * (cos.largest + sin.largest)
        q = self.emit("rotary", [q, cos, sin], q.shape, q.dtype, -high, high, "interleaved" if self.chance(0.4) else "")
        q = q and self.bounded(q, 8)
    if op == "rotary" or q is None:
        return q
    v = self.other((batch, kv, keys, depth_v))
    words = [f"scale = {r.choice(['0.5', '0.125', '0.25'])} : f64"]
    operands, masked = [q, k, v], False
    if self.chance(0.5):
        operands.append(self.argument((batch, keys), "i1", 0, 1, needs="padding"))
        masked = True
    if self.chance(0.4):
        words += ["causal"]
        if self.chance(0.4):
            words.append(f"offset = {r.choice([-1, 1, 2])} : i64")
            masked = True
    if self.chance(0.2):
        words.append(f"window = {r.choice([1, 2, 3])} : i64")
        masked = True
    masked = masked or length != keys or self.gradient  # the log-sum-exp has no gradient
    if self.chance(0.2):
        words.append("softcap = 2.0 : f64")
    if self.chance(0.4):
        words.append("fully_masked = #dshard.fully_masked<uniform>")
    # A row without a key has log-sum-exp -inf: an output, never an operand.
    if self.chance(0.35):
        operands.append(bias_of(self, batch, heads, length, keys))
    lse = Value((batch, heads, length), "f32", -MAX_VALUE, MAX_VALUE, False, usable=not masked)
    if not masked:
        lse.low, lse.high = -200.0, 200.0
    return self.emit(
        "attention", operands, (batch, heads, length, depth_v), q.dtype, *hull(0.0, v.low, v.high),
        ", ".join(words), more=[lse],
    )


def bias_of(self, *scores):
    return self.other(tuple(size if self.chance(0.6) else 1 for size in scores), condition=lambda v: v.largest <= 8)


def context_parallel(self):
    """Queries and keys of one sequence, which lies on the ranks in some order."""
    r = self.random
    piece = r.choice(mesh_pieces(r, self.mesh))
    method = r.choice(["ring", "ring", "all_gather", "all_gather", "all_to_all", "hierarchical"])
    layout = r.choice(["zigzag", "contiguous", "striped"])
    # Striped keys have no halves that a row sees whole or not at all.
    causal = self.chance(0.7) and not (method in ("all_gather", "hierarchical") and layout == "striped")
    length = piece.size * (2 if layout == "zigzag" else 1) * r.choice([1, 2, 3])
    kv = r.choice([1, 2, 2, 4]) * (piece.size if method in ("all_to_all", "hierarchical") else 1)
    heads, batch = kv * r.choice([1, 1, 2]), r.choice([1, 2, 2, 4])
    depth, depth_v = r.choice([2, 4]), r.choice([2, 4, 3])

    def operand(count, width):
        shape = (batch, count, length, width)
        if self.chance(0.2):
            return self.other(shape, condition=lambda v: v.largest <= 8)
        rest = {name: size for name, size in self.mesh.items() if name != piece.name}
        sharding = random_sharding(r, rest, (batch, count), 0.3)
        sharding.dims += [[piece], []]
        sharding.open += [False, False]
        return self.argument(shape, sharding=sharding)

    q, k, v = operand(heads, depth), operand(kv, depth), operand(kv, depth_v)
    words = ["scale = 0.25 : f64", f"layout = #dshard.layout<{layout}>", f"parts = {piece.size} : i64"]
    words.append(f'dshard.cp_method = "{method}"')
    operands, masked = [q, k, v], False
    if self.chance(0.4):
        operands.append(self.argument((batch, length), "i1", 0, 1, needs="padding"))
        masked = True
    if causal:
        words.append("causal")
        if method in ("all_gather", "all_to_all") and self.chance(0.3):
            words.append(f"window = {r.choice([1, 2, 3])} : i64")
    if self.chance(0.2):
        words.append("softcap = 2.0 : f64")
    if self.chance(0.4):
        words.append("fully_masked = #dshard.fully_masked<uniform>")
    if method != "hierarchical" and self.chance(0.4):
        operands.append(bias_of(self, batch, heads, length, length))
    lse = Value((batch, heads, length), "f32", -200.0, 200.0, False, usable=not masked)
    return self.emit(
        "attention", operands, (batch, heads, length, depth_v), q.dtype, *hull(0.0, v.low, v.high), ", ".join(words), more=[lse]
    )


@maker("attention_grad")
def attention_grad(self, op):
    """With the result and the log-sum-exp of the attention that it belongs to."""
    if MAKERS["attention"](self, "attention") is None:
        return None
    node = self.program.nodes[-1]
    if node.op != "attention" or "cp_method" in node.attributes:
        return None
    q, k, v, *mask = node.operands
    out, lse = node.results
    grad = self.other(out.shape, out.dtype)
    scale = 0.5
    spread = 2 * v.shape[-1] * grad.largest * v.largest * scale
    bounds = [spread * k.largest * 2, spread * q.largest * q.size / k.shape[1], grad.largest * q.size / k.shape[1]]
    more = [Value(x.shape, x.dtype, *hull(-high, high), False) for x, high in zip((k, v), bounds[1:])]
    return self.emit(op, [q, k, v, out, lse, grad, *mask], q.shape, q.dtype, -bounds[0], bounds[0], node.attributes, more=more)

