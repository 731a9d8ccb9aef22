"""The package, installed by pip from the build that is tested; models with weights."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "test" / "EndToEnd"))
import tools  # noqa: E402

if tools.sanitized():
    # The interpreter itself would have to be started with the sanitizers' libraries.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def dshard(tmp_path_factory):
    """The module, installed as a user does. Compiles two small files where they have changed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-build-isolation"]
    command += ["--no-deps", "--no-index", "--target", str(folder), str(ROOT)]
    command += ["-C", f"cmake.define.DSHARD_BUILD={tools.build_dir()}"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-4000:]
    sys.path.insert(0, str(folder))
    import dshard as module

    assert pathlib.Path(module.__file__).is_relative_to(folder)
    return module


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """filled(NAME): the path of a committed model with its weights beside it."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def get(name):
        if name not in made:
            made[name] = tools.model_with_weights(name, folder)
        return made[name]

    return get
