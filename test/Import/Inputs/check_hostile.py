"""The eight hostile groups: each case gives exit status 1 (or, where ONNX allows it, 0) and one line, in bounded memory and time.

Usage: check_hostile.py DSHARD_OPT FOLDER MODELS

What check_bad_models.py has is not repeated. Group 8, plans and weights at run time, is test_bad_input.py's and the
plan tests'.
"""

import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPT, FOLDER, MODELS = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
MEGABYTES, SECONDS = 700, 60
shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir(parents=True)
problems = []
counts = {}


def run(path, flags):
    """(exit status, standard error, MiB at the peak)"""
    # Sanitizers take more of both.
    command = [OPT, path, "-o", os.devnull, "--quiet", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace")
    text = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, text, usage.ru_maxrss / 1024


def judge(group, name, path, parts, flags=(), accepted=False):
    """`parts`: what the line must contain; None: nothing is asked of it but to be one."""
    status, text, megabytes = run(path, ["--to=import", *flags])
    lines = text.splitlines()
    counts[group] = counts.get(group, 0) + 1
    wrong = []
    if accepted:
        wrong += [f"exit status {status} instead of 0"] if status else []
    elif parts is None and status == 0:
        pass
    else:
        wrong += [] if status == 1 else [f"exit status {status}"]
        wrong += [] if len(lines) == 1 else [f"{len(lines)} lines"]
        wrong += [f"no '{part}'" for part in parts or [] if part not in text and not re.search(part, text)]
    if megabytes > MEGABYTES and "ASAN_OPTIONS" not in os.environ:
        wrong.append(f"{megabytes:.0f} MiB")
    if wrong:
        problems.append(f"group {group}, {name}: {', '.join(wrong)} in: {text.strip()[:300]}")


def case(group, name, content, parts, flags=(), accepted=False):
    path = FOLDER / f"{group}-{name}.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    judge(group, name, path, parts, flags, accepted)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs=None, outputs=None, initializers=(), opset=20, **fields):
    inputs = [value("x", [2, 6])] if inputs is None else inputs
    outputs = [onnx.ValueInfoProto(name="y")] if outputs is None else outputs
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **{"ir_version": 10, **fields})


def node(op, inputs, outputs=("y",), name="bad", **attributes):
    return helper.make_node(op, inputs, list(outputs), name=name, **attributes)


def ints(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def one(op, *constants, opset=20, **attributes):
    """A model of one node: x and int64 constants."""
    tensors = [ints(f"c{i}", c) for i, c in enumerate(constants)]
    return model([node(op, ["x", *(t.name for t in tensors)], **attributes)], initializers=tensors, opset=opset)


def with_tensor(tensor):
    return model([node("Add", ["x", "w"])], initializers=[tensor])


def external(location, dims=(6,), **entries):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, content in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=content)
    return tensor


GOOD = model([node("Relu", ["x"], ["a"], "one"), node("Softmax", ["a"], name="two", axis=1)]).SerializeToString()


def varint(number):
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


# ---- 1: files
case(1, "one-byte", b"\x08", ["truncated|not an ONNX model"])
for seed in range(8):
    case(1, f"random-{seed}", random.Random(seed).randbytes(300), ["not an ONNX model|damaged|truncated"])
with concurrent.futures.ThreadPoolExecutor(2) as pool:  # cut at every byte: never silence
    for length in range(1, len(GOOD)):
        (FOLDER / f"cut-{length}.onnx").write_bytes(GOOD[:length])
    jobs = [
        pool.submit(judge, 1, f"cut-{length}", FOLDER / f"cut-{length}.onnx", [f"cut-{length}.onnx: "])
        for length in range(1, len(GOOD))
    ]
    [job.result() for job in jobs]
for name, head in {"zeros": b"", "field": b"\x08\x0a" + varint(15 << 3 | 2) + varint(3 << 30)}.items():
    path = FOLDER / f"sparse-{name}.onnx"  # 3 GiB that are not there
    path.write_bytes(head)
    os.truncate(path, len(head) + (3 << 30))
    judge(1, f"sparse-{name}", path, ["not an ONNX model|512 MiB"])
