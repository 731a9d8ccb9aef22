"""The acceptance ladder: design.md "Numbers are honest", definitions.md "Precision"
and "Measuring". Every rung is a bound that a plan keeps on every mesh.

The oracle is dshard-interpret in fp64 on the imported program, the peer is onnxruntime.
"""

import hashlib
import json
import re
import subprocess
import time

import numpy as np
import pytest

import tools

MIB = 1 << 20
MESHES = (1, 2, 4)  # of tp
CONTEXT = ("cp=2", "cp=4", "cp=2,tp=2", "dp_shard=2,cp=2", "cp=2 --cp-method=all_gather", "cp=4 --cp-layout=contiguous")
MIXED = ("pp=2", "pp=2 --micro-batches=2", "dp_shard=2,tp=2", "dp_replicate=2,tp=2")
OUTPUT = {"mlp": "y"}


def output_of(name):
    return OUTPUT.get(name, "logits")


def as_float64(array):
    """dshard-run writes bf16 as its bits."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def distance(a, b):
    assert a.shape == b.shape and np.isfinite(a).all() and np.isfinite(b).all()
    return float(np.max(np.abs(as_float64(a) - as_float64(b))))


def largest(x):
    return float(np.max(np.abs(as_float64(x))))


def root_mean_square(x):
    return float(np.sqrt(np.mean(np.square(x))))




# How each mask pads; the first sequence of a batch of two stays whole but for "hidden".
def mask_of(kind, batch, seq):
    mask = np.ones((batch, seq), np.int64)
    if kind == "right":
        mask[-1, seq - seq // 3 :] = 0
    elif kind == "left":  # the first queries of that sequence attend nothing
        mask[-1, : seq // 3] = 0
    elif kind == "holes":
        mask[:, 1::3] = 0
    elif kind == "hidden":  # no query of that sequence attends anything
        mask[0] = 0
    else:
        assert kind == "ones"
    return mask


MASKS = ("ones", "right", "left", "holes", "hidden")


def llama_inputs(vocab, batch, seq, mask):
    ids = np.random.default_rng(seq).integers(0, vocab, (batch, seq), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": mask_of(mask, batch, seq)}


class Workshop:
    """Compiles each (model, mesh, sizes) once, and computes each reference once."""

    def __init__(self, filled, folder):
        self.filled = filled
        self.folder = folder
        self.made = {}
        self.sessions = {}

    def once(self, key, make):
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def path(self, *key):
        text = "-".join(str(part) for part in key)
        return self.folder / re.sub(r"[^\w.=-]", "_", text)

    def plan(self, name, tp, **dims):
        """`tp` is that axis' size, or a mesh with flags behind it."""

        def make():
            plan = self.path(name, tp, dims).with_suffix(".dsplan")
            mesh, *flags = f"tp={tp}".split(" ") if isinstance(tp, int) else tp.split(" ")
            tools.compile_plan(self.filled(name), plan, mesh, dims, *flags)
            return plan

        return self.once(("plan", name, tp, str(dims)), make)

    def run(self, name, tp, inputs, dims, *flags):
        output = output_of(name)
        outputs, report = tools.run_plan(self.plan(name, tp, **dims), inputs, [output], self.folder, *flags)
        return outputs[output], report

    def exact(self, name, inputs, dims, precision="fp64"):
        """The interpreter's output of the imported program."""
        output = output_of(name)
        program = self.path(name, dims, "import").with_suffix(".mlir")
        if not program.exists():
            arguments = tools.compile_arguments(self.filled(name), "", dims)
            tools.run("dshard-opt", *arguments, "--to=import", "-o", program)

        def make():
            flags = []
            for key, array in inputs.items():
                np.save(self.folder / f"exact-{key}.npy", array)
                flags += ["--input", f"{key}={self.folder / f'exact-{key}.npy'}"]
            target = self.folder / "exact.npy"
            flags += ["--output", f"{output}={target}", f"--precision={precision}"]
            tools.run("dshard-interpret", program, *flags, "--weights", self.filled(name).parent)
            return np.load(target)

        return self.once(("exact", name, precision, digest(inputs)), make)

    def onnxruntime(self, name, inputs):
        import onnxruntime

        def session():
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            return onnxruntime.InferenceSession(
                str(self.filled(name)), options, providers=["CPUExecutionProvider"]
            )

        key = ("onnxruntime", name, digest(inputs))
        return self.once(key, lambda: self.once(("session", name), session).run(None, inputs)[0])


