"""Mixtures of experts: every token is multiplied with the matrices of its own experts only, sharded or not."""

import json
import re

import families
import numpy as np
import onnx
import pytest
import tools
from onnx import TensorProto, helper

LAYERS, TOP = 2, 2  # of the committed graphs
CASES = ["hf/mixtral", "hf/qwen3-moe", "dynamo/mixtral", "dynamo/qwen3-moe", "legacy/mixtral"]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Cases, each with its weights and its oracle, made once."""
    folder = tmp_path_factory.mktemp("experts")
    made = {}
    return lambda case: made.setdefault(case, families.Case(case, folder))


def instructions(plan, kind):
    """The values of all instructions of a kind of the program `run`, by name."""
    text = tools.run("dshard-plan", "print", plan).stdout
    found = []
    for line in text.splitlines():
        if re.search(rf"^\s*\d+: {kind}\(", line):
            found.append({name: int(value) for name, value in re.findall(r"(\w+)\s*=\s*(-?\d+)", line)})
    return found


@pytest.mark.parametrize("case", CASES)
def test_one_product_per_token_and_expert(case, family):
    """Neither all experts for all rows, nor copies of matrices, nor a sort of the rows."""
    case = family(case)
    rows = case.sizes.batch * case.sizes.seq * TOP
    text = tools.run("dshard-opt", *tools.compile_arguments(case.model, "", case.dims), "--to=graph").stdout
    products = re.findall(r"dshard\.grouped_matmul .*: \(tensor<([\dx]+)xf32>", text)
    assert len(products) == 2 * LAYERS
    assert all(np.prod([int(n) for n in shape.split("x")[:-1]]) == rows for shape in products)
    # A sort compares all rows with all rows, copies have a matrix for each.
    assert f"<{rows}x{rows}x" not in text and f"tensor<{rows}x192x64x" not in text and f"tensor<{rows}x64x192x" not in text


@pytest.mark.parametrize("mesh", ["tp=2", "tp=4", "dp_shard=2,tp=2"])
@pytest.mark.parametrize("case", ["hf/mixtral", "hf/qwen3-moe"])
def test_against_onnxruntime(case, mesh, family):
    """What test_families tries of the other styles."""
    assert family(case).difference(mesh) <= 1


@pytest.mark.parametrize("case", ["hf/mixtral", "dynamo/qwen3-moe"])
def test_experts_are_sharded(case, family):
    """tp ranks have columns, then rows of every expert; what meets is one sum a layer, beside attention's."""
    case = family(case)
    local = tools.run("dshard-opt", *tools.compile_arguments(case.model, "tp=2", case.dims), "--to=local").stdout
    types = re.findall(r"dshard\.grouped_matmul .*: \(tensor<[\dx]+xf32>, tensor<([\dx]+)xf32>", local)
    shapes = sorted(sorted(int(n) for n in shape.split("x")) for shape in types)
    assert shapes == sorted([[4, 64, 96], [4, 48, 64]] * LAYERS)
    # Of the tokens, not of the rows of each of their experts.
    sums = re.findall(r"dshard\.all_reduce .*experts.*-> tensor<([\dx]+)xf32>", local)
    assert sums == [f"{case.sizes.batch}x{case.sizes.seq}x64"] * LAYERS


def mixture(folder, experts, tokens=16, hidden=32, inner=64):
    """A router and one layer of experts, in the batched form; weights are inputs of nobody."""
    random = np.random.default_rng(0)
    up, down = "experts.up.weight", "experts.down.weight"
    shapes = {"router": (hidden, experts), up: (experts, inner, hidden), down: (experts, hidden, inner)}
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).astype(np.float32).ravel() / 8)
        for name, shape in shapes.items()
    ]
    numbers = {"k": [TOP], "one": [1], "minus": [-1], "copied": [tokens, TOP, hidden], "flat": [tokens * TOP, hidden],
               "back": [tokens, TOP, hidden]}
    weights += [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "router"], ["scores"]),
        node("Softmax", ["scores"], ["p"], axis=-1),
        node("TopK", ["p", "k"], ["w", "e"], axis=-1),
        node("Unsqueeze", ["x", "one"], ["x1"]),
        node("Expand", ["x1", "copied"], ["x2"]),
        node("Reshape", ["x2", "flat"], ["rows"]),
        node("Reshape", ["e", "minus"], ["ids"]),
        node("Gather", [up, "ids"], ["ups"], axis=0),
        node("Unsqueeze", ["rows", "minus"], ["column"]),
        node("MatMul", ["ups", "column"], ["h1"]),
        node("Relu", ["h1"], ["h2"]),
        node("Gather", [down, "ids"], ["downs"], axis=0),
        node("MatMul", ["downs", "h2"], ["y1"]),
        node("Reshape", ["y1", "back"], ["y2"]),
        node("Unsqueeze", ["w", "minus"], ["w1"]),
        node("Mul", ["y2", "w1"], ["y3"]),
        node("ReduceSum", ["y3", "one"], ["y"], keepdims=0),
    ]  # fmt: skip
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [tokens, hidden]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = folder / f"experts-{experts}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), model)
    return model


