"""The checks of scripts/ turn red on what they are there for."""

import re
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


def test_runtime_size_refuses_a_gpu_library(tmp_path):
    """Everything that is built opens CUDA's libraries at run time; the runtime's library is held to what dshard-run is."""
    for folder in ("bin", "lib"):
        (tmp_path / folder).mkdir()
    (tmp_path / "main.cpp").write_text("int main() {}\n")
    compiler = ["clang++-22", str(tmp_path / "main.cpp")]
    subprocess.run([*compiler, "-o", str(tmp_path / "bin" / "dshard-run")], check=True)
    stub = tmp_path / "libcublasLt.so.13"
    subprocess.run([*compiler, "-shared", "-fPIC", f"-Wl,-soname,{stub.name}", "-o", str(stub)], check=True)
    runtime, plan_tool = tmp_path / "lib" / "libdshard-runtime.so", tmp_path / "bin" / "dshard-plan"
    llvm = ["-L/usr/lib/llvm-22/lib", "-lLLVM-22"]
    for path, flags, refused in (
        (runtime, [], ""),
        (runtime, llvm, "libLLVM"),
        (runtime, [str(stub)], "libcublasLt"),
        (plan_tool, llvm, ""),
        (plan_tool, [str(stub)], "libcublasLt"),
    ):
        shared = ["-shared", "-fPIC"] if path is runtime else []
        subprocess.run([*compiler, "-Wl,--no-as-needed", *shared, *flags, "-o", str(path)], check=True)
        done = check("check-runtime-size", tmp_path)
        assert done.returncode == bool(refused), done.stdout
        assert refused in done.stdout and (not refused or path.name in done.stdout)
        path.unlink()


def test_every_pass_is_tried():
    """Random programs go through each pass, and each leaves declarations alone; the exceptions say why."""
    flags = set()
    for path in (tools.ROOT / "include").rglob("Passes.td"):
        flags |= set(re.findall(r'^def \w+ : \w+<"(dshard-[\w-]+)"', path.read_text(), re.MULTILINE))
    assert len(flags) > 25
    not_random = {
        "dshard-print-sharding-rules": "changes nothing",
        "dshard-fold-constants": "rounds",
        "dshard-tensor-parallel": "needs a table of modules; the programs draw shardings themselves",
        "dshard-sequence-parallel": "the same",
        "dshard-context-parallel": "the same",
        "dshard-data-parallel": "the same",
        "dshard-verify-rows": "refuses most programs",
        "dshard-build-train-step": "the programs are differentiated, but have no labels",
        "dshard-verify-train": "for a module with @train_step",
        "dshard-convert-to-plan": "test/Conversion/random-plans.test compiles programs to the end",
    }
    not_declarations = {"dshard-print-sharding-rules", "dshard-tensor-parallel", "dshard-sequence-parallel", "dshard-verify-rows"}
    not_declarations |= {"dshard-build-train-step", "dshard-convert-to-plan"}
    for path, exceptions in (("test/random/checker.py", not_random), ("test/Transforms/declarations.mlir", not_declarations)):
        listed = set(re.findall(r"--(dshard-[\w-]+)", (tools.ROOT / path).read_text()))
        missing = flags - listed - set(exceptions)
        assert not missing, f"{path}: add {', '.join(sorted(missing))}"
        stale = set(exceptions) & listed
        assert not stale, f"{path} has {', '.join(sorted(stale))}: no exceptions any more"


def test_what_the_docs_point_at_is_there():
    """Links of every page, and the files that its texts name."""
    pages = [tools.ROOT / "README.md", *(tools.ROOT / "docs").rglob("*.md"), *(tools.ROOT / "test").rglob("README.md")]
    top = "docs|include|lib|scripts|test|tools|python-bindings"
    dead = []
    for page in pages:
        text = page.read_text()
        named = [page.parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)]
        named += [tools.ROOT / path for path in re.findall(rf"`((?:{top})/[\w./-]+)`", text)]
        dead += [f"{page.relative_to(tools.ROOT)}: {path}" for path in named if not path.exists()]
    # Examples of what one would write.
    assert [d for d in dead if "/X/" not in d] == []


def test_generated_docs_refuse_drift(tmp_path):
    """An op's and a pass's text that changed, a page that was edited, and one of a folder that is gone; then the cure."""
    for folder in ("include", "docs/dialect", "docs/passes"):
        shutil.copytree(tools.ROOT / folder, tmp_path / folder)
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(SCRIPTS / "generate-docs", tmp_path / "scripts")

    def run(*arguments):
        return subprocess.run([script, *arguments], capture_output=True, text=True)

    def edit(path, old, new):
        text = (tmp_path / path).read_text()
        assert text.count(old) == 1, f"{path}: mend this test"
        (tmp_path / path).write_text(text.replace(old, new))

    assert run().returncode == 0 and run("--check").returncode == 0
    edit("include/dshard/Dialect/DShard/IR/ElementwiseOps.td", 'summary = "round down"', 'summary = "round up"')
    edit("include/dshard/Transforms/Graph/Passes.td", '"dshard-raise-swiglu"', '"dshard-raise-gate"')
    page = tmp_path / "docs" / "dialect" / "plan.md"
    page.write_text(page.read_text() + "\nmore\n")
    (tmp_path / "docs" / "passes" / "Old.md").write_text("# Passes: Old\n")

    done = run("--check")
    assert done.returncode == 1
    assert set(done.stdout.splitlines()) == {
        "docs/dialect/dshard.md differs from its .td",
        "docs/dialect/plan.md differs from its .td",
        "docs/passes/Graph.md differs from its .td",
        "docs/passes/Old.md has no .td",
        "generated docs: stale; cure: scripts/generate-docs",
    }
    assert run().returncode == 0 and run("--check").returncode == 0
    assert "_Round up_" in (tmp_path / "docs" / "dialect" / "dshard.md").read_text()


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