path = FOLDER / "sparse-weights.onnx"  # and 3 GiB of weights, which may be
tensor = varint(1 << 3) + varint(3 << 28) + varint(2 << 3) + b"\x01" + field(8, b"w") + varint(9 << 3 | 2) + varint(3 << 30)
inner = field(1, node("Identity", ["w"]).SerializeToString()) + field(12, onnx.ValueInfoProto(name="y").SerializeToString())
graph_size = len(inner) + 1 + len(varint(len(tensor) + (3 << 30))) + len(tensor) + (3 << 30)
head = b"\x08\x0a" + field(8, helper.make_opsetid("", 20).SerializeToString()) + varint(7 << 3 | 2) + varint(graph_size)
head += inner + varint(5 << 3 | 2) + varint(len(tensor) + (3 << 30)) + tensor
path.write_bytes(head)
os.truncate(path, len(head) + (3 << 30))
judge(1, "sparse-weights", path, [], accepted=True)

# ---- 2: the wire
graph = onnx.ModelProto.FromString(GOOD).graph.SerializeToString()
head = b"\x08\x0a" + field(8, helper.make_opsetid("", 20).SerializeToString())
case(2, "length-2-63", b"\x08\x0a\x3a" + varint(2**63), ["truncated|damaged"])
case(2, "length-2-64", b"\x08\x0a\x3a" + varint(2**64 - 1), ["truncated|damaged"])
case(2, "field-0", head + b"\x02\x00", ["damaged", "field number 0"])
case(2, "end-group", head + b"\x0c", ["damaged", "wire type 4"])
case(2, "wire-type-6", head + b"\x0e", ["damaged", "wire type 6"])
case(2, "graph-as-number", head + varint(7 << 3) + b"\x05", ["no graph|damaged"])
case(2, "unknown-fields", head + field(7, graph) + varint(3000 << 3) + b"\x05" + field(3001, b"abc"), [], accepted=True)
case(2, "number-twice", b"\x08\x09" + head + field(7, graph), [], accepted=True)
case(2, "graph-twice", head + field(7, graph) + field(7, graph), ["'a'|'y'|two inputs"])  # merged: all is there twice
halves = onnx.GraphProto.FromString(graph), onnx.GraphProto.FromString(graph)
del halves[0].node[1:], halves[0].output[:], halves[1].node[:1], halves[1].input[:]
case(2, "graph-in-halves", head + b"".join(field(7, h.SerializeToString()) for h in halves), [], accepted=True)
packed = varint(1 << 3 | 2) + b"\x01\x06" + varint(2 << 3) + b"\x01" + field(8, b"w") + field(9, bytes(24))
add = field(7, model([node("Add", ["x", "w"])]).graph.SerializeToString() + field(5, packed))
case(2, "packed-dims", head + add, [], accepted=True)
for what in ("graphs", "types"):
    deep = b""
    for _ in range(10000):
        if what == "graphs":  # a graph in an attribute in a node in a graph
            deep = field(1, field(5, field(6, deep) + field(1, b"body")))
        else:  # a sequence of sequences of ...
            deep = field(4, field(1, deep))
    if what == "types":
        deep = field(11, field(1, b"x") + field(2, deep)) + graph
    case(2, f"deep-{what}", head + field(7, deep), None if what == "types" else ["deep|damaged|op"])

