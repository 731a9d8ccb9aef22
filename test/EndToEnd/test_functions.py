"""Functions of the model itself (ModelProto.functions): inlined, equal to formulas and to onnxruntime."""

import re

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import tools

FLOAT = TensorProto.FLOAT
SHAPE = [2, 6, 8]
X = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)


def node(op, inputs, outputs, name="", domain="", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, domain=domain, **attributes)


def refer(made, **names):
    """Attributes of a node that are those of its function."""
    for name, (of, kind) in names.items():
        made.attribute.append(AttributeProto(name=name, ref_attr_name=of, type=kind))
    return made


def function(name, inputs, outputs, nodes, opset=20, required=(), defaults=None, overload="", domain="my"):
    imports = [helper.make_opsetid("my", 1)] + ([helper.make_opsetid("", opset)] if opset else [])
    made = helper.make_function(
        domain, name, inputs.split(), outputs.split(), nodes, imports, attributes=list(required), overload=overload,
        attribute_protos=[helper.make_attribute(k, v) for k, v in (defaults or {}).items()],
    )
    return made


def save(path, nodes, functions, constants=None, outputs="y", ir_version=10, opsets=(("", 20), ("my", 1))):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, SHAPE)],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    for output in graph.output:
        output.type.tensor_type.elem_type = FLOAT
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    model = helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=ir_version)
    onnx.save(model, path)
    return path


def ours(model, folder):
    names = [value.name for value in onnx.load(model).graph.output]
    tools.compile_plan(model, folder / "p.dsplan")
    outputs, _ = tools.run_plan(folder / "p.dsplan", {"x": X}, names, folder)
    return outputs


def check(outputs, expected):
    for name, value in expected.items():
        assert outputs[name].shape == value.shape
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-5)


# x normalised over `axis`, times a weight that may be left out: its default is in the body.
NORM = function(
    "Norm", "a scale", "b mean",
    [
        refer(node("LpNormalization", "a", "n", p=2), axis=("axis", AttributeProto.INT)),
        refer(node("Constant", "", "eps"), value_float=("shift", AttributeProto.FLOAT)),
        node("Add", "n eps", "shifted"),
        node("Max", "shifted scale", "b"),
        node("ReduceMean", "b", "mean", keepdims=0),
    ],
    required=["axis"],
    defaults={"shift": 0.25},
)  # fmt: skip
# Calls Norm twice, with its own attribute and with a constant one.
BLOCK = function(
    "Block", "v w", "out",
    [
        refer(node("Norm", "v w", "first other", "norm", "my"), axis=("along", AttributeProto.INT)),
        node("Norm", "first w", "n mean", "again", "my", axis=1, shift=-0.5),
        node("Sub", "n v", "out"),
    ],
    defaults={"along": 2},
)  # fmt: skip
# The branch reads a value of the function, and calls another one.
CHOOSE = function(
    "Choose", "a", "b",
    [
        node("Neg", "a", "t"),
        node("Size", "a", "size"),
        node("Constant", "", "limit", value_int=10),
        node("Greater", "size limit", "big"),
        node("If", "big", "b",
             then_branch=helper.make_graph([node("Block", "t t", "b", "inner", "my", along=1)], "then", [],
                                           [onnx.ValueInfoProto(name="b")]),
             else_branch=helper.make_graph([node("Identity", "t", "e")], "else", [],
                                           [onnx.ValueInfoProto(name="e")])),
    ],
)  # fmt: skip
SWAP = function("Swap", "a b", "b a", [])
W = np.linspace(-0.2, 0.2, 8, dtype=np.float32)
WEIGHT = {"weight": W}
CASES = {
    "nested": (
        [node("Block", "x weight", "m", "one", "my"), node("Block", "m weight", "y", "two", "my", along=0)],
        [BLOCK, NORM],
        lambda: block(block(X, W), W, 0),
    ),
    "branch": (
        [node("Choose", "x", "m", "c", "my"), node("Add", "m weight", "y")],
        [CHOOSE, BLOCK, NORM],
        lambda: block(-X, -X, 1) + W,
    ),
    # Names of the body are names of the graph as well, also with the call in front.
    "clashes": (
        [
            node("Exp", "x", "n"),
            node("Neg", "n", "call.n"),
            node("Norm", "call.n weight", "first mean", "call", "my", axis=-1),
            node("Add", "first n", "t"),
            node("Mul", "t call.n", "y"),
        ],
        [NORM],
        lambda: (norm(-np.exp(X), W, 2) + np.exp(X)) * -np.exp(X),
    ),
    "in a branch": (
        [
            node("Constant", "", "true", value=numpy_helper.from_array(np.array(True))),
            node("If", "true", "y", "if",
                 then_branch=helper.make_graph([node("Norm", "x weight", "b mean", "n", "my", axis=2)], "then", [],
                                               [onnx.ValueInfoProto(name="b")]),
                 else_branch=helper.make_graph([node("Exp", "x", "b")], "else", [], [onnx.ValueInfoProto(name="b")])),
        ],
        [NORM],
        lambda: norm(X, W, 2),
    ),
    # Two calls of one name, and calls with fewer outputs than the function: onnxruntime takes neither.
    "one name": (
        [node("Block", "x weight", "m", "one", "my"), node("Norm", "m weight", "y", "one", "my", axis=1)],
        [BLOCK, NORM],
        lambda: norm(block(X, W), W, 1),
    ),
    # An output that is an input, which the onnx package's inliner loses.
    "passed": (
        [node("Neg", "x", "m"), node("Swap", "m x", "p q", "swap", "my"), node("Sub", "p q", "y")],
        [SWAP],
        lambda: X + X,
    ),
}  # fmt: skip
UNLOADABLE = ["one name", "passed"]


