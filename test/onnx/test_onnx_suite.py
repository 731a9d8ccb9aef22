"""The official ONNX node cases: none wrong, none crashed, docs/onnx-coverage.md as they are; some of them sharded."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "test" / "EndToEnd"))
import tools  # noqa: E402

# The least that must pass; a rise is welcome.
LEAST_WHOLE = 1300


def suite(*arguments):
    command = [sys.executable, str(ROOT / "test" / "onnx" / "suite.py"), *arguments]
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@tools.not_sanitized  # the libraries are loaded into Python, which is not built for it
def test_cases(tmp_path):
    """All whole; every 40th that passes also with each dim of each input sharded."""
    done = suite("--check", "--sharded", "--every", "40", "--results", str(tmp_path / "all.json"))
    assert done.returncode == 0, done.stdout[-4000:]
    results = json.loads((tmp_path / "all.json").read_text())
    verdicts = [verdict for verdict, _, _ in results["whole"].values()]
    assert len(verdicts) == 1884
    assert verdicts.count("passed") >= LEAST_WHOLE
    # A refusal says what is missing, in one line.
    for name, (verdict, reason, _) in results["whole"].items():
        assert verdict != "refused" or (reason and "\n" not in reason), name
    ways = [way for found in results["sharded"].values() for way in found]
    assert len(ways) > 50 and all(verdict == "passed" for *_, verdict, _ in ways)


def test_a_wrong_result_is_seen():
    """The comparison can fail: values, types and shapes."""
    sys.path.insert(0, str(ROOT / "test" / "onnx"))
    import check
    import numpy as np

    x = np.array([1.0, np.nan, np.inf], np.float32)
    assert check._differs(x, x.copy(), "y") is None
    assert "2 of 3 differ" in check._differs(x, np.array([1.01, 0, np.inf], np.float32), "y")
    assert "type" in check._differs(x, x.astype(np.float64), "y")
    assert "shape" in check._differs(x, x[:, None], "y")
    assert "differ" in check._differs(np.array(3, np.int64), np.array(4, np.int64), "y")


def test_help_and_bad_flags():
    assert re.search("examples:", suite("--help").stdout)
    assert suite("--list", "none").returncode == 2
    assert suite("--filter", "no such case").returncode == 2
    assert suite("--filter", "(").returncode == 2
