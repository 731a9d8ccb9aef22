"""@train_step: gradients, clipping, AdamW and accumulation against PyTorch and formulas, in the
interpreter in fp64; and the refusals of --train.

The PyTorch values are in test/models/*-training.npz, made by scripts/training-reference.
"""

import json
import re

import numpy as np
import pytest

import tools

ALL_OUTPUTS = ["loss", "grad_norm", "gradients"]


def write_config(folder, **keys):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.json"
    path.write_text(json.dumps(keys))
    return path


def compile_step(model, config, folder, dims, *flags, mesh="", to="train"):
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{model.stem}-{to}.mlir"
    arguments = tools.compile_arguments(model, mesh, dims)
    tools.run("dshard-opt", *arguments, f"--train={config}", *flags, f"--to={to}", "-o", out)
    return out


@pytest.mark.parametrize("name", tools.REFERENCE_CASES)
def test_steps_are_pytorchs(filled, tmp_path, name):
    """Loss, norm, gradients and parameters of five steps with clipping and decay."""
    config = tools.write_reference_config(name, tmp_path)
    program = compile_step(filled(name), config, tmp_path, tools.REFERENCE_CASES[name]["dims"])
    theirs = tools.training_reference(name)
    ours = tools.interpret_reference_steps(name, program, tmp_path, theirs)
    assert tools.compare_with_reference(ours, theirs) is None


def test_micro_batches_give_the_same_step(filled, tmp_path):
    """Four micro-batches against one batch: loss, gradients and new states in fp64."""
    config = write_config(tmp_path, shift_labels=True, clip_norm=0.5, outputs=ALL_OUTPUTS)
    dims = {"batch": 8, "seq": 8}
    whole = compile_step(filled("llama-small"), config, tmp_path / "1", dims)
    parts = compile_step(
        filled("llama-small"), config, tmp_path / "4", dims, "--micro-batches=4"
    )
    assert "dshard.repeat 4" in parts.read_text()
    # Valid labels differ from one micro-batch to the next.
    labels = np.random.default_rng(1).integers(0, 256, (8, 8))
    labels[3, 2:] = -100
    labels[5] = -100
    np.save(tmp_path / "labels.npy", labels)
    done = tools.run(
        "dshard-interpret", whole, "--against", parts, "--entry=train_step", "--random-inputs",
        "--input", f"labels={tmp_path / 'labels.npy'}",
    )
    assert "DIFFERENT" not in done.stdout and "loss" in done.stdout


def adamw(values, gradients, lr, betas, eps, weight_decay):
    """Loshchilov and Hutter's formula, in float64."""
    m = v = np.zeros_like(values)
    for step, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
        values = values - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * values)
    return values


def mlp_steps(steps, seed=3):
    random = np.random.default_rng(seed)
    x = random.standard_normal((steps, 16, 64)).astype(np.float32)
    return {"x": x, "labels": random.integers(0, 64, (steps, 16))}


def check_adamw(outputs, first, lr, weight_decay):
    """The steps against the formula, from the gradients that were given."""
    scale = np.minimum(1, 1.0 / (outputs["grad_norm"].astype(np.float64) + 1e-6))
    assert (scale < 1).any(), "the clipping was never needed"
    for name, value in first.items():
        gradients = outputs[f"{name}.grad"].astype(np.float64)
        gradients *= scale.reshape([-1] + [1] * (gradients.ndim - 1))
        expected = adamw(
            value.astype(np.float64), gradients, lr, (0.9, 0.999), 1e-8,
            0 if name.endswith("bias") else weight_decay,
        )
        # Each step rounds to float32: by up to 6e-8 above 1.
        tolerance = 1e-6 if np.abs(value).max() < 1 else 2e-6
        assert np.abs(outputs[name] - expected).max() <= tolerance, name


def initial_mlp(model):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(model)).graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}


