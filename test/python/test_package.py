"""The Python package: it computes what onnxruntime and dshard-run compute, and says what they say."""

import copy
import doctest
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import tools

MLP_PLAN = json.loads((tools.MODELS / "mlp-tp.json").read_text())
TRAIN = {"logits": "y", "clip_norm": 1.0}


def check(ours, theirs):
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


@pytest.fixture
def mlp(dshard, filled):
    """The MLP on two ranks, batch 16."""
    with dshard.compile(filled("mlp"), mesh={"tp": 2}, dims={"batch": 16}, tp_plan=MLP_PLAN) as plan:
        yield plan


@pytest.mark.parametrize("tp", [1, 2])
def test_mlp_is_onnxruntimes(dshard, filled, tp):
    """Several runs of one plan, each with other inputs."""
    plan = dshard.compile(filled("mlp"), {"tp": tp}, {"batch": 16}, tp_plan=tools.MODELS / "mlp-tp.json")
    assert plan.ranks == tp
    for seed in range(3):
        inputs = tools.mlp_inputs(16, seed)
        check(plan.run(inputs)["y"], tools.onnxruntime_outputs(filled("mlp"), inputs)["y"])


LLAMA_MESHES = [
    (None, {}),
    ("tp=1", {}),
    ("tp=2", {"sequence_parallel": True}),
    ({"dp_shard": 2, "tp": 2}, {"fsdp": "none"}),
    ({"pp": 2}, {"micro_batches": 2}),  # inputs that both stages read
]


@pytest.mark.parametrize("mesh,options", LLAMA_MESHES, ids=str)
def test_llama_is_onnxruntimes(dshard, filled, mesh, options):
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 2, 16)
    plan = dshard.compile(model, mesh=mesh, dims={"batch": 2, "seq": 16}, **options)
    assert set(plan.inputs) == set(inputs)
    check(plan.run(inputs)["logits"], tools.onnxruntime_outputs(model, inputs)["logits"])


def test_load_runs_what_dshard_opt_wrote(dshard, filled, tmp_path):
    """Bit for bit what dshard-run computes; weights read from another folder."""
    path = tmp_path / "mlp.dsplan"
    tools.compile_plan(filled("mlp"), path, "tp=2", {"batch": 16})
    inputs = tools.mlp_inputs(16)
    expected, _ = tools.run_plan(path, inputs, ["y"], tmp_path)
    ours = dshard.load(path, weights=filled("mlp").parent).run(inputs)
    assert np.array_equal(ours["y"], expected["y"])
    drawn = dshard.load(str(path), random_weights=7).run(inputs)
    assert not np.array_equal(drawn["y"], expected["y"])


def test_what_a_plan_says(dshard, mlp):
    assert mlp.inputs == {"x": dshard.Tensor("x", np.dtype(np.float32), (16, 64))}
    assert list(mlp.outputs) == ["y"] and list(mlp.entries) == ["run"] and list(mlp.scalars) == []
    assert mlp.target.startswith("cpu:") and "2 ranks" in repr(mlp)
    done = tools.run("dshard-plan", "explain", mlp.path)
    assert mlp.explain() == done.stdout and "all_reduce {tp}" in done.stdout
    assert mlp.stat() == tools.run("dshard-plan", "stat", mlp.path).stdout
    assert mlp.print() == tools.run("dshard-plan", "print", mlp.path).stdout
    assert mlp.memory() == tools.plan_stat(mlp.path)
    mlp.verify()


def test_a_temporary_plan_is_removed_with_its_object(dshard, filled):
    plan = dshard.compile(filled("mlp"), dims={"batch": 1})
    path = plan.path
    assert os.path.exists(path)
    del plan
    assert not os.path.exists(os.path.dirname(path))


def test_remarks_are_logged(dshard, caplog):
    """The compiler's remarks go to the logger "dshard", not to standard error."""
    caplog.set_level("INFO", "dshard")
    dshard.compile(tools.MODELS / "mlp.onnx", dims={"batch": 1})
    assert any("its weights are recorded without identity" in text for text in caplog.messages)


