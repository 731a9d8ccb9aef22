"""The benchmarks' harness: its statistics, and --check that turns red."""

import itertools

import pytest

import measure
import run
import speed


def contestant(name, turns):
    feed = itertools.cycle(turns)
    return measure.Contestant(name, lambda: next(feed))


def test_figures(monkeypatch):
    monkeypatch.setattr(measure, "PAUSE_SECONDS", 0)
    ours = contestant("ours", [[1, 2, 9], [4, 4, 4], [6, 6, 7]])
    peer = contestant("peer", [[2], [2], [12]])
    assert 0 <= measure.compete([ours, peer], 3) <= 1
    assert ours.figures() == [2, 4, 6] and ours.median() == 4
    assert ours.best() == 1 and ours.spread() == 1.0
    assert ours.ratio(peer) == 1.0  # neighbouring turns: 1, 2, 0.5
    assert peer.ratio(peer) == 1.0


def test_pause_is_long_enough():
    assert measure.PAUSE_SECONDS >= 0.03


@pytest.mark.parametrize("bound,status", [(1e-3, 1), (600.0, 0)])
def test_check_judges_compile_time(bound, status, monkeypatch, capsys):
    monkeypatch.setattr(run, "COMPILE_CPU_SECONDS", bound)
    monkeypatch.setattr("sys.argv", ["run.py", "compile-time", "--check", "--rounds", "1"])
    assert run.main() == status
    text = capsys.readouterr()
    assert "commit" in text.out and "tp=4" in text.out
    assert ("out of bounds: compile-time tp=1" in text.err) == bool(status)


def test_unknown_benchmark_is_a_wrong_command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", "compile-tim"])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "ours,sharded,peer,missed",
    [(100, 100, 116, 0), (100, 100, 114, 2), (100, 106, 116, 1), (100, 100, None, 0)],
)
def test_speed_is_judged_by_best_and_median(ours, sharded, peer, missed):
    samples = {"1 rank x 2": [[ours, 0]] * 3, "tp=2 x 1": [[sharded, 0]] * 3}
    if peer:
        samples["onnxruntime"] = [[peer, 0]] * 3
    assert len(speed.judge("bert-base", 2, samples)) == missed
