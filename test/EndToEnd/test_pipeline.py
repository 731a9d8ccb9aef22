"""Pipelines (pp): stages compute what onnxruntime computes, micro-batch by micro-batch; each holds its own
weights only, one message crosses each edge per micro-batch, and what cannot be cut is refused."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import plans
import tools

MIB = 1 << 20


def check(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


@pytest.mark.parametrize("micro_batches", plans.MICRO_BATCHES)
@pytest.mark.parametrize("mesh", plans.PIPELINE_MLP)
def test_mlp(mesh, micro_batches, filled, reference, tmp_path):
    model = filled("mlp")
    inputs = tools.mlp_inputs(16)
    plan = tmp_path / "mlp.dsplan"
    flags = ["--pp-split=cost", f"--micro-batches={micro_batches}"]
    tools.compile_plan(model, plan, mesh, {"batch": 16}, *flags)
    outputs, _ = tools.run_plan(plan, inputs, ["y"], tmp_path)
    check(outputs["y"], reference(model, 16, inputs)["y"])


@pytest.mark.parametrize("micro_batches", plans.MICRO_BATCHES)
@pytest.mark.parametrize("mesh", plans.PIPELINE)
def test_llama_small(mesh, micro_batches, filled, reference, tmp_path):
    model = filled("llama-small")
    batch = 8
    inputs = tools.llama_inputs(256, batch, 16)
    plan = tmp_path / "llama.dsplan"
    mesh, flags = plans.split(mesh)
    flags.append(f"--micro-batches={micro_batches}")
    tools.compile_plan(model, plan, mesh, {"batch": batch, "seq": 16}, *flags)
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path, "--repeat", "3")
    check(outputs["logits"], reference(model, batch, inputs)["logits"])


@tools.not_sanitized
@pytest.mark.slow
@pytest.mark.parametrize("mesh,micro_batches", plans.LLAMA_PIPELINE)
def test_llama_and_its_memory(mesh, micro_batches, filled, reference, tmp_path):
    model = filled("llama")
    inputs = tools.llama_inputs(32000, 4, 128)
    dims = {"batch": 4, "seq": 128}
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(model, plan, mesh, dims, f"--micro-batches={micro_batches}")
    outputs, report = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], reference(model, "pp", inputs)["logits"])
    planned, measured = tools.peak_memory(report)
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)
    # Every weight is on one stage: all ranks together hold them about once (norms are on every tp rank).
    whole = tmp_path / "whole.dsplan"
    tools.compile_plan(model, whole, "", dims)
    weights = tools.plan_stat(whole)["memory_per_rank"]["state"]
    assert tools.plan_stat(plan)["memory_per_rank"]["state"] < 0.75 * weights


@tools.not_sanitized
@pytest.mark.parametrize("mesh", ["pp=2", "pp=2,tp=2"])
def test_memory_does_not_grow(mesh, filled, tmp_path):
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(filled("llama-small"), plan, mesh, {"batch": 4, "seq": 16}, "--micro-batches=2")
    measured = {}
    for count in (20, 1000):
        _, report = tools.run_plan(plan, tools.llama_inputs(256, 4, 16), ["logits"], tmp_path, f"--repeat={count}")
        planned, measured[count] = tools.peak_memory(report)
        assert abs(planned - measured[count]) <= max(0.02 * planned, 4 * MIB)
    assert measured[1000] - measured[20] < MIB // 2


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("flags,divisor", [([], 1), (["--sequence-parallel"], 2)])
def test_one_message_per_edge_and_micro_batch(flags, divisor, micro_batches, filled, tmp_path):
    """[b, S (/tp with sequence parallelism), H] in fp32, one send and one receive."""
    plan = tmp_path / "llama.dsplan"
    done = tools.compile_plan(
        filled("llama-small"),
        plan,
        "pp=2,tp=2",
        {"batch": 4, "seq": 16},
        f"--micro-batches={micro_batches}",
        "--explain",
        *flags,
    )
    size = 4 // micro_batches * 16 * 64 * 4 // divisor
    lines = [line.split() for line in done.stdout.splitlines()]
    explained = [line[:3] for line in lines if line and line[0] in ("send", "recv")]
    assert explained == [["send", "pp", str(size)], ["recv", "pp", str(size)]]
    stat = tools.plan_stat(plan)
    for name, kind in [("run.0", "send"), ("run.1", "recv")]:
        traffic = [c for c in tools.entry_program(stat, name)["collectives"] if c["kind"] in ("send", "recv")]
        assert [(c["kind"], c["count"], c["bytes"]) for c in traffic] == [(kind, 1, size)]
    text = tools.run("dshard-plan", "print", plan).stdout
    for stage in (0, 1):
        actions = ", ".join(f"forward {stage}.{i}" for i in range(micro_batches))
        assert f"actions {stage} [{actions}]" in text


def test_stages_hold_their_own_states(filled, tmp_path):
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(filled("llama-small"), plan, "pp=2", {"batch": 2, "seq": 16})
    text = tools.run("dshard-plan", "print", plan).stdout
    held = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "state" and words[1].isdigit():
            held[words[2].strip('"')] = int(words[words.index("stage") + 1])
    assert held.pop("model.embed_tokens.weight") == 0
    assert held.pop("model.norm.weight") == 1
    assert held.pop("lm_head.weight") == 1
    assert held and all(stage == int(name.split(".")[2]) for name, stage in held.items())


def linear_model(path, nodes, outputs, weights=(), batch="batch", layers=2):
    """Two layers 'layers.N' of x @ w, and `nodes` behind them, which read 'h'."""
    graph_nodes, initializers, value = [], list(weights), "x"
    for i in range(layers):
        weight = np.random.default_rng(i).standard_normal((8, 8)).astype(np.float32)
        initializers.append(onnx.numpy_helper.from_array(weight, f"layers.{i}.weight"))
        result = "h" if i == layers - 1 else f"h{i}"
        graph_nodes.append(helper.make_node("MatMul", [value, f"layers.{i}.weight"], [result], name=f"/layers.{i}/MatMul"))
        value = result
    graph = helper.make_graph(
        graph_nodes + nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def axes(*values):
    return onnx.numpy_helper.from_array(np.array(values, np.int64), "axes")


def crossing_model(path):
    """The first layer's value is an output and is read by both later layers; pp=3 passes it on. Input x [batch, 8]."""
    nodes = [
        helper.make_node("Add", ["h", "h0"], ["sum"], name="/layers.2/Add"),
        helper.make_node("Mul", ["sum", "x"], ["y"], name="/layers.2/Mul"),
        helper.make_node("Neg", ["h0"], ["first"], name="/layers.0/Neg"),
    ]
    outputs = [("first", ["batch", 8]), ("y", ["batch", 8])]
    return linear_model(path, nodes, outputs)