def test_adamw_is_its_formula_after_100_steps(filled, tmp_path):
    """In the model's own precision, with clipping and decay."""
    config = write_config(
        tmp_path,
        logits="y",
        optimizer={"weight_decay": 0.1, "no_decay": ["*.bias"]},
        clip_norm=1.0,
        outputs=ALL_OUTPUTS,
    )
    program = compile_step(filled("mlp"), config, tmp_path, {"batch": 16})
    first = initial_mlp(filled("mlp"))
    outputs = ["grad_norm"] + list(first) + [f"{name}.grad" for name in first]
    ours = tools.interpret_step(
        program, mlp_steps(100), outputs, tmp_path, "--steps=100", "--precision=model"
    )
    check_adamw(ours, first, np.float32(1e-3), 0.1)


def test_a_gradient_that_is_not_finite_writes_nothing(filled, tmp_path):
    config = write_config(tmp_path, logits="y", nonfinite="skip")
    program = compile_step(filled("mlp"), config, tmp_path, {"batch": 16})
    inputs = {key: value[0] for key, value in mlp_steps(1).items()}
    inputs["x"][2, 5] = np.inf
    first = initial_mlp(filled("mlp"))
    ours = tools.interpret_step(program, inputs, list(first) + ["step", "nonfinite.skip"], tmp_path)
    assert not np.isfinite(ours["nonfinite.skip"]).all()
    assert ours["step"] == 0
    for name, value in first.items():
        assert np.array_equal(ours[name], value), name


REFUSED_CONFIGS = [
    ({"lr": 1}, "unknown key 'lr'; the keys are loss, logits, labels, ignore_index,"),
    ({"optimizer": {"beta": 0.9}}, "json: unknown key 'optimizer.beta'; the keys are name, betas,"),
    ({"optimizer": []}, "key 'optimizer' is .., expected an object"),
    ({"a\nb": 1}, "unknown key 'a.0Ab'; the keys are"),
    ({"logits": "a\nb"}, "key 'logits' is .a.nb., expected a name without control characters"),
    ({"loss": "mse"}, "key 'loss' is \"mse\", expected cross_entropy"),
    ({"logits": "out"}, "the model has no output 'out' for the loss; its outputs are y"),
    ({"logits": 3}, "key 'logits' is 3, expected a name"),
    ({"labels": "x"}, "the model has an argument 'x' already"),
    ({"labels": "loss"}, "key 'labels' is .loss., a name that the training step uses itself"),
    ({"labels": "step"}, "key 'labels' is .step., a name"),
    ({"labels": "lr"}, "key 'labels' is .lr., a name"),
    ({"labels": "up_proj.weight.grad"}, "key 'labels' is .up_proj.weight.grad., a name"),
    ({"shift_labels": True}, "shift_labels needs floats .batch, sequence, classes."),
    ({"shift_labels": 1}, "key 'shift_labels' is 1, expected true or false"),
    ({"ignore_index": 0.5}, "key 'ignore_index' is 0.5, expected a whole number"),
    ({"ignore_index": 1 << 60}, "key 'ignore_index' is 1152921504606846976, expected a whole"),
    ({"optimizer": {"name": "sgd"}}, "key 'optimizer.name' is \"sgd\", expected adamw"),
    ({"optimizer": {"betas": [0.9, 1]}}, "key 'optimizer.betas' is 1, expected two numbers in"),
    ({"optimizer": {"betas": [0.9]}}, "json: key 'optimizer.betas' is .0.9.*, expected .beta1, beta2."),
    ({"optimizer": {"betas": [0.9, 0.99999999999]}}, "below 1 in f32 too"),
    ({"optimizer": {"eps": 1e-60}}, "key 'optimizer.eps' is .*e-61, expected a number > 0 that f32"),
    ({"optimizer": {"eps": 1e39}}, "key 'optimizer.eps' is .*, expected a number > 0 that f32"),
    ({"optimizer": {"weight_decay": 1e39}}, "key 'optimizer.weight_decay' is .*, expected a number >= 0 that f32"),
    ({"clip_norm": 1e-320}, "key 'clip_norm' is .*, expected a number > 0 that f32 holds"),
    ({"clip_norm": 1e39}, "key 'clip_norm' is .*, expected a number > 0 that f32 holds"),
    ({"trainable": ["*.gamma"]}, "'.*.gamma' of trainable matches no parameter"),
    ({"trainable": "*"}, "key 'trainable' is .*, expected a list of globs"),
    ({"trainable": []}, "no parameter of the model changes 'y'; there is nothing to train; not"),
    ({"optimizer": {"eps": 0}}, "key 'optimizer.eps' is 0, expected a number > 0"),
    ({"optimizer": {"weight_decay": -1}}, "key 'optimizer.weight_decay' is -1"),
    ({"optimizer": {"no_decay": ["*.gamma"]}}, "'\\*.gamma' of no_decay matches no parameter"),
    ({"optimizer": {"no_decay": ["[a"]}}, "has the glob '.a'"),
    ({"clip_norm": 0}, "key 'clip_norm' is 0, expected a number > 0"),
    ({"nonfinite": "ignore"}, "key 'nonfinite' is \"ignore\", expected stop or skip"),
    ({"outputs": ["loss", "logits"]}, "key 'outputs' is \"logits\", expected loss or grad_norm"),
    ({"outputs": ["loss", "loss"]}, "key 'outputs' names loss twice"),
    ([], "expected an object"),
]


