"""Llamas of any depth and width in the form of the real export test/models/llama.onnx.

The layers of that export repeat, and so do the exporter's numbers in names (linear_14, linear_21, ...): every further
layer continues them. What depends on the sizes (head counts in shape constants, value_info, the rotary table) is
rewritten; nodes, attributes and metadata stay as the exporter wrote them. Weights are a sparse file of zeros.
"""

import dataclasses
import pathlib
import re

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a Llama; `head` is the width of one head."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    head: int

    def parameters(self):
        attention = self.hidden * self.head * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden


EXPORTED = Shape(layers=4, hidden=512, intermediate=1408, heads=8, kv_heads=2, vocabulary=32000, head=64)
LLAMA_70B = Shape(80, 8192, 28672, 64, 8, 128256, 128)
LLAMA_405B = Shape(126, 16384, 53248, 128, 8, 128256, 128)


class Numbers:
    """The exporter's numbering of one export, continued for more layers."""

    def __init__(self, third, fourth):
        self.steps = {}  # name without number -> by how much it grows per layer
        self.last = {}  # ... -> its largest number in the fourth layer
        for before, after in zip(third, fourth):
            (stem, first), (_, second) = self.split(before), self.split(after)
            if first is None or before == after or "model.layers." in before:
                continue
            assert self.steps.setdefault(stem, second - first) == second - first, before
            self.last[stem] = max(second, self.last.get(stem, 0))

    @staticmethod
    def split(name):
        match = re.fullmatch(r"(.*_)(\d+)", name)
        return (match[1], int(match[2])) if match else (name, None)

    def moved(self, name, layers):
        """`name` as if the export had that many layers more before it."""
        stem, number = self.split(name)
        return f"{stem}{number + layers * self.steps[stem]}" if stem in self.steps else name

    def behind(self, name, layers):
        """What was numbered after the last layer moves on; the rest stays."""
        stem, number = self.split(name)
        return self.moved(name, layers) if number is not None and number > self.last.get(stem, number) else name


def layer_of(node):
    scopes = next((p.value for p in node.metadata_props if p.key.endswith("name_scopes")), "")
    match = re.search(r"'model\.layers\.(\d+)'", scopes)
    return int(match[1]) if match else None


def in_layer(text, layer):
    """`text` with layer numbers replaced, in both of the exporter's spellings."""
    if layer is None:
        return text
    return re.sub(r"(model[._]layers[._])\d+", lambda match: match[1] + str(layer), text)


def names_of(nodes):
    return [n for node in nodes for n in [node.name, *node.input, *node.output]]