def test_several_values_cross_and_outputs_come_from_their_stages(tmp_path):
    model = crossing_model(tmp_path / "m.onnx")
    x = np.random.default_rng(7).standard_normal((12, 8)).astype(np.float32)
    theirs = tools.onnxruntime_outputs(model, {"x": x})
    for micro_batches in (1, 3):
        plan = tmp_path / "m.dsplan"
        tools.compile_plan(model, plan, "pp=3", {"batch": 12}, f"--micro-batches={micro_batches}")
        ours, _ = tools.run_plan(plan, {"x": x}, ["first", "y"], tmp_path)
        check(ours["first"], theirs["first"])
        check(ours["y"], theirs["y"])
    stat = tools.plan_stat(plan)
    sent = [
        sum(c["count"] for c in tools.entry_program(stat, f"run.{stage}")["collectives"] if c["kind"] == "send")
        for stage in range(3)
    ]
    assert sent == [1, 2, 0]  # h0; then h0 again, and h


MIXING = {
    "mean of all rows": (
        [helper.make_node("ReduceMean", ["h", "axes"], ["y"], name="/norm/ReduceMean", keepdims=1)],
        [("y", [1, 8])],
        [axes(0)],
        "reduces over the batch",
    ),
    "softmax over rows": (
        [helper.make_node("Softmax", ["h"], ["y"], name="/norm/Softmax", axis=0)],
        [("y", ["batch", 8])],
        [],
        "",
    ),
    "rows against rows": (
        [
            helper.make_node("Transpose", ["h"], ["t"], name="/norm/Transpose", perm=[1, 0]),
            helper.make_node("MatMul", ["h", "t"], ["y"], name="/norm/MatMul"),
        ],
        [("y", ["batch", "batch2"])],
        [],
        "does not have the batch in dim 0 alone",
    ),
    "number of the row": (
        [
            helper.make_node("Shape", ["x"], ["n"], name="/norm/Shape", start=0, end=1),
            helper.make_node("Squeeze", ["n"], ["count"], name="/norm/Squeeze"),
            helper.make_node("Range", ["zero", "count", "one"], ["rows"], name="/norm/Range"),
            helper.make_node("Cast", ["rows"], ["float"], name="/norm/Cast", to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["float", "axes"], ["column"], name="/norm/Unsqueeze"),
            helper.make_node("Add", ["h", "column"], ["y"], name="/norm/Add"),
        ],
        [("y", ["batch", 8])],
        [
            axes(1),
            onnx.numpy_helper.from_array(np.array(0, np.int64), "zero"),
            onnx.numpy_helper.from_array(np.array(1, np.int64), "one"),
        ],
        "differs from row to row",
    ),
}