@pytest.mark.parametrize("keys,message", REFUSED_CONFIGS, ids=lambda value: str(value)[:40])
def test_bad_configuration_is_refused(tmp_path, keys, message):
    path = tmp_path / "train.json"
    if isinstance(keys, dict):
        keys = {"logits": "y", **keys}
    path.write_text(json.dumps(keys))
    refused(start_train(path, "--to=train"), message)


def start_train(config, *flags, model="mlp", dims=(("batch", 16),)):
    arguments = tools.compile_arguments(tools.MODELS / f"{model}.onnx", dims=dims)
    return tools.start("dshard-opt", *arguments, f"--train={config}", *flags)


def refused(done, message):
    assert done.status == 1, f"exit status {done.status}\n{done.stderr}"
    assert len(done.lines()) == 1, done.stderr
    assert re.search(message, done.lines()[0]), done.stderr


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    (tmp_path / "train.json").write_text('{"logits": "y", "clip_norm": 1e999}')
    refused(start_train(tmp_path / "train.json", "--to=train"), "key 'clip_norm' is")


def test_missing_and_broken_files_are_refused(tmp_path):
    refused(start_train(tmp_path / "none.json", "--to=train"), "none.json")
    refused(start_train(tmp_path, "--to=train"), "is a folder; give a JSON file")
    (tmp_path / "train.json").write_text('{"loss": ')
    refused(start_train(tmp_path / "train.json", "--to=train"), "is not JSON")


@pytest.mark.parametrize("flag", ["--train", "--tp-plan"])
def test_deeply_nested_json_is_refused(tmp_path, flag):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    done = tools.start(
        "dshard-opt", tools.MODELS / "mlp.onnx", "--dim", "batch=16", "--mesh=tp=2",
        f"{flag}={tmp_path / 'deep.json'}", "--to=local", "-o", tmp_path / "out.mlir",
    )
    refused(done, "deep.json: is nested more than 64 levels deep")
    # Brackets in a string nest nothing.
    (tmp_path / "deep.json").write_text(json.dumps({"logits": "\\\"" + "[" * 100}))
    refused(start_train(tmp_path / "deep.json", "--to=train"), "has no output")


def test_micro_batches_that_do_not_suit_are_refused(tmp_path):
    config = write_config(tmp_path, logits="y")
    refused(
        start_train(config, "--to=train", "--micro-batches=3"),
        "--micro-batches=3: does not divide the batch of 16 \\(dim 'batch' of input 'x'\\)",
    )
    done = tools.start(
        "dshard-opt", tools.MODELS / "mlp.onnx", "--dim", "batch=16", "--micro-batches=2",
        "--to=train",
    )
    refused(done, "--micro-batches=2 is for training and pipelines; give --train=FILE")
    assert start_train(config, "--to=train", "--micro-batches=0").status == 2
    # The model of one micro-batch comes from the importer.
    graph = tmp_path / "graph.mlir"
    tools.run(
        "dshard-opt", tools.MODELS / "mlp.onnx", "--dim", "batch=16", "--to=graph", "-o", graph
    )
    done = tools.start(
        "dshard-opt", graph, "--from=graph", "--to=train", f"--train={config}", "--micro-batches=2"
    )
    refused(done, "--micro-batches=2: the module is for 1; start from the .onnx")


