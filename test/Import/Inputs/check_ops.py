"""Imports small models, runs them in the interpreter and compares with ONNX's reference evaluator.

Usage: check_ops.py DSHARD_OPT DSHARD_INTERPRET FOLDER [NAME...]

Every case is one model with many nodes. Its last line of output names how many outputs agreed.
"""

import pathlib
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

random = np.random.default_rng(7)


def floats(*shape):
    return random.uniform(-2, 2, shape).astype(np.float32)


class Case:
    """Collects nodes; every output of `add` is checked."""

    def __init__(self, name, opset=23, atol=2e-5):
        self.name, self.opset, self.atol = name, opset, atol
        self.nodes, self.inputs, self.constants, self.outputs = [], {}, [], []

    def input(self, name, value):
        self.inputs[name] = value
        return name

    def const(self, value, dtype=np.int64):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def add(self, op, inputs, outputs=1, check=True, **attributes):
        names = [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
        domain = attributes.pop("domain", "")
        inputs = [self.const(i) if isinstance(i, list) else i for i in inputs]
        node = helper.make_node(op, inputs, names, name=f"/m/{op}_{len(self.nodes)}", domain=domain, **attributes)
        self.nodes.append(node)
        if check:
            self.outputs += names
        return names[0] if outputs == 1 else names

    def build(self):
        kinds = {name: helper.np_dtype_to_tensor_dtype(v.dtype) for name, v in self.inputs.items()}
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in self.inputs.items()],
            [onnx.ValueInfoProto(name=n) for n in self.outputs],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def run(self, opt, interpret, folder):
        model = self.build()
        expected = ReferenceEvaluator(model).run(None, self.inputs)
        path = folder / f"{self.name}.onnx"
        path.write_bytes(model.SerializeToString())
        mlir = folder / f"{self.name}.mlir"
        subprocess.run([opt, path, "--to=import", "-o", mlir], check=True)
        command = [interpret, mlir, "--precision=model"]
        for name, value in self.inputs.items():
            np.save(folder / f"{name}.npy", value)
            command += ["--input", f"{name}={folder / name}.npy"]
        for name in self.outputs:
            command += ["--output", f"{name}={folder / name}.npy"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wrong = 0
        for name, want in zip(self.outputs, expected):
            got = np.load(folder / f"{name}.npy")
            want = np.asarray(want)
            same = got.shape == want.shape and np.allclose(
                got.astype(np.float64), want.astype(np.float64), rtol=1e-5, atol=self.atol, equal_nan=True
            )
            if not same:
                wrong += 1
                print(f"{self.name}: {name} differs\n got {got.shape} {got.ravel()[:8]}\n want {want.shape} {want.ravel()[:8]}")
        print(f"{self.name}: {len(self.outputs) - wrong} of {len(self.outputs)} outputs agree")
        return wrong


def elementwise():
    c = Case("elementwise", opset=24)
    x, y = c.input("x", floats(2, 3, 4)), c.input("y", floats(3, 1))
    positive = c.add("Abs", [x])
    for op in ("Neg", "Exp", "Reciprocal", "Sin", "Cos", "Atan", "Tanh", "Erf", "Sigmoid", "Relu", "Floor", "Ceil", "Round", "Sign", "Softplus", "Identity"):
        c.add(op, [x])
    for op in ("Sqrt", "Log"):
        c.add(op, [positive])
    for op in ("Add", "Sub", "Mul", "Div"):
        c.add(op, [x, y])
    c.add("Pow", [positive, c.const(3)])
    c.add("Pow", [positive, c.const(1.5, np.float32)])
    c.add("Gelu", [x])
    c.add("Gelu", [x], approximate="tanh")
    c.add("Swish", [x])
    c.add("Swish", [x], alpha=1.5)
    for op in ("Max", "Min", "Sum", "Mean"):
        c.add(op, [x, y, c.const(0.25, np.float32)])
    c.add("Max", [x])
    c.add("Clip", [x, c.const(-1, np.float32), c.const(0.5, np.float32)])
    c.add("Clip", [x, "", c.const(0.5, np.float32)])
    less = c.add("Less", [x, y])
    greater = c.add("GreaterOrEqual", [x, c.const(0, np.float32)])
    for op in ("LessOrEqual", "Greater", "Equal"):
        c.add(op, [x, y])
    for op in ("And", "Or", "Xor"):
        c.add(op, [less, greater])
    c.add("Not", [less])
    c.add("Where", [less, x, y])
    c.add("IsNaN", [c.add("Log", [x])])
    whole = c.add("Cast", [x], to=TensorProto.INT64)
    c.add("Cast", [x], to=TensorProto.BOOL)
    c.add("CastLike", [whole, x])
    c.add("Mod", [whole, c.const(3)])
    c.add("Mod", [x, c.const(0.7, np.float32)], fmod=1)
    c.add("Dropout", [x])
    return c


def layout():
    c = Case("layout")
    x, y = c.input("x", floats(2, 3, 4)), c.input("y", floats(3, 1))
    largest, smallest = 2**63 - 1, -(2**63)
    c.add("Reshape", [x, [0, -1]])
    c.add("Reshape", [x, [4, 3, 2]], allowzero=1)
    c.add("Flatten", [x])
    c.add("Flatten", [x], axis=-1)
    c.add("Flatten", [x], axis=3)
    c.add("Transpose", [x])
    c.add("Transpose", [x], perm=[1, 0, 2])
    wide = c.add("Unsqueeze", [x, [-1, 0]])
    c.add("Squeeze", [wide])
    c.add("Squeeze", [wide, [0]])
    c.add("Expand", [y, [2, 1, 4]])
    c.add("Expand", [x, [4]])
    c.add("Concat", [x, x, x], axis=-2)
    c.add("Concat", [x], axis=0)
    c.add("Slice", [x, [1], [largest], [2]])
    c.add("Slice", [x, [smallest, 1], [largest, -1]])
    c.add("Slice", [x, [-1, 0], [smallest, 3], [2, 1], [-1, 2]])
    c.add("Slice", [x, [3], [0], [2], [-2]])
    c.add("Slice", [x, [2], [1], [0]])
    c.add("Slice", [x, [0], [largest], [2], [largest]])
    c.add("Split", [x, [1, 3]], outputs=2, axis=2)
    c.add("Split", [x], outputs=3, axis=2, num_outputs=3)
    c.add("Tile", [x, [2, 1, 3]])
    c.add("Pad", [x, [0, 1, 0, 2, 0, 1]])
    c.add("Pad", [x, [1, 2, 0, 1], c.const(5, np.float32), [0, 2]])
    c.add("Trilu", [x])
    c.add("Trilu", [x, c.const(-1)], upper=0)
    c.add("Gather", [x, [[0, -1], [1, 1]]], axis=1)
    c.add("Gather", [x, c.const(2)], axis=-1)
    c.add("GatherND", [x, [[0, 1], [1, 2]]])
    c.add("GatherND", [x, [[[0], [2]], [[1], [1]]]], batch_dims=1)
    return c


def shapes():
    """Only constants go in; the results are constants, or counted."""
    c = Case("shapes")
    x = c.input("x", floats(2, 6, 4))
    shape = c.add("Shape", [x])
    c.add("Shape", [x], start=-2)
    c.add("Shape", [x], start=1, end=-1)
    c.add("Size", [x])
    batch = c.add("Gather", [shape, c.const(0)])
    half = c.add("Div", [c.add("Gather", [shape, c.const(1)]), c.const(2)])
    target = c.add("Concat", [c.add("Unsqueeze", [batch, [0]]), c.add("Unsqueeze", [half, [0]]), c.const([-1])], axis=0)
    c.add("Reshape", [x, target])
    # The way that TorchScript exports -1 in expand.
    ones = c.add("ConstantOfShape", [c.const([3])], value=numpy_helper.from_array(np.array([1], np.int64)))
    wanted = c.const([2, -1, 4])
    dims = c.add("Where", [c.add("Equal", [wanted, c.add("Mul", [ones, c.const(-1)])]), ones, wanted])
    c.add("Expand", [c.add("Slice", [x, [0], [1], [1]]), dims])
    c.add("ConstantOfShape", [shape])
    steps = c.add("Range", [c.const(0), half, c.const(1)])
    c.add("Reshape", [c.add("Gather", [x, steps], axis=1), c.add("Concat", [c.const([-1]), c.add("Reshape", [half, [-1]])], axis=0)])
    c.add("Range", [c.const(5), c.const(-4), c.const(-3)])
    c.add("Range", [c.const(0, np.float32), c.const(1, np.float32), c.const(0.3, np.float32)])
    # The scale of attention as TorchScript computes it, and bounds beyond 2^53.
    width = c.add("Cast", [c.add("Slice", [shape, [-1], [2**63 - 1]])], to=TensorProto.FLOAT)
    c.add("Mul", [x, c.add("Div", [c.const(1, np.float32), c.add("Sqrt", [width])])])
    bound = c.add("Concat", [c.const([2**63 - 1]), c.const([3])], axis=0, check=False)  # doubles cannot hold it
    c.add("Slice", [x, [0, 1], bound, [0, 1]])
    c.add("Constant", [], value_ints=[3, 4])
    c.add("Constant", [], value_floats=[0.5, 4.0])
    c.add("Constant", [], value_int=3)
    c.add("Constant", [], value_float=3.5)
    c.add("Constant", [], value=helper.make_tensor("", TensorProto.FLOAT16, [2], [1.5, -2.0]))
    return c


def products():
    c = Case("products")
    x, y = c.input("x", floats(2, 3, 4)), c.input("y", floats(4, 5))
    v = c.input("v", floats(4))
    c.add("MatMul", [x, y])
    c.add("MatMul", [x, v])
    c.add("MatMul", [v, y])
    c.add("MatMul", [v, v])
    c.add("MatMul", [x, c.add("Transpose", [x], perm=[0, 2, 1])])
    a, bias = c.input("a", floats(3, 4)), c.input("bias", floats(5))
    c.add("Gemm", [a, y, bias])
    c.add("Gemm", [a, y])
    c.add("Gemm", [c.add("Transpose", [a]), c.add("Transpose", [y]), bias], transA=1, transB=1, alpha=0.5, beta=2.0)
    for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare"):
        c.add("Reduce" + op, [x, [-1]])
        c.add("Reduce" + op, [x, [0, 2]], keepdims=0)
        c.add("Reduce" + op, [x])
    c.add("ReduceSum", [x], noop_with_empty_axes=1)
    return c


def norms():
    c = Case("norms")
    x, w, b = c.input("x", floats(2, 3, 4)), c.input("w", floats(4)), c.input("b", floats(4))
    c.add("Softmax", [x])
    c.add("Softmax", [x], axis=1)
    c.add("LogSoftmax", [x])
    c.add("LayerNormalization", [x, w, b])
    c.add("LayerNormalization", [x, w], epsilon=0.1)
    c.add("LayerNormalization", [x, c.input("wide", floats(3, 4))], axis=1)
    c.add("RMSNormalization", [x, w], epsilon=0.01)
    return c


def attention():
    c = Case("attention")
    q, k, v = c.input("q", floats(2, 4, 3, 8)), c.input("k", floats(2, 4, 5, 8)), c.input("v", floats(2, 4, 5, 6))
    c.add("Attention", [q, k, v])
    c.add("Attention", [q, k, v], scale=0.3, softcap=1.5)
    c.add("Attention", [q, k, v], is_causal=1)
    mask = random.uniform(size=(2, 1, 3, 5)) > 0.4
    c.add("Attention", [q, k, v, c.input("mask", mask)])
    c.add("Attention", [q, k, v, c.input("added", floats(3, 5))])
    c.add("Attention", [q, k, v, "mask"], is_causal=1)
    k2, v2 = c.input("k2", floats(2, 2, 5, 8)), c.input("v2", floats(2, 2, 5, 8))
    c.add("Attention", [q, k2, v2])
    c.add("Attention", [q, k2, v2, "mask"])
    merged = c.input("m", floats(2, 3, 32))
    c.add("Attention", [merged, merged, merged], q_num_heads=4, kv_num_heads=4)
    cos, sin = c.input("cos", floats(2, 3, 4)), c.input("sin", floats(2, 3, 4))
    c.add("RotaryEmbedding", [q, cos, sin])
    c.add("RotaryEmbedding", [q, cos, sin], interleaved=1)
    c.add("RotaryEmbedding", [merged, cos, sin], num_heads=4)
    table = c.input("table", floats(50, 2))
    positions = c.const([[0, 1, 2], [7, 8, 49]])
    c.add("RotaryEmbedding", [q, table, table, positions], rotary_embedding_dim=4)
    return c


def old_opset():
    """Axes as attributes (opset 13 to 17)."""
    c = Case("old", opset=13)
    x = c.input("x", floats(2, 3, 4))
    for op in ("Mean", "Max", "Min", "Prod", "L2"):
        c.add("Reduce" + op, [x], axes=[1], keepdims=0)
    c.add("ReduceSum", [x, [1]])
    c.add("Split", [x], outputs=2, axis=0)
    return c


def oldest_opset():
    """What were attributes before opsets 10, 11 and 13."""
    c = Case("oldest", opset=9)
    x = c.input("x", floats(2, 3, 4))
    c.add("Slice", [x], axes=[2], starts=[1], ends=[3])
    c.add("Clip", [x], min=-1.0, max=0.5)
    c.add("Pad", [x], pads=[0, 1, 0, 0, 0, 2], value=0.5)
    wide = c.add("Unsqueeze", [x], axes=[1])
    c.add("Squeeze", [wide], axes=[1])
    c.add("Split", [x], outputs=2, axis=2, split=[1, 3])
    c.add("ReduceSum", [x], axes=[1], keepdims=0)
    c.add("Elu", [x], alpha=0.5)
    return c


def loops():
    """Unrolled; the bodies read the graph around them."""
    c = Case("loops", opset=21)
    x, y = c.input("x", floats(3, 4)), c.input("y", floats(4))
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "row"], ["next"]), helper.make_node("Mul", ["next", "y"], ["out"])],
        "scan_body", [value("state", [4]), value("row", [4])], [value("next", [4]), value("out", [4])],
    )
    c.add("Scan", [y, x], outputs=2, body=body, num_scan_inputs=1)
    body = helper.make_graph(
        [
            helper.make_node("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["sum", "number"], ["sum_out"]),
            helper.make_node("Identity", ["go"], ["go_out"]),
            helper.make_node("Neg", ["sum_out"], ["each"]),
        ],
        "loop_body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []), value("sum", [4])],
        [helper.make_tensor_value_info("go_out", TensorProto.BOOL, []), value("sum_out", [4]), value("each", [4])],
    )
    c.add("Loop", [c.const(4), c.const(True, np.bool_), y], outputs=2, body=body)
    return c


CASES = [elementwise, layout, shapes, products, norms, attention, old_opset, oldest_opset, loops]


def main(opt, interpret, folder, *wanted):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    failures = sum(case().run(opt, interpret, folder) for case in CASES if not wanted or case.__name__ in wanted)
    print("all agree" if failures == 0 else f"{failures} outputs differ")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
