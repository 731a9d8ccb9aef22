"""Plans for GPUs on the emulator, which interprets the PTX that they carry: equal to onnxruntime and to the CPU's
plan, and what is missing or does not fit is said in one line."""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

import tools

TARGET = "--target=cuda:sm_90"


@pytest.fixture
def emulator():
    """emulator(DEVICES): the emulator in place of the driver, cuBLASLt and NCCL, to the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda devices: stack.enter_context(tools.emulated_gpus(devices))


def ranks_of(mesh):
    return int(np.prod([int(axis.split("=")[1]) for axis in mesh.split(",")])) if mesh else 1


def check(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


def run_gpu(plan, inputs, output, folder, *flags):
    """As tools.run_plan, but without the report, which waits for the end of each instruction: that hides races."""
    arguments = [plan]
    for name, array in inputs.items():
        np.save(folder / f"in-{name}.npy", array)
        arguments += ["--input", f"{name}={folder / f'in-{name}.npy'}"]
    tools.run("dshard-run", *arguments, "--output", f"{output}={folder / 'gpu.npy'}", *flags, timeout=120)
    return np.load(folder / "gpu.npy")


def run_on_both(model, mesh, dims, inputs, output, emulator, folder, *flags):
    """The output of the CPU's plan and of the GPU's."""
    plan = folder / "plan.dsplan"
    tools.compile_plan(model, plan, mesh, dims, *flags)
    cpu, _ = tools.run_plan(plan, inputs, [output], folder)
    tools.compile_plan(model, plan, mesh, dims, *flags, TARGET)
    emulator(ranks_of(mesh))
    return cpu[output], run_gpu(plan, inputs, output, folder, "--repeat", "2")


@pytest.mark.parametrize("mesh", ["", "tp=2", "dp_shard=2", "dp_replicate=2", "dp_shard=2,tp=2", "tp=4"])
def test_mlp(mesh, filled, reference, emulator, tmp_path):
    model = filled("mlp")
    inputs = tools.mlp_inputs(16)
    cpu, gpu = run_on_both(model, mesh, {"batch": 16}, inputs, "y", emulator, tmp_path)
    check(gpu, cpu)
    check(gpu, reference(model, 16, inputs)["y"])


LLAMA = ["", "tp=2", "tp=2 --sequence-parallel", "dp_shard=2", "dp_replicate=2", "dp_shard=2,tp=2", "tp=4"]
LLAMA += ["cp=2", "cp=2 --cp-method=all_gather", "cp=2 --cp-method=all_to_all", "cp=2,tp=2", "pp=2 --micro-batches=2"]


@pytest.mark.parametrize("mesh", LLAMA)
def test_llama_small(mesh, filled, reference, emulator, tmp_path):
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 2, 16)
    mesh, *flags = mesh.split(" ")
    dims = {"batch": 2, "seq": 16}
    cpu, gpu = run_on_both(model, mesh, dims, inputs, "logits", emulator, tmp_path, *flags)
    check(gpu, cpu)
    check(gpu, reference(model, "cuda", inputs)["logits"])


TRAINING = [("mlp", ""), ("mlp", "dp_shard=2"), ("mlp", "dp_replicate=2,tp=2"), ("llama-small", "")]
TRAINING += [("llama-small", "dp_shard=2,tp=2")]


@pytest.mark.parametrize("name,mesh", TRAINING)
def test_training(name, mesh, filled, emulator, tmp_path):
    """Losses and states after three steps are those of the CPU's plan."""
    draw = np.random.default_rng(0)
    config = tmp_path / "train.json"
    if name == "mlp":
        dims = {"batch": 16}
        config.write_text('{"logits": "y"}')
        inputs = {"x": draw.standard_normal((3, 16, 64)).astype(np.float32), "labels": draw.integers(0, 64, (3, 16))}
    else:
        dims = {"batch": 4, "seq": 16}
        config.write_text('{"logits": "logits", "shift_labels": true}')
        ids = draw.integers(0, 256, (3, 4, 16))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}
    results = []
    for target in [[], [TARGET]]:
        plan = tmp_path / "plan.dsplan"
        tools.compile_plan(filled(name), plan, mesh, dims, f"--train={config}", *target)
        if target:
            emulator(ranks_of(mesh))
        saved = tmp_path / f"state{len(results)}"
        flags = ["--entry=train_step", "--steps=3", f"--save-state={saved}"]
        loss = run_gpu(plan, inputs, "loss", tmp_path, *flags)
        results.append({path.name: np.load(path) for path in saved.glob("*.npy")} | {"loss": loss})
    assert len(results[0]) > 12
    assert results[0].keys() == results[1].keys()
    for key, expected in results[0].items():
        bound = 1e-3 * max(1e-3, float(np.abs(expected).max()))
        assert tools.largest_difference(results[1][key], expected) <= bound, key


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
    logits = run_gpu(plan, inputs, "logits", tmp_path, "--entry=run")
    check(logits, tools.onnxruntime_outputs(filled("llama-small"), inputs)["logits"])


#
# What is refused, in one line
#


@pytest.fixture
def mlp_plan(filled, tmp_path):
    plan = tmp_path / "mlp.dsplan"
    tools.compile_plan(filled("mlp"), plan, "tp=2", {"batch": 16}, TARGET)
    return plan


def refusal(plan):
    done = tools.start("dshard-run", plan, "--input", "x=random")
    assert done.status == 1
    assert len(done.lines()) == 1
    return done.lines()[0]