# ---- 3: tensors
case(3, "zero-dims-with-data", with_tensor(TensorProto(name="w", data_type=1, dims=[0, 6], raw_data=bytes(24))), ["'w'", "24 bytes"])
case(3, "undefined-type", with_tensor(TensorProto(name="w", data_type=0, dims=[6], raw_data=bytes(24))), ["'w'", "UNDEFINED"])
case(3, "no-type", with_tensor(TensorProto(name="w", dims=[6], raw_data=bytes(24))), ["'w'", "UNDEFINED|type 0"])
case(3, "rank-a-million", with_tensor(TensorProto(name="w", data_type=1, dims=[1] * 10**6, raw_data=bytes(4))), ["'w'", "1000000 dims"])
case(3, "string-in-raw", with_tensor(TensorProto(name="w", data_type=TensorProto.STRING, dims=[6], raw_data=b"abcdef")), ["'w'", "STRING"])
case(3, "overflow-2-63", with_tensor(TensorProto(name="w", data_type=1, dims=[2**31, 2**31, 2], raw_data=bytes(4))), ["'w'", "too many"])
case(3, "odd-4-bit", with_tensor(TensorProto(name="w", data_type=TensorProto.INT4, dims=[3], raw_data=bytes(1))), ["'w'"])
case(3, "nan", with_tensor(numpy_helper.from_array(np.array([np.nan, np.inf, -np.inf, 0, 1, 2], np.float32), "w")), [], accepted=True)
case(3, "segment", with_tensor(TensorProto(name="w", data_type=1, dims=[6], segment=TensorProto.Segment(begin=0, end=2**62), raw_data=bytes(24))), ["segmented"])

# ---- 4: external data
(FOLDER / "six.bin").write_bytes(bytes(24))
(FOLDER / "inside").mkdir()
(FOLDER / "inside" / "six.bin").write_bytes(bytes(24))
(FOLDER / "way-out").symlink_to("/etc")
(FOLDER / "way-in").symlink_to("inside")
(FOLDER / "zero").symlink_to("/dev/zero")
(FOLDER / "mem").symlink_to("/proc/self/mem")
(FOLDER / "loop").symlink_to("loop")
os.link(FOLDER / "six.bin", FOLDER / "hard.bin")
for name, location, parts in (
    ("drive", "C:\\w.bin", ["outside"]),
    ("nul", "six.bin\0.txt", ["outside|no-such"]),
    ("empty", "", ["no location"]),
    ("linked-folder", "way-out/passwd", ["link that leaves|too short"]),
    ("zero-device", "zero", ["leaves|regular"]),
    ("memory", "mem", ["leaves|regular"]),
    ("loop", "loop", ["'loop'", "cannot be opened"]),
    ("long", "a" * 5000, ["cannot be opened"]),
    ("dot", ".", ["'.'"]),
):
    case(4, name, with_tensor(external(location)), ["'w'", *parts])
for name, entries, parts in (
    ("exponent", {"offset": "1e9"}, ["offset", "1e9"]),
    ("empty-offset", {"offset": ""}, ["offset"]),
    ("large-offset", {"offset": str(2**64)}, ["offset"]),
    ("overflow", {"offset": str(2**63 - 8), "length": "24"}, ["too short"]),
    ("negative-length", {"length": "-24"}, ["length", "-24"]),
):
    case(4, name, with_tensor(external("six.bin", **entries)), ["'w'", *parts])
case(4, "hard-link", with_tensor(external("hard.bin")), [], accepted=True)  # as caches of models keep files
case(4, "link-inside", with_tensor(external("way-in/six.bin")), [], accepted=True)
case(4, "unaligned", with_tensor(external("six.bin", dims=(1,), offset="3")), [], accepted=True)
case(4, "unknown-key", with_tensor(external("six.bin", __class__="x")), [], accepted=True)
case(4, "constant-attribute", model([node("Constant", [], ["w"], value=external("../w.bin")), node("Add", ["x", "w"])]), ["outside"])
case(4, "fill-attribute", model([node("ConstantOfShape", ["s"], value=external("/dev/zero", dims=(1,)))], initializers=[ints("s", [2])]), ["outside|ConstantOfShape"])
sparse = onnx.SparseTensorProto(values=external("../w.bin"), indices=ints("i", list(range(6))), dims=[6])
bad = model([node("Relu", ["x"])])
bad.graph.sparse_initializer.append(sparse)
case(4, "sparse-initializer", bad, ["sparse"])
case(4, "sparse-constant", model([node("Constant", [], sparse_value=sparse)]), ["sparse|Constant"])
body = helper.make_graph([node("Identity", ["w"], ["o"])], "body", [], [value("o", [6])], [external("../w.bin")])
branch = model([node("If", ["c"], then_branch=body, else_branch=body)], initializers=[numpy_helper.from_array(np.array(True), "c")])
case(4, "subgraph", branch, ["outside|If"])
function = helper.make_function("my", "F", ["a"], ["b"], [node("Constant", [], ["w"], value=external("../w.bin")), node("Add", ["a", "w"], ["b"])], [helper.make_opsetid("", 20)])
called = model([node("F", ["x"], domain="my")], functions=[function])
called.opset_import.append(helper.make_opsetid("my", 1))
case(4, "function", called, ["outside|my:F"])
bad = model([node("Relu", ["x"])])
bad.training_info.add().initialization.initializer.append(external("../w.bin"))
case(4, "training-info", bad, None)

