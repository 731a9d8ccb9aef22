"""Plans of real exported models compute what onnxruntime computes, on every mesh."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import plans
import tools


def check(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


@pytest.mark.parametrize("mesh", plans.TENSOR)
def test_mlp(mesh, filled, reference, tmp_path):
    model = filled("mlp")
    inputs = tools.mlp_inputs(16)
    theirs = reference(model, 16, inputs)["y"]
    plan = tmp_path / "mlp.dsplan"
    tools.compile_plan(model, plan, mesh, {"batch": 16})
    outputs, _ = tools.run_plan(plan, inputs, ["y"], tmp_path)
    check(outputs["y"], theirs)


@pytest.mark.parametrize("batch", plans.ODD_BATCHES)
def test_mlp_odd_batches(batch, filled, reference, tmp_path):
    model = filled("mlp")
    inputs = tools.mlp_inputs(batch)
    plan = tmp_path / "mlp.dsplan"
    tools.compile_plan(model, plan, "tp=2", {"batch": batch})
    outputs, _ = tools.run_plan(plan, inputs, ["y"], tmp_path)
    check(outputs["y"], reference(model, batch, inputs)["y"])


# padding: a left-padded row begins with queries that may attend to nothing.
@pytest.mark.parametrize("padding", ["right", "left", "none"])
@pytest.mark.parametrize("mesh", plans.TENSOR)
def test_llama_small(mesh, padding, filled, reference, tmp_path):
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 2, 16, padding)
    theirs = reference(model, padding, inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(model, plan, mesh, {"batch": 2, "seq": 16})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)


@pytest.mark.parametrize("batch,seq", plans.ODD_SHAPES)
def test_llama_small_odd_shapes(batch, seq, filled, reference, tmp_path):
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, batch, seq)
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(model, plan, "tp=2", {"batch": batch, "seq": seq})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], reference(model, (batch, seq), inputs)["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("seq", [128, 512])
@pytest.mark.parametrize("mesh", plans.LLAMA_TENSOR)
def test_llama(mesh, seq, filled, reference, tmp_path):
    model = filled("llama")
    inputs = tools.llama_inputs(32000, 2, seq)
    theirs = reference(model, seq, inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(model, plan, mesh, {"batch": 2, "seq": seq})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)


def widened_model(name):
    """The fp32 twin of a 16-bit model, computing with that model's rounded weights."""
    wide = onnx.load(str(tools.MODELS / "llama-small.onnx"), load_external_data=False)
    narrow = onnx.load(str(name))
    weights = {t.name: t for t in narrow.graph.initializer}
    replaced = 0
    for tensor in wide.graph.initializer:
        source = weights[tensor.name]
        assert list(source.dims) == list(tensor.dims), tensor.name
        if tensor.data_type == source.data_type or not tensor.dims:
            continue  # constants keep their fp32 values (scale, mask value)
        values = numpy_helper.to_array(source).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        replaced += 1
    assert replaced == 21  # 16 matrices and 5 norms
    return wide.SerializeToString()


@pytest.mark.parametrize("mesh", plans.SIXTEEN_BIT)
@pytest.mark.parametrize("kind,bound", plans.SIXTEEN_BIT_BOUNDS.items())
def test_llama_small_16_bit(mesh, kind, bound, filled, tmp_path):
    model = filled(f"llama-small-{kind}")
    inputs = tools.llama_inputs(256, 2, 16)
    theirs = tools.onnxruntime_outputs(widened_model(model), inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(model, plan, mesh, {"batch": 2, "seq": 16})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    ours = tools.widened(outputs["logits"], kind)
    assert tools.largest_difference(ours, theirs) <= bound * max(1, np.abs(theirs).max())
    assert np.sqrt(np.mean((ours.astype(np.float64) - theirs) ** 2)) <= bound / 2.5


@pytest.mark.parametrize("mesh", ["", "tp=2", "tp=4"])
@pytest.mark.parametrize("op", ["Atan", "Erf", "Sin"])
def test_one_op_between_products(op, mesh, tmp_path):
    """A smooth operator of one operand; on several ranks it works on a part of the hidden dim."""
    random = np.random.default_rng(1)
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 16]) for name in ("x", "y"))
    weights = {"up_proj.weight": (16, 32), "down_proj.weight": (32, 16)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "up_proj.weight"], ["h"], name="/up_proj/MatMul"),
        helper.make_node(op, ["h"], ["t"], name=f"/{op}"),
        helper.make_node("MatMul", ["t", "down_proj.weight"], ["y"], name="/down_proj/MatMul"),
    ]
    graph = helper.make_graph(nodes, op, [x], [y], [numpy_helper.from_array(w, name) for name, w in weights.items()])
    model, plan = tmp_path / "m.onnx", tmp_path / "m.dsplan"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), model)
    tools.compile_plan(model, plan, mesh, {"batch": 6}, *([f"--tp-plan={tools.MODELS / 'mlp-tp.json'}"] if mesh else []))
    inputs = {"x": random.standard_normal((6, 16)).astype(np.float32)}
    outputs, _ = tools.run_plan(plan, inputs, ["y"], tmp_path)
    check(outputs["y"], tools.onnxruntime_outputs(model, inputs)["y"])


@pytest.mark.parametrize("mesh", ["", "tp=2", "tp=4"])
def test_runs_are_bitwise_equal(mesh, filled, tmp_path):
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 2, 16)
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(model, plan, mesh, {"batch": 2, "seq": 16})
    first, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    second, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    assert first["logits"].tobytes() == second["logits"].tobytes()


def test_compiling_twice_writes_the_same_plan(filled, tmp_path):
    plans = []
    for _ in range(2):
        plan = tmp_path / "llama.dsplan"  # the plan records the command line
        tools.compile_plan(filled("llama-small"), plan, "tp=2", {"batch": 2, "seq": 16})
        plans.append(plan.read_bytes())
    assert plans[0] == plans[1]
