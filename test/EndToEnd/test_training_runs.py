"""Plans of @train_step, run: gradients and losses on every mesh against one rank's and the fp64
interpreter, AdamW against its formula, and a character model that learns.
"""

import numpy as np
import pytest

import plans
import tools
from test_training import (
    ALL_OUTPUTS,
    check_adamw,
    compile_step,
    initial_mlp,
    mlp_steps,
    refused,
    write_config,
)

SHARDED = [mesh for mesh in plans.TRAINING if mesh]


def compile_train_plan(model, config, plan, mesh, dims):
    plan.parent.mkdir(parents=True, exist_ok=True)
    mesh, flags = plans.split(mesh)
    tools.compile_plan(model, plan, mesh, dims, f"--train={config}", *flags)
    return plan


#
# Gradients: the acceptance ladder
#

LLAMA = {"batch": 4, "seq": 16}


@pytest.fixture(scope="module")
def llama_gradients(filled, tmp_path_factory):
    """llama_gradients(MESH): loss, norm and gradients of one step; MESH "fp64": the oracle's."""
    folder = tmp_path_factory.mktemp("gradients")
    config = write_config(folder, shift_labels=True, clip_norm=0.5, outputs=ALL_OUTPUTS)
    random = np.random.default_rng(5)
    ids = random.integers(0, 256, (4, 16))
    mask = np.ones_like(ids)
    mask[-1, 11:] = 0
    labels = np.where(mask == 1, ids, -100)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    with np.load(tools.MODELS / "llama-small-training.npz") as file:
        parameters = [key[6:] for key in file.files if key.startswith("param.")]
    outputs = ["loss", "grad_norm"] + [f"{name}.grad" for name in parameters]
    made = {}

    def get(mesh):
        if mesh in made:
            return made[mesh]
        model, own = filled("llama-small"), folder / (mesh.replace(" ", "_") or "one")
        if mesh == "fp64":
            program = compile_step(model, config, own, LLAMA)
            made[mesh] = tools.interpret_step(program, inputs, outputs, own)
        else:
            plan = compile_train_plan(model, config, own / "llama.dsplan", mesh, LLAMA)
            made[mesh], _ = tools.run_plan(plan, inputs, outputs, own, "--entry=train_step")
        return made[mesh]

    return get


def error_of(values, exact):
    return float(np.max(np.abs(values.astype(np.float64) - exact)))


@pytest.mark.parametrize("mesh", SHARDED)
def test_gradients_keep_the_acceptance_ladder(llama_gradients, mesh):
    """Per tensor: e(sharded) <= 2 e(unsharded) + 2e-6 max|x|."""
    exact, one, ours = (llama_gradients(key) for key in ("fp64", "", mesh))
    for name, value in exact.items():
        scale = float(np.max(np.abs(value)))
        assert scale > 0, name
        assert error_of(one[name], value) <= 1e-4 * scale, name
        allowed = 2 * error_of(one[name], value) + 2e-6 * scale
        assert error_of(ours[name], value) <= allowed, name


#
# AdamW, and gradients that are not finite
#

MLP = {"batch": 16}


@pytest.mark.parametrize("mesh", plans.TRAINING_MLP)
def test_adamw_is_its_formula_after_100_steps(filled, tmp_path, mesh):
    config = write_config(
        tmp_path,
        logits="y",
        optimizer={"weight_decay": 0.1, "no_decay": ["*.bias"]},
        clip_norm=1.0,
        outputs=ALL_OUTPUTS,
    )
    plan = compile_train_plan(filled("mlp"), config, tmp_path / "mlp.dsplan", mesh, MLP)
    first = initial_mlp(filled("mlp"))
    outputs, _ = tools.run_plan(
        plan, mlp_steps(100), ["grad_norm"] + [f"{name}.grad" for name in first], tmp_path,
        "--entry=train_step", "--steps=100", f"--save-state={tmp_path / 'state'}",
    )
    outputs.update({name: np.load(tmp_path / "state" / f"{name}.npy") for name in first})
    check_adamw(outputs, first, np.float32(1e-3), 0.1)


@pytest.mark.parametrize("mesh", ["", "dp_shard=2,tp=2"])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_gradient_that_is_not_finite_is_named(filled, tmp_path, mesh, policy):
    """Step 1 is poisoned: the run stops there, or goes on without it."""
    config = write_config(tmp_path, logits="y", nonfinite=policy)
    plan = compile_train_plan(filled("mlp"), config, tmp_path / "mlp.dsplan", mesh, MLP)
    inputs = mlp_steps(3)
    inputs["x"][1, 2, 5] = np.nan
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
    done = tools.start(
        "dshard-run", plan, "--entry=train_step", "--steps=3",
        "--input", f"x={tmp_path / 'x.npy'}", "--input", f"labels={tmp_path / 'labels.npy'}",
        "--output", f"loss={tmp_path / 'loss.npy'}", f"--save-state={tmp_path / 'state'}",
    )
    assert "up_proj.weight" in done.stderr and "not finite" in done.stderr, done.stderr
    if policy == "stop":
        refused(done, "not finite")
        assert not (tmp_path / "state").exists() and not (tmp_path / "loss.npy").exists()
        return
    assert done.status == 0, done.stderr
    assert np.load(tmp_path / "state" / "step.npy") == 2
    for name in initial_mlp(filled("mlp")):
        assert np.isfinite(np.load(tmp_path / "state" / f"{name}.npy")).all(), name
    assert np.isfinite(np.load(tmp_path / "loss.npy")[[0, 2]]).all()