def norm(a, scale, axis, shift=0.25):
    return np.maximum(a / np.sqrt((a * a).sum(axis, keepdims=True)) + np.float32(shift), scale)


def block(v, w, along=2):
    return norm(norm(v, w, along), w, 1, -0.5) - v


@pytest.mark.parametrize("name", CASES)
def test_equals_numpy_and_onnxruntime(name, tmp_path):
    nodes, functions, formula = CASES[name]
    model = save(tmp_path / "f.onnx", nodes, functions, WEIGHT)
    expected = {"y": formula()}
    assert np.abs(expected["y"]).max() > 0.1
    if name not in UNLOADABLE:
        check(tools.onnxruntime_outputs(model, {"x": X}), expected)
    check(ours(model, tmp_path), expected)


def test_left_out_arguments(tmp_path):
    """An input in the middle, one at the end, an output, an attribute without a default."""
    clip = function("Bound", "a low high", "b c", [node("Clip", "a low high", "b"), node("Exp", "b", "c")])
    soft = function(
        "Soft", "a", "b", [refer(node("Softmax", "a", "b"), axis=("axis", AttributeProto.INT))], required=["axis"]
    )
    nodes = [
        helper.make_node("Bound", ["x", "", "top"], ["m", "m2"], "b1", domain="my"),
        helper.make_node("Bound", ["m", "bottom"], ["", "e"], "b2", domain="my"),
        node("Soft", "e", "s", domain="my"),
        node("Soft", "s", "y", domain="my", axis=1),
    ]
    limits = {"top": np.float32(0.5), "bottom": np.float32(-0.5)}
    model = save(tmp_path / "f.onnx", nodes, [clip, soft], limits)
    check(ours(model, tmp_path), tools.onnxruntime_outputs(model, {"x": X}))


def test_opset_and_overload(tmp_path):
    """Bodies in opsets of their own: in 11 a Softmax flattens, and Squeeze has attributes; one name, two overloads."""
    old = function("F", "a", "b", [node("Softmax", "a", "s", axis=1), node("Unsqueeze", "s", "b", axes=[0])], opset=11)
    new = function("F", "a", "b", [node("Softmax", "a", "b", axis=1)], opset=20, overload="new")
    nodes = [node("F", "x", "p", domain="my"), node("F", "x", "q", domain="my"), node("Sub", "p q", "y")]
    nodes[1].overload = "new"
    # The graph itself has no node of ai.onnx, whose opset it does not import, but Sub in a function.
    last = function("Minus", "a b", "c", [node("Sub", "a b", "c")])
    nodes[2] = node("Minus", "p q", "y", domain="my")
    model = save(tmp_path / "f.onnx", nodes, [old, new, last], opsets=[("my", 1)])

    def softmax(values, axes):
        e = np.exp(values - values.max(axis=axes, keepdims=True))
        return e / e.sum(axis=axes, keepdims=True)

    check(ours(model, tmp_path), {"y": softmax(X, (1, 2))[None] - softmax(X, 1)})


