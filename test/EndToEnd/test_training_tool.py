"""dshard-run on a training step: the same bits from run to run, planned = measured memory that does
not grow with the steps, and what it refuses.
"""

import json
import os
import pty
import re
import subprocess

import numpy as np
import pytest

import plans
import tools

DIMS = {"batch": 4, "seq": 16}
FLAGS = ("--entry=train_step", "--scalar=lr=1e-3")


def compile_training(model, folder, mesh, dims=DIMS):
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.json"
    config.write_text(json.dumps({"shift_labels": True, "clip_norm": 1.0}))
    plan = folder / "plan.dsplan"
    tools.compile_plan(model, plan, mesh, dims, f"--train={config}")
    return plan


def step_inputs(steps, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, (steps, DIMS["batch"], DIMS["seq"]), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}


@pytest.mark.parametrize("mesh", ["", "dp_shard=2,tp=2"])
def test_a_run_again_has_the_same_bits(filled, tmp_path, mesh):
    plan = compile_training(filled("llama-small"), tmp_path, mesh)
    states = []
    for i in range(3):
        folder = tmp_path / f"run{i}"
        state = folder / "state"
        results, _ = tools.run_plan(
            plan, step_inputs(5), ["loss"], folder, "--steps=5", f"--save-state={state}", *FLAGS
        )
        files = {path.name: path.read_bytes() for path in sorted(state.iterdir())}
        files["loss"] = results["loss"].tobytes()
        states.append(files)
    assert "lm_head.weight.exp_avg_sq.npy" in states[0] and "step.npy" in states[0]
    assert states[0] == states[1] == states[2]
    # It is no accident of nothing having happened.
    step = np.load(tmp_path / "run0" / "state" / "step.npy")
    assert step == 5
    assert np.abs(np.load(tmp_path / "run0" / "state" / "lm_head.weight.exp_avg.npy")).max() > 0


def test_states_are_saved_without_their_padding(filled, tmp_path):
    """On 3 ranks the storage of a dim of 64 is 66; what is saved has the shape of the model's."""
    dims = {"batch": 3, "seq": 16}
    inputs = {name: array[:, :3] for name, array in step_inputs(2).items()}
    states = {}
    for mesh in ("", plans.PADDED_TRAINING):
        folder = tmp_path / (mesh or "one")
        folder.mkdir()
        config = folder / "train.json"
        config.write_text("{}")
        plan = folder / "plan.dsplan"
        tools.compile_plan(filled("llama-small"), plan, mesh, dims, f"--train={config}")
        tools.run_plan(
            plan, inputs, [], folder, "--steps=2", f"--save-state={folder / 'state'}", *FLAGS
        )
        states[mesh] = {
            path.name: np.load(path) for path in (folder / "state").glob("*.npy")
        }
    assert states[""].keys() == states[plans.PADDED_TRAINING].keys()
    for name, one in states[""].items():
        assert one.shape == states[plans.PADDED_TRAINING][name].shape
        if name.endswith(".exp_avg.npy"):
            scale = np.abs(one).max()
            assert np.abs(one - states[plans.PADDED_TRAINING][name]).max() <= 1e-4 * scale, name
    assert states[""]["lm_head.weight.exp_avg.npy"].shape == (64, 256)


@pytest.mark.parametrize("mesh", ["", "tp=2", "dp_shard=2,tp=2"])
def test_training_needs_the_planned_memory_and_no_more_with_the_steps(filled, tmp_path, mesh):
    plan = compile_training(filled("llama-small"), tmp_path, mesh)
    measured = {}
    for steps in (20, 1000):
        _, report = tools.run_plan(
            plan, step_inputs(steps), ["loss"], tmp_path / str(steps), f"--steps={steps}", *FLAGS
        )
        planned, measured[steps] = tools.peak_memory(report)
        if not tools.sanitized():
            assert abs(measured[steps] - planned) <= max(0.02 * planned, 4 << 20)
        assert report["step_latency_ms"]["count"] == steps
        assert report["steps_per_second"] > 0
    if not tools.sanitized():
        assert measured[1000] - measured[20] < 512 << 10


def test_the_backward_forms_no_score_matrix(filled, tmp_path):
    """Scratch per thread does not grow with the sequence, the arena only in proportion to it."""
    scratch, arena = [], []
    for seq in (512, 2048):
        dims = {"batch": 1, "seq": seq}
        plan = compile_training(filled("llama-small"), tmp_path / str(seq), "", dims)
        program = tools.entry_program(tools.plan_stat(plan), "train_step")
        scratch.append(program["thread_scratch_per_thread"])
        arena.append(program["arena"])
    assert scratch[0] == scratch[1] > 0
    # 4 heads x 2048 x 2048 scores alone would be 64 MiB.
    assert arena[1] < 4.1 * arena[0] < 24 << 20


def test_wrong_steps_are_refused(filled, tmp_path):
    plan = compile_training(filled("llama-small"), tmp_path, "")
    inputs = step_inputs(3)

    def refused(inputs, *flags):
        with pytest.raises(tools.CommandFailed) as error:
            tools.run_plan(plan, inputs, [], tmp_path / "refused", FLAGS[0], *flags)
        return str(error.value)

    labels = inputs["labels"].copy()
    labels[1, 2, 3] = 256
    message = refused({**inputs, "labels": labels}, "--steps=3")
    assert "input 'labels' has the value 256 at [2, 3]; allowed are 0 to 255 and -100" in message
    assert "(step 2)" in message
    message = refused({name: array[0] for name, array in inputs.items()}, "--steps=3")
    assert "has the shape [4, 16], with --steps 3 the plan takes [3, 4, 16]" in message
    message = refused(inputs, "--steps=3", "--scalar=lr=inf")
    assert "scalar 'lr' is inf; it must be finite" in message
    missing = {name: array for name, array in inputs.items() if name != "labels"}
    assert "no value for the input 'labels' of entry point 'train_step'" in refused(
        missing, "--steps=3"
    )


def test_a_long_run_shows_its_progress(filled, tmp_path):
    """On a terminal, a line that is rewritten."""
    plan = compile_training(filled("llama-small"), tmp_path, "")
    tool = tools.build_dir() / "bin" / "dshard-run"
    arguments = [str(tool), str(plan), *FLAGS, "--repeat=1000000"]
    arguments += [f"--input={name}=random" for name in step_inputs(1)]
    master, slave = pty.openpty()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = ""
    try:
        bar = r"\r.*run \d+ of 1000000 \[[#-]{40}\], [\d.e+]+ runs/s, \d+ s left"
        while not re.search(bar, shown):
            shown += os.read(master, 4096).decode()
            assert len(shown) < 100000
    finally:
        process.kill()
        process.communicate()
        os.close(master)
