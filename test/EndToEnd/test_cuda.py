"""Plans for GPUs on the emulator, which interprets the PTX that they carry: equal to onnxruntime and to the CPU's
plan, and what is missing or does not fit is said in one line."""

import array
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

import families
import plans
import test_fully_sharded
import test_pipeline
import test_training
import test_training_runs
import tools

TARGET = "--target=cuda:sm_90"


@pytest.fixture
def emulator():
    """emulator(DEVICES): the emulator in place of the driver, cuBLASLt and NCCL, to the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda devices: stack.enter_context(tools.emulated_gpus(devices))


def check(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


def run_gpu(plan, inputs, outputs, folder, *flags):
    """As tools.run_plan, but without the report, which waits for the end of each instruction: that hides races."""
    arguments = [plan]
    for name, array in inputs.items():
        np.save(folder / f"in-{name}.npy", array)
        arguments += ["--input", f"{name}={folder / f'in-{name}.npy'}"]
    for name in outputs:
        arguments += ["--output", f"{name}={folder / f'gpu-{name}.npy'}"]
    tools.run("dshard-run", *arguments, *flags, timeout=120)
    return {name: np.load(folder / f"gpu-{name}.npy") for name in outputs}


def run_twins(model, text, dims, inputs, outputs, emulator, folder, *flags):
    """The outputs of the CPU's plan and of the GPU's."""
    plan = folder / "plan.dsplan"
    mesh, more = plans.split(text)
    tools.compile_plan(model, plan, mesh, dims, *more, *flags)
    cpu, _ = tools.run_plan(plan, inputs, outputs, folder)
    tools.compile_plan(model, plan, mesh, dims, *more, *flags, TARGET)
    emulator(plans.ranks_of(text))
    return cpu, run_gpu(plan, inputs, outputs, folder, "--repeat", "2")


#
# Every plan of the CPU's end-to-end tests
#
# Without a twin: what asks of the host rather than of the plan (measured memory, refusals, 1000 repeats), and
# test_training, whose steps are the interpreter's.


def forward_plans():
    """Name, dims, mesh with flags."""
    small, wide = {"batch": 4, "seq": 16}, {"batch": 4, "seq": 32}
    for mesh in plans.TENSOR + ["dp_shard=2", "dp_replicate=2", "dp_shard=2,tp=2"]:
        yield "mlp", {"batch": 16}, mesh
    for batch in plans.ODD_BATCHES:
        yield "mlp", {"batch": batch}, "tp=2"
    for mesh in plans.PIPELINE_MLP:
        for count in plans.MICRO_BATCHES:
            yield "mlp", {"batch": 16}, f"{mesh} --pp-split=cost --micro-batches={count}"
    for mesh in plans.TENSOR + plans.SHARDED_SMALL:
        yield "llama-small", small, mesh
    for batch, seq in plans.ODD_SHAPES:
        yield "llama-small", {"batch": batch, "seq": seq}, "tp=2"
    for mode in plans.FSDP_MODES:
        yield "llama-small", small, f"dp_shard=2 --fsdp={mode}"
    for mesh in plans.CONTEXT + plans.CONTEXT_WAYS:
        yield "llama-small", wide, mesh
    for mesh in plans.PIPELINE:
        for count in plans.MICRO_BATCHES:
            yield "llama-small", {"batch": 8, "seq": 16}, f"{mesh} --micro-batches={count}"


def name_of(value):
    return "x".join(map(str, value.values())) if isinstance(value, dict) else None


@pytest.mark.parametrize("name,dims,mesh", list(forward_plans()), ids=name_of)
def test_forward(name, dims, mesh, filled, reference, emulator, tmp_path):
    """Sequences are padded on the left: some rows attend nothing."""
    model = filled(name)
    inputs, output = tools.mlp_inputs(dims["batch"]), "y"
    if name != "mlp":
        inputs, output = tools.llama_inputs(256, dims["batch"], dims["seq"], "left"), "logits"
    cpu, gpu = run_twins(model, mesh, dims, inputs, [output], emulator, tmp_path)
    check(gpu[output], cpu[output])
    check(gpu[output], reference(model, str(dims), inputs)[output])


def llama_plans():
    yield from plans.LLAMA_TENSOR + plans.SHARDED
    for mesh in plans.LLAMA_CONTEXT:
        for method in plans.LLAMA_CONTEXT_METHODS:
            yield f"{mesh} --cp-method={method}"
    for mesh, count in plans.LLAMA_PIPELINE:
        yield f"{mesh} --micro-batches={count}"


@pytest.mark.slow
@pytest.mark.parametrize("mesh", list(llama_plans()))
def test_llama(mesh, filled, reference, emulator, tmp_path):
    """Of 90 MB, with short sequences."""
    model, inputs = filled("llama"), tools.llama_inputs(32000, 4, 8, "left")
    plan, (axes, flags) = tmp_path / "llama.dsplan", plans.split(mesh)
    tools.compile_plan(model, plan, axes, {"batch": 4, "seq": 8}, *flags, TARGET)
    emulator(plans.ranks_of(mesh))
    check(run_gpu(plan, inputs, ["logits"], tmp_path)["logits"], reference(model, "cuda", inputs)["logits"])


@pytest.mark.parametrize("mesh", [*plans.SIXTEEN_BIT, "dp_shard=2,tp=2 --sequence-parallel", "cp=2", "pp=2 --micro-batches=2"])
@pytest.mark.parametrize("kind,bound", plans.SIXTEEN_BIT_BOUNDS.items())
def test_16_bit(kind, bound, mesh, filled, emulator, tmp_path):
    inputs, model = tools.llama_inputs(256, 2, 16), filled(f"llama-small-{kind}")
    twins = run_twins(model, mesh, {"batch": 2, "seq": 16}, inputs, ["logits"], emulator, tmp_path)
    cpu, gpu = (tools.widened(each["logits"], kind) for each in twins)
    assert tools.largest_difference(gpu, cpu) <= bound * np.abs(cpu).max()
    assert np.sqrt(np.mean((gpu.astype(np.float64) - cpu) ** 2)) <= bound / 2.5


@pytest.mark.parametrize("mesh", ["tp=2", plans.BIAS_CONTEXT[0]])
def test_attention_with_a_bias(mesh, emulator, tmp_path):
    case = families.Case("dynamo/mpnet", tmp_path)
    inputs, theirs = case.inputs_and_expected("right")
    _, gpu = run_twins(case.model, mesh, case.dims, inputs, case.outputs, emulator, tmp_path)
    for name, value in theirs.items():
        check(gpu[name], value)


@pytest.mark.parametrize("inner,outer", plans.LINEAR_SHAPES)
@pytest.mark.parametrize("mesh", plans.LINEAR)
def test_odd_shapes(inner, outer, mesh, emulator, tmp_path):
    model = test_fully_sharded.linear_model(inner, outer, tmp_path / "linear.onnx")
    x = np.random.default_rng(4).standard_normal((8, inner)).astype(np.float32)
    cpu, gpu = run_twins(model, mesh, {"batch": 8}, {"x": x}, ["y"], emulator, tmp_path)
    check(gpu["y"], cpu["y"])


@pytest.mark.parametrize(
    "build,mesh,outputs",
    [
        (test_pipeline.crossing_model, "pp=3 --micro-batches=3", ["first", "y"]),
        (test_pipeline.tied_model, "pp=2 --micro-batches=3", ["y"]),
        (test_pipeline.indexing_model, "pp=2 --micro-batches=2", ["y"]),
    ],
)
def test_stages(build, mesh, outputs, emulator, tmp_path):
    model, draw = build(tmp_path / "m.onnx"), np.random.default_rng(7)
    inputs = {"x": draw.standard_normal((6, 8)).astype(np.float32)}
    if build == test_pipeline.indexing_model:
        inputs = {"ids": draw.integers(0, 10, (6, 8))}
    cpu, gpu = run_twins(model, mesh, {"batch": 6}, inputs, outputs, emulator, tmp_path)
    for name in outputs:
        check(gpu[name], cpu[name])


#
# Training
#


def train_twins(model, text, dims, inputs, config, emulator, folder):
    """The losses and states of some steps of the CPU's plan and of the GPU's."""
    results = []
    mesh, more = plans.split(text)
    for target in [[], [TARGET]]:
        plan, saved = folder / "plan.dsplan", folder / f"state{len(results)}"
        tools.compile_plan(model, plan, mesh, dims, f"--train={config}", *more, *target)
        if target:
            emulator(plans.ranks_of(text))
        steps = len(inputs["labels"])
        flags = ["--entry=train_step", f"--steps={steps}", f"--save-state={saved}"]
        outputs = run_gpu(plan, inputs, ["loss"], folder, *flags)
        results.append({path.stem: np.load(path) for path in saved.glob("*.npy")} | outputs)
    return results


def check_states(cpu, gpu, bound=1e-3):
    """Moments say more than parameters, where AdamW makes a small gradient's error a step of either sign."""
    assert gpu.keys() == cpu.keys()
    for key, expected in cpu.items():
        allowed = bound * max(1e-3, float(np.abs(expected).max()))
        assert tools.largest_difference(gpu[key], expected) <= allowed, key