def digest(inputs):
    state = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        state.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return state.hexdigest()


@pytest.fixture(scope="module")
def workshop(filled, tmp_path_factory):
    return Workshop(filled, tmp_path_factory.mktemp("acceptance"))


# ---------------------------------------------------------------------------------------
# fp32: e(sharded) <= 2 e(unsharded) + 2e-6 max|x|, and onnxruntime within 1e-4 max(1, max|x|)
# ---------------------------------------------------------------------------------------


def climb(workshop, name, inputs, dims, meshes=MESHES):
    exact = workshop.exact(name, inputs, dims)
    peer = workshop.onnxruntime(name, inputs)
    assert largest(exact) > 0.1
    unsharded = None
    for tp in meshes:
        ours, _ = workshop.run(name, tp, inputs, dims)
        assert ours.dtype == np.float32
        error = distance(ours, exact)
        unsharded = error if tp == 1 else unsharded
        assert error <= 2 * unsharded + 2e-6 * largest(exact), f"tp={tp}"
        assert distance(ours, peer) <= 1e-4 * max(1, largest(peer)), f"tp={tp}"
    # The rungs are relative to e(unsharded): that one is held to the peer's own error.
    assert unsharded <= 8 * distance(peer, exact) + 2e-6 * largest(exact)


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_mlp_is_as_exact_on_every_mesh(batch, workshop):
    climb(workshop, "mlp", tools.mlp_inputs(batch), {"batch": batch})


@pytest.mark.parametrize("seq", [7, 16, 17, 33])
@pytest.mark.parametrize("batch", [1, 2])
def test_llama_is_as_exact_on_every_mesh(batch, seq, workshop):
    for mask in MASKS:
        climb(workshop, "llama-small", llama_inputs(256, batch, seq, mask), {"batch": batch, "seq": seq})


@pytest.mark.parametrize("seq", [8, 24, 64])
def test_llama_is_as_exact_with_context_parallelism(seq, workshop):
    for mask in MASKS:
        climb(workshop, "llama-small", llama_inputs(256, 2, seq, mask), {"batch": 2, "seq": seq}, (1,) + CONTEXT)


@pytest.mark.parametrize("seq", [7, 16, 33])
def test_llama_is_as_exact_with_pipelines_and_data_parallelism(seq, workshop):
    for mask in MASKS:
        climb(workshop, "llama-small", llama_inputs(256, 2, seq, mask), {"batch": 2, "seq": seq}, (1,) + MIXED)


def test_masked_tokens_change_nothing(workshop):
    """Other ids under the mask: no logit of a visible token changes, on any mesh."""
    dims = {"batch": 2, "seq": 17}
    first = llama_inputs(256, 2, 17, "left")
    second = {key: value.copy() for key, value in first.items()}
    hidden = first["attention_mask"] == 0
    second["input_ids"][hidden] = (first["input_ids"][hidden] + 101) % 256
    for tp in MESHES:
        a, _ = workshop.run("llama-small", tp, first, dims)
        b, _ = workshop.run("llama-small", tp, second, dims)
        assert a[~hidden].tobytes() == b[~hidden].tobytes()
        assert distance(a[hidden], b[hidden]) > 0.1