# ---- 5: the graph
for opset, parts in ((0, ["opset 0"]), (-1, ["opset -1"]), (29, ["opset 29"])):
    case(5, f"opset-{opset}", model([node("Relu", ["x"])], opset=opset), parts)
for version in (0, 99, -1):
    case(5, f"ir-{version}", model([node("Relu", ["x"])], ir_version=version), None)
case(5, "unknown-domain", model([node("Relu", ["x"], domain="no.such")]), ["no.such:Relu"])
case(5, "passthrough", model([], outputs=[value("x", [2, 6])]), [], accepted=True)
case(5, "unsorted", model([node("Relu", ["a"], name="two"), node("Neg", ["x"], ["a"], "one")]), [], accepted=True)
case(5, "unused", model([node("Relu", ["x"])], inputs=[value("x", [2, 6]), value("z", [3])], initializers=[ints("w", [1])]), [], accepted=True)
case(5, "many-outputs", model([node("Relu", ["x"], ["y", "z"])]), ["outputs"])
case(5, "no-outputs", model([node("Relu", ["x"], [])]), ["no outputs|output 'y'"])
case(5, "constant-without-outputs", model([node("Constant", [], [], value=ints("v", [1])), node("Relu", ["x"])]), ["'bad' \\(Constant\\)", "no outputs"])
case(5, "empty-graph", model([], inputs=[], outputs=[]), None)
case(5, "empty-output-name", model([node("Relu", ["x"], [""])]), None)
bad = model([node("Transpose", ["x"])])
bad.graph.node[0].attribute.add(name="perm", ref_attr_name="p", type=onnx.AttributeProto.INTS)
case(5, "ref-outside-function", bad, ["perm|ref_attr"])
case(5, "no-attribute", model([node("Cast", ["x"])]), ["'to'"])
case(5, "no-concat-axis", model([node("Concat", ["x", "x"])]), ["'axis'"])
case(5, "attribute-twice", (lambda m: (m.graph.node[0].attribute.append(helper.make_attribute("axis", 0)), m)[1])(one("Softmax", axis=1)), None)
own = [helper.make_opsetid("my", 1), helper.make_opsetid("", 20)]


def functions(*calls):
    """Functions f0, f1, ... of domain my; each a list of whom it calls in a row. The model calls f0."""
    made = []
    for i, callees in enumerate(calls):
        names = ["a", *(f"t{j}" for j in range(len(callees) - 1)), "b"]
        nodes = [node(c, [names[j]], [names[j + 1]], f"call{j}", domain="my" if c.startswith("f") else "") for j, c in enumerate(callees)]
        made.append(helper.make_function("my", f"f{i}", ["a"], ["b"], nodes, own))
    result = model([node("f0", ["x"], domain="my")], functions=made)
    result.opset_import.append(helper.make_opsetid("my", 1))
    return result