def llama_steps(steps=2, batch=4):
    ids = np.random.default_rng(0).integers(0, 256, (steps, batch, 16))
    mask = np.ones_like(ids)
    mask[:, -1, :5] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask == 1, ids, -100)}


@pytest.mark.parametrize("mesh", plans.TRAINING)
def test_training_llama(mesh, filled, emulator, tmp_path):
    config = test_training.write_config(tmp_path, shift_labels=True, clip_norm=0.5)
    dims = {"batch": 4, "seq": 16}
    cpu, gpu = train_twins(filled("llama-small"), mesh, dims, llama_steps(), config, emulator, tmp_path)
    assert "lm_head.weight.exp_avg_sq" in cpu
    check_states(cpu, gpu)


@pytest.mark.parametrize("mesh", plans.CHARACTERS)
def test_training_characters(mesh, filled, emulator, tmp_path):
    """Shorter sequences than the CPU's, two steps."""
    steps = {name: array[:, :, :8] for name, array in tools.char_inputs(2).items()}
    dims, config = {"batch": 8, "seq": 8}, tools.MODELS / "char-train.json"
    check_states(*train_twins(filled("char"), mesh, dims, steps, config, emulator, tmp_path))


@pytest.mark.parametrize("mesh", plans.TRAINING_MLP + ["dp_shard=2", "dp_replicate=2,tp=2"])
def test_training_mlp(mesh, filled, emulator, tmp_path):
    settings = dict(logits="y", optimizer={"weight_decay": 0.1, "no_decay": ["*.bias"]}, clip_norm=1.0)
    config = test_training.write_config(tmp_path, **settings)
    steps = test_training.mlp_steps(5)
    check_states(*train_twins(filled("mlp"), mesh, {"batch": 16}, steps, config, emulator, tmp_path))


