"""Every pass keeps the value: the program after each pass and each phase, in the
fp64 interpreter on all ranks, against the imported one.

dshard-fold-constants rounds what it folds (rotary tables) to the model's types,
once; what follows it is compared with the program right after it.
"""

import re

import numpy as np
import pytest

import tools

LLAMA = {"batch": 4, "seq": 16}
MODELS = {"mlp": {"batch": 16}, "llama-small": LLAMA, "llama-small-bf16": LLAMA, "llama-small-fp16": LLAMA}


def inputs(name, folder):
    """Input flags. The second sequence is padded on the left, so that some rows
    attend nothing. Not in f16: adding its smallest number hides a score only by
    rounding, which fp64 does not do."""
    if name == "mlp":
        return ["--random-inputs=5"]
    dims = MODELS[name]
    mask = np.ones((dims["batch"], dims["seq"]), np.int64)
    mask[0, -2:] = 0
    if "fp16" not in name:
        mask[1, :5] = 0
    np.save(folder / "mask.npy", mask)
    return ["--input", "input_ids=random:5", "--input", f"attention_mask={folder / 'mask.npy'}"]


def compile_with_dumps(name, mesh, filled, folder):
    """The dumps in the order in which they came to be; the import phase first. `mesh`
    may be followed by further flags."""
    model = filled(name)
    mesh, *flags = mesh.split(" ")
    tools.run(
        "dshard-opt",
        *tools.compile_arguments(model, mesh, MODELS[name]),
        *flags,
        f"--dump-passes-to={folder / 'passes'}",
        f"--dump-phases-to={folder / 'phases'}",
        "--to=schedule",
        "-o",
        folder / "schedule.mlir",
    )
    phases = sorted((folder / "phases").glob("*.mlir"))
    passes = sorted((folder / "passes").glob("*.mlir"))
    assert phases[0].name == "0-import.mlir"
    assert [p.stem.split("-")[1] for p in phases] == "import graph train annotate resolve local schedule".split()
    return phases[0], passes, phases[1:]


CASES = [(name, mesh) for name in ("mlp", "llama-small") for mesh in ("", "tp=2", "tp=4")]
CASES += [("llama-small-bf16", "tp=4"), ("llama-small-fp16", "tp=2")]
CASES += [("mlp", mesh) for mesh in ("dp_shard=8", "dp_shard=2,tp=2")]
CASES += [
    ("llama-small", mesh)
    for mesh in (
        "dp_shard=2",
        "dp_shard=2,tp=2",
        "dp_replicate=2,tp=2",
        "dp_replicate=2,dp_shard=2",
        "tp=2 --sequence-parallel",
        "tp=4 --sequence-parallel",
        "dp_shard=2,tp=2 --sequence-parallel",
        "dp_replicate=2,tp=2 --sequence-parallel",
        "dp_shard=4 --fsdp=gradients",
        "dp_shard=2,tp=2 --fsdp=none",
    )
]
CASES += [("llama-small-bf16", "dp_shard=2,tp=2 --sequence-parallel")]
CASES += [
    ("llama-small", mesh)
    for mesh in (
        "cp=2",
        "cp=4",
        "cp=2,tp=2 --sequence-parallel",
        "dp_shard=2,cp=2 --cp-layout=contiguous",
        "cp=4 --cp-layout=striped",
        "cp=2 --cp-method=all_gather",
        "cp=2,tp=2 --cp-method=all_gather --cp-layout=contiguous",
        "cp=2 --cp-method=all_to_all",
        "cp=4 --cp-method=hierarchical",
    )
]
CASES += [("llama-small-bf16", "cp=2")]
CASES += [
    ("mlp", "pp=2,tp=2 --pp-split=cost --micro-batches=4"),
    ("llama-small", "pp=2"),
    ("llama-small", "pp=2,tp=2 --micro-batches=2 --sequence-parallel"),
    ("llama-small", "pp=2,dp_shard=2 --micro-batches=2"),
    ("llama-small", "pp=2,cp=2 --micro-batches=4"),
]


def compare(base, programs, flags, folder):
    """Largest differences relative to the largest value, by program."""
    against = [flag for path in programs for flag in ("--against", path)]
    done = tools.start("dshard-interpret", base, *against, *flags, "--rtol", "0.1", cwd=folder)
    assert done.status == 0, done.stderr
    found = re.findall(r"largest difference (\S+) of (\S+)", done.stdout)
    assert len(found) == len(programs)
    assert all(float(largest) > 0.1 for _, largest in found)  # no program of zeros
    return {path.name: float(difference) / float(largest) for path, (difference, largest) in zip(programs, found)}


@pytest.mark.parametrize("name,mesh", CASES)
def test_every_pass_keeps_the_value(name, mesh, filled, tmp_path):
    imported, passes, phases = compile_with_dumps(name, mesh, filled, tmp_path)
    fold = next(i for i, path in enumerate(passes) if "fold-constants" in path.name)
    assert any("dshard-partition" in path.name for path in passes[fold:])
    flags = inputs(name, tmp_path) + ["--weights", filled(name).parent]
    exact = compare(imported, passes[:fold], flags, tmp_path) if fold else {}
    rounded = compare(imported, [passes[fold]], flags, tmp_path)
    exact.update(compare(passes[fold], passes[fold + 1 :] + phases, flags, tmp_path))
    assert {program: error for program, error in exact.items() if error > 1e-9} == {}
    limit = {"llama-small-bf16": 2.5e-2, "llama-small-fp16": 5e-3}.get(name, 1e-6)
    assert max(rounded.values()) <= limit


@pytest.mark.parametrize("name", ["mlp", "llama-small"])
def test_a_wrong_collective_is_seen(name, filled, tmp_path):
    """The check above can fail: one all_reduce takes the maximum instead of the sum."""
    imported, _, phases = compile_with_dumps(name, "tp=2", filled, tmp_path)
    local = next(p for p in phases if p.stem.endswith("local"))
    text = local.read_text()
    wrong, count = re.subn(r"(dshard\.all_reduce\s+)sum", r"\1max", text, count=1)
    assert count == 1
    local.write_text(wrong)
    done = tools.start(
        "dshard-interpret", imported, "--against", local, *inputs(name, tmp_path), "--weights", filled(name).parent
    )
    assert done.status == 1
    assert "differs by up to" in done.stderr
