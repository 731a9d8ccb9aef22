"""Makes a failing program small: it keeps every change under which it still fails alike.

Changes: outputs, ops (an op's results become arguments, or one of its operands),
shardings, axes of the mesh, sizes of dims.
"""

import itertools
import math
import re

import program as p
from program import Argument, Sharding


def values_of(program):
    return program.arguments + [value for node in program.all_nodes() for value in node.results + node.starts]


def replace(program, old, new):
    for node in program.all_nodes():
        node.operands = [new if operand is old else operand for operand in node.operands]
        node.yields = [new if value is old else value for value in node.yields]
    program.outputs = [(new if value is old else value, sharding) for value, sharding in program.outputs]


def fresh_argument(program, value):
    taken = {argument.name for argument in program.arguments}
    name = next(f"b{i}" for i in itertools.count() if f"b{i}" not in taken)
    sharding = value.sharding
    if sharding and any(sharding.open):
        sharding = Sharding(sharding.dims, [False] * len(sharding.dims), sharding.partial, sharding.kind)
    low, high = value.low, value.high
    if value.dtype == "bf16":  # .npy has no bf16
        low, high = -1.0, 1.0
    argument = Argument(value.shape, value.dtype, low, high, name=name, sharding=sharding)
    program.arguments.append(argument)
    return argument


def without_outputs(program):
    count = len(program.outputs)
    for size in (count // 2, count // 4, 1):
        for start in range(0, count, size) if size else []:
            if size < count:
                smaller = program.clone()
                del smaller.outputs[start : start + size]
                yield smaller


def without_ops(program):
    for index in reversed(range(len(program.nodes))):
        for result in range(len(program.nodes[index].results)):
            smaller = program.clone()
            node = smaller.nodes[index]
            replace(smaller, node.results[result], fresh_argument(smaller, node.results[result]))
            if not any(node.results[0] in n.operands for n in smaller.nodes) and len(node.results) == 1:
                smaller.nodes.remove(node)
            yield smaller
        for operand in range(len(program.nodes[index].operands)):
            smaller = program.clone()
            node = smaller.nodes[index]
            result = node.results[0]
            if node.operands[operand].type == result.type and not node.operands[operand] is result:
                replace(smaller, result, node.operands[operand])
                yield smaller


def without_inner_ops(program):
    """An op of a region gives way to one of its operands."""
    for index, whole in enumerate(program.all_nodes()):
        for inner in range(len(whole.body)):
            smaller = program.clone()
            body = smaller.all_nodes()[index].body
            node = body[inner]
            if not any(result in other.uses() for other in body for result in node.results) and not any(
                result in smaller.all_nodes()[index].yields for result in node.results
            ):
                body.remove(node)
                yield smaller
                continue
            for position, operand in enumerate(node.operands):
                if len(node.results) == 1 and operand.type == node.results[0].type:
                    again = program.clone()
                    body = again.all_nodes()[index].body
                    copy = body[inner]
                    replace(again, copy.results[0], copy.operands[position])
                    body.remove(copy)
                    yield again


def without_shardings(program):
    def closed(sharding):
        return Sharding.replicated(len(sharding.dims)) if sharding else None

    for index, value in enumerate(values_of(program)):
        if value.sharding is None:
            continue
        choices = [None] if not program.resolved else [closed(value.sharding)]
        for dim, pieces in enumerate(value.sharding.dims):
            if pieces:
                one = Sharding([list(d) for d in value.sharding.dims], list(value.sharding.open), list(value.sharding.partial), value.sharding.kind)
                one.dims[dim] = one.dims[dim][:-1]
                choices.append(one)
        for choice in choices:
            if choice == value.sharding:
                continue
            smaller = program.clone()
            values_of(smaller)[index].sharding = choice
            yield smaller
    for index, (_, sharding) in enumerate(program.outputs):
        if sharding and not program.resolved:
            smaller = program.clone()
            smaller.outputs[index] = (smaller.outputs[index][0], None)
            yield smaller


def without_axes(program):
    def shardings(of):
        found = [value.sharding for value in values_of(of)] + [sharding for _, sharding in of.outputs]
        return [s for s in found + [node.target for node in of.all_nodes()] if s]

    def rewrite(change):
        smaller = program.clone()
        seen = set()
        for sharding in shardings(smaller):
            if id(sharding) in seen:
                continue
            seen.add(id(sharding))
            sharding.dims = [change(pieces) for pieces in sharding.dims]
            sharding.partial = change(sharding.partial)
        return smaller

    for name, size in program.mesh.items():
        smaller = rewrite(lambda pieces: [piece for piece in pieces if piece.name != name])
        del smaller.mesh[name]
        if smaller.mesh:
            yield smaller
        for less in (2, 4):
            if less < size:
                smaller = rewrite(
                    lambda pieces: [p.Piece(name, 1, less) if piece.name == name and piece.pre == 1 else piece
                                    for piece in pieces if piece.name != name or piece.pre == 1]
                )
                smaller.mesh[name] = less
                yield smaller


def with_smaller_dims(program):
    """One size becomes another everywhere, with or without its multiples (reshapes)."""
    sizes = sorted({size for value in values_of(program) for size in value.shape if size > 1}, reverse=True)
    for size in sizes:
        for less in (1, 2, 3, 4, 6, 8):
            if less >= size:
                break
            for with_multiples in (False, True):
                mapping = {size: less}
                if with_multiples:
                    mapping.update({s: s // size * less for s in sizes if s % size == 0})
                smaller = program.clone()
                for value in values_of(smaller):
                    value.shape = tuple(mapping.get(s, s) for s in value.shape)
                if any(node.op == "constant" and "[" in node.attributes for node in smaller.all_nodes()):
                    for node in smaller.all_nodes():
                        if node.op == "constant":
                            first = re.search(r"dense<\[*([^\],>]+)", node.attributes).group(1)
                            node.attributes = f"dense<{first}>"
                yield smaller


def size_of(program):
    elements = sum(math.prod(value.shape) for value in values_of(program))
    shardings = sum(len(v.sharding.pieces()) + 1 for v in values_of(program) if v.sharding)
    shardings += sum(len(s.pieces()) + 1 for _, s in program.outputs if s)
    axes = sum(program.mesh.values())
    return (len(program.all_nodes()), len(program.outputs) + len(program.arguments), axes, shardings, elements)


def shrink(program, still_fails, limit=400):
    """`still_fails(program)` is asked at most `limit` times; gives the smallest found."""
    asked = 0
    improved = True
    while improved and asked < limit:
        improved = False
        for changes in (without_outputs, without_ops, without_inner_ops, without_axes, without_shardings, with_smaller_dims):
            again = True
            while again and asked < limit:
                again = False
                for smaller in changes(program):
                    smaller.remove_dead()
                    if not smaller.outputs or size_of(smaller) >= size_of(program):
                        continue
                    asked += 1
                    if still_fails(smaller):
                        program, improved, again = smaller, True, True
                        break
                    if asked >= limit:
                        break
    return program