def test_arrays_of_any_layout(mlp):
    """Strided, foreign byte order, lists, and what numpy takes through DLPack."""
    x = tools.mlp_inputs(16)["x"]
    expected = mlp.run({"x": x})["y"]

    class Exporter:
        """Like a torch or jax tensor in host memory."""

        def __dlpack__(self, **arguments):
            return x.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return x.__dlpack_device__()

    unaligned = np.frombuffer(b"0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    frozen = x.copy()
    frozen.setflags(write=False)
    values = [np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x[::-1][::-1], x.astype(">f4"), x.tolist(), Exporter()]
    for value in values + [unaligned, frozen, memoryview(x)]:
        assert np.array_equal(mlp.run({"x": value})["y"], expected)
    assert np.array_equal(np.from_dlpack(expected), expected)
    ones = mlp.run({"x": np.ones((16, 64), np.float32)})["y"]
    for value in (np.broadcast_to(np.float32(1), (16, 64)), [[1] * 64] * 16, [[True] * 64] * 16):
        assert np.array_equal(mlp.run({"x": value})["y"], ones)


def test_which_outputs_to_collect(mlp):
    """None, a name, or several: a name that comes twice is one output."""
    inputs = tools.mlp_inputs(16)
    expected = mlp.run(inputs)
    assert mlp.run(inputs, outputs=[]) == {}
    for outputs in ("y", ["y"], ("y", "y"), iter("y")):
        ours = mlp.run(inputs, outputs=outputs)
        assert list(ours) == ["y"] and np.array_equal(ours["y"], expected["y"])


@pytest.fixture(scope="session")
def int8_model(tmp_path_factory):
    """z = u of uint8, c = u cast to int64, h = v of bfloat16."""
    from onnx import TensorProto, helper, save

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["u", "u"], ["z"]),
            helper.make_node("Cast", ["u"], ["c"], to=TensorProto.INT64),
            helper.make_node("Neg", ["v"], ["h"]),
        ],
        "g",
        [info("u", TensorProto.UINT8, [3]), info("v", TensorProto.BFLOAT16, [2, 2])],
        [info("z", TensorProto.UINT8, [3]), info("c", TensorProto.INT64, [3]), info("h", TensorProto.BFLOAT16, [2, 2])],
    )
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_lists_hold_the_plans_numbers(dshard, int8_model):
    """Lists take the input's type, but no number is changed by that."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    plan = dshard.compile(int8_model)
    v = [[1.5, -2], [0, 1]]
    ours = plan.run({"u": [1, 2, 100], "v": v})
    assert ours["z"].tolist() == [2, 4, 200] and ours["c"].tolist() == [1, 2, 100]
    assert ours["h"].dtype == ml_dtypes.bfloat16 and np.array_equal(ours["h"].astype(float), -np.array(v))
    bits = np.array(v, ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(plan.run({"u": np.array([1, 2, 100], np.uint8), "v": bits})["h"], ours["h"])
    for u, message in (
        ([1.7, 2, 3], "'u' of 'run' is a list of float64, the plan takes uint8"),
        ([1, 2, 300], "'u' of 'run' holds 300, which is no uint8"),
        ([-1, 2, 3], "'u' of 'run' holds -1"),
        ([1, None, 3], "'u' of 'run' is a list of object"),
        (["1", "2", "3"], "'u' of 'run' is a list of str"),
        ([[1], [2, 3]], "'u' of 'run': "),
    ):
        with pytest.raises(dshard.Error, match=message) as error:
            plan.run({"u": u, "v": v})
        assert "\n" not in str(error.value)


def test_bfloat16_through_dlpack(dshard, int8_model):
    """A bfloat16 tensor of another library, which numpy's DLPack refuses: a view of its bits, strides too."""

    class Exporter:
        """Builds the capsule as other libraries do: numpy's of the bits, with another type code."""

        def __init__(self, bits):
            self.bits = bits

        def __dlpack__(self, **arguments):
            import ctypes

            capsule = self.bits.__dlpack__()
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            # DLTensor: data (8), device (8), ndim (4), then the type's code.
            ctypes.c_uint8.from_address(pointer(capsule, b"dltensor") + 20).value = 4
            return capsule

        def __dlpack_device__(self):
            return self.bits.__dlpack_device__()

    ml_dtypes = pytest.importorskip("ml_dtypes")
    plan = dshard.compile(int8_model)
    v = np.array([[1.5, -2], [0, 1]], ml_dtypes.bfloat16)
    for bits in (v.view(np.uint16), np.asfortranarray(v).view(np.uint16), np.repeat(v, 2, 1).view(np.uint16)[:, ::2]):
        assert np.array_equal(plan.run({"u": [1, 2, 3], "v": Exporter(bits)})["h"], -v)
    with pytest.raises(dshard.Error, match="input 'u' is bf16, the plan takes u8"):
        plan.run({"u": Exporter(v[0].view(np.uint16)), "v": v})