def test_training_flags_after_their_phase_are_refused(tmp_path):
    config = write_config(tmp_path, logits="y")
    program = tmp_path / "train.mlir"
    tools.run(
        "dshard-opt", tools.MODELS / "mlp.onnx", "--dim", "batch=16", "--to=train", "-o", program
    )
    done = tools.start("dshard-opt", program, "--from=train", "--to=local", f"--train={config}")
    refused(done, "--train belongs to the phase train; with --from=train it is over")


def test_16_bit_parameters_are_refused(tmp_path):
    config = write_config(tmp_path)
    done = start_train(
        config, "--to=train", model="llama-small-bf16", dims=(("batch", 2), ("seq", 8))
    )
    refused(done, "parameter 'model.embed_tokens.weight' is .*bf16.*; training needs f32")


def test_shifted_labels_of_one_position_are_refused(tmp_path):
    config = write_config(tmp_path, shift_labels=True)
    done = start_train(config, "--to=train", model="llama-small", dims=(("batch", 2), ("seq", 1)))
    refused(done, "shift_labels needs at least 2 positions")


def test_resuming_at_a_phase_gives_the_same_plan(filled, tmp_path):
    """Two functions, and the model of a micro-batch before the phase train."""
    config = write_config(tmp_path, shift_labels=True)
    train = [f"--train={config}", "--micro-batches=2"]
    arguments = tools.compile_arguments(
        filled("llama-small"), "dp_shard=2,tp=2", {"batch": 4, "seq": 8}
    )
    tools.run(
        "dshard-opt", *arguments, *train, f"--dump-phases-to={tmp_path / 'phases'}",
        "-o", tmp_path / "whole.dsplan",
    )

    def printed(plan):
        lines = tools.run("dshard-plan", "print", plan).stdout.splitlines()
        return [line for line in lines if not line.startswith("  options ")]

    whole = printed(tmp_path / "whole.dsplan")
    assert any("train_step" in line for line in whole)
    for program in sorted((tmp_path / "phases").glob("[0-7]-*.mlir")):
        phase = program.stem[2:]
        flags = train if phase in ("import", "graph") else []
        tools.run(
            "dshard-opt", program, f"--from={phase}", *flags, "-o", tmp_path / "resumed.dsplan"
        )
        assert printed(tmp_path / "resumed.dsplan") == whole, phase


def test_a_training_entry_of_the_users_is_refused(tmp_path):
    config = write_config(tmp_path, logits="y")
    refused(start_train(config, "--to=train", "--entry=train_step"), "--entry=train_step is what")


def test_labels_of_the_wrong_shape_are_refused(tmp_path):
    config = write_config(tmp_path, logits="y")
    program = tmp_path / "train.mlir"
    tools.run(
        "dshard-opt", tools.MODELS / "mlp.onnx", "--dim", "batch=16", f"--train={config}",
        "--to=train", "-o", program,
    )
    np.save(tmp_path / "labels.npy", np.zeros((16, 64), np.int64))
    done = tools.start(
        "dshard-interpret", program, "--entry=train_step", "--random-weights", "--random-inputs",
        "--input", f"labels={tmp_path / 'labels.npy'}",
    )
    refused(done, "labels.npy: holds 16x64x.*, the input is tensor<16xi64>")