@pytest.mark.parametrize("mesh", [mesh for mesh in plans.TRAINING if "sequence-parallel" not in mesh])
def test_a_skipped_step_changes_no_bit_of_any_state(filled, tmp_path, mesh):
    """Two steps with a poisoned one between, or behind them, leave what the two steps alone leave. One
    sample is poisoned, which one data-parallel rank sees: if the others went on, what follows would differ."""
    config = write_config(tmp_path, logits="y", nonfinite="skip", clip_norm=1.0)
    plan = compile_train_plan(filled("mlp"), config, tmp_path / "mlp.dsplan", mesh, MLP)
    good = mlp_steps(2)
    bad = {name: array[:1].copy() for name, array in good.items()}
    bad["x"][0, 2, 5] = np.nan
    states = []
    for order in ([good], [good, bad], None):
        if order is None:  # the poisoned step between
            inputs = {name: np.stack([good[name][0], bad[name][0], good[name][1]]) for name in good}
        else:
            inputs = {name: np.concatenate([each[name] for each in order]) for name in good}
        folder = tmp_path / str(len(states))
        tools.run_plan(
            plan, inputs, [], folder, "--entry=train_step", f"--steps={len(inputs['x'])}",
            f"--save-state={folder / 'state'}",
        )
        states.append({path.name: path.read_bytes() for path in (folder / "state").iterdir()})
    assert "up_proj.weight.exp_avg_sq.npy" in states[0]
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("mesh", plans.FROZEN)
def test_parameters_that_are_not_trained_stay_as_they_are(filled, tmp_path, mesh):
    """The norms alone, on every mesh as on one rank; the others are gathered and shared as ever."""
    config = write_config(tmp_path, shift_labels=True, trainable=["*norm.weight"])
    ids = np.random.default_rng(7).integers(0, 256, (3, 4, 16))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}
    losses, states = [], []
    for each in ("", mesh):
        folder = tmp_path / (each.replace(" ", "") or "one")
        plan = compile_train_plan(filled("llama-small"), config, folder / "p.dsplan", each, LLAMA)
        outputs, _ = tools.run_plan(
            plan, inputs, ["loss"], folder, "--entry=train_step", "--steps=3",
            "--scalar=lr=1e-2", f"--save-state={folder / 'state'}",
        )
        losses.append(outputs["loss"])
        states.append({path.stem: np.load(path) for path in (folder / "state").iterdir()})
    assert np.abs(losses[0] - losses[1]).max() <= 1e-5 * np.abs(losses[0]).max()
    moments = {name for name in states[1] if name.endswith(".exp_avg")}
    assert len(moments) == 5 and all("norm.weight" in name for name in moments)
    for name in states[1]:
        if "norm.weight" in name and name in states[0]:
            assert np.abs(states[1][name] - states[0][name]).max() <= 1e-4, name
    assert len(np.unique(losses[0])) == 3


#
# The character model
#


CHAR_STEPS = 5 if tools.sanitized() else 100


@pytest.fixture(scope="module")
def char_losses(filled, tmp_path_factory):
    """char_losses(MESH): the loss of each of CHAR_STEPS steps."""
    made = {}

    def get(mesh):
        if mesh not in made:
            folder = tmp_path_factory.mktemp("char")
            plan = compile_train_plan(
                filled("char"), tools.MODELS / "char-train.json", folder / "char.dsplan", mesh,
                tools.CHAR_DIMS,
            )
            outputs, _ = tools.run_plan(
                plan, tools.char_inputs(CHAR_STEPS), ["loss"], folder, f"--steps={CHAR_STEPS}",
                *tools.CHAR_TRAIN,
            )
            made[mesh] = outputs["loss"]
        return made[mesh]

    return get


@tools.not_sanitized
def test_the_character_model_learns(char_losses):
    losses = char_losses("")
    assert losses.shape == (100,) and np.isfinite(losses).all()
    assert 5.4 < losses[0] < 5.7  # ln 256 = 5.55
    assert losses[-10:].mean() < 3.0  # single batches differ by 0.3


@pytest.mark.parametrize("mesh", plans.CHARACTERS)
def test_the_character_model_learns_the_same_on_every_mesh(char_losses, mesh):
    assert np.abs(char_losses(mesh) - char_losses("")).max() <= 1e-3


