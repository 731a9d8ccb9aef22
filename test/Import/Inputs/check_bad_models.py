"""Every bad model gives exit status 1 and exactly one line that says what is wrong.

Usage: check_bad_models.py DSHARD_OPT FOLDER MODELS

MODELS is the folder of the committed graphs. Each case is a function that gives bytes (or writes files itself and
gives a path), flags, and the texts that the line must contain.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPT, FOLDER, MODELS = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir(parents=True)
MLP = (MODELS / "mlp.onnx").read_bytes()
BATCH = ["--dim", "batch=4"]


def run(path, *flags):
    command = [OPT, path, "--to=import", "-o", os.devnull, *flags]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs=None, outputs=None, initializers=(), opsets=(("", 20),)):
    inputs = [value("x", [2, 6])] if inputs is None else inputs
    outputs = [onnx.ValueInfoProto(name="y")] if outputs is None else outputs
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid(d, v) for d, v in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def node(op, inputs, outputs=("y",), name="bad", **attributes):
    return helper.make_node(op, inputs, list(outputs), name=name, **attributes)


def ints(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def one(op, *constants, **attributes):
    """A model of one node: x and int64 constants."""
    tensors = [ints(f"c{i}", c) for i, c in enumerate(constants)]
    return model([node(op, ["x", *(t.name for t in tensors)], **attributes)], initializers=tensors)


def tensor_model(**fields):
    """y = x + w with a damaged w."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6])
    for field, content in fields.items():
        if isinstance(content, (list, tuple)):
            del getattr(tensor, field)[:]
            getattr(tensor, field).extend(content)
        else:
            setattr(tensor, field, content)
    return model([node("Add", ["x", "w"])], initializers=[tensor])


def external(entries, dims=(6,)):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, content in entries.items():
        tensor.external_data.add(key=key, value=content)
    return model([node("Add", ["x", "w"])], initializers=[tensor])


def opset(version):
    return model([node("Relu", ["x"])], opsets=(("", version),))


