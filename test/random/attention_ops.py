"""Makers of attention and what belongs to it: heads, grouped heads, masks, gradients."""

from generator import MAKERS, MAX_VALUE, hull, maker
from program import Value


@maker("attention", "rotary")
def attention(self, op):
    r = self.random
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
    lse = Value((batch, heads, length), "f32", -MAX_VALUE, MAX_VALUE, False, usable=not masked)
    if not masked:
        lse.low, lse.high = -200.0, 200.0
    return self.emit(
        "attention", operands, (batch, heads, length, depth_v), q.dtype, *hull(0.0, v.low, v.high),
        ", ".join(words), more=[lse],
    )


@maker("attention_grad")
def attention_grad(self, op):
    """With the result and the log-sum-exp of the attention that it belongs to."""
    if MAKERS["attention"](self, "attention") is None:
        return None
    node = self.program.nodes[-1]
    if node.op != "attention":
        return None
    q, k, v, *mask = node.operands
    out, lse = node.results
    grad = self.other(out.shape, out.dtype)
    scale = 0.5
    spread = 2 * v.shape[-1] * grad.largest * v.largest * scale
    bounds = [spread * k.largest * 2, spread * q.largest * q.size / k.shape[1], grad.largest * q.size / k.shape[1]]
    more = [Value(x.shape, x.dtype, *hull(-high, high), False) for x, high in zip((k, v), bounds[1:])]
    return self.emit(op, [q, k, v, out, lse, grad, *mask], q.shape, q.dtype, -bounds[0], bounds[0], node.attributes, more=more)

