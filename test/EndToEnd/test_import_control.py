"""Branches whose condition is known at import, and groups of rows whose counts are data."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tools

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def save(path, nodes, inputs, outputs, constants=()):
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(path))
    return path


def branch(op, output, constant):
    """x op constant, both from outside or from the branch itself."""
    return helper.make_graph(
        [helper.make_node(op, ["x", f"{output}_c"], [output], name=f"n_{output}")],
        f"b_{output}",
        [],
        [helper.make_tensor_value_info(output, FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.float32(constant), f"{output}_c")],
    )


def if_node(condition):
    return helper.make_node(
        "If", [condition], ["y"], name="choose", then_branch=branch("Add", "t", 3), else_branch=branch("Mul", "e", 3)
    )


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def test_if_decided_by_a_shape(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Squeeze", ["s"], ["n"]),
        helper.make_node("Greater", ["n", "two"], ["more"]),
        if_node("more"),
    ]
    model = save(
        tmp_path / "if.onnx", nodes, [("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])], {"two": np.int64(2)}
    )
    for batch, expected in [(3, X + 3), (2, X[:2] * 3)]:
        tools.compile_plan(model, tmp_path / "p.dsplan", "", {"batch": batch})
        ours, _ = tools.run_plan(tmp_path / "p.dsplan", {"x": X[:batch]}, ["y"], tmp_path)
        assert np.allclose(ours["y"], expected)


@pytest.mark.parametrize("value,expected", [("true", X + 3), ("false", X * 3)])
def test_if_decided_by_const(value, expected, tmp_path):
    model = save(
        tmp_path / "if.onnx",
        [if_node("use_cache_branch")],
        [("x", FLOAT, ["batch", 4]), ("use_cache_branch", BOOL, [1])],
        [("y", FLOAT, ["batch", 4])],
    )
    flag = f"--const=use_cache_branch={value}"
    tools.compile_plan(model, tmp_path / "p.dsplan", "", {"batch": 3}, flag)
    ours, _ = tools.run_plan(tmp_path / "p.dsplan", {"x": X}, ["y"], tmp_path)
    assert np.allclose(ours["y"], expected)
    done = tools.start("dshard-opt", model, "--dim", "batch=3", "-o", tmp_path / "q.dsplan")
    assert done.status == 1 and len(done.lines()) == 1
    assert "node 'choose' (If): its condition 'use_cache_branch' is not known at compile time" in done.stderr
    assert "--const NAME=VALUE" in done.stderr


def expert_nodes(experts):
    """Rows sorted by expert; each group times its expert's matrix, as transformers' exporter writes it."""
    nodes = [helper.make_node("Split", ["limits"], [f"l{e}" for e in range(experts)], axis=0, num_outputs=experts)]
    nodes.append(helper.make_node("Split", ["weights"], [f"w{e}" for e in range(experts)], axis=0, num_outputs=experts))
    for e in range(experts):
        first = "zero" if e == 0 else f"s{e - 1}"
        nodes += [
            helper.make_node("Squeeze", [f"l{e}", "axis"], [f"s{e}"]),
            helper.make_node("Range", [first, f"s{e}", "one"], [f"r{e}"], name=f"range{e}"),
            helper.make_node("Gather", ["x", f"r{e}"], [f"x{e}"], axis=0),
            helper.make_node("Squeeze", [f"w{e}", "axis"], [f"m{e}"]),
            helper.make_node("MatMul", [f"x{e}", f"m{e}"], [f"p{e}"]),
        ]
    return nodes + [helper.make_node("Concat", [f"p{e}" for e in range(experts)], ["y"], axis=0)]


SEGMENT_INPUTS = [("x", FLOAT, ["rows", 4]), ("limits", INT64, [3]), ("weights", FLOAT, [3, 4, 5])]
SEGMENT_CONSTANTS = {"zero": np.int64(0), "one": np.int64(1), "axis": np.int64([0])}


@pytest.mark.parametrize("limits", [(2, 2, 6), (0, 5, 6), (1, 3, 6), (6, 6, 6)])
def test_groups_of_rows(limits, tmp_path):
    model = save(
        tmp_path / "moe.onnx", expert_nodes(3), SEGMENT_INPUTS, [("y", FLOAT, ["rows", 5])], SEGMENT_CONSTANTS
    )
    random = np.random.default_rng(1)
    inputs = {
        "x": random.standard_normal((6, 4)).astype(np.float32),
        "limits": np.int64(limits),
        "weights": random.standard_normal((3, 4, 5)).astype(np.float32),
    }
    theirs = tools.onnxruntime_outputs(model, inputs)["y"]
    tools.compile_plan(model, tmp_path / "p.dsplan", "", {"rows": 6})
    ours, _ = tools.run_plan(tmp_path / "p.dsplan", inputs, ["y"], tmp_path)
    assert tools.largest_difference(ours["y"], theirs) <= 1e-5


def test_other_sizes_that_are_data_are_refused(tmp_path):
    nodes = [
        helper.make_node("Range", ["zero", "n", "one"], ["r"], name="range"),
        helper.make_node("Mul", ["r", "r"], ["y"], name="square"),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1)}
    model = save(tmp_path / "r.onnx", nodes, [("n", INT64, [])], [("y", INT64, ["k"])], constants)
    done = tools.start("dshard-opt", model, "-o", tmp_path / "q.dsplan")
    assert done.status == 1 and len(done.lines()) == 1
    assert "node 'square' (Mul): an input has a size that depends on data" in done.stderr