@pytest.mark.parametrize("mesh", [mesh for mesh in plans.TRAINING if "sequence-parallel" not in mesh])
def test_skipped_step(mesh, filled, emulator, tmp_path):
    """A poisoned step between two leaves every bit of the states as the two leave them."""
    config = test_training.write_config(tmp_path, logits="y", nonfinite="skip", clip_norm=1.0)
    axes, flags = plans.split(mesh)
    plan, states = tmp_path / "plan.dsplan", []
    tools.compile_plan(filled("mlp"), plan, axes, {"batch": 16}, f"--train={config}", *flags, TARGET)
    emulator(plans.ranks_of(mesh))
    good = test_training.mlp_steps(2)
    bad = {name: np.insert(array, 1, array[0], axis=0) for name, array in good.items()}
    bad["x"][1, 2, 5] = np.nan
    for inputs in (good, bad):
        saved = tmp_path / f"state{len(states)}"
        steps = [f"--steps={len(inputs['x'])}", f"--save-state={saved}"]
        run_gpu(plan, inputs, ["loss"], tmp_path, "--entry=train_step", *steps)
        states.append({path.name: path.read_bytes() for path in saved.iterdir()})
    assert "up_proj.weight.exp_avg_sq.npy" in states[0]
    assert states[0] == states[1]


@pytest.mark.parametrize("mesh", plans.FROZEN)
def test_frozen(mesh, filled, emulator, tmp_path):
    config = test_training.write_config(tmp_path, shift_labels=True, trainable=["*norm.weight"])
    dims = {"batch": 4, "seq": 16}
    cpu, gpu = train_twins(filled("llama-small"), mesh, dims, llama_steps(), config, emulator, tmp_path)
    assert len([name for name in gpu if name.endswith(".exp_avg")]) == 5
    check_states(cpu, gpu)