case(5, "recursion", functions(["f0"]), ["function 'my:f0' calls itself: 'my:f0' -> 'my:f0'"])
case(5, "mutual-recursion", functions(["f1"], ["f0"]), ["'my:f0' -> 'my:f1' -> 'my:f0'"])
bad = functions(["Relu"])
body = helper.make_graph([node("f0", ["a"], ["o"], domain="my")], "body", [], [onnx.ValueInfoProto(name="o")])
bad.functions[0].node[0].CopyFrom(node("If", ["a"], ["b"], then_branch=body, else_branch=body))
case(5, "recursion-through-if", bad, ["function 'my:f0' calls itself"])
case(5, "billion-laughs", functions(*[[f"f{i + 1}", f"f{i + 1}"] for i in range(40)], ["Relu"]), ["200000 nodes"])
case(5, "calls-of-nothing", functions(*[[f"f{i + 1}"] * 30 for i in range(8)], ["Identity"]), ["200000 nodes"])
case(5, "long-chain", functions(*[[f"f{i + 1}"] for i in range(3000)], ["Relu"]), ["nested more than 64 deep"])
case(5, "good-chain", functions(*[[f"f{i + 1}"] for i in range(60)], ["Relu"]), [], accepted=True)
bad = functions(*[[f"f{i + 1}", f"f{i + 1}"] for i in range(12)], ["Relu"])
for made in bad.functions:
    made.node[0].name = "n" * 10000
case(5, "long-names", bad, ["128 MiB of nodes"])
bad = functions(*[[f"f{i + 1}", f"f{i + 1}"] for i in range(16)], ["Relu"])
bad.functions[-1].node.append(node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(1000, np.float32))))
case(5, "large-constants", bad, ["128 MiB of nodes"])
case(5, "function-without-inputs", (lambda m: (m.graph.node[0].ClearField("input"), m)[1])(functions(["Relu"])), ["f0|input"])
unused = functions(["Relu"], ["f1"], ["f3"], ["f2"])
case(5, "unused-recursion", unused, [], accepted=True)
for name, edit, parts in (
    ("many-inputs", lambda m: m.graph.node[0].input.append("x"), ["'bad'", "has 2 inputs; function 'my:f0' has 1"]),
    ("many-outputs", lambda m: m.graph.node[0].output.append("z"), ["'bad'", "has 2 outputs; function 'my:f0' has 1"]),
    ("unknown-attribute", lambda m: m.graph.node[0].attribute.append(helper.make_attribute("z", 1)), ["'bad'", "no attribute 'z'"]),
    ("graph-attribute", lambda m: (m.functions[0].attribute.append("z"), m.graph.node[0].attribute.append(helper.make_attribute("z", halves[0]))), ["'bad'", "graph as attribute 'z'"]),
    ("two-of-a-name", lambda m: m.functions.append(m.functions[0]), ["two functions are named 'my:f0'"]),
    ("two-inputs-of-a-name", lambda m: m.functions[0].input.append("a"), ["two inputs named 'a'"]),
    ("two-outputs-of-a-name", lambda m: m.functions[0].output.append("b"), ["two outputs named 'b'"]),
    ("nameless-input", lambda m: m.functions[0].input.append(""), ["'my:f0' has an input without a name"]),
    ("nameless-output", lambda m: m.functions[0].output.append(""), ["'my:f0' has an output without a name"]),
    ("opset", lambda m: setattr(m.functions[0].opset_import[1], "version", 10**9), ["'my:f0' is in opset 1000000000"]),
    ("no-opset", lambda m: m.functions[0].opset_import.pop(), ["'my:f0' uses 'Relu', but imports no opset"]),
    ("undefined", lambda m: m.functions[0].node[0].input.__setitem__(0, "z"), ["input 'bad.z' is not defined"]),
    ("output-of-nothing", lambda m: m.functions[0].output.__setitem__(0, "z"), ["'y'|'bad.z'", "not defined"]),
    ("input-written", lambda m: m.functions[0].node[0].output.__setitem__(0, "a"), ["'x' is already defined"]),
    ("ref-to-nothing", lambda m: m.functions[0].node[0].CopyFrom(node("Cast", ["a"], ["b"])) or m.functions[0].node[0].attribute.add(name="to", ref_attr_name="q", type=2), ["'bad.bad' \\(Cast\\)", "'to' is missing"]),
    ("overload", lambda m: setattr(m.graph.node[0], "overload", "z"), ["my:f0"]),
):
    bad = functions(["Relu"])
    edit(bad)
    case(5, f"function-{name}", bad, parts)