@pytest.mark.parametrize("mask", ["ones", "left"])
def test_portable_kernels_climb_too(mask, workshop, monkeypatch):
    """The plain C++ kernels of a machine without AVX2."""
    monkeypatch.setenv("DSHARD_KERNELS", "portable")
    climb(workshop, "llama-small", llama_inputs(256, 2, 33, mask), {"batch": 2, "seq": 33})


@pytest.mark.slow
@pytest.mark.parametrize("seq,mask", [(128, "left"), (512, "right")])
def test_large_llama_equals_onnxruntime(seq, mask, workshop):
    inputs = llama_inputs(32000, 2, seq, mask)
    peer = workshop.onnxruntime("llama", inputs)
    bound = 1e-4 * max(1, largest(peer))
    for tp in MESHES:
        ours, _ = workshop.run("llama", tp, inputs, {"batch": 2, "seq": seq})
        assert ours.dtype == np.float32 and ours.shape == peer.shape and np.isfinite(ours).all()
        assert np.max(np.abs(ours - peer)) <= bound, f"tp={tp}"
    workshop.made.pop(("onnxruntime", "llama", digest(inputs)))  # 131 MB


# ---------------------------------------------------------------------------------------
# bf16 and fp16: atol = rtol, relative to the largest value, against fp64 on the rounded weights
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seq,masks,meshes", [(16, ("right",), MESHES), (33, MASKS, MESHES), (32, MASKS, ("cp=2", "cp=4"))]
)
@pytest.mark.parametrize("kind,tolerance", [("bf16", 2.5e-2), ("fp16", 5e-3)])
def test_16_bit_llama_is_near_fp64(kind, tolerance, seq, masks, meshes, workshop):
    """Two bounds: that of the definitions, and, sharper, the error of rounding every op's
    result to the type (the interpreter with --precision=model), in the root mean square."""
    name, dims = f"llama-small-{kind}", {"batch": 2, "seq": seq}
    for mask in masks:
        inputs = llama_inputs(256, 2, seq, mask)
        exact = as_float64(workshop.exact(name, inputs, dims))
        rounded = as_float64(workshop.exact(name, inputs, dims, "model"))
        # fp16 hides a score by adding its smallest number, which only rounding makes the
        # same for all: where a query attends nothing, fp64 is another function.
        attends = np.cumsum(inputs["attention_mask"], axis=1) > 0
        rows = attends if kind == "fp16" else np.ones_like(attends)
        exact_rows, rounded_rows = exact[rows], rounded[rows]
        for tp in meshes:
            ours, _ = workshop.run(name, tp, inputs, dims)
            ours = as_float64(ours)
            assert np.isfinite(ours).all()
            where = f"{mask} tp={tp}"
            assert distance(ours[rows], exact_rows) <= tolerance * max(1, largest(exact_rows)), where
            error = root_mean_square(ours[rows] - exact_rows)
            assert error <= 1.5 * root_mean_square(rounded_rows - exact_rows), where
            if not rows.all():
                assert distance(ours[~rows], rounded[~rows]) <= tolerance * max(1, largest(rounded)), where


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_16_bit_weights_stay_16_bit(kind, workshop):
    for tp in MESHES:
        sizes = [
            tools.plan_stat(workshop.plan(name, tp, batch=2, seq=16))["memory_per_rank"]["state"]
            for name in (f"llama-small-{kind}", "llama-small")
        ]
        assert sizes[0] <= 0.55 * sizes[1], f"tp={tp}"  # what is over half is the panels' padding