def test_work_grows_with_the_chosen_experts_not_with_all(tmp_path):
    """Four experts or 64: the same products of the same sizes, and the right values."""
    found = []
    x = np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)
    for experts in (4, 64):
        model, plan = mixture(tmp_path, experts), tmp_path / f"{experts}.dsplan"
        tools.compile_plan(model, plan)
        ours, _ = tools.run_plan(plan, {"x": x}, ["y"], tmp_path)
        theirs = tools.onnxruntime_outputs(model, {"x": x})["y"]
        assert tools.largest_difference(ours["y"], theirs) <= tools.tolerance(theirs)
        products = instructions(plan, "grouped_matmul")
        assert [p["count"] for p in products] == [experts] * 2
        found.append([(p["m"], p["n"], p["k"]) for p in products])
    assert found[0] == found[1] == [(32, 64, 32), (32, 32, 64)]


def test_weights_that_are_called_weight(tmp_path):
    """A plan names the module, not the tensor."""
    model, plan = mixture(tmp_path, 4), tmp_path / "p.dsplan"
    (tmp_path / "plan.json").write_text(json.dumps({"experts.up": "colwise", "experts.down": "rowwise"}))
    tools.compile_plan(model, plan, "tp=2", {}, f"--tp-plan={tmp_path / 'plan.json'}")
    assert [(p["m"], p["n"], p["k"]) for p in instructions(plan, "grouped_matmul")] == [(32, 32, 32), (32, 32, 32)]
    x = np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)
    ours, _ = tools.run_plan(plan, {"x": x}, ["y"], tmp_path)
    theirs = tools.onnxruntime_outputs(model, {"x": x})["y"]
    assert tools.largest_difference(ours["y"], theirs) <= tools.tolerance(theirs)


def test_experts_over_ranks(family, tmp_path):
    """expert_parallel: a rank has two of four experts; zeros for the others' rows are summed away."""
    case = family("dynamo/mixtral")
    keys = ["gate_up_proj", "down_proj"]
    rules = {f"model.layers.*.mlp.experts.{key}": "expert_parallel" for key in keys}
    (tmp_path / "plan.json").write_text(json.dumps(rules))
    plan = case.compile("tp=2", f"--tp-plan={tmp_path / 'plan.json'}")
    products = instructions(plan, "grouped_matmul")
    assert [p["count"] for p in products] == [2] * 2 * LAYERS
    ours, _ = case.run(plan)
    assert families.worst_difference(case.compared(ours)) <= 1
    rules["model.layers.*.self_attn.q_proj"] = "expert_parallel"
    (tmp_path / "plan.json").write_text(json.dumps(rules))
    flags = tools.compile_arguments(case.model, "tp=2", case.dims) + [f"--tp-plan={tmp_path / 'plan.json'}"]
    done = tools.start("dshard-opt", *flags, "-o", tmp_path / "q.dsplan")
    assert done.status == 1 and len(done.lines()) == 1
    assert "which has no experts for expert_parallel" in done.stderr