def test_training_of_padded_storage(filled, emulator, tmp_path):
    config, mesh = test_training.write_config(tmp_path), plans.PADDED_TRAINING
    steps = llama_steps(batch=3)
    check_states(*train_twins(filled("llama-small"), mesh, {"batch": 3, "seq": 16}, steps, config, emulator, tmp_path))


@pytest.mark.parametrize("mesh", plans.TIED)
def test_tied(mesh, emulator, tmp_path):
    draw = np.random.default_rng(2)
    table = draw.standard_normal((64, 32)).astype(np.float32)
    model = test_training_runs.tied_model(tmp_path / "tied.onnx", table)
    config = test_training.write_config(tmp_path)
    ids, labels = draw.integers(0, 64, (2, 2, 8))
    ids[:, 3] = ids[:, 5]
    steps = {"ids": ids, "labels": labels}
    check_states(*train_twins(model, mesh, {"batch": 8}, steps, config, emulator, tmp_path))


#
# The code
#


@pytest.mark.parametrize("architecture", ["80", "90", "100"])
def test_architectures(architecture, filled, emulator, tmp_path, monkeypatch):
    """The PTX of a training step: ptxas takes it where there is one, and kernels that wait for memory move 16 bytes at
    a time; the plan runs on a GPU of just this architecture."""
    config = tmp_path / "train.json"
    config.write_text('{"logits": "logits", "shift_labels": true}')
    plan = tmp_path / "plan.dsplan"
    flags = [f"--train={config}", f"--target=cuda:sm_{architecture}"]
    tools.compile_plan(filled("llama-small"), plan, "", {"batch": 2, "seq": 16}, *flags)
    data = plan.read_bytes()
    begin = data.index(b".version ")
    ptx = tmp_path / "plan.ptx"
    ptx.write_bytes(data[begin : data.index(b"\0", begin)])
    assert f".target sm_{architecture}\n" in ptx.read_text()
    assert re.search(r"ld\.global(\.nc)?\.v4\.b32", ptx.read_text())
    assert re.search(r"st\.global\.v4\.b32", ptx.read_text())
    ptxas = shutil.which("ptxas") or "/usr/local/cuda/bin/ptxas"
    if pathlib.Path(ptxas).exists():
        done = subprocess.run([ptxas, f"-arch=sm_{architecture}", ptx, "-o", tmp_path / "cubin"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:1000]
    emulator(1)
    monkeypatch.setenv("DSHARD_EMULATOR_ARCHITECTURE", architecture)
    inputs = tools.llama_inputs(256, 2, 16)
    logits = run_gpu(plan, inputs, ["logits"], tmp_path, "--entry=run")["logits"]
    check(logits, tools.onnxruntime_outputs(filled("llama-small"), inputs)["logits"])


def test_unknown_target(filled, tmp_path):
    model = filled("mlp")
    flags = tools.compile_arguments(model, "", {"batch": 16})
    done = tools.start("dshard-opt", *flags, "--target=cuda:sm_75", "-o", tmp_path / "x.dsplan")
    assert done.status == 1
    assert len(done.lines()) == 1
    assert "cuda:sm_75" in done.lines()[0]
    assert "cuda:sm_90" in done.lines()[0]


#
# scripts/gpu-check, but for its build
#


GPU_CHECK = tools.script("gpu-check")
CHECKED = ["mlp", "llama-small-bf16", "mlp, training", "llama-small, tp=2", "softmax 64x256 f32", "matmul 128x128 bf16"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of --prepare with some of its plans, and the plans."""
    folder = tmp_path_factory.mktemp("gpu") / "check"
    GPU_CHECK.plans_script().prepare(folder, lambda case: case["name"] in CHECKED, ["Fused"])
    cases = {case["name"]: case for case in json.loads((folder / "cases.json").read_text())["cases"]}
    assert list(cases) == CHECKED
    return folder, cases


def check_one(folder, case):
    tool = tools.build_dir() / "bin" / "dshard-run"
    with tools.emulated_gpus(2):
        environment = dict(os.environ)
    return GPU_CHECK.check_case(GPU_CHECK.plans_script(), case, tool, folder, environment, 2)


@pytest.mark.parametrize("name", CHECKED)
def test_gpu_check_compares(name, prepared):
    folder, cases = prepared
    row = check_one(folder, cases[name])
    assert 0 <= row["difference"] <= cases[name]["bound"]
    kinds = {"softmax 64x256 f32": {"kernel"}, "matmul 128x128 bf16": {"matmul"}, "mlp, training": {"kernel", "matmul"}}
    assert set(row["rates"]) == kinds.get(name, {"kernel", "matmul"} | ({"attention"} if "llama" in name else set()))
    assert len(GPU_CHECK.line_of(cases[name], row, 4000)) == len(GPU_CHECK.COLUMNS)


def test_gpu_check_knows_the_work(prepared):
    """Of the small product and the softmax, which reads and writes each element once."""
    work = lambda name: list(prepared[1][name]["work"]["run"].values())
    assert work("matmul 128x128 bf16") == [["matmul", 2 * 128**3, 0]]
    assert work("softmax 64x256 f32") == [["kernel", 0, 2 * 4 * 64 * 256]]
    attention = [each for each in work("llama-small-bf16") if each[0] == "attention"]
    # 2 layers; batch 2, 4 heads of 16, 64 x 64 positions of which half count
    assert attention == [["attention", 2 * 2 * 4 * 64 * 64 * 16, 0]] * 2


def test_gpu_check_sees_a_difference(prepared):
    folder, cases = prepared
    case = dict(cases["mlp"])
    samples = folder / "plans" / case["expected"]["y"]
    before = samples.read_bytes()
    changed = array.array("f", before)
    changed[len(changed) // 2] += 0.01
    try:
        samples.write_bytes(changed.tobytes())
        with pytest.raises(GPU_CHECK.Failed, match="differs by 0.0[01]"):
            check_one(folder, case)
        samples.write_bytes(before[:-4])
        with pytest.raises(GPU_CHECK.Failed, match="another shape"):
            check_one(folder, case)
    finally:
        samples.write_bytes(before)


def test_gpu_check_compiles_as_cmake_does():
    """Sources with instructions of their own get the same options."""
    commands = json.loads((tools.build_dir() / "compile_commands.json").read_text())
    theirs = {}
    for each in commands:
        path = pathlib.Path(each["file"])
        if "lib/Runtime/" in each["file"] and " -mavx2" in each["command"]:
            theirs[path] = set(re.findall(r" (-m\S+|-ffp-contract=\S+)", each["command"]))
    ours = {path: {flag for flag in flags if not flag.startswith("-O")} for path, flags in GPU_CHECK.options_of("lib/Runtime").items()}
    assert len(ours) >= 2
    assert ours == theirs


def test_gpu_check_ends_what_hangs():
    with pytest.raises(GPU_CHECK.Failed, match="over its limit of 0 s") as failed:
        GPU_CHECK.call("bash", "-c", "echo before; sleep 60 & wait", limit=0.3)
    assert failed.value.output == "before\n"


def test_gpu_check_names_what_it_had_no_time_for(monkeypatch):
    monkeypatch.setattr(GPU_CHECK, "END", 0)
    with pytest.raises(GPU_CHECK.Failed, match="not run: no time left"):
        GPU_CHECK.call("true")


def test_conformance_on_the_emulator(prepared):
    """As gpu-check counts it."""
    tests = tools.build_dir() / "bin" / "ConformanceTests"
    with tools.emulated_gpus(4):
        (name, text), failed = GPU_CHECK.conformance(tests, dict(os.environ), prepared[0])
    assert name == "conformance tests"
    assert not failed, text
    # Six groups of kernels were not carried.
    assert re.match(r"7\d passed, 0 failed, 14 skipped$", text), text


def test_conformance_failures_are_named(prepared, monkeypatch):
    tests = tools.build_dir() / "bin" / "ConformanceTests"
    monkeypatch.setattr(GPU_CHECK, "parts_of", lambda *_: ["Devices.*"])
    monkeypatch.setenv("DSHARD_EMULATOR_DROP", "cuStreamWaitEvent")
    with tools.emulated_gpus(1):
        (_, text), failed = GPU_CHECK.conformance(tests, dict(os.environ), prepared[0])
    assert failed
    assert "Devices.EventsOrderStreams/cuda" in text
    assert GPU_CHECK.conformance(pathlib.Path("/bin/false"), dict(os.environ), prepared[0])[1]