# ---------------------------------------------------------------------------------------
# bitwise: run to run, rank to rank, thread count to thread count, seed to file
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "llama-small", "llama-small-bf16", "llama-small-fp16"])
def test_runs_and_thread_counts_are_bitwise_equal(name, workshop, monkeypatch):
    """What is promised: one plan on one kind of CPU gives the same bits in every run and
    with any number of threads, since no sum is split between threads."""
    if name == "mlp":
        inputs, dims = tools.mlp_inputs(16), {"batch": 16}
    else:
        inputs, dims = llama_inputs(256, 2, 33, "right"), {"batch": 2, "seq": 33}
    for tp in MESHES:
        seen = set()
        for threads in ("", "1", "2", "3", "1"):
            monkeypatch.setenv("DSHARD_THREADS", threads)
            if not threads:
                monkeypatch.delenv("DSHARD_THREADS")
            ours, report = workshop.run(name, tp, inputs, dims)
            assert not threads or report["threads_per_rank"] == int(threads)
            seen.add(ours.tobytes())
        assert len(seen) == 1, f"tp={tp}"
        again, _ = workshop.run(name, tp, inputs, dims, "--warmup=2", "--repeat=5")
        assert again.tobytes() in seen, f"tp={tp}: the last of many runs differs from the first"


@pytest.mark.slow
@pytest.mark.parametrize("tp", MESHES)
def test_large_llama_is_bitwise_equal(tp, workshop, monkeypatch):
    inputs, dims = llama_inputs(32000, 2, 128, "right"), {"batch": 2, "seq": 128}
    seen = set()
    for threads in ("1", "2"):
        monkeypatch.setenv("DSHARD_THREADS", threads)
        seen.add(workshop.run("llama", tp, inputs, dims)[0].tobytes())
    # The weights of a seed are those that scripts/fill-weights wrote.
    seen.add(workshop.run("llama", tp, inputs, dims, "--random-weights")[0].tobytes())
    assert len(seen) == 1
    assert workshop.run("llama", tp, inputs, dims, "--random-weights=1")[0].tobytes() not in seen


def with_replicas_as_outputs(text, tp):
    """A local program that returns each all_reduce too, every rank's replica as one shard."""
    reduced = re.findall(
        r"(%\w+) = dshard\.all_reduce .*: \(tensor<\S+>\) -> tensor<(\d+)((?:x\d+)*)x([a-z]\w*)>", text
    )
    names, types, results = [], [], []
    for number, (value, first, rest, element) in enumerate(reduced):
        dims = rest.count("x")
        no_names = ", ".join(['""'] * (dims + 1))
        whole = f"tensor<{int(first) * tp}{rest}x{element}>"
        names.append(value)
        types.append(f"tensor<{first}{rest}x{element}>")
        results.append(
            f"{types[-1]} {{dshard.dim_names = [{no_names}], dshard.global = {whole}, "
            f'dshard.name = "replicas{number}", '
            f'dshard.sharding = #dshard.sharding<[{{"tp"}}{", {}" * dims}]>}}'
        )
    text, returns = re.subn(
        r"return (%\w+) : (tensor<\S+>)",
        lambda m: f"return {', '.join([m[1]] + names)} : {', '.join([m[2]] + types)}",
        text,
    )
    text, heads = re.subn(
        r"(\) -> \(tensor<\S+> \{.*\})\) attributes \{dshard.spmd\}",
        lambda m: f"{m[1]}, {', '.join(results)}) attributes {{dshard.spmd}}",
        text,
    )
    assert returns == heads == 1
    return text, len(reduced)


@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("name,count", [("mlp", 1), ("llama-small", 5), ("llama-small-bf16", 5), ("llama", 9)])
def test_replicas_are_bitwise_equal(name, count, tp, workshop, tmp_path):
    """The sums that every rank holds are the same bits on all of them."""
    if name == "mlp":
        inputs, dims = tools.mlp_inputs(5), {"batch": 5}
    else:
        vocab = 32000 if name == "llama" else 256
        inputs, dims = llama_inputs(vocab, 2, 17, "right"), {"batch": 2, "seq": 17}
    local, plan = tmp_path / "local.mlir", tmp_path / "replicas.dsplan"
    arguments = tools.compile_arguments(workshop.filled(name), f"tp={tp}", dims)
    tools.run("dshard-opt", *arguments, "--to=local", "-o", local)
    text, found = with_replicas_as_outputs(local.read_text(), tp)
    assert found == count
    local.write_text(text)
    tools.run("dshard-opt", local, "--from=local", "-o", plan)
    names = [f"replicas{i}" for i in range(count)]
    flags = ["--weights", workshop.filled(name).parent]
    outputs, _ = tools.run_plan(plan, inputs, names + [output_of(name)], tmp_path, *flags)
    for replicas in names:
        shards = np.split(outputs[replicas], tp)
        assert largest(shards[0]) > 0.01
        assert all(shard.tobytes() == shards[0].tobytes() for shard in shards), replicas
    plain, _ = workshop.run(name, tp, inputs, dims)
    assert outputs[output_of(name)].tobytes() == plain.tobytes()