def test_gradients(family, tmp_path):
    """Of all parameters, experts' and the router's: those of one rank, which are finite and not all zero."""
    case = family("hf/mixtral")
    config = tmp_path / "train.json"
    config.write_text(json.dumps({"shift_labels": True, "outputs": ["loss", "grad_norm", "gradients"]}))
    ids = np.random.default_rng(5).integers(3, case.sizes.vocab, (case.sizes.batch, case.sizes.seq))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}
    names = [f"model.layers.{i}.mlp.{name}.grad" for i in range(LAYERS)
             for name in ("gate.weight", "experts.gate_up_proj", "experts.down_proj")]
    found = []
    for each in ("", "dp_shard=2,tp=2"):
        plan = case.compile(each, f"--train={config}")
        outputs, _ = tools.run_plan(plan, inputs, ["loss", *names], tmp_path, "--entry=train_step")
        found.append(outputs)
    products = instructions(plan, "grouped_weight_grad")
    assert len(products) == 2 * LAYERS
    for name in ["loss", *names]:
        one, ours = (outputs[name] for outputs in found)
        assert np.isfinite(one).all() and np.abs(one).max() > 0
        assert tools.largest_difference(ours, one) <= 1e-4 * max(1e-3, np.abs(one).max()), name


@pytest.mark.parametrize("mesh", ["", "tp=2"])
def test_on_a_gpu(mesh, family, tmp_path):
    """There the products are generated kernels that look the matrices up."""
    case = family("dynamo/mixtral")
    plan = case.compile(mesh, "--target=cuda:sm_90")
    with tools.emulated_gpus(2 if mesh else 1):
        ours, _ = case.run(plan)
    assert families.worst_difference(case.compared(ours)) <= 1


def sorted_rows(folder, kind):
    """Rows sorted by id, worked on, and put back; `kind` says what is done between."""
    random = np.random.default_rng(3)
    constants = {
        "all": np.int64([8]), "last": np.int64([-1]), "zeros": np.zeros(8, np.int64), "eight": np.int64(8), "one": np.int64(1),
        "two": np.float32(2), "places": random.standard_normal((8, 1)).astype(np.float32),
        "pairs": np.int64([0, 0, 1, 1, 2, 2, 3, 3]),
    }  # fmt: skip
    node = helper.make_node
    between = {
        "row by row": [node("Mul", ["rows", "two"], ["worked"])],
        # These know where a row stands among the sorted ones.
        "by place": [node("Add", ["rows", "places"], ["worked"])],
        "by place of another": [node("Gather", ["table", "pairs"], ["own"]), node("Add", ["rows", "own"], ["worked"])],
        "over the rows": [node("CumSum", ["rows", "zero"], ["worked"])],
    }
    constants["zero"] = np.int64(0)
    nodes = [
        node("TopK", ["ids", "all"], ["sorted", "order"], largest=0),
        node("Unsqueeze", ["order", "last"], ["tuples"]),
        node("GatherND", ["x", "tuples"], ["rows"]),
        *between[kind],
        node("Range", ["zero", "eight", "one"], ["count"]),
        node("ScatterND", ["zeros", "tuples", "count"], ["back"]),
        node("Unsqueeze", ["back", "last"], ["backs"]),
        node("GatherND", ["worked", "backs"], ["y"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    infos = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, [8]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 3]),
    ]
    if kind == "by place of another":
        infos.append(helper.make_tensor_value_info("table", TensorProto.FLOAT, [4, 3]))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 3])
    model = folder / "rows.onnx"
    graph = helper.make_graph(nodes, "g", infos, [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), model)
    return model


@pytest.mark.parametrize("kind", ["row by row", "by place", "by place of another", "over the rows"])
def test_only_work_by_row_loses_its_sort(kind, tmp_path):
    model = sorted_rows(tmp_path, kind)
    random = np.random.default_rng(4)
    inputs = {"ids": np.int64([5, 2, 7, 2, 0, 5, 1, 2]), "x": random.standard_normal((8, 3)).astype(np.float32)}
    if kind == "by place of another":
        inputs["table"] = random.standard_normal((4, 3)).astype(np.float32)
    text = tools.run("dshard-opt", model, "--to=graph").stdout
    assert ("dshard.gather" in text) == (kind != "row by row")
    tools.compile_plan(model, tmp_path / "p.dsplan")
    ours, _ = tools.run_plan(tmp_path / "p.dsplan", inputs, ["y"], tmp_path)
    theirs = tools.onnxruntime_outputs(model, inputs)["y"]
    assert tools.largest_difference(ours["y"], theirs) <= tools.tolerance(theirs)