def test_the_models_function_wins(tmp_path):
    """SimplifiedLayerNormalization is an op that the importer knows; here the model says what it means."""
    body = [node("Mul", "a a", "s"), node("Add", "s w", "b")]
    mine = function("SimplifiedLayerNormalization", "a w", "b", body, defaults={"epsilon": 1e-5}, domain="")
    nodes = [node("SimplifiedLayerNormalization", "x weight", "y", epsilon=1e-6)]
    model = save(tmp_path / "f.onnx", nodes, [mine], WEIGHT)
    check(ours(model, tmp_path), {"y": X * X + W})


def test_names_and_paths(tmp_path):
    """Values are called after their call; paths are those of the call, or of the names with slashes."""
    inner = function("Inner", "a", "b", [node("Exp", "a", "e", "exp"), node("Neg", "e", "b", "/gate/neg")])
    outer = function("Outer", "a", "b", [node("Inner", "a", "b", "/mlp", "my")])
    scoped = node("Inner", "m", "y", "n1", "my")
    scoped.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'model.norm', 'inner']")
    nodes = [node("Outer", "x", "m", "/model/layers.0", "my"), scoped]
    model = save(tmp_path / "f.onnx", nodes, [inner, outer])
    text = tools.run("dshard-opt", model, "--to=import").stdout
    assert '"/model/layers.0/mlp/exp"' in text and '"n1.exp"' in text
    paths = re.findall(r'dshard\.(?:exp|neg).*path = "([^"]*)"', text)
    assert paths == ["model.layers.0.mlp", "model.layers.0.mlp.gate", "model.norm", "model.norm"]


@pytest.mark.parametrize("bytes_each", [512, 40000])
def test_constants_in_a_body(bytes_each, tmp_path):
    """Small ones become constants, large ones stay in the file; each call has its own value."""
    random = np.random.default_rng(1)
    count = bytes_each // 32
    table = numpy_helper.from_array(random.standard_normal((8, count)).astype(np.float32))
    body = [node("Constant", "", "w", value=table), node("MatMul", "a w", "b")]
    back = [node("Constant", "", "w", value=numpy_helper.from_array(random.standard_normal((count, 8)).astype(np.float32))),
            node("MatMul", "a w", "b")]  # fmt: skip
    nodes = [node("Up", "x", "u", "up", "my"), node("Down", "u", "v", "down", "my"), node("Up", "v", "y", "again", "my")]
    model = save(tmp_path / "f.onnx", nodes, [function("Up", "a", "b", body), function("Down", "a", "b", back)])
    expected = tools.onnxruntime_outputs(model, {"x": X})
    outputs = ours(model, tmp_path)
    scale = np.abs(expected["y"]).max()
    np.testing.assert_allclose(outputs["y"] / scale, expected["y"] / scale, atol=1e-5)


def test_on_a_mesh(tmp_path):
    """A function bound to weights outside: tensor parallel as if it were written out."""
    random = np.random.default_rng(1)
    names = ["up_proj", "down_proj"]
    weights = {f"mlp.{n}.weight": (random.standard_normal(s) / 8).astype(np.float32) for n, s in zip(names, [(8, 512), (512, 8)])}
    body = [node("MatMul", "a u", "h", "up"), node("Relu", "h", "r"), node("MatMul", "r d", "b", "down")]
    nodes = [helper.make_node("Mlp", ["x", *weights], ["y"], domain="my")]
    model = save(tmp_path / "f.onnx", nodes, [function("Mlp", "a u d", "b", body)], weights)
    (tmp_path / "tp.json").write_text('{"mlp.up_proj": "colwise", "mlp.down_proj": "rowwise"}')
    flag = f"--tp-plan={tmp_path / 'tp.json'}"
    tools.compile_plan(model, tmp_path / "p.dsplan", "tp=2", {}, flag)
    assert "all_reduce" in tools.run("dshard-plan", "print", tmp_path / "p.dsplan").stdout
    outputs, _ = tools.run_plan(tmp_path / "p.dsplan", {"x": X}, ["y"], tmp_path)
    check(outputs, tools.onnxruntime_outputs(model, {"x": X}))
