"""Cut and damaged copies of good models: never a crash, never silence.

Usage: check_damaged.py DSHARD_OPT FOLDER MODELS [ROUNDS [SEED]]

A damaged copy is refused with exit status 1 and one line, or (where the damage does not matter) imported.
"""

import os
import pathlib
import random
import subprocess
import sys
import time

import onnx

import check_ops

OPT, FOLDER, MODELS = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
ROUNDS, SEED = [int(text) for text in sys.argv[4:]] + [100, 1][len(sys.argv) - 4 :]
FOLDER.mkdir(parents=True, exist_ok=True)


def stripped(name):
    """Without metadata, which would take most of the hits."""
    model = onnx.load(MODELS / name, load_external_data=False)
    for holder in [*model.graph.node, *model.graph.value_info, model.graph]:
        del holder.metadata_props[:]
    del model.graph.value_info[:]
    return model


def damage_bytes(data, source):
    data = bytearray(data)
    if source.random() < 0.2:
        return data[: source.randrange(1, len(data))]
    for _ in range(source.randrange(1, 6)):
        data[source.randrange(len(data))] = source.choice([0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)])
    return data


def damage_graph(model, source):
    """Well-formed, but wrong: other numbers, names, inputs."""
    model = onnx.ModelProto.FromString(model)
    graph = model.graph
    names = [n for node in graph.node for n in node.output] + [""]
    numbers = [0, 1, -1, 2, 3, -5, 7, 64, 2**31, 2**63 - 1, -(2**63)]
    for _ in range(source.randrange(1, 4)):
        node = source.choice(graph.node)
        kind = source.randrange(6)
        if kind == 0 and node.input:
            node.input[source.randrange(len(node.input))] = source.choice(names)
        elif kind == 1 and node.attribute:
            attribute = source.choice(node.attribute)
            attribute.i = source.choice(numbers)
            if attribute.ints:
                attribute.ints[source.randrange(len(attribute.ints))] = source.choice(numbers)
        elif kind == 2 and node.input:
            del node.input[-1]
        elif kind == 3:
            node.op_type = source.choice(graph.node).op_type
        elif kind == 4 and graph.initializer:
            tensor = source.choice(graph.initializer)
            if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.raw_data) >= 8:
                at = source.randrange(len(tensor.raw_data) // 8) * 8
                number = source.choice(numbers).to_bytes(8, "little", signed=True)
                tensor.raw_data = tensor.raw_data[:at] + number + tensor.raw_data[at + 8 :]
            else:
                tensor.data_type = source.randrange(20)
        elif kind == 5:
            value = source.choice([*graph.input, *graph.output])
            dims = value.type.tensor_type.shape.dim
            if dims:
                source.choice(dims).dim_value = source.choice(numbers)
    return model.SerializeToString()


flags = {"llama-small.onnx": ["--dim", "batch=2", "--dim", "seq=4"], "mlp.onnx": ["--dim", "batch=4"]}
originals = [(stripped(name).SerializeToString(), dims) for name, dims in flags.items()]
originals += [(case().build().SerializeToString(), []) for case in check_ops.CASES]
source = random.Random(SEED)
path = FOLDER / "damaged.onnx"
outcomes = {0: 0, 1: 0}
for i in range(ROUNDS):
    data, dims = originals[i % len(originals)]
    data = source.choice([damage_bytes, damage_graph])(data, source)
    path.write_bytes(data)
    begin = time.monotonic()
    done = subprocess.run([OPT, path, "--to=import", "-o", os.devnull, *dims], capture_output=True, text=True, errors="replace", timeout=60)
    errors = [line for line in done.stderr.splitlines() if "remark:" not in line]
    good = (done.returncode == 0 and not errors) or (done.returncode == 1 and len(errors) == 1)
    if not good or time.monotonic() - begin > 10:
        kept = FOLDER / f"damaged-{SEED}-{i}.onnx"
        kept.write_bytes(data)
        sys.exit(f"{kept}: exit status {done.returncode}: {done.stderr.strip()[-800:]}")
    outcomes[done.returncode] += 1
print(f"{ROUNDS} damaged copies: {outcomes[1]} refused, {outcomes[0]} imported, none crashed")
sys.exit(outcomes[1] < ROUNDS // 4)  # else the damage is too weak to mean anything