def loop(depth, trips):
    """Loops in loops; each adds one to what it carries."""
    inner = node("Add", ["v", "v"], ["w"], "add")
    if depth > 1:
        inner = loop(depth - 1, trips)
        inner.input[2], inner.output[0] = "v", "w"
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"], "on"), inner],
        f"body{depth}",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), onnx.ValueInfoProto(name="v")],
        [onnx.ValueInfoProto(name="d"), onnx.ValueInfoProto(name="w")],
    )
    return node("Loop", ["trips", "on", "x"], name=f"loop{depth}", body=body)


on = numpy_helper.from_array(np.array(True), "on")
case(5, "endless-loop", model([loop(1, 0)], initializers=[ints("trips", 2**63 - 1), on]), ["loop1|Loop"])
case(5, "loops-in-loops", model([loop(3, 0)], initializers=[ints("trips", 1000), on]), ["loops|nodes|Loop"])
body = helper.make_graph([node("Neg", ["a"], ["b"])], "body", [onnx.ValueInfoProto(name="a")], [onnx.ValueInfoProto(name="b")])
case(5, "long-scan", model([node("Scan", ["x"], body=body, num_scan_inputs=1)], [value("x", [2**20, 6])]), ["Scan"])
weights = [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in (("w", (1, 3, 2)), ("r", (1, 3, 3)))]
case(5, "long-rnn", model([node("RNN", ["x", "w", "r"], hidden_size=3)], [value("x", [10**6, 1, 2])], initializers=weights), ["RNN"])

# ---- 6: meaning
image, kernel = value("x", [1, 4, 8, 8]), numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.float32), "k")
for name, attributes in {
    "stride-0": {"strides": [0, 1]},
    "negative-dilation": {"dilations": [-1, 1]},
    "group-0": {"group": 0},
    "groups": {"group": 3},
    "pads": {"pads": [2**62] * 4},
    "few-pads": {"pads": [1]},
    "shape": {"kernel_shape": [5, 5]},
}.items():
    case(6, f"conv-{name}", model([node("Conv", ["x", "k"], **attributes)], [image], initializers=[kernel]), ["Conv"])
