"""The programs that mutations edit, compiled once, and the checks that must turn red.

A base has the text of its phases by name; `plan` is the plan as IR, which dshard-opt
writes to a file as it is. A check takes a base and the edited text of one phase and
gives None (green) or what it said (red). Each stands for the tests that make the same
comparison on what the compiler makes; `CHECKS` names them.
"""

import pathlib
import re
import subprocess
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "random"))
sys.path.insert(0, str(HERE.parent / "EndToEnd"))
import checker  # noqa: E402
import families  # noqa: E402
import tools  # noqa: E402


class Base:
    def __init__(self, name, folder, filled):
        self.folder = folder / name
        self.folder.mkdir()
        self.name = name
        self.reference = None  # the file that edits are compared with
        self.inputs = []  # flags of the interpreter
        self.arrays = {}  # inputs of dshard-run
        self.outputs = []
        self.phases = {}
        getattr(self, "make_" + name.replace("-", "_"))(filled)

    # The models, sharded over tp.

    def compile(self, model, mesh, dims, *flags):
        self.model = model
        tools.run("dshard-opt", *tools.compile_arguments(model, mesh, dims), *flags, "--quiet", f"--dump-phases-to={self.folder}", "--to=plan", "--emit=mlir",
                  "-o", self.folder / "plan.mlir")
        for path in self.folder.glob("[0-9]-*.mlir"):
            self.phases[path.stem.split("-")[1]] = path.read_text()
        # Folded constants are rounded once; what follows is compared with the graph phase.
        self.reference = self.folder / "1-graph.mlir"
        self.inputs = [f"--weights={model.parent}"]
        for name, array in self.arrays.items():
            np.save(self.folder / f"{name}.npy", array)
            self.inputs += ["--input", f"{name}={self.folder / name}.npy"]

    def make_mlp(self, filled):
        self.arrays, self.outputs = tools.mlp_inputs(16), ["y"]
        self.compile(filled("mlp"), "tp=2", {"batch": 16})

    def llama(self, filled, mesh, *flags):
        # Padded on the left: the first queries of a row attend nothing.
        self.arrays, self.outputs = tools.llama_inputs(256, 2, 16, "left"), ["logits"]
        self.arrays["input_ids"][0, :2] = -1, -256  # negative ids count from the end
        self.compile(filled("llama-small"), mesh, {"batch": 2, "seq": 16}, *flags)

    def make_llama(self, filled):
        self.llama(filled, "tp=2")

    def make_llama_tp4(self, filled):
        self.llama(filled, "tp=4")

    def make_llama_sharded(self, filled):
        self.llama(filled, "dp_shard=2,tp=2", "--sequence-parallel")

    def make_llama_pipeline(self, filled):
        self.llama(filled, "pp=2,tp=2", "--micro-batches=2")

    def make_llama_context(self, filled):
        self.llama(filled, "cp=4", "--fsdp=none")

    def make_llama_context_gather(self, filled):
        self.llama(filled, "cp=4", "--fsdp=none", "--cp-method=all_gather")

    def make_llama_cuda(self, filled):
        self.llama(filled, "tp=2", "--target=cuda:sm_90")

    def make_gpt2(self, filled):
        """One weight for queries, keys and values, dealt out by rank."""
        case = families.Case("dynamo/gpt2", self.folder)
        self.arrays, self.outputs = case.inputs_and_expected("right")[0], case.outputs
        self.compile(case.model, "tp=2", case.dims)

    def make_train(self, filled):
        """The steps that test_training.py compares with PyTorch's."""
        self.theirs = tools.training_reference("llama-small")
        steps = {key[3:]: value for key, value in self.theirs.items() if key.startswith("in.")}
        self.arrays = {name: value[0] for name, value in steps.items()}
        config = tools.write_reference_config("llama-small", self.folder)
        dims = tools.REFERENCE_CASES["llama-small"]["dims"]
        self.compile(filled("llama-small"), "dp_shard=2,tp=2", dims, f"--train={config}", "--micro-batches=2")
        self.reference = self.folder / "2-train.mlir"
        self.inputs.append("--entry=train_step")

    # A small annotated program with every collective.

    def make_mixed(self, filled):
        self.reference = HERE / "Inputs" / "mixed.mlir"
        self.inputs = ["--random-inputs=1"]
        text = self.reference.read_text()
        self.phases["annotate"] = text
        resolve = [flag for flag in checker.RESOLVE if "fully-shard" not in flag]
        for phase, flags in (("resolve", resolve), ("local", checker.LOCAL), ("schedule", checker.SCHEDULE)):
            done = subprocess.run([checker.tool("dshard-opt"), *flags], input=text, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            text = self.phases[phase] = done.stdout

    # Checks.

    def write(self, text, suffix=".mlir"):
        path = self.folder / ("mutated" + suffix)
        path.write_text(text)
        return path


def said(done):
    """None for success; else the errors."""
    if done.status == 0:
        return None
    assert 0 < done.status < 128, f"a crash, not a red check: {done.status}\n{done.stderr[-2000:]}"
    return "\n".join(line[:600] for line in done.lines()) or "no message"


def value(base, text):
    """On all ranks in fp64, the value of the program before."""
    return said(tools.start("dshard-interpret", base.reference, "--against", base.write(text), *base.inputs, "--atol", "1e-12"))


def gate_of(*flags):
    def gate(base, text):
        return said(tools.start("dshard-opt", base.write(text), *flags, "-o", base.folder / "out.mlir"))

    return gate


def emit(base, text):
    """The plan file of edited plan IR; the error if it is refused on the way."""
    plan = base.folder / "mutated.dsplan"
    return plan, said(tools.start("dshard-opt", base.write(text), "--from=plan", "--emit=plan", "-o", plan))


def plan_verifier(base, text):
    plan, error = emit(base, text)
    return error or said(tools.start("dshard-plan", "verify", plan))


def execution(base, text):
    """All ranks of the plan, against onnxruntime. A plan that is refused is red as well, but
    by the verifier, which has its own mutations."""
    plan, error = emit(base, text)
    if error:
        return "refused: " + error
    try:
        outputs, _ = tools.run_plan(plan, base.arrays, base.outputs, base.folder / "run", "--weights", base.model.parent)
    except tools.CommandFailed as failed:
        assert not re.search(r"exit status -\d", str(failed)), f"a crash, not a red check: {failed}"
        return "refused: " + str(failed)
    if not hasattr(base, "theirs"):
        base.theirs = tools.onnxruntime_outputs(base.model, base.arrays)
    for name in base.outputs:
        difference = tools.largest_difference(outputs[name], base.theirs[name])
        if not difference <= tools.tolerance(base.theirs[name]):
            return f"output '{name}' differs by up to {difference:.3g}"
    return None


def emulation(base, text):
    """The same on emulated GPUs, which interpret the plan's PTX."""
    with tools.emulated_gpus(2):
        return execution(base, text)


def pytorch(base, text):
    """Some training steps in fp64, against PyTorch's losses, gradients and parameters."""
    try:
        ours = tools.interpret_reference_steps("llama-small", base.write(text), base.folder / "steps", base.theirs)
    except tools.CommandFailed as failed:
        return str(failed)
    return tools.compare_with_reference(ours, base.theirs)


def training(base, text):
    """The same steps by all ranks of the plan, in fp32."""
    plan, error = emit(base, text)
    if error:
        return "refused: " + error
    try:
        ours = tools.run_reference_steps(plan, base.folder / "run", base.theirs, "--weights", base.model.parent)
    except tools.CommandFailed as failed:
        assert not re.search(r"exit status -\d", str(failed)), f"a crash, not a red check: {failed}"
        return "refused: " + str(failed)
    return tools.compare_with_reference(ours, base.theirs, slack=100)


# The name of each check: the tests that make it.
PASSES = "test/EndToEnd/test_passes_equal.py"
RANDOM = "test/random/test_random_programs.py"
PARTIAL_GATE = "test/Transforms/Propagate/verify-partial-invalid.mlir"
RESOLVED_GATE = "test/Transforms/Propagate/verify-resolved-invalid.mlir"
LOCAL_GATE = "test/Transforms/Partition/verify-local-invalid.mlir"
SCHEDULE_GATE = "--dshard-verify-schedule, in every compilation"
OP_VERIFIER = "test/Dialect/DShard/IR/ops-invalid.mlir, collectives-invalid.mlir"
PLAN_VERIFIER = "test/Plan/VerifierTest.cpp"
PYTORCH = "test/EndToEnd/test_training.py"
TRAINING = "test/EndToEnd/test_training_runs.py"
TRAIN_GATE = "test/Transforms/Train/verify-train.mlir"
EXECUTION = "test/EndToEnd/test_against_onnxruntime.py"
EMULATION = "test/EndToEnd/test_cuda.py"
CHECKS = {
    EMULATION: ("plan", emulation),
    PASSES: ("local", value),
    RANDOM: ("local", value),
    PYTORCH: ("train", pytorch),
    TRAINING: ("plan", training),
    TRAIN_GATE: ("train", gate_of("--dshard-verify-train")),
    PARTIAL_GATE: ("resolve", gate_of("--dshard-verify-partial")),
    RESOLVED_GATE: ("resolve", gate_of("--dshard-verify-resolved")),
    LOCAL_GATE: ("local", gate_of("--dshard-verify-local")),
    SCHEDULE_GATE: ("schedule", gate_of("--dshard-verify-schedule")),
    OP_VERIFIER: ("local", gate_of()),
    PLAN_VERIFIER: ("plan", plan_verifier),
    EXECUTION: ("plan", execution),
}
