"""The Python package: it computes what onnxruntime and dshard-run compute, and says what they say."""

import doctest
import json
import os
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

    for value in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x.astype(">f4"), x.tolist(), Exporter()):
        assert np.array_equal(mlp.run({"x": value})["y"], expected)
    assert np.array_equal(np.from_dlpack(expected), expected)
    assert mlp.run({"x": x}, outputs=[]) == {}


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