case(6, "conv-rank", model([node("Conv", ["x", "k"])], initializers=[kernel]), ["Conv"])
case(6, "pool-kernel-0", model([node("MaxPool", ["x"], kernel_shape=[0, 1])], [image]), ["MaxPool"])
case(6, "pool-kernel-max", model([node("AveragePool", ["x"], kernel_shape=[2**62, 1])], [image]), ["AveragePool"])
scales = numpy_helper.from_array(np.array([1, 1, 1e30, 1e30], np.float32), "s")
case(6, "resize", model([node("Resize", ["x", "", "s"])], [image], initializers=[scales]), ["Resize"])
case(6, "einsum-letters", one("Einsum", equation="abcdefghijklmnopqrstuvwxyz" * 40 + "->"), ["Einsum"])
case(6, "allowzero", one("Reshape", [0, -1], allowzero=1), None)
case(6, "axis-min", one("Softmax", axis=-(2**63)), ["axis"])
case(6, "flatten-axis", one("Flatten", axis=3), ["axis"])
case(6, "slice-min", one("Slice", [-(2**63)], [2**63 - 1], [0], [-(2**63)]), None)
case(6, "split-sum", one("Split", [2**62, 2**62, 2**62, 2**62], outputs=["y", "a", "b", "c"], axis=1), ["Split"])
case(6, "pad-max", one("Pad", [2**62, 0, 2**62, 0]), ["Pad"])
case(6, "einsum", one("Einsum", equation="ij->k"), ["Einsum"])
case(6, "einsum-junk", one("Einsum", equation="((->"), ["Einsum"])
case(6, "topk", one("TopK", [7], outputs=["y", "i"]), ["TopK"])
case(6, "gather-min", one("Gather", [-(2**63)], axis=1), ["index"])
case(6, "onehot", model([node("OneHot", ["x", "d", "v"])], [value("x", [2], TensorProto.INT64)], initializers=[ints("d", [2**50]), numpy_helper.from_array(np.array([0, 1], np.float32), "v")]), ["OneHot"])
limits = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("a", 0), ("b", 1e30), ("c", 1e-30))]
case(6, "range-float", model([node("Range", ["a", "b", "c"])], initializers=limits), ["Range"])
case(6, "range-int", model([node("Range", ["a", "b", "c"])], initializers=[ints("a", -(2**63)), ints("b", 2**63 - 1), ints("c", 1)]), ["Range"])
tera = 2**38  # elements: 1 TiB of floats, and still a possible size
for name, content in {
    "fill": model([node("ConstantOfShape", ["s"])], initializers=[ints("s", [tera])]),
    "expand": model([node("ConstantOfShape", ["a"], ["f"], "fill"), node("Expand", ["f", "s"])], initializers=[ints("a", [1]), ints("s", [tera])]),
    "tile": model([node("ConstantOfShape", ["a"], ["f"], "fill"), node("Tile", ["f", "s"])], initializers=[ints("a", [4]), ints("s", [tera])]),
    "range": model([node("Range", ["a", "b", "c"])], initializers=[ints("a", 0), ints("b", tera), ints("c", 1)]),
}.items():
    for phase in ("import", "graph"):
        case(6, f"tebibyte-{name}-{phase}", content, None, [f"--to={phase}"])
doubling = [node("ConstantOfShape", ["a"], ["d0"], "fill")]
doubling += [node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], f"c{i}", axis=0) for i in range(34)]
case(6, "folding-bomb", model([*doubling, node("Relu", ["d34"])], initializers=[ints("a", [4])]), None, ["--to=graph"])
case(6, "batch-0", model([node("Relu", ["x"])], [value("x", ["batch", 6])]), None, ["--dim", "batch=0"])
case(6, "heads", model([node("Attention", ["q", "k", "k"], q_num_heads=3, kv_num_heads=2)], [value("q", [1, 4, 12]), value("k", [1, 4, 8])], opset=23), ["heads"])


def microsoft(op, **shapes):
    """A node whose inputs have these shapes: of floats, or of bytes where the name is `packed...`."""
    kinds = {name: TensorProto.UINT8 if name.startswith("packed") else TensorProto.FLOAT for name in shapes}
    inputs = [value(name, shape, kinds[name]) for name, shape in shapes.items()]
    return model([node(op, list(shapes), domain="com.microsoft", block_size=32)], inputs)


ids = ints("ids", [0, 1])
bad = microsoft("GatherBlockQuantized", packed=[9, 0], ids=[2], scales=[9, 0], packed_zeros=[9, 0])
del bad.graph.input[1]
bad.graph.initializer.append(ids)
case(6, "empty-packed-table", bad, ["'bad'", "rows of 0 elements of 4 bits are no whole blocks of 32"])
for name, up, down, parts in (
    ("experts-of-nothing", [4, 8, 0], [4, 0, 8], ["'bad'", "fc1 has the shape [4,8,0]"]),
    ("experts-without-dims", [4, 8, 6], [4], ["'bad'", "fc2 has 1 dims, not 3"]),
):
    bad = microsoft("MoE", x=[3, 6], router=[3, 4], up=up, up_bias=[4, 8], down=down)
    bad.graph.node[0].ClearField("attribute")
    case(6, name, bad, [re.escape(part) for part in parts])

# ---- 7: multi-device annotations
def annotated(edit, devices=4):
    made = model([node("Relu", ["x"], ["a"], "one"), node("Neg", ["a"], name="two")])
    configuration = made.configuration.add(name="c", num_devices=devices)
    nodes = [n.device_configurations.add(configuration_id="c") for n in made.graph.node]
    spec = nodes[0].sharding_spec.add(tensor_name="x", device=[0, 1])
    dim = spec.sharded_dim.add(axis=0)
    dim.simple_sharding.add(dim_value=2, num_shards=2)
    edit(made, configuration, nodes, spec, dim)
    return made


