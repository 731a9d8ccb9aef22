"""Every pass keeps the value of a training step: loss, gradients, parameters and optimizer states
after two steps, in the fp64 interpreter on all ranks, against @train_step on global types.
"""

import re

import numpy as np
import pytest

import tools
from test_training import ALL_OUTPUTS, write_config

DIMS = {"mlp": {"batch": 16}, "llama-small": {"batch": 8, "seq": 8}}
STEPS = 2


def make_inputs(name, folder):
    """Input flags: two different batches, some labels ignored, one sequence padded on the left."""
    random = np.random.default_rng(7)
    if name == "mlp":
        arrays = {
            "x": random.normal(size=(STEPS, 16, 64)),
            "labels": random.integers(0, 64, (STEPS, 16)),
        }
        arrays["labels"][:, 3] = -100
    else:
        ids = random.integers(0, 256, (STEPS, 8, 8))
        mask = np.ones_like(ids)
        mask[:, 1, :3] = 0
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": np.where(mask == 1, ids, -100),
        }
    flags = []
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
        flags += ["--input", f"{key}={folder / key}.npy"]
    return flags


CASES = [
    (name, mesh)
    for name in ("mlp", "llama-small")
    for mesh in (
        "",
        "tp=2",
        "dp_shard=2",
        "dp_shard=2,tp=2",
        "dp_replicate=2,tp=2",
        "dp_replicate=2,dp_shard=2",
        "dp_shard=2 --fsdp=none",
        "dp_shard=2 --fsdp=optimizer",
        "dp_shard=2 --fsdp=gradients",
        "dp_shard=2,tp=2 --micro-batches=2",
        "dp_replicate=2,dp_shard=2 --micro-batches=2",
    )
]
CASES += [
    ("llama-small", mesh)
    for mesh in (
        "tp=4",
        "tp=2 --sequence-parallel",
        "tp=4 --sequence-parallel --micro-batches=2",
        "dp_shard=2,tp=2 --sequence-parallel",
        "dp_replicate=2,tp=2 --sequence-parallel",
        "dp_shard=2,tp=2 --sequence-parallel --micro-batches=2",
        "dp_shard=2 --micro-batches=4",
        "dp_shard=2 --fsdp=optimizer --micro-batches=2",
        "dp_shard=2 --fsdp=gradients --micro-batches=2",
        "dp_shard=2 --fsdp-unit=model.layers.*.*",
    )
]


def compile_with_dumps(name, mesh, filled, folder):
    """@train_step on global types, and the programs after each later pass and phase."""
    config = write_config(
        folder,
        logits="y" if name == "mlp" else "logits",
        shift_labels=name != "mlp",
        # Numbers that f32 holds exactly: kernels round the formula's constants.
        optimizer={"betas": [0.875, 0.96875], "eps": 2**-27, "weight_decay": 0.125},
        clip_norm=0.5,
        outputs=ALL_OUTPUTS,
    )
    axes, *flags = mesh.split(" ")
    tools.run(
        "dshard-opt",
        *tools.compile_arguments(filled(name), axes, DIMS[name]),
        *flags,
        f"--train={config}",
        f"--dump-passes-to={folder / 'passes'}",
        f"--dump-phases-to={folder / 'phases'}",
        "--to=schedule",
        "-o",
        folder / "schedule.mlir",
    )
    passes = sorted((folder / "passes").glob("*.mlir"))
    last = next(i for i, path in enumerate(passes) if "verify-train" in path.name)
    phases = {path.stem.split("-")[1]: path for path in (folder / "phases").glob("*.mlir")}
    return phases["train"], passes[last + 1 :], phases


def compare(base, programs, flags, folder):
    against = [flag for path in programs for flag in ("--against", path)]
    return tools.start(
        "dshard-interpret",
        base,
        *against,
        *flags,
        "--entry=train_step",
        f"--steps={STEPS}",
        "--scalar=lr=0.01",
        "--rtol=1e-8",
        cwd=folder,
    )


@pytest.mark.parametrize("name,mesh", CASES)
def test_every_pass_keeps_the_step(name, mesh, filled, tmp_path):
    base, passes, phases = compile_with_dumps(name, mesh, filled, tmp_path)
    assert any("dshard-partition" in path.name for path in passes)
    flags = make_inputs(name, tmp_path) + ["--weights", filled(name).parent]
    done = compare(base, passes + [phases["schedule"]], flags, tmp_path)
    assert done.status == 0, done.stderr
    # Every gradient, parameter and moment was there, and none is zero.
    found = re.findall(r"(\S+) : \S+ : largest difference \S+ of (\S+)", done.stdout)
    assert len({key for key, _ in found if key.endswith(".grad")}) == (4 if name == "mlp" else 21)
    assert all(float(largest) > 0 for _, largest in found)


def test_a_reduction_left_out_is_seen(filled, tmp_path):
    """The check above can fail: gradients of one unit are scattered without their sum."""
    base, _, phases = compile_with_dumps("llama-small", "dp_shard=2", filled, tmp_path)
    text = phases["local"].read_text()
    wrong, count = re.subn(r"(dshard\.reduce_scatter\s+)sum(.*of model\.layers\.0\")", r"\1max\2", text)
    assert count == 1
    phases["local"].write_text(wrong)
    flags = make_inputs("llama-small", tmp_path) + ["--weights", filled("llama-small").parent]
    done = compare(base, [phases["local"]], flags, tmp_path)
    assert done.status == 1
    assert re.search(r"model\.layers\.0\S+\.grad' differs by up to", done.stderr)