@pytest.mark.parametrize("what", MIXING)
def test_rows_that_mix_are_refused(what, tmp_path):
    nodes, outputs, weights, message = MIXING[what]
    model = linear_model(tmp_path / "m.onnx", nodes, outputs, weights)
    arguments = tools.compile_arguments(model, "pp=2", {"batch": 4})
    done = tools.start("dshard-opt", *arguments, "--micro-batches=2", "--quiet", "-o", tmp_path / "m.dsplan")
    assert done.status == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr and "--micro-batches=2" in done.stderr, done.stderr
    # The whole batch at once is no trouble.
    tools.run("dshard-opt", *arguments, "--quiet", "-o", tmp_path / "m.dsplan")


BAD = {
    "micro-batches do not divide": ("llama-small", "pp=2", ["--micro-batches=3"], "--micro-batches=3: does not divide the batch of 4"),
    "more stages than layers": (
        "llama-small",
        "pp=3",
        [],
        "pp=3 stages are more than the 2 layers 'model.layers.0' to 'model.layers.1'; use at most pp=2",
    ),
    "no list of layers": ("mlp", "pp=2", [], "no numbered list of layers to divide; use --pp-split=cost"),
    "more stages than modules": (
        "mlp",
        "pp=8",
        ["--pp-split=cost"],
        "pp=8 stages are more than the 3 modules of the model; use at most pp=3",
    ),
    "a schedule to come": ("llama-small", "pp=2", ["--pp-schedule=1f1b"], "--pp-schedule=1f1b is not built yet; use gpipe"),
    "no schedule": ("llama-small", "pp=2", ["--pp-schedule=fast"], "--pp-schedule=fast: unknown schedule; use gpipe"),
    "no split": ("llama-small", "pp=2", ["--pp-split=half"], "--pp-split=half: a pipeline is split by 'layers' or by 'cost'"),
    "idle split": ("llama-small", "tp=2", ["--pp-split=cost"], "--pp-split is for pipelines; give --mesh=pp=N"),
    "idle micro-batches": ("llama-small", "tp=2", ["--micro-batches=2"], "--micro-batches=2 is for training and pipelines"),
    "training": ("llama-small", "pp=2", ["--train=train.json"], "pp=2 with --train: pipelines run forward only yet"),
    "data parallel": (
        "llama-small",
        "pp=2,dp_shard=2",
        ["--micro-batches=4"],
        "batch dim 0 of size 4 is not divisible by dp_shard=2 in 4 micro-batches; sizes that divide: 8",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what, tmp_path):
    name, mesh, flags, message = BAD[what]
    dims = {"batch": 4} if name == "mlp" else {"batch": 4, "seq": 16}
    arguments = tools.compile_arguments(tools.MODELS / f"{name}.onnx", mesh, dims)
    done = tools.start("dshard-opt", *arguments, *flags, "--quiet", "-o", tmp_path / "m.dsplan")
    assert done.status == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr, done.stderr
    assert not (tmp_path / "m.dsplan").exists()


def test_a_fixed_batch_is_not_cut(tmp_path):
    model = linear_model(tmp_path / "m.onnx", [], [("h", [4, 8])], batch=4)
    arguments = tools.compile_arguments(model, "pp=2")
    done = tools.start("dshard-opt", *arguments, "--micro-batches=2", "--quiet", "-o", tmp_path / "m.dsplan")
    assert done.status == 1
    assert "dim 0 of input 'x' has the fixed size 4 in the model" in done.stderr


BAD_PLANS = [
    (r"stages 2", "stages 3", "plan_ir_c7.*3 stages, the mesh has pp=2"),
    (r"stages 2", "stages 0", "plan_ir_c7.*0 stages"),
    (r"micro_batches 2", "micro_batches 0", "plan_ir_c7.*0 micro-batches"),
    (r"micro_batches 2", "micro_batches 3", "needs one slot"),
    (r"copies 2", "copies -4", "plan_ir_c3.*-4 copies"),
    (r"copies 2", "copies 99999999999", "plan_ir_c3.*99999999999 copies"),
    (r"copies 2", "copies 0", "plan_ir_c3.*0 copies"),
    (r'(plan.output "logits" buffer \d+ stage) 1', r"\1 7", "plan_ir_c1.*stage 7"),
    (r'(plan.output "logits" buffer \d+ stage) 1', r"\1 -1", "plan_ir_c1.*stage -1"),
    (r'(plan.program "run.1" stage) 1', r"\1 0", "belongs to stage 1, the program to stage 0|runs the program of stage 0"),
    (r"(plan.send .*to =) 1", r"\1 9", "'to' is 9"),
    (r"(plan.recv .*tag =) 0", r"\1 1", "plan_v7.*waits for ever"),
]


@pytest.fixture(scope="module")
def plan_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.mlir"
    arguments = tools.compile_arguments(tools.MODELS / "llama-small.onnx", "pp=2,tp=2", {"batch": 2, "seq": 16})
    tools.run("dshard-opt", *arguments, "--micro-batches=2", "--to=plan", "--emit=mlir", "-o", path)
    return path.read_text()


@pytest.mark.parametrize("pattern,replacement,message", BAD_PLANS)
def test_bad_plan_ir(pattern, replacement, message, plan_text, tmp_path):
    edited, count = re.subn(pattern, replacement, plan_text, count=1)
    assert count == 1
    (tmp_path / "plan.mlir").write_text(edited)
    done = tools.start("dshard-opt", tmp_path / "plan.mlir", "--from=plan", "--emit=plan", "-o", tmp_path / "m.dsplan")
    assert done.status == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr


def tied_model(path):
    """Two layers with one weight. Input x [batch, 8], output y."""
    weight = np.random.default_rng(3).standard_normal((8, 8)).astype(np.float32)
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("x", "y")]
    nodes = [
        helper.make_node("MatMul", ["x", "tied.weight"], ["h"], name="/layers.0/MatMul"),
        helper.make_node("Tanh", ["h"], ["t"], name="/layers.0/Tanh"),
        helper.make_node("MatMul", ["t", "tied.weight"], ["y"], name="/layers.1/MatMul"),
    ]
    graph = helper.make_graph(nodes, "tied", names[:1], names[1:], [onnx.numpy_helper.from_array(weight, "tied.weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_tied_parameter_is_held_by_both_stages(tmp_path):
    model = tied_model(tmp_path / "m.onnx")
    plan = tmp_path / "m.dsplan"
    done = tools.compile_plan(model, plan, "pp=2", {"batch": 6}, "--micro-batches=3")
    assert "is used by the stages 0, 1, each of which holds it" in done.stderr
    x = np.random.default_rng(4).standard_normal((6, 8)).astype(np.float32)
    ours, report = tools.run_plan(plan, {"x": x}, ["y"], tmp_path)
    check(ours["y"], tools.onnxruntime_outputs(model, {"x": x})["y"])
    text = tools.run("dshard-plan", "print", plan).stdout
    assert re.search(r'state \d+ "tied.weight" .*stage 0', text) and re.search(r'state \d+ "tied.weight \(stage 1\)" .*stage 1', text)


def indexing_model(path):
    """`ids` [batch, 8] is a mask on the first stage and an index below 10 on the second."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 4])
    rng = np.random.default_rng(5)
    weights = {"layers.0.weight": (8, 4), "layers.1.table": (10, 4)}
    initializers = [onnx.numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()]
    nodes = [
        helper.make_node("Cast", ["ids"], ["f"], name="/layers.0/Cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "layers.0.weight"], ["h"], name="/layers.0/MatMul"),
        helper.make_node("Gather", ["layers.1.table", "ids"], ["t"], name="/layers.1/Gather"),
        helper.make_node("Unsqueeze", ["h", "axes"], ["u"], name="/layers.1/Unsqueeze"),
        helper.make_node("Add", ["t", "u"], ["y"], name="/layers.1/Add"),
    ]
    graph = helper.make_graph(nodes, "ids", [ids], [y], initializers + [axes(1)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_inputs_are_checked_for_every_stage(tmp_path):
    """The range of an input that two stages read still holds."""
    model = indexing_model(tmp_path / "m.onnx")
    plan = tmp_path / "m.dsplan"
    tools.compile_plan(model, plan, "pp=2", {"batch": 2}, "--micro-batches=2")
    values = np.random.default_rng(5).integers(0, 10, (2, 8))
    ours, _ = tools.run_plan(plan, {"ids": values}, ["y"], tmp_path)
    check(ours["y"], tools.onnxruntime_outputs(model, {"ids": values})["y"])
    values[1, 3] = 10
    np.save(tmp_path / "wrong.npy", values)
    done = tools.start("dshard-run", plan, "--input", f"ids={tmp_path / 'wrong.npy'}")
    assert done.status == 1
    assert "input 'ids' has the value 10 at [1, 3]; allowed are -10 to 9" in done.stderr, done.stderr


def test_fewer_micro_batches_than_stages_are_remarked(tmp_path):
    arguments = tools.compile_arguments(tools.MODELS / "llama.onnx", "pp=4", {"batch": 4, "seq": 16})
    text = "for pp=4 stages: with fewer micro-batches than stages some always wait"
    for micro_batches in (2, 4):
        done = tools.run("dshard-opt", *arguments, f"--micro-batches={micro_batches}", "--to=local", "-o", tmp_path / "m.mlir")
        assert (text in done.stderr) == (micro_batches == 2)
    done = tools.run("dshard-opt", tmp_path / "m.mlir", "--from=local", "--to=schedule", "-o", tmp_path / "n.mlir")
    assert text not in done.stderr