for name, edit, parts in (
    ("unknown-id", lambda m, c, n, s, d: setattr(n[0], "configuration_id", "z"), ["'one'", "'z'"]),
    ("no-devices", lambda m, c, n, s, d: setattr(c, "num_devices", 0), ["'c'", "0 devices"]),
    ("negative-devices", lambda m, c, n, s, d: setattr(c, "num_devices", -1), ["'c'", "-1 devices"]),
    ("many-devices", lambda m, c, n, s, d: setattr(c, "num_devices", 10**9), ["'c'", "1000000000 devices"]),
    ("device-names", lambda m, c, n, s, d: c.device.append("cpu"), ["'c'", "names 1", "has 4"]),
    ("same-name", lambda m, c, n, s, d: m.configuration.add(name="c", num_devices=2), ["'c'", "twice"]),
    ("no-name", lambda m, c, n, s, d: m.configuration.add(num_devices=2), ["no name"]),
    ("tensor", lambda m, c, n, s, d: setattr(s, "tensor_name", "y"), ["'one'", "'y'"]),
    ("tensor-twice", lambda m, c, n, s, d: n[0].sharding_spec.add(tensor_name="x"), ["'one'", "two shardings of 'x'"]),
    ("axis", lambda m, c, n, s, d: setattr(d, "axis", 2), ["axis 2", "2 dims"]),
    ("axis-twice", lambda m, c, n, s, d: s.sharded_dim.add(axis=-2), ["axis 0 twice"]),
    ("no-shards", lambda m, c, n, s, d: setattr(d.simple_sharding[0], "num_shards", 0), ["0 shards"]),
    ("negative-shards", lambda m, c, n, s, d: setattr(d.simple_sharding[0], "num_shards", -1), ["-1 shards"]),
    ("shards-of-size", lambda m, c, n, s, d: setattr(d.simple_sharding[0], "num_shards", 3), ["3 shards", "size 2"]),
    ("device", lambda m, c, n, s, d: s.device.__setitem__(0, 4), ["device 4", "has 4"]),
    ("no-group", lambda m, c, n, s, d: s.device.__setitem__(0, -1), ["device -1", "no key"]),
    ("empty-group", lambda m, c, n, s, d: s.index_to_device_group_map.add(key=-1), ["group -1 without"]),
    ("cyclic-group", lambda m, c, n, s, d: s.index_to_device_group_map.add(key=-1, value=[-1]), ["group -1", "device -1"]),
    ("extreme-group", lambda m, c, n, s, d: s.index_to_device_group_map.add(key=2**63 - 1, value=[0]), None),
    ("product", lambda m, c, n, s, d: s.device.append(2), ["2 shards on 3 devices"]),
    ("overflow", lambda m, c, n, s, d: [d.simple_sharding.add(num_shards=4) for _ in range(40)], ["shards"]),
    ("negative-stage", lambda m, c, n, s, d: setattr(n[0], "pipeline_stage", -1), ["'one'", "stage -1"]),
    ("backwards", lambda m, c, n, s, d: (setattr(n[0], "pipeline_stage", 1), setattr(n[1], "pipeline_stage", 0)), ["'two'", "stage 0", "stage 1"]),
    ("conflict", lambda m, c, n, s, d: m.graph.node[0].device_configurations.add(configuration_id="c"), ["'one'", "twice"]),
):
    case(7, name, annotated(edit), parts)
case(7, "good", annotated(lambda m, c, n, s, d: None), [], accepted=True)

for problem in problems:
    print(problem)
for group, count in sorted(counts.items()):
    wrong = sum(p.startswith(f"group {group},") for p in problems)
    print(f"group {group}: {count - wrong} of {count} hostile models ended as they should")
sys.exit(bool(problems))