def test_no_driver(mlp_plan, monkeypatch):
    monkeypatch.setenv("DSHARD_CUDA_LIBRARY", "/nowhere/libcuda.so")
    line = refusal(mlp_plan)
    assert "cannot open the CUDA driver: looked for /nowhere/libcuda.so, which DSHARD_CUDA_LIBRARY names" in line
    assert "compile for --target=cpu" in line


@pytest.mark.parametrize("name,what", [("CUBLASLT", "cuBLASLt"), ("NCCL", "NCCL")])
def test_no_library(name, what, mlp_plan, emulator, monkeypatch):
    emulator(2)
    monkeypatch.setenv(f"DSHARD_{name}_LIBRARY", "/nowhere/lib.so")
    assert f"cannot open {what}: looked for /nowhere/lib.so" in refusal(mlp_plan)


def test_too_few_gpus(mlp_plan, emulator):
    emulator(1)
    assert "the plan has 2 ranks, but there is 1 GPU" in refusal(mlp_plan)


@pytest.mark.parametrize(
    "name,version,what",
    [
        ("DRIVER", "11080", "the CUDA driver in * is version 11.8, at least 12.0 is needed"),
        ("CUBLASLT", "110000", "cuBLASLt in * is version 110000, at least 120000 is needed"),
        ("NCCL", "21000", "NCCL in * is version 21000, at least 21800 is needed"),
    ],
)
def test_too_old(name, version, what, mlp_plan, emulator, monkeypatch):
    emulator(2)
    monkeypatch.setenv(f"DSHARD_EMULATOR_{name}_VERSION", version)
    before, behind = what.split("*")
    line = refusal(mlp_plan)
    assert before in line
    assert behind in line


@pytest.mark.parametrize("call", ["ncclCommInitRank", "ncclAllReduce", "cublasLtMatmul", "cuLaunchKernel", "cuModuleLoadDataEx"])
def test_failing_call(call, mlp_plan, emulator, monkeypatch):
    emulator(2)
    monkeypatch.setenv("DSHARD_EMULATOR_FAIL", call)
    assert call in refusal(mlp_plan)


@pytest.mark.parametrize(
    "fault,says",
    [
        ("cuStreamWaitEvent", "race between streams"),
        ("cuStreamWaitEvent:1", "race between streams"),
        ("cuEventRecord", "race between streams"),
        ("ncclAllReduce", "differs"),
        ("ncclAllReduce:1", "all_reduce"),
        ("cublasLtMatmul", "differs"),
        ("cuLaunchKernel", "differs"),
    ],
)
def test_seeded_fault(fault, says, filled, mlp_plan, emulator, tmp_path, monkeypatch):
    """A call that gets lost is seen: by the emulator, or in the result."""
    emulator(2)
    monkeypatch.setenv("DSHARD_EMULATOR_TIMEOUT", "2")
    inputs = tools.mlp_inputs(16)
    np.save(tmp_path / "y.npy", tools.onnxruntime_outputs(filled("mlp"), inputs)["y"])
    flags = ["--expected", f"y={tmp_path / 'y.npy'}", "--rtol", "0", "--atol", "1e-3"]
    run_gpu(mlp_plan, inputs, "y", tmp_path, *flags)
    monkeypatch.setenv("DSHARD_EMULATOR_DROP", fault)
    with pytest.raises(tools.CommandFailed) as failed:
        run_gpu(mlp_plan, inputs, "y", tmp_path, *flags)
    assert re.search(says, str(failed.value)), failed.value


def test_older_gpu(mlp_plan, emulator, monkeypatch):
    emulator(2)
    monkeypatch.setenv("DSHARD_EMULATOR_ARCHITECTURE", "80")
    line = refusal(mlp_plan)
    assert "the plan is for cuda:sm_90, but GPU 0 (" in line
    assert ") is sm_80; compile it with --target=cuda:sm_80" in line


def test_too_little_memory(mlp_plan, emulator, monkeypatch):
    emulator(2)
    monkeypatch.setenv("DSHARD_EMULATOR_MEMORY", "16")
    line = refusal(mlp_plan)
    assert "has no memory for the states, arena and scratch of a rank: 32.1 MiB wanted, " in line
    assert "missing; shard over more ranks" in line


def test_unknown_target(filled, tmp_path):
    model = filled("mlp")
    flags = tools.compile_arguments(model, "", {"batch": 16})
    done = tools.start("dshard-opt", *flags, "--target=cuda:sm_75", "-o", tmp_path / "x.dsplan")
    assert done.status == 1
    assert len(done.lines()) == 1
    assert "cuda:sm_75" in done.lines()[0]
    assert "cuda:sm_90" in done.lines()[0]


def test_gpu_check(tmp_path):
    """scripts/gpu-check but for its build: what it prepares runs, and a difference fails."""
    script = tools.script("gpu-check")
    script.prepare(tmp_path / "plans")
    cases = json.loads((tmp_path / "plans" / "cases.json").read_text())["cases"]
    assert [case["name"] for case in cases] == [case[0] for case in script.CASES]
    assert all(case["flops"] > 1e6 and case["bytes"] > 1e5 for case in cases)
    run = tools.build_dir() / "bin" / "dshard-run"
    with tools.emulated_gpus(1):
        row = script.check_case(cases[0], run, tmp_path / "plans", 1, {})
        assert float(row["difference"]) < cases[0]["bound"]
        assert set(row["rate"]) == {"matmul", "launch"}
        with pytest.raises(RuntimeError, match="differs"):
            script.check_case(cases[0] | {"bound": 0}, run, tmp_path / "plans", 1, {})
