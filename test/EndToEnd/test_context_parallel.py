"""Context parallelism: outputs against onnxruntime on meshes with cp, by ring,
all_gather and all_to_all and in every order of the sequence; memory; refusals."""

import numpy as np
import pytest

import tools

MIB = 1 << 20
MESHES = ["cp=2", "cp=4", "cp=2,tp=2", "dp_shard=2,cp=2", "cp=2,tp=2 --sequence-parallel"]
WAYS = [
    "--cp-method=ring",
    "--cp-method=ring --cp-layout=contiguous",
    "--cp-method=ring --cp-layout=striped",
    "--cp-method=all_gather",
    "--cp-method=all_gather --cp-layout=contiguous",
    "--cp-method=all_to_all",
    "--cp-method=all_to_all --cp-layout=striped",
]


def compile_plan(model, plan, mesh, dims, *more):
    mesh, *flags = mesh.split()
    return tools.compile_plan(model, plan, mesh, dims, *flags, *more)


def check(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("mesh", MESHES)
def test_llama_small(mesh, padding, filled, reference, tmp_path):
    """Left padding gives rows that attend nothing: the mean over all ranks' values."""
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 4, 32, padding)
    theirs = reference(model, f"batch 4, seq 32, {padding}", inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    compile_plan(model, plan, mesh, {"batch": 4, "seq": 32})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mesh", ["cp=2", "cp=4"])
def test_methods_and_layouts(mesh, way, filled, reference, tmp_path):
    if "all_to_all" in way and mesh == "cp=4":
        pytest.skip("two KV heads are not divided by 4: see test_refusals")
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 4, 32, "left")
    theirs = reference(model, "batch 4, seq 32, left", inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    compile_plan(model, plan, f"{mesh} {way}", {"batch": 4, "seq": 32})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)


def test_runs_are_bitwise_equal(filled, tmp_path):
    inputs = tools.llama_inputs(256, 4, 32, "left")
    plan = tmp_path / "llama.dsplan"
    compile_plan(filled("llama-small"), plan, "cp=4", {"batch": 4, "seq": 32})
    first, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    second, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    assert first["logits"].tobytes() == second["logits"].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ring", "all_gather"])
@pytest.mark.parametrize("mesh,seq", [("cp=2", 128), ("cp=4", 128), ("cp=2,tp=2", 128), ("cp=2", 512)])
def test_llama(mesh, seq, method, filled, reference, tmp_path):
    model = filled("llama")
    inputs = tools.llama_inputs(32000, 2, seq, "left")
    theirs = reference(model, f"batch 2, seq {seq}, left", inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    dims = {"batch": 2, "seq": seq}
    compile_plan(model, plan, f"{mesh} --cp-method={method}", dims)
    outputs, report = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)
    planned, measured = tools.peak_memory(report)
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)


@pytest.mark.parametrize("method", ["ring", "all_gather"])
def test_peak_memory_falls(method, filled, tmp_path):
    """Of one rank, with the weights whole on each (--fsdp=none): activations are divided."""
    model, dims = filled("llama"), {"batch": 2, "seq": 512}
    peaks = []
    for mesh in ("", f"cp=2 --fsdp=none --cp-method={method}"):
        plan = tmp_path / "llama.dsplan"
        compile_plan(model, plan, mesh or " ", dims) if mesh else tools.compile_plan(model, plan, "", dims)
        peaks.append(tools.plan_stat(plan)["memory_per_rank"]["arena"])
    assert peaks[1] < 0.65 * peaks[0]


@pytest.mark.parametrize(
    "mesh,dims,message",
    [
        ("cp=2", {"batch": 2, "seq": 18}, "input 'input_ids': sequence dim 1 of size 18 is not divisible by 4 (2 * cp=2, layout zigzag)"),
        ("cp=4 --cp-method=all_to_all", {"batch": 2, "seq": 32}, "4 ranks do not divide its 4 query heads and 2 KV heads"),
        ("cp=2 --cp-method=hierarchical", {"batch": 2, "seq": 32}, "--cp-method=hierarchical is not built yet"),
        ("cp=2 --cp-layout=spiral", {"batch": 2, "seq": 32}, "unknown --cp-layout 'spiral'"),
        ("tp=2 --cp-method=ring", {"batch": 2, "seq": 32}, "--cp-method is for a mesh with an axis cp > 1"),
    ],
)
def test_refusals(mesh, dims, message, filled, tmp_path):
    mesh, *flags = mesh.split()
    arguments = tools.compile_arguments(filled("llama-small"), mesh, dims)
    done = tools.start("dshard-opt", *arguments, *flags, "-o", tmp_path / "a.dsplan")
    assert done.status == 1
    assert len(done.lines()) == 1 and message in done.lines()[0], done.stderr