def test_bfloat16(dshard, filled, tmp_path):
    """Out as ml_dtypes.bfloat16, with the bits that dshard-run writes."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    path = tmp_path / "llama.dsplan"
    tools.compile_plan(filled("llama-small-bf16"), path, "tp=2", {"batch": 2, "seq": 16})
    inputs = tools.llama_inputs(256, 2, 16)
    expected, _ = tools.run_plan(path, inputs, ["logits"], tmp_path)
    logits = dshard.load(path).run(inputs)["logits"]
    assert logits.dtype == ml_dtypes.bfloat16 and expected["logits"].dtype == np.uint16
    assert np.array_equal(logits.view(np.uint16), expected["logits"])


def test_training_steps(dshard, filled, tmp_path):
    """Losses, states and the learning rate as dshard-run has them, bit for bit."""
    path = tmp_path / "mlp.dsplan"
    plan = dshard.compile(
        filled("mlp"), {"dp_shard": 2, "tp": 2}, {"batch": 16}, tp_plan=MLP_PLAN, train=TRAIN, output=path
    )
    assert list(plan.scalars) == ["lr"] and set(plan.entries) == {"run", "train_step"}
    random = np.random.default_rng(3)
    x = random.standard_normal((3, 16, 64)).astype(np.float32)
    labels = random.integers(0, 64, (3, 16))
    losses = [
        plan.run({"x": x[i], "labels": labels[i]}, entry="train_step", scalars={"lr": 1e-2})["loss"]
        for i in range(3)
    ]
    flags = ["--entry=train_step", "--steps=3", "--scalar=lr=1e-2", f"--save-state={tmp_path / 'state'}"]
    expected, _ = tools.run_plan(path, {"x": x, "labels": labels}, ["loss"], tmp_path, *flags)
    assert np.array_equal(np.array(losses).reshape(-1), expected["loss"].reshape(-1))
    assert expected["loss"][2] < expected["loss"][0]
    assert "up_proj.weight.exp_avg" in plan.states
    for name, tensor in plan.states.items():
        value = plan.state(name)
        assert value.dtype == tensor.dtype and value.shape == tensor.shape
        assert np.array_equal(value, np.load(tmp_path / "state" / f"{name}.npy")), name
    # The trained weights serve the other entry point; closing forgets them.
    trained = plan.run({"x": x[0]}, entry="run")["y"]
    plan.close()
    assert not np.array_equal(plan.run({"x": x[0]}, entry="run")["y"], trained)


def test_gradients_that_are_not_finite(dshard, filled):
    inputs = {"x": np.full((16, 64), 1e38, np.float32), "labels": np.zeros(16, np.int64)}
    plan = dshard.compile(filled("mlp"), dims={"batch": 16}, train=TRAIN)
    with pytest.raises(dshard.Error, match="not finite; this step changed nothing"):
        plan.run(inputs, entry="train_step")
    plan = dshard.compile(filled("mlp"), dims={"batch": 16}, train=dict(TRAIN, nonfinite="skip"))
    with pytest.warns(RuntimeWarning, match="not finite; the step is skipped"):
        plan.run(inputs, entry="train_step")


WRONG_RUNS = [
    ({}, {}, "no value for the input 'x' of entry point 'run'"),
    ({"x": np.zeros((3, 64), np.float32)}, {}, r"\[3, 64\], the plan takes \[16, 64\]"),
    ({"x": np.zeros((16, 64))}, {}, "input 'x' is f64, the plan takes f32"),
    ({"x": np.zeros((16, 64), complex)}, {}, "complex128, which plans do not have"),
    ({"x": [["a"]]}, {}, "input 'x' of 'run'"),
    ({"z": np.zeros(3)}, {}, "no input 'z'.*it has x"),
    ("good", {"entry": "train_step"}, "no entry 'train_step'; it has run"),
    ("good", {"outputs": ["z"]}, "no output 'z'; it has y"),
    ("good", {"scalars": {"lr": 1}}, "no scalar 'lr'"),
    ("good", {"scalars": {"lr": "high"}}, "scalar 'lr': expected a number, got str 'high'"),
    ("good", {"scalars": ["lr"]}, 'scalars: expected a mapping as {"lr": 1e-3}, got list'),
    ("good", {"entry": 3}, "no entry '3'; it has run"),
    ({"x": None}, {}, "has the type object"),
    ({"x": np.float32(1)}, {}, r"has the shape \[\], the plan takes \[16, 64\]"),
    ({"x": np.zeros((16, 64), "M8[s]")}, {}, r"type datetime64\[s\], which plans do not have"),
    ({"x": np.ma.masked_array(np.zeros((16, 64), np.float32), True)}, {}, "masked array"),
    ({"x": memoryview(np.zeros((16, 64)))}, {}, "input 'x' is f64, the plan takes f32"),
    ({1: None}, {}, "inputs: expected names as in .*, got int 1"),
    ({"x\0": None}, {}, r"inputs: 'x\\x00' is no name"),
    ({"\udc80": None}, {}, "is no name"),
    ([np.zeros((16, 64))], {}, "inputs: expected a mapping as .*, got list"),
    (None, {}, "inputs: expected a mapping as .*, got None"),
]


@pytest.mark.parametrize("inputs,arguments,message", WRONG_RUNS)
def test_wrong_runs(dshard, mlp, inputs, arguments, message):
    """Each is one line; afterwards the plan runs as before."""
    good = tools.mlp_inputs(16)
    with pytest.raises(dshard.Error, match=message) as error:
        mlp.run(good if isinstance(inputs, str) else inputs, **arguments)
    assert "\n" not in str(error.value)
    assert mlp.run(good)["y"].shape == (16, 64)


WRONG_COMPILATIONS = [
    {"mesh": "rows=2"},
    {"mesh": {"tp": 2}},
    {"tp_plan": "no-such-plan", "mesh": "tp=2"},
    {"micro_batches": 0},
    {"precision": "bf16"},
    {"target": "cpu:no-such-cpu"},
    {"dims": {}},
    {"fsdp": "rows", "mesh": "dp_shard=2"},
]


@pytest.mark.parametrize("options", WRONG_COMPILATIONS, ids=str)
def test_wrong_compilations(dshard, filled, tmp_path, options):
    """The text is what dshard-opt prints, and nothing is written."""
    options = {"dims": {"batch": 16}, **options}
    out = tmp_path / "mlp.dsplan"
    with pytest.raises(dshard.Error) as error:
        dshard.compile(filled("mlp"), output=out, **options)
    assert not out.exists()
    flags = [f"--dim={name}={size}" for name, size in options.pop("dims").items()]
    mesh = options.pop("mesh", None)
    if mesh:
        flags.append("--mesh=" + (mesh if isinstance(mesh, str) else ",".join(f"{k}={v}" for k, v in mesh.items())))
    flags += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = tools.start("dshard-opt", filled("mlp"), *flags, "-o", out)
    assert done.status in (1, 2)
    said = done.lines()[0].removeprefix("dshard-opt: ").removeprefix("error: ").removesuffix("; see dshard-opt --help")
    assert str(error.value) == said


WRONG_ARGUMENTS = [
    ({"mesh": 2}, 'mesh: expected a mapping as {"tp": 2}, got int'),
    ({"mesh": {"tp": 2.5}}, "mesh axis 'tp' has size '2.5'"),
    ({"dims": [("batch", 16)]}, 'dims: expected a mapping as {"batch": 2}, got list'),
    ({"dims": {"batch": 1.5}}, "--dim batch=1.5"),
    ({"model": None}, "the model's path: expected a path, got None"),
    ({"model": "a\0b"}, "holds a zero byte"),
    ({"output": 3}, "output: expected a path, got int"),
    ({"weights": 3}, "weights: expected a path, got int"),
    ({"tp_plan": ["a"]}, "tp_plan: expected a path, got list"),
    ({"train": {"logits": object()}}, "train: object is nothing that JSON has"),
    ({"train": {"clip_norm": float("nan")}}, "train: .* not JSON compliant"),
    ({"train": {"logitz": "y"}}, "--train: train.json: unknown key 'logitz'"),
    ({"random_weights": -1}, "random_weights is -1, it must be in 0..18446744073709551615"),
    ({"random_weights": "a"}, "random_weights: expected a whole number, got str 'a'"),
    ({"random_weights": True}, "random_weights: expected a whole number, got bool True"),
    ({"random_weights": 1, "weights": "x"}, "weights and random_weights are both given"),
    ({"threads": -1}, "threads is -1, it must be in 0..4294967295"),
    ({"threads": 1.5}, "threads: expected a whole number, got float 1.5"),
    ({"sequence_parallel": "no"}, "--sequence-parallel=no: takes no value"),
]


@pytest.mark.parametrize("arguments,message", WRONG_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_wrong_arguments(dshard, filled, tmp_path, arguments, message):
    """What is not even of the right kind: the package's one exception, one line."""
    arguments = {"model": filled("mlp"), "dims": {"batch": 16}, "output": tmp_path / "mlp.dsplan", **arguments}
    with pytest.raises(dshard.Error, match=message) as error:
        dshard.compile(**arguments)
    assert "\n" not in str(error.value) and "/tmp/dshard-" not in str(error.value)


