"""What the plan says about memory is what happens; compilation is fast and independent of weights."""

import pytest

import tools

MIB = 1 << 20


@tools.not_sanitized
@pytest.mark.slow
@pytest.mark.parametrize("mesh,seq", [("", 512), ("tp=2", 512), ("tp=4", 512), ("tp=2", 128)])
def test_planned_peak_is_measured_peak(mesh, seq, filled, tmp_path):
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(filled("llama"), plan, mesh, {"batch": 2, "seq": seq})
    _, report = tools.run_plan(plan, tools.llama_inputs(32000, 2, seq), ["logits"], tmp_path)
    planned, measured = tools.peak_memory(report)
    assert planned > 170 * MIB  # the weights alone
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)


@tools.not_sanitized
@pytest.mark.slow
def test_compilation_takes_under_5_cpu_seconds(filled, tmp_path):
    times = sorted(
        tools.compile_plan(
            filled("llama"), tmp_path / "llama.dsplan", "tp=4", {"batch": 2, "seq": 512}
        ).cpu_seconds
        for _ in range(5)
    )
    assert times[2] < 5, times


def test_score_matrix_is_never_formed(filled, tmp_path):
    """Scratch per thread does not grow with the sequence."""
    scratch = []
    for seq in (512, 8192):
        plan = tmp_path / f"{seq}.dsplan"
        tools.compile_plan(filled("llama-small"), plan, "tp=2", {"batch": 1, "seq": seq})
        scratch.append(tools.thread_scratch(tools.plan_stat(plan)))
    assert scratch[0] == scratch[1] > 0
