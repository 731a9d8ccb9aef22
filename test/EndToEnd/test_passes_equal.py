"""Every pass keeps the value: the program after each pass and each phase, in the
fp64 interpreter on all ranks, against the imported one."""

import re

import numpy as np
import pytest

import tools

LLAMA = {"batch": 2, "seq": 16}
MODELS = {"mlp": {"batch": 16}, "llama-small": LLAMA, "llama-small-bf16": LLAMA, "llama-small-fp16": LLAMA}


def inputs(name, folder):
    """Input flags. The second row of the mask is padded on the left, so that some
    rows attend nothing; ids stay below any vocabulary."""
    if name == "mlp":
        return ["--random-inputs=5"]
    dims = MODELS[name]
    mask = np.ones((dims["batch"], dims["seq"]), np.int64)
    mask[1, :5] = 0
    np.save(folder / "mask.npy", mask)
    return ["--input", "input_ids=random:5", "--input", f"attention_mask={folder / 'mask.npy'}"]


def compile_with_dumps(name, tp, filled, folder):
    """The dumps in the order in which they came to be; the import phase first."""
    model = filled(name)
    mesh = f"tp={tp}" if tp > 1 else ""
    tools.run(
        "dshard-opt",
        *tools.compile_arguments(model, mesh, MODELS[name]),
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


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("name", ["mlp", "llama-small"])
def test_every_pass_keeps_the_value(name, tp, filled, tmp_path):
    imported, passes, phases = compile_with_dumps(name, tp, filled, tmp_path)
    assert any("dshard-partition" in p.name for p in passes)
    against = [flag for path in passes + phases for flag in ("--against", path)]
    done = tools.run(
        "dshard-interpret", imported, *against, *inputs(name, tmp_path), "--weights", filled(name).parent
    )
    compared = re.findall(r"largest difference (\S+) of (\S+)", done.stdout)
    assert len(compared) == len(passes) + len(phases)
    for difference, largest in compared:
        assert float(largest) > 0.1  # not a program that gives zeros
        assert float(difference) <= 1e-9 * float(largest)


@pytest.mark.parametrize("name", ["mlp", "llama-small"])
def test_a_wrong_collective_is_seen(name, filled, tmp_path):
    """The check above can fail: one all_reduce takes the maximum instead of the sum."""
    imported, _, phases = compile_with_dumps(name, 2, filled, tmp_path)
    local = next(p for p in phases if p.stem.endswith("local"))
    text = local.read_text()
    assert "dshard.all_reduce sum" in text
    local.write_text(text.replace("dshard.all_reduce sum", "dshard.all_reduce max", 1))
    done = tools.start(
        "dshard-interpret", imported, "--against", local, *inputs(name, tmp_path), "--weights", filled(name).parent
    )
    assert done.status == 1
    assert "differs by up to" in done.stderr


@pytest.mark.parametrize("name", ["llama-small-bf16", "llama-small-fp16"])
def test_half_precision_keeps_the_value_without_rounding(name, filled, tmp_path):
    """In fp64 nothing is rounded, so raising 16-bit graphs changes no value either."""
    imported, passes, phases = compile_with_dumps(name, 2, filled, tmp_path)
    against = [flag for path in passes + phases for flag in ("--against", path)]
    tools.run(
        "dshard-interpret", imported, *against, *inputs(name, tmp_path), "--weights", filled(name).parent
    )