def test_numbers_of_numpy_configure(dshard, filled):
    """Sizes and configurations that come out of computations."""
    train = dict(TRAIN, clip_norm=np.float32(1), outputs=np.array(["loss"]))
    plan = dshard.compile(
        filled("mlp"), {"tp": np.int64(2)}, {"batch": np.int32(16)}, tp_plan=MLP_PLAN, train=train, random_weights=np.uint8(3)
    )
    assert plan.ranks == 2 and list(plan.entries["train_step"].outputs) == ["loss"]


def test_weights_that_come_later(dshard, filled, tmp_path):
    """A load that failed is tried again by the next run."""
    plan = dshard.compile(tools.MODELS / "mlp.onnx", dims={"batch": 16}, weights=tmp_path)
    inputs = tools.mlp_inputs(16)
    for call in (plan.load_weights, lambda: plan.run(inputs), lambda: plan.states):
        with pytest.raises(dshard.Error, match="'mlp.onnx.data' is missing"):
            call()
    shutil.copy(filled("mlp").with_suffix(".onnx.data"), tmp_path)
    plan.load_weights()
    check(plan.run(inputs)["y"], tools.onnxruntime_outputs(filled("mlp"), inputs)["y"])


def test_paths_are_those_of_the_call(dshard, filled, tmp_path, monkeypatch):
    """Relative paths, then another working directory; a plan that was written again is not mixed with the old one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(filled("mlp").with_suffix(".onnx.data"), tmp_path)
    inputs = tools.mlp_inputs(16)
    dshard.compile(filled("mlp"), dims={"batch": 16}, output="mlp.dsplan")
    plan, other = (dshard.load("mlp.dsplan", weights=".") for _ in range(2))
    assert plan.path == str(tmp_path / "mlp.dsplan")
    monkeypatch.chdir("elsewhere")
    assert plan.run(inputs)["y"].shape == (16, 64)
    newer = dshard.compile(filled("mlp"), dims={"batch": 8}, output=plan.path)
    with pytest.raises(dshard.Error, match="mlp.dsplan: is another plan than the one that was opened; load it again"):
        other.run(inputs)
    assert newer.run({"x": inputs["x"][:8]})["y"].shape == (8, 64)
    assert plan.run(inputs)["y"].shape == (16, 64)  # it had been loaded


def test_neither_pickled_nor_copied(dshard, mlp):
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot be pickled or copied; load its file again: dshard.load\(plan.path\)"):
            copier(mlp)


def script(dshard, code, *arguments, **options):
    """A program of its own that has `dshard`, `np` and `sys.argv[2:]`."""
    start = "import sys; sys.path.insert(0, sys.argv[1]); import dshard, numpy as np, os, signal, threading, time\n"
    site = os.path.dirname(os.path.dirname(dshard.__file__))
    command = [sys.executable, "-c", start + code, site, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_a_forked_child_is_told(dshard, filled):
    """The ranks' threads stay in the parent: a run in the child is an error, not a wait for ever; the parent goes on,
    and its temporary plan stays. The child may load the plan again."""
    code = """
