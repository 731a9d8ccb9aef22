"""Faults seeded into compiled plans for GPUs, on the emulator: each plan as it is gives the CPU's result; harmed, it
ends with exit status 1 and one line that names the fault. A fault is an edit of the plan (of a buffer, of the PTX that it
carries) or, where a plan cannot hold it because all ranks share one program, a call that the emulator treats amiss
(DSHARD_EMULATOR_*). What the plan's verifier refuses is in test/mutations."""

import ctypes
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tools

TARGET = "--target=cuda:sm_90"
SECONDS = 30  # a run takes one or two; a deadlock is reported after EMULATOR_TIMEOUT


def wide_model(folder):
    """Rows so long that a block of threads shares each."""
    draw = np.random.default_rng(0)
    width = 4096

    def values(name, *shape):
        return onnx.numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["n"], name="norm", epsilon=1e-5),
        helper.make_node("Softmax", ["n"], ["p"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["p", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [values("scale", width), values("shift", width), values("w", width, 8)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(folder / "wide.onnx"))
    return folder / "wide.onnx"


@dataclasses.dataclass
class Case:
    model: str
    mesh: str = ""
    flags: tuple = ()
    trains: bool = False

    @property
    def ranks(self):
        return int(np.prod([int(axis.split("=")[1]) for axis in self.mesh.split(",")])) if self.mesh else 1


CASES = {
    "mlp": Case("mlp", "tp=2"),
    "mlp-sharded": Case("mlp", "dp_shard=2"),
    "llama": Case("llama-small", "tp=2"),
    "llama-sequence": Case("llama-small", "tp=2", ("--sequence-parallel",)),
    "llama-sharded": Case("llama-small", "dp_shard=2,tp=2"),
    "llama-ring": Case("llama-small", "cp=2"),
    "llama-pipeline": Case("llama-small", "pp=2", ("--micro-batches=2",)),
    "train": Case("llama-small", trains=True),
    "train-sharded": Case("llama-small", "dp_shard=2", trains=True),
    "wide": Case("wide"),
}


class Compiled:
    """A case's plan as IR, and the CPU's results, which the plan as it is gives on the emulator."""

    def __init__(self, case, model, folder):
        self.case, self.model, self.folder = case, model, folder
        folder.mkdir()
        dims, self.flags, self.output, self.inputs = {}, [], "y", None
        flags = list(case.flags)
        if case.model == "mlp":
            dims, self.inputs = {"batch": 16}, tools.mlp_inputs(16)
        elif case.model == "wide":
            self.inputs = {"x": np.random.default_rng(1).standard_normal((4, 4096)).astype(np.float32)}
        else:
            dims, self.output = {"batch": 2, "seq": 16}, "logits"
            self.inputs = tools.llama_inputs(256, 2, 16)
        if case.trains:
            (folder / "train.json").write_text('{"logits": "logits", "shift_labels": true}')
            flags.append(f"--train={folder / 'train.json'}")
            self.inputs["labels"] = self.inputs["input_ids"]
            self.inputs = {name: np.stack([value, value]) for name, value in self.inputs.items()}
            self.output, self.flags = "loss", ["--entry=train_step", "--steps=2"]
        for name, array in self.inputs.items():
            np.save(folder / f"{name}.npy", array)
            self.flags += ["--input", f"{name}={folder / name}.npy"]
        tools.compile_plan(model, folder / "cpu.dsplan", case.mesh, dims, *flags)
        expected = folder / "expected.npy"
        tools.run("dshard-run", folder / "cpu.dsplan", *self.flags, "--output", f"{self.output}={expected}")
        bound = tools.tolerance(np.load(expected))
        self.flags += ["--expected", f"{self.output}={expected}", "--rtol", "0", "--atol", str(bound)]
        arguments = tools.compile_arguments(model, case.mesh, dims)
        tools.run("dshard-opt", *arguments, *flags, TARGET, "--to=plan", "--emit=mlir", "-o", folder / "gpu.mlir")
        self.text = (folder / "gpu.mlir").read_text()
        self.plan = self.emit(self.text, "gpu")
        done = self.run()
        assert done.status == 0, done.stderr

    def emit(self, text, name):
        """The plan file of a plan as IR."""
        (self.folder / f"{name}.mlir").write_text(text)
        plan = self.folder / f"{name}.dsplan"
        tools.run("dshard-opt", self.folder / f"{name}.mlir", "--from=plan", "--emit=plan", "-o", plan)
        return plan

    def run(self, edit=None, **seeds):
        """dshard-run of the plan after `edit` of its text; `seeds` are variables of the emulator."""
        plan = self.plan
        if edit:
            text = edit(self.text)
            assert text != self.text, "the edit changes nothing any more: mend it"
            plan = self.emit(text, "edited")
        with tools.emulated_gpus(self.case.ranks), pytest.MonkeyPatch.context() as patch:
            patch.setenv("DSHARD_EMULATOR_TIMEOUT", "2")
            for name, value in seeds.items():
                patch.setenv(f"DSHARD_EMULATOR_{name}", value)
            return tools.start("dshard-run", plan, "--weights", self.model.parent, *self.flags, timeout=SECONDS)

    def fault(self, edit=None, **seeds):
        """The one line with which dshard-run ends; the emulator's own report is not part of it."""
        done = self.run(edit, **seeds)
        assert done.status == 1, f"exit status {done.status}: the fault is not seen\n{done.stderr}"
        lines = [line for line in done.lines() if line.startswith("dshard-run: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]


@pytest.fixture(scope="session")
def compiled(filled, tmp_path_factory):
    """compiled(NAME): a case of CASES, compiled and run once."""
    folder = tmp_path_factory.mktemp("faults")
    made = {}

    def get(name):
        if name not in made:
            case = CASES[name]
            model = wide_model(folder / "models") if case.model == "wide" else filled(case.model)
            made[name] = Compiled(case, model, folder / name)
        return made[name]

    return get


#
# Edits of a plan's text
#


def sub(pattern, replacement):
    """Replaces the first match (`.` stays in its line)."""
    return lambda text: re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)


def ptx(kernel, pattern, replacement, at=0):
    """Replaces the at-th match of `pattern` in the PTX of the first kernel that has it; `kernel` is a regular
    expression, too."""

    def edit(text):
        for begin in re.finditer(rf"\.visible \.entry {kernel}\(", text):
            end = re.compile(r"\.visible \.entry |\"").search(text, begin.end()).start()
            # As MLIR writes a string.
            body = text[begin.start() : end].replace("\\0A", "\n").replace("\\09", "\t")
            matches = list(re.finditer(pattern, body, re.MULTILINE))
            if len(matches) > at:
                match = matches[at]
                body = body[: match.start()] + match.expand(replacement) + body[match.end() :]
                return text[: begin.start()] + body.replace("\n", "\\0A").replace("\t", "\\09") + text[end:]
        pytest.fail(f"no kernel {kernel} has {pattern} any more: mend the edit")

    return edit


def where_thread(condition, instruction):
    """PTX that does `instruction` where %tid.x fulfils `condition` ("gt 31")."""
    comparison, bound = condition.split(" ")
    lines = [".reg .b32 %seeded_thread;", ".reg .pred %seeded;", "mov.u32 %seeded_thread, %tid.x;"]
    lines += [f"setp.{comparison}.u32 %seeded, %seeded_thread, {bound};", f"@%seeded {instruction};"]
    return "{\n" + "\n".join(lines) + "\n}\n"


BARRIER = r"bar\.sync \t0;"
STORE = r"(st\.global\S* \t\[%rd\d+)(?:\+-?\d+)?\]"
LOAD = r"(ld\.global\S* \t\S+.*, \[%rd\d+)(?:\+-?\d+)?\]"
WIDE = r"k0_layer_norm_softmax"


#
# Events and waits
#


@pytest.mark.parametrize("call,instruction", [("cuEventRecord", "record"), ("cuStreamWaitEvent", "wait")])
@pytest.mark.parametrize("name,step", [("mlp", 1), ("llama", 3), ("llama-sequence", 7), ("llama-ring", 5)])
def test_missing_event_or_wait(name, step, call, instruction, compiled):
    """One of them missing, whichever it is, on one of the ranks."""
    case = compiled(name)
    count = case.case.ranks * len(re.findall(rf"^ *plan\.{instruction} ", case.text, re.MULTILINE))
    assert count >= 4
    for number in range(0, count, step):
        assert "race between streams" in case.fault(DROP=f"{call}:{number}"), number


@pytest.mark.parametrize("call", ["cuEventRecord", "cuStreamWaitEvent"])
@pytest.mark.parametrize("name", ["mlp-sharded", "llama-sharded", "llama-pipeline", "train-sharded"])
def test_missing_events_and_waits(name, call, compiled):
    """All of them missing: some are spared by waits of the host, which read inputs and states."""
    assert "race between streams" in compiled(name).fault(DROP=call)


#
# Collectives
#


@pytest.mark.parametrize(
    "name,call,says",
    [
        ("mlp-sharded", "ncclAllGather:0", "mismatched collective"),
        ("llama-sequence", "ncclReduceScatter:1", "mismatched collective|differs"),
        ("llama-sequence", "ncclAllGather:6", "mismatched collective|differs"),
        ("llama-sharded", "ncclAllGather:0", "mismatched collective"),
        ("train-sharded", "ncclReduceScatter:2", "mismatched collective"),
        # Equal calls meet as they come: wrong values, or an event that comes too early.
        ("llama", "ncclAllReduce:0", "race between streams|differs"),
        ("llama-sharded", "ncclAllReduce:0", "race between streams|differs"),
    ],
)
def test_swapped_collective(name, call, says, compiled):
    """One rank issues a collective behind its next one. (Behind one of another communicator it may do no harm.)"""
    assert re.search(says, compiled(name).fault(SWAP=call))


@pytest.mark.parametrize("call", ["ncclAllReduce:0", "ncclAllReduce:5", "ncclAllGather:0", "ncclAllGather:9"])
def test_wrong_communicator(call, compiled):
    assert re.search("mismatched collective|deadlock", compiled("llama-sharded").fault(MISDIRECT=call))


@pytest.mark.parametrize(
    "name,call,says",
    [
        ("mlp", "ncclAllReduce:1", "all_reduce"),
        ("llama", "ncclAllReduce:4", "all_reduce"),
        ("llama", "ncclAllReduce:9", "all_reduce"),
        ("llama-pipeline", "ncclSend:0", "recv"),
        ("llama-pipeline", "ncclRecv:0", "send"),
    ],
)
def test_deadlock(name, call, says, compiled):
    """One rank lacks a collective, and the others wait for it."""
    assert re.search(rf"deadlock: .*{says} .* waits for rank \d", compiled(name).fault(DROP=call))


@pytest.mark.parametrize("edit", [(r"^ *plan\.send .*\n", ""), (r"(plan\.send .*)to = 1", r"\1to = 0")])
def test_plan_that_would_wait_for_ever(edit, compiled):
    """Where stages have programs of their own a plan can lack a collective: it is refused before anything runs."""
    with pytest.raises(tools.CommandFailed, match=r"plan_v7.* waits for ever in group 'pp'"):
        compiled("llama-pipeline").run(sub(*edit))


@pytest.mark.parametrize(
    "name,edit",
    [("llama", (r"^ *plan\.all_reduce .*\n", "")), ("llama-sharded", (r"(plan\.all_reduce .*group = )1", r"\g<1>0"))],
)
def test_collective_that_all_ranks_get_wrong(name, edit, compiled):
    """It is missing, or goes to another group: nobody waits, but the values are others."""
    assert " differs from " in compiled(name).fault(sub(*edit))


@pytest.mark.parametrize("name,call", [("llama-sequence", "ncclReduceScatter:2"), ("llama-sharded", "ncclAllGather:3"), ("llama-ring", "ncclSend:0")])
def test_missing_collective(name, call, compiled):
    """One rank lacks a collective, and the others meet its next one."""
    assert "mismatched " in compiled(name).fault(DROP=call)


LOST = ["ncclAllReduce", "cublasLtMatmul", "cublasLtMatmul:3", "cuLaunchKernel", "cuMemcpyHtoDAsync_v2:1"]


@pytest.mark.parametrize("name,call", [(name, call) for name in ["mlp", "llama"] for call in LOST] + [("llama", "cuLaunchKernel:2")])
def test_lost_call(name, call, compiled):
    """What no check of the emulator can know to be missing is seen in the result."""
    assert " differs from " in compiled(name).fault(DROP=call)


#
# Buffers
#


@pytest.mark.parametrize("name,step", [("mlp", 1), ("llama", 4), ("llama-pipeline", 7), ("train", 13), ("wide", 1)])
def test_short_buffers_of_a_launch(name, step, compiled):
    """16 bytes less than the plan says, and the kernel reads or writes them."""
    case = compiled(name)
    for number in range(0, len(re.findall(r"^ *plan\.launch ", case.text, re.MULTILINE)), step):
        assert "out of bounds of global memory" in case.fault(SHORTEN=f"cuLaunchKernel:{number}"), number


def test_short_buffer_of_the_plan(compiled):
    """The mask is half as long as the kernel that makes it believes."""
    edit = sub(r'("node__to_copy" offset \d+ size )32 : tensor<2x16xi1>', r"\g<1>16 : tensor<1x16xi1>")
    assert re.search(r"k\d+_cast: out of bounds .* 0 bytes behind the end of a buffer of 16", compiled("llama").fault(edit))


@pytest.mark.parametrize("name", ["mlp", "llama", "train"])
def test_short_allocation(name, compiled):
    """The driver refuses to fill it, which says less than the emulator's own report; another rank may be first to end."""
    done = compiled(name).run(SHORTEN="cuMemAlloc_v2:0")
    assert done.status == 1
    report, line = done.lines()
    assert re.search(r"memset: out of bounds of global memory: \d+ bytes at offset 0 of a buffer of \d+$", report)
    assert re.match(r"dshard-run: GPU \d .*, states, arena and scratch of a rank: cu\w+: ", line)


#
# Kernels
#


@pytest.mark.parametrize("at", range(7))
def test_dropped_barrier(at, compiled):
    """Two barriers for each of four sums over a row; only the last one of all protects nothing."""
    fault = compiled("wide").fault(ptx(WIDE, BARRIER, "", at))
    assert re.search("race in shared memory|shared memory read before it is written", fault)


def test_dropped_barriers(compiled):
    assert "shared memory" in compiled("wide").fault(DROP="bar.sync")
    assert "shared memory" in compiled("wide").fault(DROP="bar.sync:3")


def test_dropped_barrier_in_training(compiled):
    """The norm of all gradients: a block adds up a parameter's."""
    case = compiled("train")
    kernels = re.findall(r"// (k\d+_mul_reduce)_shared\w+ has been demoted", case.text)
    assert len(kernels) >= 3
    for kernel in kernels[:3]:
        assert f"kernel {kernel}: shared memory read before it is written" in case.fault(ptx(kernel, BARRIER, ""))


@pytest.mark.parametrize("name,kernel,at", [("wide", WIDE, 0), ("wide", WIDE, 5), ("train", r"k\d+_mul_reduce", 1)])
def test_divergent_barrier(name, kernel, at, compiled):
    leaves = ptx(kernel, BARRIER, where_thread("gt 31", "ret") + r"\g<0>", at)
    assert "divergent barrier: this thread has exited, others wait" in compiled(name).fault(leaves)


def test_barrier_that_some_pass_by(compiled):
    passes = ptx(WIDE, BARRIER, where_thread("gt 31", "bar.sync 0"), 7)
    assert "divergent barrier: " in compiled("wide").fault(passes)


@pytest.mark.parametrize(
    "name,kernel,pattern,replacement,says",
    [
        ("mlp", r"k\d+_\w+", STORE, r"\1+65536]", "out of bounds of global memory"),
        ("mlp", r"k\d+_\w+", LOAD, r"\1+-65536]", "out of bounds of global memory"),
        ("mlp", r"k\d+_\w+", STORE, r"\1+4]", "misaligned access"),
        ("llama", r"k\d+_\w*gather", LOAD, r"\1+262144]", "out of bounds of global memory"),
        ("llama", r"k\d+_rms_norm", LOAD, r"\1+65536]", "out of bounds of global memory"),
        ("llama", r"k\d+_\w*attention\w*", STORE, r"\1+65536]", "out of bounds of global memory"),
        ("llama", r"k\d+_swiglu", r"%ctaid\.x", "0", "two threads write one word|differs"),
        ("train", r"k\d+_mul_reduce", r"(ld\.shared\.b32 .*\[%rd\d+)\]", r"\1+4]", "out of bounds of shared memory"),
        ("train", r"k\d+_\w*attention_transpose", STORE, r"\1+262144]", "out of bounds of global memory"),
        ("wide", WIDE, r"(st\.shared\.b32 \t\[%rd\d+)\]", r"\1+32]", "out of bounds of shared memory"),
        ("wide", WIDE, STORE, r"\1+16]", "0 bytes behind the end of a buffer of 65536"),
        ("wide", WIDE, r"%ctaid\.x", "0", "two threads write one word"),
        ("wide", WIDE, r"st\.shared.*", "", "shared memory read before it is written"),
    ],
)
def test_harmed_kernel(name, kernel, pattern, replacement, says, compiled):
    assert re.search(says, compiled(name).fault(ptx(kernel, pattern, replacement)))


@pytest.mark.parametrize("name,kernel", [("llama", r"k\d+_rms_norm"), ("wide", WIDE)])
def test_lane_that_does_not_take_part(name, kernel, compiled):
    leaves = ptx(kernel, r"shfl\.sync.*", where_thread("gt 3", "ret") + r"\g<0>")
    assert "warp operation with an inactive lane" in compiled(name).fault(leaves)


#
# A rank fails in the middle of a run
#


def left_running(plan):
    """Command lines of processes that still have this plan."""
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and str(plan) in (line := open(f"/proc/{entry.name}/cmdline").read()):
                found.append(line)
        except OSError:
            pass  # it has just ended
    return found


@pytest.mark.parametrize(
    "name,call",
    [
        ("mlp", "cuLaunchKernel:2"),
        ("llama", "cuLaunchKernel:3"),
        ("llama", "cublasLtMatmul:7"),
        ("llama", "cuEventRecord:5"),
        ("llama", "cuStreamWaitEvent:5"),
        ("llama", "ncclAllReduce:0"),
        ("llama", "ncclAllReduce:7"),
        ("llama", "ncclGroupEnd:6"),
        ("llama-sharded", "cuLaunchKernel:20"),
        ("llama-sharded", "ncclAllGather:8"),
        ("llama-pipeline", "ncclSend:0"),
        ("llama-pipeline", "ncclRecv:1"),
        ("llama-pipeline", "cublasLtMatmul:20"),
        ("llama-ring", "ncclSend:2"),
        ("train-sharded", "cuLaunchKernel:300"),
        ("train-sharded", "ncclReduceScatter:5"),
    ],
)
def test_failing_rank(name, call, compiled):
    """One rank ends, while others wait for it in a collective: they end, too, none of them by a deadlock's report."""
    case = compiled(name)
    done = case.run(FAIL=call)
    assert done.status == 1
    assert len(done.lines()) == 1, done.stderr
    assert re.match(rf"dshard-run: rank \d: .*{call.partition(':')[0]}: ", done.lines()[0])
    assert not left_running(case.plan)


@pytest.mark.parametrize("name", ["llama", "llama-sharded", "llama-pipeline", "train-sharded"])
def test_failure_that_nccl_reports_later(name, compiled):
    done = compiled(name).run(FAIL="ncclCommGetAsyncError:3")
    assert done.status == 1
    assert re.fullmatch(r"dshard-run: (rank \d: )?NCCL: remote process exited or there was a network error", "\n".join(done.lines()))


@pytest.mark.parametrize("call", ["ncclGetUniqueId", "ncclCommInitRank:1", "ncclCommInitRank:6", "ncclGroupEnd:1"])
def test_ranks_that_do_not_connect(call, compiled):
    done = compiled("llama-sharded").run(FAIL=call)
    assert done.status == 1
    assert len(done.lines()) == 1, done.stderr
    assert "nccl" in done.lines()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_run(number, compiled):
    """The ranks are threads of one process: it leaves nobody behind."""
    case = compiled("llama")
    plan = case.plan
    with tools.emulated_gpus(2):
        command = [tools.build_dir() / "bin" / "dshard-run", plan, "--weights", case.model.parent, *case.flags, "--repeat", "100000"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        assert process.poll() is None
        assert len(left_running(plan)) == 1
    finally:
        process.send_signal(number)
        assert process.wait(timeout=10) == -number
    assert not left_running(plan)


LIFE_OF_A_CALLER = """
import ctypes, os, sys
import numpy as np
library, plan, weights, folder = sys.argv[1:]
api = ctypes.CDLL(library)
for name in ["create", "load", "run"]:
    getattr(api, "dshard_session_" + name).restype = ctypes.c_char_p
class Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int), ("rank", ctypes.c_int32),
                ("dims", ctypes.POINTER(ctypes.c_int64)), ("data", ctypes.c_void_p)]
class Options(ctypes.Structure):
    _fields_ = [("weights", ctypes.c_char_p), ("random", ctypes.c_int32), ("seed", ctypes.c_uint64), ("threads", ctypes.c_uint32)]
def tensor(name, array):
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    return Tensor(name, 12, array.ndim, dims, array.ctypes.data)
x, y = np.load(folder + "/x.npy"), np.zeros((16, 64), np.float32)
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
def session(runs):
    handle = ctypes.c_void_p()
    options = Options(weights.encode(), 0, 0, 0)
    assert api.dshard_session_create(plan.encode(), ctypes.byref(options), ctypes.byref(handle)) is None
    assert api.dshard_session_load(handle) is None
    for _ in range(runs):
        said = api.dshard_session_run(handle, b"run", ctypes.byref(tensor(b"x", x)), 1, ctypes.byref(tensor(b"y", y)), 1)
        print((said or b"done").decode())
    api.dshard_session_destroy(handle)
    print(threads() - before)
session(2)
session(1)
np.save(folder + "/again.npy", y)
"""


def test_caller_that_lives_on(compiled):
    """A failed run is one message, so is the next one; no thread stays; and the plan can be loaded and run again."""
    case = compiled("mlp")
    library = tools.build_dir() / "lib" / "libdshard-runtime.so"
    with tools.emulated_gpus(2), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSHARD_EMULATOR_FAIL", "ncclAllReduce:1")
        command = [sys.executable, "-c", LIFE_OF_A_CALLER, library, case.plan, case.model.parent, case.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    first, second, threads, third, more = done.stdout.splitlines()
    assert re.match(r"rank \d: ncclAllReduce: unhandled system error", first)
    assert "closed by an earlier failure; load the plan again" in second
    assert third == "done"
    assert threads == more == "0"
    assert tools.largest_difference(np.load(case.folder / "again.npy"), np.load(case.folder / "expected.npy")) < 1e-3


#
# Libraries and machines
#


def refusal(case, **seeds):
    done = case.run(**seeds)
    assert done.status == 1
    assert len(done.lines()) == 1, done.stderr
    return done.lines()[0]


def entry_points():
    """Those that the runtime calls: Functions.def."""
    text = (tools.ROOT / "include" / "dshard" / "Runtime" / "Cuda" / "Functions.def").read_text()
    return re.findall(r"^DSHARD_CUDA_(DRIVER|BLAS|NCCL)(?:_OPTIONAL)?\(\w+, (\w+),", text, re.MULTILINE)


# Called where nothing can fail any more, or to say what failed.
HARMLESS = {"cuDeviceGetName", "cuMemGetInfo_v2", "cuGetErrorName", "cuGetErrorString", "cublasLtGetVersion"}
HARMLESS |= {"cublasLtGetStatusString", "ncclGetErrorString", "ncclGetLastError", "ncclCommAbort", "cuEventElapsedTime"}
HARMLESS |= {"cuMemFree_v2", "cuDevicePrimaryCtxRelease_v2"}
# Not called by a feed-forward block over tp.
OTHERS = {"cuMemcpyDtoDAsync_v2", "cuMemcpy2DAsync_v2", "cuMemsetD32Async", "cuFuncSetAttribute", "ncclAllGather"}
OTHERS |= {"ncclReduceScatter", "ncclBroadcast", "ncclSend", "ncclRecv", "cublasLtMatrixLayoutSetAttribute"}
CALLS = [symbol for _, symbol in entry_points() if symbol not in HARMLESS | OTHERS and not re.search("Destroy|Unload", symbol)]


@pytest.mark.parametrize("call", CALLS)
def test_call_that_fails(call, compiled):
    """Each entry point of the driver, cuBLASLt and NCCL that the runtime calls."""
    line = refusal(compiled("mlp"), FAIL=call)
    # Versions of a symbol; and what fails in a group of NCCL or behind the call is reported by another one.
    name = re.sub(r"(_v\d|Async_v\d|Async|WithPriority)$", "", call)
    also = {"ncclGroupStart": "|ncclCommInitRank", "ncclGroupEnd": "|ncclCommInitRank", "ncclCommGetAsyncError": "|NCCL: "}
    assert re.search(name + also.get(call, ""), line), line


def test_every_entry_point_is_known():
    """A new one is failed as well, or stands in one of the lists."""
    symbols = {symbol for _, symbol in entry_points()}
    assert len(CALLS) > 30
    assert HARMLESS | OTHERS <= symbols


def line_with_library(case, name, path):
    """What the plan as it is says where the library is found at `path`, or (None) where no variable names one."""
    with tools.emulated_gpus(case.case.ranks), pytest.MonkeyPatch.context() as patch:
        if path:
            patch.setenv(f"DSHARD_{name}_LIBRARY", str(path))
        else:
            patch.delenv(f"DSHARD_{name}_LIBRARY")
        done = tools.start("dshard-run", case.plan, "--weights", case.model.parent, *case.flags, timeout=SECONDS)
    assert done.status == 1
    assert len(done.lines()) == 1, done.stderr
    return done.lines()[0]


def has_library(*names):
    for name in names:
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            pass
    return False


LIBRARIES = [
    ("CUDA", "the CUDA driver", ["libcuda.so.1", "libcuda.so"]),
    ("CUBLASLT", "cuBLASLt", ["libcublasLt.so.13", "libcublasLt.so.12"]),
    ("NCCL", "NCCL", ["libnccl.so.2"]),
]


@pytest.mark.parametrize("name,what,files", LIBRARIES)
def test_library_that_is_not_installed(name, what, files, compiled):
    """What was looked for, where, and by which variable one may say another place."""
    if has_library(*files):
        pytest.skip(f"{what} is installed here")
    line = line_with_library(compiled("mlp"), name, None)
    looked = f"cannot open {what}: looked for {', '.join(files)} in LD_LIBRARY_PATH and the system's folders"
    assert f"{looked} (DSHARD_{name}_LIBRARY is not set)" in line
    assert "; install " in line


@pytest.mark.parametrize("name,what,files", LIBRARIES)
def test_library_that_is_not_there(name, what, files, compiled):
    line = line_with_library(compiled("mlp"), name, "/nowhere/lib.so")
    assert f"cannot open {what}: looked for /nowhere/lib.so, which DSHARD_{name}_LIBRARY names" in line
    assert ("compile for --target=cpu" if name == "CUDA" else "install ") in line


@pytest.mark.parametrize(
    "name,version,says",
    [
        ("DRIVER", "11080", r"the CUDA driver in \S+ is version 11\.8, at least 12\.0 is needed"),
        ("CUBLASLT", "110000", r"cuBLASLt in \S+ is version 110000, at least 120000 is needed"),
        ("NCCL", "21000", r"NCCL in \S+ is version 21000, at least 21800 is needed"),
    ],
)
def test_library_that_is_too_old(name, version, says, compiled):
    assert re.search(says, refusal(compiled("mlp"), **{f"{name}_VERSION": version}))


@pytest.mark.parametrize("name,what,files", LIBRARIES)
def test_file_that_is_no_library(name, what, files, compiled, tmp_path):
    (tmp_path / "lib.so").write_text("not a library")
    line = line_with_library(compiled("mlp"), name, tmp_path / "lib.so")
    assert f"cannot open {what}: looked for {tmp_path / 'lib.so'}, which DSHARD_{name}_LIBRARY names" in line


@pytest.mark.parametrize("name,what,files", LIBRARIES)
def test_library_without_an_entry_point(name, what, files, compiled):
    """As one that is too old for it: here the C library."""
    line = line_with_library(compiled("mlp"), name, "libc.so.6")
    assert re.search(rf"{what} in libc\.so\.6 has no \w+; it is too old", line)


def test_no_gpu(compiled):
    line = refusal(compiled("mlp"), DEVICES="0")
    assert "the CUDA driver sees no GPU" in line
    assert "compile for --target=cpu" in line


@pytest.mark.parametrize("name,ranks", [("mlp", 2), ("llama-sharded", 4)])
def test_number_of_gpus(name, ranks, compiled):
    case = compiled(name)
    for found in range(1, ranks):
        line = refusal(case, DEVICES=str(found))
        assert f"the plan has {ranks} ranks, but there {'is 1 GPU' if found == 1 else f'are {found} GPUs'}; " in line
    assert case.run(DEVICES=str(ranks + 1)).status == 0


@pytest.mark.parametrize("here,fits", [("80", False), ("89", False), ("90", True), ("100", True)])
def test_architecture(here, fits, compiled):
    """PTX runs on newer GPUs, not on older ones."""
    case = compiled("mlp")
    if fits:
        assert case.run(ARCHITECTURE=here).status == 0
    else:
        line = refusal(case, ARCHITECTURE=here)
        assert re.search(rf"the plan is for cuda:sm_90, but GPU 0 \(.*\) is sm_{here}; compile it with --target=cuda:sm_{here}", line)


def mebibytes(line, what):
    number, unit = re.search(what, line).groups()
    return float(number) * {"B": 2.0**-20, "KiB": 2.0**-10, "MiB": 1, "GiB": 2**10}[unit]


@pytest.mark.parametrize("name", ["mlp", "llama-sharded", "train", "wide"])
def test_out_of_memory(name, compiled):
    """Which memory, its parts, and how much is missing: these many MiB more, and it runs."""
    case = compiled(name)
    line = refusal(case, MEMORY="20")
    assert re.search(r"GPU \d \(.*\) has no memory for the states, arena and scratch of a rank: ", line)
    size = r"([\d.]+) (B|KiB|MiB|GiB)"
    wanted, free, total, missing = (mebibytes(line, form) for form in [f"{size} wanted", f"{size} of", f"of {size} free", f"{size} missing"])
    assert total == pytest.approx(20, abs=0.05)
    assert free <= total
    assert wanted - free == pytest.approx(missing, abs=0.11)
    parts = [mebibytes(line, rf"{part} {size}") for part in ["states", "arena", "scratch"]]
    assert sum(parts) == pytest.approx(wanted, abs=0.11)
    assert "; shard over more ranks" in line
    assert case.run(MEMORY=str(int(20 + missing) + 2)).status == 0
