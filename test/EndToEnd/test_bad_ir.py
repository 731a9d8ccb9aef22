"""IR and flags that people write by hand: one clear line, never a crash, nothing half written."""

import re

import numpy as np
import pytest

import tools
from test_bad_input import refused

DIMS = {"batch": 16}


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    """The MLP on tp=2, stopped at each phase: {phase: path}."""
    folder = tmp_path_factory.mktemp("phases")
    model = tools.model_with_weights("mlp", folder / "model")
    made = {}
    for phase in ("graph", "local", "plan"):
        made[phase] = folder / f"{phase}.mlir"
        tools.run("dshard-opt", *tools.compile_arguments(model, "tp=2", DIMS), f"--to={phase}", "-o", made[phase])
    made["onnx"] = model
    return made


@pytest.mark.parametrize(
    "pattern,edit,said",
    [
        (r"> file 0", "> file 99", "plan_ir_c1.*file 99"),
        (r"in state 0", "in state 99", "plan_ir_c1.*state 99"),
        (r"in state 0", "in state -1", "plan_ir_c1.*state -1"),
        (r"image 0", "image 7", "plan_ir_c1.*image 7"),
        (r"kernel = 0", "kernel = 99", "plan_ir_c1.*kernel 99"),
        (r"group = 0", "group = -5", "plan_ir_c1.*group -5"),
        (r"source = 0", "source = 77", "plan_ir_c1.*source 77"),
        (r"#plan.table<0>", "#plan.table<-77>", "plan_ir_c1.*table -77"),
        (r"program 1", "program 55", "plan_ir_c1.*program 55"),
        (r'(input "x" buffer) \d+', r"\1 4294967296", "plan_ir_c1.*buffer 4294967296"),
        (r" : tensor<16x64xf32> local", " : f32 local", "plan_ir_c2.*f32"),
        (r"local tensor<16x64xf32>", "local tensor<?x64xf32>", "plan_ir_c2.*\\?x64"),
        (r"arena \d+", "arena -1", "plan_ir_c3.*arena -1"),
        (r"scratch \d+", "scratch -1", "plan_ir_c3.*scratch -1"),
        (r"stage 0", "stage -1", "plan_ir_c3.*stage -1"),
        (r"stage 0", "stage 99999999999", "plan_ir_c3.*stage 99999999999"),
        (r"kernel = 0", "kernel = #plan.table<0>", "plan_ir_c4.*literal index of a kernel"),
        (r"(?m)^(  plan.group)", r"  func.func private @f()\n\1", "plan_ir_c5"),
        (r'plan.group over \[#dshard.axis<"tp">\]', 'plan.group over [#dshard.axis<"cp">]', "plan_ir_c6"),
        (r'dshard.mesh = #dshard.mesh<"tp"=2>, ', "", "plan_ir_c6.*without dshard.mesh"),
    ],
)
def test_edited_plan_ir(pattern, edit, said, phases, tmp_path):
    text, count = re.subn(pattern, edit, phases["plan"].read_text(), count=1)
    assert count == 1, pattern
    (tmp_path / "edited.mlir").write_text(text)
    done = tools.start("dshard-opt", tmp_path / "edited.mlir", "--from=plan", "-o", tmp_path / "out.dsplan")
    refused(done, said)
    assert not (tmp_path / "out.dsplan").exists()


def test_plan_ir_as_it_was(phases, tmp_path):
    tools.run("dshard-opt", phases["plan"], "--from=plan", "-o", tmp_path / "out.dsplan")
    tools.run("dshard-plan", "verify", tmp_path / "out.dsplan")


def test_phase_that_the_file_does_not_hold(phases, tmp_path):
    refused(tools.start("dshard-opt", phases["graph"], "--from=local", "-o", tmp_path / "x"), "'graph'.*'local'", "--from=graph")


def test_mlir_without_from(phases, tmp_path):
    refused(tools.start("dshard-opt", phases["graph"], "--to=resolve", "-o", tmp_path / "x"), "graph.mlir", "--from=PHASE")


@pytest.mark.parametrize("flags", [["--dim", "batch=8"], ["--dims", "x=a,b"], ["--const", "x=1"], ["--entry", "main"]])
def test_flags_of_the_importer_when_resuming(flags, phases, tmp_path):
    refused(tools.start("dshard-opt", phases["graph"], "--from=graph", *flags, "-o", tmp_path / "x"), flags[0], "graph.mlir")


def test_mesh_when_resuming(phases, tmp_path):
    """Before anything is sharded the mesh may change; afterwards another one is refused."""
    plan = f"--tp-plan={tools.MODELS / 'mlp-tp.json'}"
    tools.run("dshard-opt", phases["graph"], "--from=graph", "--mesh=tp=4", plan, "-o", tmp_path / "four.dsplan")
    x = np.ones((16, 64), np.float32)
    four, _ = tools.run_plan(tmp_path / "four.dsplan", {"x": x}, ["y"], tmp_path)
    tools.compile_plan(phases["onnx"], tmp_path / "direct.dsplan", "tp=4", DIMS)
    direct, _ = tools.run_plan(tmp_path / "direct.dsplan", {"x": x}, ["y"], tmp_path)
    assert np.array_equal(four["y"], direct["y"])
    refused(tools.start("dshard-opt", phases["local"], "--from=local", "--mesh=tp=4", "-o", tmp_path / "x"), "2 ranks", "tp.*=4")
    tools.run("dshard-opt", phases["local"], "--from=local", "--mesh=tp=2", "-o", tmp_path / "same.dsplan")


@pytest.mark.parametrize("entry", ["", "load"])
def test_names_that_no_entry_point_may_have(entry, phases, tmp_path):
    refused(tools.start("dshard-opt", phases["onnx"], "--dim", "batch=16", "--entry", entry, "-o", tmp_path / "x"), "--entry")


def test_constant_given_twice(phases, tmp_path):
    flags = ["--dim", "batch=16", "--const", "x=1"]
    tools.run("dshard-opt", phases["onnx"], *flags, "--const", "x=1", "--to=graph", "-o", tmp_path / "x")
    refused(tools.start("dshard-opt", phases["onnx"], *flags, "--const", "x=2", "-o", tmp_path / "y"), "twice: 1 != 2")


@pytest.mark.parametrize("flag", ["--dump-phases-to", "--dump-passes-to"])
def test_folder_for_dumps_that_is_a_file(flag, phases, tmp_path):
    (tmp_path / "file").write_text("")
    done = tools.start("dshard-opt", phases["onnx"], "--dim", "batch=16", flag, tmp_path / "file", "-o", tmp_path / "x")
    refused(done, "file")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("output", ["/dev/full", "absent/x.mlir", "."])
@pytest.mark.parametrize("phase", ["graph", "plan"])
def test_output_that_cannot_be_written(output, phase, phases, tmp_path):
    done = tools.start("dshard-opt", phases["onnx"], "--dim", "batch=16", f"--to={phase}", "-o", output, cwd=tmp_path)
    refused(done, re.escape(output), "cannot")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quotes", ["it's", 'a"b', "x' plan='llama", "{}"])
def test_quotes_in_options(quotes, phases, tmp_path):
    flags = ["--dim", "batch=16", "--mesh=tp=2", f"--tp-plan={quotes}"]
    refused(tools.start("dshard-opt", phases["onnx"], *flags, "-o", tmp_path / "x"), re.escape(quotes), "no file")


def test_unknown_flag_of_a_pass(phases):
    done = tools.start("dshard-opt", phases["graph"], "--dshard-cze")
    assert done.status == 2 and len(done.lines()) == 1, done.stderr
    assert "--dshard-cze" in done.stderr