plan = dshard.compile(sys.argv[2], dims={"batch": 16})
x = np.ones((16, 64), np.float32)
y = plan.run({"x": x})["y"]
child = os.fork()
if not child:
    signal.alarm(20)
    try:
        plan.run({"x": x})
    except dshard.Error as error:
        print(error)
    with dshard.load(plan.path, weights=os.path.dirname(sys.argv[2])) as again:
        print(np.array_equal(again.run({"x": x})["y"], y))
    plan.close()
    sys.exit(0)
print("child", os.waitpid(child, 0)[1])
plan.close()
print(np.array_equal(plan.run({"x": x})["y"], y))
"""
    done = script(dshard, code, filled("mlp"))
    lines = done.stdout.splitlines()
    assert "was loaded before the process forked" in lines[0], done.stderr
    assert lines[1:] == ["True", "child 0", "True"] and done.stderr == ""


def test_interrupts_and_the_end(dshard, filled):
    """Ctrl-C is heard when the run is over, and the plan can be used on; Python ends quietly while a thread runs it."""
    code = """
plan = dshard.compile(sys.argv[2], dims={"batch": 2, "seq": 64})
ids = np.zeros((2, 64), np.int64)
inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
plan.run(inputs)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        plan.run(inputs)
except KeyboardInterrupt:
    print("interrupted")