#
# Bad input
#


@pytest.fixture(scope="module")
def mlp_plan(filled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    config = write_config(folder, logits="y")
    return compile_train_plan(filled("mlp"), config, folder / "mlp.dsplan", "dp_shard=2,tp=2", MLP)


def run_mlp(plan, folder, labels, *flags):
    x = mlp_steps(1)["x"][0]
    np.save(folder / "x.npy", x)
    np.save(folder / "labels.npy", labels)
    return tools.start(
        "dshard-run", plan, "--entry=train_step", "--input", f"x={folder / 'x.npy'}",
        "--input", f"labels={folder / 'labels.npy'}", *flags,
    )


@pytest.mark.parametrize(
    "labels,message",
    [
        (np.zeros((16, 64), np.int64), "labels.*16, 64.*takes .16."),
        (np.zeros(15, np.int64), "labels.*15"),
        (np.full(16, 64), "labels.*64.*63"),
        (np.full(16, -1), "labels.*-1"),
        (np.zeros(16, np.float32), "labels.*f32.*i64"),
    ],
    ids=["two-dims", "too-few", "too-large", "negative", "floats"],
)
def test_labels_that_do_not_suit_are_refused(mlp_plan, tmp_path, labels, message):
    refused(run_mlp(mlp_plan, tmp_path, labels), message)


def test_ignored_labels_are_taken(mlp_plan, tmp_path):
    assert run_mlp(mlp_plan, tmp_path, np.full(16, -100)).status == 0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_learning_rate_that_is_not_finite_is_refused(mlp_plan, tmp_path, value):
    done = run_mlp(mlp_plan, tmp_path, np.zeros(16, np.int64), f"--scalar=lr={value}")
    refused(done, f"lr.*{value}")


def test_a_scalar_given_twice_is_refused(mlp_plan, tmp_path):
    done = run_mlp(mlp_plan, tmp_path, np.zeros(16, np.int64), "--scalar=lr=1", "--scalar=lr=2")
    assert done.status == 2 and "--scalar names 'lr' twice" in done.stderr, done.stderr


def test_an_unknown_scalar_is_refused(mlp_plan, tmp_path):
    done = run_mlp(mlp_plan, tmp_path, np.zeros(16, np.int64), "--scalar=rate=1")
    refused(done, "rate.*lr")


#
# Memory
#

MIB = 1 << 20


@tools.not_sanitized
@pytest.mark.parametrize("mesh", ["", "dp_shard=2,tp=2"])
def test_the_planned_peak_is_the_measured_one(filled, tmp_path, mesh):
    plan = compile_train_plan(
        filled("char"), tools.MODELS / "char-train.json", tmp_path / "char.dsplan", mesh,
        tools.CHAR_DIMS,
    )
    _, report = tools.run_plan(
        plan, tools.char_inputs(3), ["loss"], tmp_path, "--steps=3", *tools.CHAR_TRAIN
    )
    planned, measured = tools.peak_memory(report)
    assert abs(measured - planned) <= max(0.02 * planned, 4 * MIB)


#
# Tied parameters
#


def tied_model(path, table):
    """logits = table[ids] @ transpose(table): one parameter, two uses."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    vocab, hidden = table.shape
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["h"], "embed"),
            helper.make_node("Transpose", ["table"], ["t"], "transpose", perm=[1, 0]),
            helper.make_node("MatMul", ["h", "t"], ["logits"], "head"),
        ],
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", vocab])],
        [numpy_helper.from_array(table, "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(path))
    return path


def tied_gradient(table, ids, labels):
    """In float64: the look-up's part and the product's."""
    table = table.astype(np.float64)
    h = table[ids]
    logits = h @ table.T
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[np.arange(len(ids)), labels] -= 1
    p /= len(ids)
    gradient = p.T @ h
    np.add.at(gradient, ids, p @ table)
    return gradient


@pytest.mark.parametrize("mesh", plans.TIED)
def test_a_tied_parameter_has_one_gradient(tmp_path, mesh):
    random = np.random.default_rng(2)
    table = random.standard_normal((64, 32)).astype(np.float32)
    ids, labels = random.integers(0, 64, (2, 8))
    ids[3] = ids[5]
    model = tied_model(tmp_path / "tied.onnx", table)
    config = write_config(tmp_path, outputs=ALL_OUTPUTS)
    plan = compile_train_plan(model, config, tmp_path / "tied.dsplan", mesh, {"batch": 8})
    outputs, _ = tools.run_plan(
        plan, {"ids": ids, "labels": labels}, ["table.grad"], tmp_path, "--entry=train_step"
    )
    exact = tied_gradient(table, ids, labels)
    assert np.abs(outputs["table.grad"] - exact).max() <= 2e-6 * np.abs(exact).max()