def test_a_learning_rate_that_is_not_finite_is_refused(filled, tmp_path):
    config = write_config(tmp_path, logits="y")
    program = compile_step(filled("mlp"), config, tmp_path, {"batch": 16})
    done = tools.start(
        "dshard-interpret", program, "--entry=train_step", "--random-inputs", "--scalar=lr=nan"
    )
    refused(done, "--scalar lr: nan is not finite as f32")
    done = tools.start(
        "dshard-interpret", program, "--entry=train_step", "--random-inputs", "--scalar=lr=1e39"
    )
    refused(done, "--scalar lr: 1e[+]39 is not finite as f32")
    for flag in ("--scalar=lr=1", "--input=x=random"):
        done = tools.start("dshard-interpret", program, flag, flag)
        assert done.status == 2 and "twice" in done.stderr, done.stderr


@pytest.mark.parametrize("flags,to", [([], "train"), (["--micro-batches=2"], "train"), ([], "schedule")])
def test_labels_out_of_range_are_refused(filled, tmp_path, flags, to):
    """As by dshard-run; the ignored label is in its range."""
    config = write_config(tmp_path, logits="y")
    mesh = "dp_shard=2,tp=2" if to == "schedule" else ""
    program = compile_step(filled("mlp"), config, tmp_path, {"batch": 16}, *flags, mesh=mesh, to=to)
    for value in (64, -1, 1 << 60, -100):
        labels = np.zeros(16, np.int64)
        labels[11] = value
        np.save(tmp_path / "labels.npy", labels)
        done = tools.start(
            "dshard-interpret", program, "--entry=train_step", "--random-inputs",
            "--input", f"labels={tmp_path / 'labels.npy'}",
        )
        if value == -100:
            assert done.status == 0, done.stderr
        else:
            refused(done, f"input 'labels' has the value {value} at .11.; allowed are 0 to 63 and -100")


#
# Which weights are trained, and whether a batch may be divided: models of a few nodes
#