# ---------------------------------------------------------------------------------------
# memory: planned = measured within 2 % or 4 MiB, load included
# ---------------------------------------------------------------------------------------


def check_peak(report):
    planned, measured = tools.peak_memory(report)
    assert planned > 0
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)
    return planned


@tools.not_sanitized
@pytest.mark.parametrize("name", ["llama-small", "llama-small-bf16"])
@pytest.mark.parametrize("seq", [16, 512])
def test_planned_peak_of_small_llama(name, seq, workshop):
    for tp in MESHES + ("cp=2", "cp=4 --cp-method=all_gather"):
        _, report = workshop.run(name, tp, llama_inputs(256, 2, seq, "right"), {"batch": 2, "seq": seq})
        check_peak(report)


def high_water_mark(plan, *flags):
    """VmHWM of dshard-run, read from outside while it runs; bytes."""
    command = [tools.build_dir() / "bin" / "dshard-run", plan, *flags]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL)
    mark = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status:
                found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
        except (FileNotFoundError, ProcessLookupError):
            break
        mark = max(mark, int(found[1]) * 1024) if found else mark  # a zombie has none
        time.sleep(0.005)
    assert process.wait() == 0
    return mark


@tools.not_sanitized
@pytest.mark.slow
@pytest.mark.parametrize("tp", MESHES)
def test_planned_peak_of_large_llama(tp, workshop, tmp_path):
    dims = {"batch": 2, "seq": 512}
    plan = workshop.plan("llama", tp, **dims)
    ids = ["--input", "input_ids=random", "--input", "attention_mask=random"]
    done = tools.run("dshard-run", plan, *ids, "--report=json")
    planned = check_peak(json.loads(done.stdout))
    logits = 2 * 512 * 32000 * 4
    assert planned > 44_000_000 * 4 + logits
    # The same from outside, against a plan that is next to nothing. The caller's own
    # arrays, here the gathered logits, are no part of a plan.
    empty = workshop.plan("mlp", tp, batch=1)
    nothing = high_water_mark(empty, "--input", "x=random", "--repeat=1000")
    measured = high_water_mark(plan, *ids, "--repeat=2") - nothing - logits
    assert nothing < 24 * MIB
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)
    # The peak covers the load program too: its buffers and the states.
    stat = tools.plan_stat(plan)
    memory = stat["memory_per_rank"]
    assert memory["peak"] >= memory["state"] + max(program["arena"] for program in stat["programs"])


# ---------------------------------------------------------------------------------------
# compilation: resuming, repeating and stripping change nothing
# ---------------------------------------------------------------------------------------

PHASES = ("import", "graph", "train", "annotate", "resolve", "local", "schedule", "plan")


def print_plan(plan):
    """The plan as text, but for the command line that it records."""
    text = tools.run("dshard-plan", "print", plan).stdout
    text, count = re.subn(r"(?m)^  options .*\n", "", text)
    assert count == 1
    return text


def code_of(plan):
    """The generated code; it lies in whole pages, and only the metadata hold the command line."""
    data = plan.read_bytes()
    begin = data.index(b"\x7fELF")
    return data[begin:]


