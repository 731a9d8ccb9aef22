"""The checks of scripts/ turn red on what they are there for."""

import shutil
import subprocess
import sys

import pytest

import tools

SCRIPTS = tools.ROOT / "scripts"


def check(script, *arguments):
    return subprocess.run(
        [str(SCRIPTS / script), *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "file,include,message",
    [
        ("lib/Plan/A.cpp", '#include "dshard/Runtime/Session.h"', "Runtime is below it"),
        ("lib/Runtime/Cpu/A.cpp", '#include "mlir/IR/Value.h"', "without LLVM"),
        ("lib/Support/A.cpp", "#include <llvm/ADT/StringRef.h>", "without LLVM"),
        ("include/dshard/Import/A.h", '#include "dshard/Transforms/Graph/Passes.h"', "below it"),
        ("include/dshard/Cost/A.td", 'include "dshard/Import/Import.td"', "below it"),
        ("lib/Transforms/Propagate/A.cpp", '#include "dshard/Transforms/Strategy/Passes.h"', "only through IR"),
        ("lib/Transforms/Local/A.cpp", '#include "../Strategy/Tables.h"', "write the path"),
        ("lib/Plan/A.cpp", '#include "dshard/Nowhere/A.h"', "in no folder"),
    ],
)
def test_layering_refuses(file, include, message, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(include + "\n")
    done = check("check-layering", tmp_path)
    assert done.returncode == 1 and message in done.stdout and f"{file}:1" in done.stdout


def test_layering_accepts(tmp_path):
    path = tmp_path / "lib/Transforms/Local/A.cpp"
    path.parent.mkdir(parents=True)
    path.write_text('#include "dshard/Cost/Cost.h"\n#include "dshard/Transforms/Local/Passes.h"\n')
    assert check("check-layering", tmp_path).returncode == 0


def test_runtime_size_refuses_a_library(tmp_path):
    """A program that needs LLVM under the runtime's name."""
    (tmp_path / "bin").mkdir()
    done = check("check-runtime-size", tmp_path)
    assert done.returncode == 1 and "missing" in done.stderr
    (tmp_path / "main.cpp").write_text("int main() {}\n")
    command = ["clang++-22", str(tmp_path / "main.cpp"), "-o", str(tmp_path / "bin" / "dshard-run")]
    subprocess.run(command, check=True)
    assert check("check-runtime-size", tmp_path).returncode == 0
    command += ["-Wl,--no-as-needed", "-L/usr/lib/llvm-22/lib", "-lLLVM-22"]
    subprocess.run(command, check=True)
    done = check("check-runtime-size", tmp_path)
    assert done.returncode == 1 and "LLVM" in done.stdout


def test_bad_arguments_of_the_scripts():
    for script in ("setup", "demo", "build", "check-format"):
        done = check(script, "--frobnicate")
        assert done.returncode == 2 and "--frobnicate" in done.stderr, script


def test_fill_weights_refuses_what_is_no_model(tmp_path):
    (tmp_path / "bad.onnx").write_text("no model")
    for path in (tmp_path / "bad.onnx", tmp_path / "absent.onnx"):
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / "fill-weights"), str(path)], capture_output=True, text=True
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and path.name in done.stderr


def test_format_refuses_and_fixes(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "lib").mkdir()
    for name in ("check-format", "lib.sh"):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    shutil.copy(tools.ROOT / ".clang-format", tmp_path)
    (tmp_path / "lib" / "Good.cpp").write_text("int f() { return 1; }\n")
    (tmp_path / "lib" / "Bad.cpp").write_text("int   g( )  {return 2;}\n")

    def run(*arguments):
        command = [str(tmp_path / "scripts" / "check-format"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    done = run()
    assert done.returncode == 1 and "lib/Bad.cpp" in done.stdout and "Good" not in done.stdout
    assert run("--fix").returncode == 0
    assert run().returncode == 0
    assert (tmp_path / "lib" / "Bad.cpp").read_text() == "int g() { return 2; }\n"