print(plan.run(inputs)["logits"].shape)
def run():
    while True:
        plan.run(inputs)
threading.Thread(target=run, daemon=True).start()
time.sleep(0.1)
"""
    done = script(dshard, code, filled("llama-small"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n(2, 64, 256)\n", "")


def test_plans_at_once(dshard, filled):
    """Threads that compile, run and close plans of their own, and one that is closed while it runs."""
    inputs = tools.mlp_inputs(16)
    shared = dshard.compile(filled("mlp"), {"tp": 2}, {"batch": 16}, tp_plan=MLP_PLAN)
    expected = shared.run(inputs)["y"]
    wrong = []

    def work(which):
        for _ in range(3):
            with dshard.compile(filled("mlp"), {"tp": 2}, {"batch": 16}, tp_plan=MLP_PLAN) as plan:
                for _ in range(5):
                    for each in (plan, shared):
                        if not np.array_equal(each.run(inputs)["y"], expected):
                            wrong.append(which)
            shared.close()

    threads = [threading.Thread(target=work, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_types_are_told(dshard):
    """The package is typed: py.typed is installed, and every public function says its types and has a text."""
    folder = os.path.dirname(dshard.__file__)
    assert os.path.exists(os.path.join(folder, "py.typed"))
    functions = [dshard.compile, dshard.load]
    functions += [f for name, f in vars(dshard.Plan).items() if not name.startswith("_") and callable(f)]
    functions += [p.fget for p in vars(dshard.Plan).values() if isinstance(p, property)]
    assert len(functions) > 15
    for function in functions:
        assert "return" in function.__annotations__ and function.__doc__, function
    for name in dshard.__all__:
        assert getattr(dshard, name).__doc__, name


def test_unknown_options_and_files(dshard, filled, tmp_path):
    with pytest.raises(dshard.Error, match="--tp-plam: no such option.*tp-plan"):
        dshard.compile(filled("mlp"), tp_plam="x")
    with pytest.raises(dshard.Error, match="no-such.dsplan: cannot open"):
        dshard.load(tmp_path / "no-such.dsplan")
    damaged = tmp_path / "damaged.dsplan"
    damaged.write_bytes(b"x" * 5000)
    with pytest.raises(dshard.Error, match="damaged.dsplan"):
        dshard.load(damaged)
    plan = dshard.compile(filled("mlp"), dims={"batch": 16})
    with pytest.raises(dshard.Error):
        dshard.load(plan.path, weights=tmp_path / "nowhere").run(tools.mlp_inputs(16))


def test_running_does_not_hold_the_gil(dshard, filled):
    """While a run goes on in one thread, another one goes on in Python."""
    plan = dshard.load(
        dshard.compile(filled("llama-small"), dims={"batch": 16, "seq": 256}, output=filled("mlp").parent / "l.dsplan").path,
        threads=1,
    )
    inputs = tools.llama_inputs(256, 16, 256)
    plan.run(inputs)
    seen = 0
    for _ in range(5):
        running = threading.Event()
        done = threading.Event()

        def run():
            running.set()
            plan.run(inputs, outputs=[])
            done.set()

        thread = threading.Thread(target=run)
        thread.start()
        running.wait()
        samples = 0
        while not done.is_set():
            time.sleep(0.001)
            samples += 1
        thread.join()
        seen = max(seen, samples)
    # Held, the samples would be those before and after the run.
    assert seen >= 5


def test_examples(dshard, filled, tmp_path, monkeypatch):
    """The examples of the docstrings."""
    monkeypatch.chdir(tmp_path)
    for path in (filled("mlp"), filled("mlp").with_suffix(".onnx.data"), tools.MODELS / "mlp-tp.json"):
        shutil.copy(path, tmp_path)
    options = dict(dims={"batch": 16}, tp_plan="mlp-tp.json")
    values = {
        "dshard": dshard,
        "np": np,
        "plan": dshard.compile("mlp.onnx", "tp=2", output="mlp.dsplan", **options),
        "training": dshard.compile("mlp.onnx", "tp=2", train=TRAIN, **options),
        "batches": [(tools.mlp_inputs(16)["x"], np.zeros(16, np.int64))],
    }
    ran = 0
    for thing in (dshard.compile, dshard.load, dshard.Plan, dshard.Error):
        for test in doctest.DocTestFinder().find(thing, thing.__name__, globs=values):
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            ran += runner.run(test).attempted
            assert runner.failures == 0, test.name
    assert ran >= 8


@pytest.mark.parametrize("page", ["README.md", "docs/Python.md"])
def test_examples_of_the_docs(dshard, filled, tmp_path, monkeypatch, page):
    """Every block of Python runs as it stands, where its models lie."""
    blocks = re.findall(r"^```python\n(.*?)^```", (tools.ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test").symlink_to(tools.ROOT / "test")
    for name, model in (("llama", "llama-small"), ("char", "char")):
        shutil.copy(filled(model), tmp_path / f"{name}.onnx")
        data = filled(model).with_suffix(".onnx.data")
        shutil.copy(data, tmp_path)
    dims = (2, 128) if page == "docs/Python.md" else ()
    ids = np.random.default_rng(0).integers(0, 128, dims)
    values = {"ids": ids, "mask": np.ones_like(ids), "batches": []}
    for block in blocks:
        exec(compile(block, page, "exec"), values)  # noqa: S102
        # The training example is of another batch.
        values["batches"] = [np.random.default_rng(1).integers(0, 128, (8, 128))]
        values["mask"] = np.ones((8, 128), np.int64)
    if page == "docs/Python.md":
        assert values["step"]["loss"] > 0 and "lm_head.weight" in values["weights"]
    assert np.isfinite(values["logits"]).all()


def test_two_threads_share_a_plan(mlp):
    """Their runs take turns; each gets the outputs of its own inputs."""
    inputs = [tools.mlp_inputs(16, seed) for seed in range(2)]
    expected = [mlp.run(each)["y"] for each in inputs]
    wrong = []

    def run(which):
        for _ in range(50):
            if not np.array_equal(mlp.run(inputs[which])["y"], expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_running_loads_no_compiler(dshard, mlp):
    """Loading and running a plan maps neither MLIR nor LLVM."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import dshard, numpy\n"
        "dshard.load(sys.argv[2]).run({'x': numpy.zeros((16, 64), 'float32')})\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libdshard-runtime' in maps\n"
        "print(sum(name in maps for name in ('libMLIR', 'libLLVM', 'libdshard-compiler')))\n"
    )
    site = os.path.dirname(os.path.dirname(dshard.__file__))
    done = subprocess.run([sys.executable, "-c", code, site, mlp.path], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


def test_a_plan_for_gpus(dshard, mlp, filled, tmp_path):
    """Any machine may look at it. It runs on the driver that there is (here the emulator), as on the CPU;
    without one it is refused."""
    plan = dshard.compile(
        filled("mlp"), {"tp": 2}, {"batch": 16}, tp_plan=MLP_PLAN, target="cuda:sm_90", output=tmp_path / "cuda.dsplan"
    )
    assert plan.target == "cuda:sm_90" and plan.inputs == mlp.inputs
    inputs = tools.mlp_inputs(16)
    np.save(tmp_path / "x.npy", inputs["x"])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import dshard, numpy as np\n"
        "try: np.save('y.npy', dshard.load('cuda.dsplan').run({'x': np.load('x.npy')})['y'])\n"
        "except dshard.Error as error: print(error)\n"
    )
    site = os.path.dirname(os.path.dirname(dshard.__file__))

    def run(driver):
        variables = {f"DSHARD_{name}_LIBRARY": str(driver) for name in ("CUDA", "CUBLASLT", "NCCL")}
        done = subprocess.run(
            [sys.executable, "-c", code, site], cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run(tmp_path / "no-driver.so")
    assert "no-driver.so" in said and said.count("\n") == 1 and not (tmp_path / "y.npy").exists()
    assert run(tools.build_dir() / "test" / "emulator" / "libdshard-cuda-emulator.so") == ""
    check(np.load(tmp_path / "y.npy"), mlp.run(inputs)["y"])