@pytest.mark.parametrize(
    "name,tp,phases", [("mlp", 2, PHASES), ("llama-small", 1, PHASES), ("llama-small", 4, PHASES), ("llama", 4, PHASES)]
)
def test_resuming_at_a_phase_gives_the_same_plan(name, tp, phases, workshop, tmp_path):
    dims = {"batch": 16} if name == "mlp" else {"batch": 2, "seq": 33}
    arguments = tools.compile_arguments(workshop.filled(name), f"tp={tp}", dims)
    direct = print_plan(workshop.plan(name, tp, **dims))
    code = code_of(workshop.plan(name, tp, **dims))
    assert "launch" in direct
    # A plan's options (the mesh apart, which is in the IR) are those of the command that resumes.
    again = [flag for flag in arguments if str(flag).startswith("--tp-plan")]
    for phase in phases:
        stopped, plan = tmp_path / f"{phase}.mlir", tmp_path / f"{phase}.dsplan"
        tools.run("dshard-opt", *arguments, f"--to={phase}", "-o", stopped)
        tools.run("dshard-opt", stopped, f"--from={phase}", *again, "-o", plan)
        assert print_plan(plan) == direct, phase
        assert code_of(plan) == code, phase


@pytest.mark.parametrize("name,tp", [("mlp", 4), ("llama-small", 1), ("llama-small-bf16", 2), ("llama", 4)])
def test_compilation_is_deterministic(name, tp, workshop, tmp_path):
    dims = {"batch": 16} if name == "mlp" else {"batch": 2, "seq": 33}
    plan, plans = tmp_path / "model.dsplan", set()
    for _ in range(3):  # a new process, other addresses
        tools.compile_plan(workshop.filled(name), plan, f"tp={tp}", dims)
        plans.add(plan.read_bytes())
    assert len(plans) == 1


def without_names(text):
    """A printed plan less what comes from locations: source nodes and buffers' names."""
    text = re.sub(r' node="[^"]*"', "", text)
    return re.sub(r'(?m)^(  %\d+) "[^"]*"', r"\1", text)


@pytest.mark.parametrize("name,tp", [("mlp", 2), ("llama-small", 2), ("llama-small-bf16", 4), ("llama", 4)])
@pytest.mark.parametrize("phase", ["import", "graph", "train"])
def test_debug_information_decides_nothing(name, tp, phase, workshop, tmp_path):
    """Locations stripped before `annotate`: every later phase and the plan stay the same."""
    dims = {"batch": 16} if name == "mlp" else {"batch": 2, "seq": 17}
    arguments = tools.compile_arguments(workshop.filled(name), f"tp={tp}", dims)
    again = [flag for flag in arguments if str(flag).startswith("--tp-plan")]
    full, bare = tmp_path / "full.mlir", tmp_path / "bare.mlir"
    tools.run("dshard-opt", *arguments, f"--to={phase}", "-o", full)
    tools.run("dshard-opt", full, "--strip-debuginfo", "-o", bare)
    assert "loc(" in full.read_text() and "loc(" not in bare.read_text()

    def compile_from(program, folder):
        folder.mkdir()
        tools.run(
            "dshard-opt", program, f"--from={phase}", *again, f"--dump-phases-to={folder}", "-o", folder / "x.dsplan"
        )
        phases = []
        for dump in sorted(folder.glob("*.mlir")):
            phases.append(tools.run("dshard-opt", dump, "--strip-debuginfo").stdout)
        return phases, print_plan(folder / "x.dsplan")

    full_phases, full_plan = compile_from(full, tmp_path / "with")
    bare_phases, bare_plan = compile_from(bare, tmp_path / "without")
    assert len(full_phases) == len(PHASES) - 1 - PHASES.index(phase)
    # The IR of the phase plan names its buffers and nodes; the printed plan is compared instead.
    assert bare_phases[:-1] == full_phases[:-1]
    assert "node=" in full_plan
    assert without_names(bare_plan) == without_names(full_plan)