relu = node("Relu", ["x"])
cases = {
    # the file
    "text": (b"hello, this is no model\n", [], ["not an ONNX model"]),
    "empty": (b"", [], ["is empty"]),
    "zeros": (b"\0" * 64, [], ["not an ONNX model"]),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), [], ["not an ONNX model"]),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", [], ["Git LFS pointer", "git lfs pull"]),
    "cut": (MLP[:2000], BATCH, ["truncated"]),
    "no-graph": (b"\x08\x0a", [], ["no graph"]),
    "long-varint": (b"\x08" + b"\xff" * 11, [], ["damaged", "10 bytes"]),
    "group": (b"\x08\x0a\x1b\x1c", [], ["damaged", "wire type 3"]),
    "deep": (b"\x08\x0a" + b"\x3a\x84\x80\x80\x00" + b"", [], ["truncated"]),
    # tensors
    "negative-dim": (tensor_model(dims=[-6], raw_data=bytes(24)), [], ["'w'", "negative dim"]),
    "overflow": (tensor_model(dims=[2**32, 2**32], raw_data=bytes(24)), [], ["'w'", "too many elements"]),
    "hidden-overflow": (tensor_model(dims=[0, 2**62, 4]), [], ["'w'", "too many elements"]),
    "rank": (tensor_model(dims=[1] * 1000, raw_data=bytes(4)), [], ["'w'", "1000 dims"]),
    "short-raw": (tensor_model(raw_data=bytes(20)), [], ["'w'", "20 bytes", "24"]),
    "long-raw": (tensor_model(raw_data=bytes(6000)), [], ["'w'", "6000 bytes", "24"]),
    "few-values": (tensor_model(float_data=[1.0, 2.0]), [], ["'w'", "2 values", "6"]),
    "two-fields": (tensor_model(raw_data=bytes(24), float_data=[0.0] * 6), [], ["'w'", "twice"]),
    "wrong-field": (tensor_model(int64_data=[1] * 6), [], ["'w'", "field"]),
    "dtype": (tensor_model(data_type=99, raw_data=bytes(24)), [], ["'w'", "type 99"]),
    "float8": (tensor_model(data_type=TensorProto.FLOAT8E4M3FN, raw_data=bytes(6)), [], ["FLOAT8E4M3FN"]),
    "string": (tensor_model(data_type=TensorProto.STRING, string_data=[b"a"] * 6), [], ["STRING"]),
    # external data
    "outside": (external({"location": "../w.bin"}), [], ["../w.bin", "outside the model's folder"]),
    "inner-outside": (external({"location": "a/../../w.bin"}), [], ["outside the model's folder"]),
    "absolute": (external({"location": "/etc/passwd"}), [], ["/etc/passwd", "outside"]),
    "backslash": (external({"location": "..\\w.bin"}), [], ["outside"]),
    "no-location": (external({}), [], ["no location"]),
    "too-short": (external({"location": "six.bin", "offset": "8"}), [], ["'six.bin'", "too short", "32", "24"]),
    "far-offset": (external({"location": "six.bin", "offset": str(2**63 - 1)}), [], ["too short"]),
    "negative-offset": (external({"location": "six.bin", "offset": "-4"}), [], ["offset", "-4"]),
    "hex-offset": (external({"location": "six.bin", "offset": "0x10"}), [], ["offset", "0x10"]),
    "wrong-length": (external({"location": "six.bin", "length": "20"}), [], ["20 bytes", "24"]),
    "a-folder": (external({"location": "folder"}), [], ["'folder'", "not a regular file"]),
    "a-fifo": (external({"location": "fifo"}), [], ["'fifo'", "not a regular file"]),
    "a-link": (external({"location": "link.bin"}), [], ["'link.bin'", "link that leaves"]),
    # the graph
    "undefined": (model([node("Relu", ["nowhere"])]), [], ["'bad' (Relu)", "'nowhere'"]),
    "undefined-output": (model([relu], outputs=[onnx.ValueInfoProto(name="z")]), [], ["output 'z'"]),
    "cycle": (model([node("Add", ["x", "b"], ["a"], "one"), node("Relu", ["a"], ["b"], "two"), node("Relu", ["b"])]), [], ["cycle: node 'two' (Relu) -> node 'one' (Add) -> node 'two'"]),
    "defined-twice": (model([relu, node("Neg", ["x"], name="again")]), [], ["'again'", "'y'", "already defined", "'bad'"]),
    "defines-input": (model([node("Relu", ["x"], ["x"])]), [], ["already defined by an input"]),
    "two-weights": (model([relu], initializers=[ints("w", [1]), ints("w", [2])]), [], ["two initializers", "'w'"]),
    "two-inputs": (model([relu], inputs=[value("x", [2]), value("x", [2])]), [], ["two inputs", "'x'"]),
    "unknown-ops": (
        model([node("Wobble", ["x"], ["a"], domain="my.ops"), node("SequenceMap", ["a"], ["b"], "l"), node("Wobble", ["b"], domain="my.ops")], opsets=(("", 20), ("my.ops", 1))),
        [], ["2 ops are", "my.ops:Wobble, 2 nodes", "SequenceMap, 1 node 'l'"]),
    "no-op-type": (model([node("", ["x"])]), [], ["1 op is not supported"]),
    "old-opset": (opset(0), [], ["opset 0", "1 to 28"]),
    "unknown-attribute": (model([node("Relu", ["x"], slope=0.5)]), [], ["'slope'", "not supported in opset 20"]),
    "new-opset": (opset(10**9), [], ["opset 1000000000"]),
    "no-opset": (model([relu], opsets=()), [], ["no opset"]),
    "sequence": (model([relu], inputs=[helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2])]), [], ["input 'x'", "not a tensor"]),
    "no-shape": (model([relu], inputs=[value("x", None)]), [], ["input 'x'", "no shape"]),
    # dims
    "unbound": (model([relu], inputs=[value("x", ["batch", "4*seq"])]), [], ["'batch'", "'seq'", "--dim batch=1 --dim seq=1"]),
    "no-such-dim": (model([relu], inputs=[value("x", ["batch", 2])]), [*BATCH, "--dim", "sequence=3"], ["sequence", "batch"]),
    "bound-twice": (model([relu], inputs=[value("x", ["batch", 2])]), [*BATCH, "--dim", "batch=5"], ["4 != 5"]),
    "negative-input": (model([relu], inputs=[value("x", [-3])]), [], ["dim 0 of input 'x'", "negative"]),
    "negative-expression": (model([relu], inputs=[value("x", ["batch - 9"])]), BATCH, ["dim 0 of input 'x'", "negative", "-5"]),
    "zero-division": (model([relu], inputs=[value("x", ["8//batch"])]), ["--dim", "batch=0"], ["has no size"]),
    "huge-input": (model([relu], inputs=[value("x", ["batch", "batch"])]), ["--dim", "batch=99999999999"], ["input 'x'", "too many elements"]),
    "contradiction": (model([relu], inputs=[value("x", ["a", 2]), value("z", ["a", 3])]), ["--dims", "x=b,", "--dims", "z=c,", "--dim", "b=2", "--dim", "c=3"], ["'a'", "2", "3"]),
    "fixed-dim": (model([relu], inputs=[value("x", [3])]), ["--dims", "x=batch", *BATCH], ["is 3 in the model", "4"]),
    "output-dim": (model([relu], outputs=[value("y", [2, 7])]), [], ["output 'y'", "declared as 7", "6"]),
    "output-rank": (model([relu], outputs=[value("y", [2])]), [], ["output 'y'", "1 dims", "2"]),
    "output-type": (model([relu], outputs=[value("y", [2, 6], TensorProto.INT64)]), [], ["output 'y'", "INT64"]),
    "no-such-input": (model([relu]), ["--const", "z=1"], ["--const", "'z'", "x"]),
    "bad-const": (model([relu]), ["--const", "x=wide"], ["'wide'", "number"]),
    "const-count": (model([relu]), ["--const", "x=1,2,3"], ["3 values", "12"]),
    "dims-count": (model([relu]), ["--dims", "x=batch"], ["1 dims", "2"]),
    # attributes and shapes
    "attribute-type": (one("Transpose", perm=1.5), [], ["'bad' (Transpose)", "'perm'", "FLOAT", "INTS"]),
    "no-input": (model([node("MatMul", ["x"])]), [], ["input 1 is missing"]),
    "many-inputs": (model([node("Relu", ["x", "x"])]), [], ["2 inputs"]),
    "perm": (one("Transpose", perm=[0, 0]), [], ["perm"]),
    "two-minus-ones": (one("Reshape", [-1, -1]), [], ["more than one -1"]),
    "indivisible": (one("Reshape", [5, -1]), [], ["12", "5"]),
    "reshape-count": (one("Reshape", [5, 2]), [], ["12", "10"]),
    "reshape-zero": (one("Reshape", [1, 1, 0]), [], ["copies dim 2"]),
    "reshape-overflow": (one("Reshape", [2**62, 2**62, -1]), [], ["too many elements"]),
    "data-shape": (model([node("Reshape", ["x", "s"])], inputs=[value("x", [2, 6]), value("s", [2], TensorProto.INT64)]), [], ["'s'", "compile time", "--const"]),
    "axis": (one("Softmax", axis=2), [], ["axis 2", "2 dims"]),
    "axis-twice": (one("Squeeze", [0, -2]), [], ["axis 0", "twice"]),
    "squeeze": (one("Squeeze", [1]), [], ["size 6"]),
    "step-0": (one("Slice", [0], [1], [0], [0]), [], ["step 0"]),
    "slice-counts": (one("Slice", [0, 0], [1]), [], ["same number"]),
    "split": (one("Split", [4, 4], outputs=["y", "z"], axis=1), [], ["8", "6"]),
    "split-0": (one("Split", outputs=["y", "z"], axis=1, num_outputs=0), [], ["num_outputs is 0"]),
    "gather": (one("Gather", [6], axis=1), [], ["index 6", "size 6"]),
    "expand": (one("Expand", [3, 6]), [], ["2", "3"]),
    "tile": (one("Tile", [2**40, 2**40]), [], ["too many elements"]),
    "pad": (one("Pad", [0, -7, 0, 0]), [], ["crop"]),
    "range": (model([node("Range", ["a", "b", "c"])], initializers=[ints("a", 0), ints("b", 5), ints("c", 0)]), [], ["delta is 0"]),
    "fill": (model([node("ConstantOfShape", ["a"])], initializers=[ints("a", [2**31, 2**31])]), [], ["too many elements"]),
    "broadcast": (model([node("Add", ["x", "w"])], initializers=[numpy_helper.from_array(np.zeros(5, np.float32), "w")]), [], ["[2,6]", "[5]", "6 != 5"]),
    "types": (one("Add", [1]), [], ["f32", "i64"]),
    "matmul": (model([node("MatMul", ["x", "x"])]), [], ["6 != 2"]),
    "cast": (one("Cast", to=77), [], ["type 77"]),
    "attention-heads": (model([node("Attention", ["x", "x", "x"], q_num_heads=4, kv_num_heads=4)], inputs=[value("x", [2, 3, 6])], opsets=(("", 23),)), [], ["6", "4 heads"]),
    "training": (model([node("Dropout", ["x", "", "t"])], initializers=[numpy_helper.from_array(np.array(True), "t")]), [], ["training mode"]),
}

(FOLDER / "six.bin").write_bytes(bytes(24))
(FOLDER / "folder").mkdir()
os.mkfifo(FOLDER / "fifo")
(FOLDER / "link.bin").symlink_to("/etc/hostname")
wrong = 0


def check(name, done, parts):
    global wrong
    lines = done.stderr.splitlines()
    problems = [] if done.returncode == 1 else [f"exit status {done.returncode}"]
    problems += [] if len(lines) == 1 else [f"{len(lines)} lines"]
    problems += [f"no '{part}'" for part in parts if part not in done.stderr and not re.search(part, done.stderr)]
    if problems:
        wrong += 1
        print(f"{name}: {', '.join(problems)} in: {done.stderr.strip()}")


for name, (content, flags, parts) in cases.items():
    path = FOLDER / f"{name}.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    check(name, run(path, *flags), [path.name, *parts])
check("missing", run(FOLDER / "missing.onnx"), ["missing.onnx", "no such file"])
check("a folder", run(FOLDER / "folder"), ["folder", "is a folder"])
check("a fifo", run(FOLDER / "fifo"), ["fifo", "not a regular file"])
print(f"{len(cases) + 3 - wrong} of {len(cases) + 3} bad models refused as they should be")

sys.exit(wrong != 0)