def write(path, shape, dtype=np.float32):
    """Writes PATH and, sparse, PATH.data; gives the bytes of the weights."""
    source = onnx.load(MODELS / "llama.onnx", load_external_data=False)
    graph = source.graph
    nodes = list(graph.node)
    layers = [[n for n in nodes if layer_of(n) == i] for i in range(EXPORTED.layers)]
    begin, end = nodes.index(layers[0][0]), nodes.index(layers[-1][-1]) + 1
    numbers = Numbers(names_of(layers[2]), names_of(layers[3]))
    infos = {v.name: v for v in graph.value_info}
    weights = {t.name: t for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}
    of_layer = {o for layer in layers for n in layer for o in n.output}
    of_layer |= {i for layer in layers for n in layer for i in n.input if i in weights}
    of_last = {o for n in layers[3] for o in [*n.output, *(i for i in n.input if i in weights)]}
    more = shape.layers - EXPORTED.layers
    sizes = {getattr(EXPORTED, f.name): getattr(shape, f.name) for f in dataclasses.fields(Shape)[1:]}
    sizes[EXPORTED.head // 2] = shape.head // 2
    sizes[EXPORTED.kv_heads * EXPORTED.head] = shape.kv_heads * shape.head
    sizes[EXPORTED.heads // EXPORTED.kv_heads] = shape.heads // shape.kv_heads

    out = onnx.ModelProto()
    out.CopyFrom(source)
    for field in (out.graph.node, out.graph.initializer, out.graph.value_info):
        del field[:]

    def add(node, rename, layer=None):
        copy = out.graph.node.add()
        copy.CopyFrom(node)
        copy.name = rename(node.name)
        copy.input[:] = [rename(n) for n in node.input]
        copy.output[:] = [rename(n) for n in node.output]
        for entry in copy.metadata_props:
            entry.value = in_layer(entry.value, layer)
            entry.value = re.sub(r"[%(' ][a-z_]+_\d+\b", lambda m: m[0][0] + rename(m[0][1:]), entry.value)
        for name in node.output:
            if name in infos:
                info = out.graph.value_info.add()
                info.CopyFrom(infos[name])
                info.name = rename(name)
                resize(info)

    def resize(info):
        dims = info.type.tensor_type.shape.dim
        for dim, size in zip(dims, [sizes.get(d.dim_value, d.dim_value) for d in dims]):
            if dim.HasField("dim_value"):
                dim.dim_value = size

    offset = 0

    def add_weight(tensor, name, layer=None):
        nonlocal offset
        copy = out.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = name
        copy.dims[:] = [sizes.get(d, d) for d in tensor.dims]
        length = 4 * int(np.prod(copy.dims, dtype=object))
        for key, value in zip(copy.external_data, (path.name + ".data", offset, length)):
            key.value = str(value)
        offset += length
        if tensor.name in infos:
            info = out.graph.value_info.add()
            info.CopyFrom(infos[tensor.name])
            info.name = name
            for entry in info.metadata_props:
                entry.value = in_layer(entry.value, layer)
            resize(info)

    # Names of the layers that are there stay; those behind them move on.
    keep = lambda name: name if name in of_layer else numbers.behind(name, more)  # noqa: E731
    for node in nodes[:begin]:
        add(node, keep)
    inner = weights.keys() & set(names_of([n for layer in layers for n in layer]))
    for i in range(min(shape.layers, EXPORTED.layers)):
        for node in layers[i]:
            add(node, keep, i)
    last_names = {}
    for i in range(EXPORTED.layers, shape.layers):

        def renamed(name, i=i):
            if "model.layers." in name:
                return name.replace("model.layers.3.", f"model.layers.{i}.")
            own = name in of_last or name.startswith("node_")
            return numbers.moved(name, i - 3) if own else keep(name)

        # The residual stream comes from the layer before.
        def chained(name, i=i, renamed=renamed):
            before = [o for o in layers[2][-1].output]
            return (last_names["out"] if i > EXPORTED.layers else layers[3][-1].output[0]) if name in before else renamed(name)

        for node in layers[3]:
            add(node, chained, i)
        for name in sorted(inner & set(names_of(layers[3])), key=list(weights).index):
            last_names.setdefault("weights", []).append((weights[name], renamed(name), i))
        last_names["out"] = renamed(layers[3][-1].output[0])
    final = last_names.get("out", layers[3][-1].output[0])
    for node in nodes[end:]:
        add(node, lambda name: final if name == layers[3][-1].output[0] else keep(name))

    used = {n for node in out.graph.node for n in node.input}
    for tensor in graph.initializer:
        if tensor.name in weights:
            add_weight(tensor, keep(tensor.name))
            continue
        copy = out.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = keep(tensor.name)
        value = numpy_helper.to_array(tensor)
        if tensor.name == "model.rotary_emb.inv_freq":
            exponents = np.arange(0, shape.head, 2, dtype=np.float32) / shape.head
            value = (500000.0**-exponents).astype(np.float32)
        elif tensor.name == "val_147":  # the scale, by halves on queries and keys
            value = np.float32(shape.head**-0.25)
        elif tensor.data_type == TensorProto.INT64 and tensor.name in ("val_47", "val_69", "val_109", "val_115"):
            value = np.array([sizes[int(value[0])]], np.int64)
        else:
            continue
        copy.CopyFrom(numpy_helper.from_array(np.asarray(value), copy.name))
    for tensor, name, layer in last_names.get("weights", []):
        add_weight(tensor, name, layer)
    # The export merged the count of KV heads with the axis 2.
    kv_heads = out.graph.initializer.add()
    kv_heads.CopyFrom(numpy_helper.from_array(np.array([shape.kv_heads], np.int64), "val_111"))
    for node in out.graph.node:
        if node.name == "node_Concat_112":
            node.input[1] = kv_heads.name
    for entry in out.graph.metadata_props:
        lines = entry.value.split("\n")
        lines = [
            in_layer(line, i) if line in of_fourth else line
            for of_fourth in [{line for line in lines if in_layer(line, 0) != line and in_layer(line, 3) == line}]
            for line in lines
            for i in ([3, *range(EXPORTED.layers, shape.layers)] if line in of_fourth else [0])
        ]
        entry.value = "\n".join(lines)
    for output in out.graph.output:
        resize(output)
    assert used <= {t.name for t in out.graph.initializer} | {i.name for i in out.graph.input} | {
        o for n in out.graph.node for o in n.output
    }, "a value has no definition"
    path.write_bytes(out.SerializeToString())
    with open(f"{path}.data", "wb") as data:
        data.truncate(offset)
    return offset