def save_model(path, nodes, x, logits, weights, external=()):
    """x -> logits; `weights` by name, those in `external` in a file of their own."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    for tensor in tensors:
        if tensor.name in external:
            onnx.external_data_helper.set_external_data(tensor, f"{path.name}.data")
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], out, **keys) for op, ins, out, keys in nodes],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)],
        tensors,
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
    return path


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def start_small(model, config, folder, *flags):
    return tools.start(
        "dshard-opt", model, "--dim", "batch=4", f"--train={config}", *flags,
        "-o", folder / "small.dsplan",
    )


def test_logits_without_the_batch_in_dim_0_have_no_micro_batches(tmp_path):
    """[batch, seq] in one dim: labels would meet other samples."""
    model = save_model(
        tmp_path / "flat.onnx",
        [("MatMul", ["x", "fc.weight"], "a", {}), ("Reshape", ["a", "shape"], "logits", {})],
        ["batch", 3, 8], ["n", 5], {"fc.weight": floats(8, 5), "shape": np.array([-1, 5])},
    )
    config = write_config(tmp_path)
    assert start_small(model, config, tmp_path).status == 0
    refused(
        start_small(model, config, tmp_path, "--micro-batches=2"),
        "--micro-batches=2: logits 'logits' are .*12x5.*, and the batch of input .x. is 4; train "
        "without --micro-batches, or export logits as .batch, ....",
    )


def test_a_batch_whose_rows_mix_has_no_micro_batches(tmp_path):
    """Each sample less the mean of the batch."""
    model = save_model(
        tmp_path / "mean.onnx",
        [
            ("MatMul", ["x", "fc.weight"], "a", {}),
            ("ReduceMean", ["a", "axes"], "m", {"keepdims": 1}),
            ("Sub", ["a", "m"], "logits", {}),
        ],
        ["batch", 8], ["batch", 5], {"fc.weight": floats(8, 5), "axes": np.array([0])},
    )
    config = write_config(tmp_path)
    assert start_small(model, config, tmp_path).status == 0
    refused(
        start_small(model, config, tmp_path, "--micro-batches=2"),
        "node 'm': --micro-batches=2: dshard.reduce reduces over the batch.*; train without "
        "--micro-batches",
    )


def test_a_batch_of_one_has_no_micro_batches(tmp_path):
    """Each of them would be the whole."""
    model = save_model(
        tmp_path / "one.onnx", [("MatMul", ["x", "fc.weight"], "logits", {})],
        ["batch", 8], ["batch", 5], {"fc.weight": floats(8, 5)},
    )
    done = tools.start(
        "dshard-opt", model, "--dim", "batch=1", f"--train={write_config(tmp_path)}",
        "--micro-batches=2", "-o", tmp_path / "small.dsplan",
    )
    refused(done, "--micro-batches=2: logits 'logits' are .*1x5.*, which do not have the batch in dim 0")


def test_another_output_may_mix_the_batch(tmp_path):
    """The loss reads the logits alone."""
    import onnx
    from onnx import TensorProto, helper

    path = save_model(
        tmp_path / "other.onnx",
        [
            ("MatMul", ["x", "fc.weight"], "logits", {}),
            ("ReduceMean", ["logits", "axes"], "mean", {"keepdims": 0}),
        ],
        ["batch", 8], ["batch", 5], {"fc.weight": floats(8, 5), "axes": np.array([0])},
    )
    model = onnx.load(str(path))
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [5]))
    onnx.save(model, str(path))
    done = start_small(path, write_config(tmp_path), tmp_path, "--micro-batches=2")
    assert done.status == 0, done.stderr


def trained_model(folder):
    """Parameters, small and large, inside and outside the file, and what is none."""
    weights = {
        "fc.weight": floats(8, 5),
        "layer.gamma": floats(5, seed=1),
        "val_37": np.array(2, np.float32),
        "rotary_emb.inv_freq": floats(5, seed=2),
        "norm.running_mean": floats(5, seed=3),
        "val_40": floats(5, seed=4),
    }
    nodes = [("MatMul", ["x", "fc.weight"], "h0", {})]
    for i, name in enumerate(list(weights)[1:]):
        out = "logits" if i == 4 else f"h{i + 1}"
        nodes.append(("Mul", [f"h{i}", name], out, {}))
    return save_model(
        folder / "trained.onnx", nodes, ["batch", 8], ["batch", 5], weights,
        external=[name for name in weights if name != "layer.gamma"],
    )


@pytest.mark.parametrize(
    "trainable,trained,remark",
    [
        (
            None,
            {"fc.weight", "layer.gamma"},
            "2 parameters are trained; not trained: val_37 .no dims.; rotary_emb.inv_freq, "
            "norm.running_mean .a buffer by its name.; val_40 .named unlike a module's parameter.",
        ),
        (["*.gamma", "val_4?"], {"layer.gamma", "val_40"}, "fc.weight, .*no glob of trainable"),
    ],
    ids=["default", "globs"],
)
def test_what_is_trained(tmp_path, trainable, trained, remark):
    keys = {} if trainable is None else {"trainable": trainable}
    done = start_small(trained_model(tmp_path), write_config(tmp_path, **keys), tmp_path)
    assert done.status == 0 and re.search("remark: .*" + remark, done.stderr), done.stderr
    _, report = tools.run_plan(
        tmp_path / "small.dsplan", {"x": floats(4, 8), "labels": np.arange(4)}, [], tmp_path,
        "--entry=train_step", f"--save-state={tmp_path / 'state'}",
    )
    saved = {path.name for path in (tmp_path / "state").glob("*.exp_avg.npy")}
    assert saved == {f"{name}.exp_avg.npy" for name in trained}


def test_a_matrix_with_a_name_that_exporters_make_up_is_warned_of(tmp_path):
    weights = {"fc.weight": floats(8, 5), "onnx::MatMul_12": floats(5, 5)}
    model = save_model(
        tmp_path / "renamed.onnx",
        [("MatMul", ["x", "fc.weight"], "a", {}), ("MatMul", ["a", "onnx::MatMul_12"], "logits", {})],
        ["batch", 8], ["batch", 5], weights, external=list(weights),
    )
    done = start_small(model, write_config(tmp_path), tmp_path)
    assert "warning: " in done.stderr and "onnx::MatMul_12 (named unlike" in done.stderr
