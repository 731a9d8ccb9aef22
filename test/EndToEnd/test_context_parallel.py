"""Context parallelism: outputs against onnxruntime on meshes with cp, by every
method and in every order of the sequence; memory; refusals."""

import numpy as np
import pytest

import families
import plans
import tools

MIB = 1 << 20

def compile_plan(model, plan, mesh, dims, *more):
    mesh, flags = plans.split(mesh)
    return tools.compile_plan(model, plan, mesh, dims, *flags, *more)


def check(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert tools.largest_difference(ours, theirs) <= tools.tolerance(theirs)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("mesh", plans.CONTEXT)
def test_llama_small(mesh, padding, filled, reference, tmp_path):
    """By ring, zigzag. Left padding gives rows that attend nothing: the mean over all ranks' values."""
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 4, 32, padding)
    theirs = reference(model, f"batch 4, seq 32, {padding}", inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    compile_plan(model, plan, mesh, {"batch": 4, "seq": 32})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)


@pytest.mark.parametrize("mesh", plans.CONTEXT_WAYS)
def test_methods_and_layouts(mesh, filled, reference, tmp_path):
    model = filled("llama-small")
    inputs = tools.llama_inputs(256, 4, 32, "left")
    theirs = reference(model, "batch 4, seq 32, left", inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    compile_plan(model, plan, mesh, {"batch": 4, "seq": 32})
    outputs, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)


@pytest.mark.parametrize("mesh", plans.BIAS_CONTEXT)
@pytest.mark.parametrize("name", ["mpnet", "bloom"])
def test_bias(name, mesh, tmp_path):
    """Relative positions of each query and key, and ALiBi, of each key: a rank takes what its rows and the keys at hand need."""
    case = families.Case(f"dynamo/{name}", tmp_path)
    axes, *flags = mesh.split()
    outputs, _ = case.run(case.compile(axes, *flags))
    assert families.worst_difference(case.compared(outputs)) <= 1


def test_runs_are_bitwise_equal(filled, tmp_path):
    inputs = tools.llama_inputs(256, 4, 32, "left")
    plan = tmp_path / "llama.dsplan"
    compile_plan(filled("llama-small"), plan, "cp=4", {"batch": 4, "seq": 32})
    first, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    second, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    assert first["logits"].tobytes() == second["logits"].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", plans.LLAMA_CONTEXT_METHODS)
@pytest.mark.parametrize("mesh,seq", [(mesh, 128) for mesh in plans.LLAMA_CONTEXT] + [("cp=2", 512)])
def test_llama(mesh, seq, method, filled, reference, tmp_path):
    model = filled("llama")
    inputs = tools.llama_inputs(32000, 2, seq, "left")
    theirs = reference(model, f"batch 2, seq {seq}, left", inputs)["logits"]
    plan = tmp_path / "llama.dsplan"
    dims = {"batch": 2, "seq": seq}
    compile_plan(model, plan, f"{mesh} --cp-method={method}", dims)
    outputs, report = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    check(outputs["logits"], theirs)
    planned, measured = tools.peak_memory(report)
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)


@tools.not_sanitized
def test_memory_does_not_grow(filled, tmp_path):
    plan = tmp_path / "llama.dsplan"
    compile_plan(filled("llama-small"), plan, "cp=2", {"batch": 2, "seq": 64})
    _, report = tools.run_plan(plan, tools.llama_inputs(256, 2, 64), ["logits"], tmp_path, "--repeat=1000")
    planned, measured = tools.peak_memory(report)
    assert abs(planned - measured) <= max(0.02 * planned, 4 * MIB)


@pytest.mark.parametrize("method", ["ring", "all_gather"])
def test_peak_memory_falls(method, filled, tmp_path):
    """Of one rank, with the weights whole on each (--fsdp=none): activations are divided."""
    model, dims = filled("llama"), {"batch": 2, "seq": 512}
    peaks = []
    for mesh in ("", f"cp=2 --fsdp=none --cp-method={method}"):
        plan = tmp_path / "llama.dsplan"
        compile_plan(model, plan, mesh or " ", dims) if mesh else tools.compile_plan(model, plan, "", dims)
        peaks.append(tools.plan_stat(plan)["memory_per_rank"]["arena"])
    assert peaks[1] < 0.65 * peaks[0]


def test_all_of_one_ranks_memory_falls(filled, tmp_path):
    """Weights and activations together; by default the weights are sharded, too (--fsdp=parameters)."""
    model, plan, peaks = filled("llama"), tmp_path / "llama.dsplan", {}
    for mesh in ("", "cp=2 --fsdp=none", "cp=2"):
        axes, *flags = mesh.split() or [""]
        tools.compile_plan(model, plan, axes, {"batch": 2, "seq": 512}, *flags)
        peaks[mesh] = tools.plan_stat(plan)["memory_per_rank"]["peak"]
    assert peaks["cp=2 --fsdp=none"] < 0.8 * peaks[""]
    assert peaks["cp=2"] < 0.72 * peaks[""]


@pytest.mark.parametrize(
    "mesh,dims,message",
    [
        ("cp=4 --cp-method=all_to_all", {"batch": 2, "seq": 32}, "4 ranks do not divide its 4 query heads and 2 KV heads"),
        ("cp=2 --cp-method=spiral", {"batch": 2, "seq": 32}, "unknown --cp-method 'spiral'"),
        ("cp=2 --cp-layout=spiral", {"batch": 2, "seq": 32}, "unknown --cp-layout 'spiral'"),
        ("cp=2 --cp-method=", {"batch": 2, "seq": 32}, "--cp-method needs a value"),
        ("cp=2 --cp-layout=", {"batch": 2, "seq": 32}, "--cp-layout needs a value"),
        ("tp=2 --cp-method=ring", {"batch": 2, "seq": 32}, "--cp-method is for a mesh with an axis cp > 1"),
    ],
)
def test_refusals(mesh, dims, message, filled, tmp_path):
    """The sequence that cp does not divide is in test_bad_input."""
    mesh, *flags = mesh.split()
    arguments = tools.compile_arguments(filled("llama-small"), mesh, dims)
    done = tools.start("dshard-opt", *arguments, *flags, "-o", tmp_path / "a.dsplan")
    assert done.status == (2 if "needs a value" in message else 1)
    assert len(done.lines()) == 1 and message in done.lines()[0], done.stderr


# ---- attention alone, in the fp64 interpreter, on random masks

PASSES = (
    "propagate insert-reshards verify-partial verify-resolved decompose-reshards partition verify-local form-kernels"
).split()


def attention_program(cp, heads, kv_heads, tp, size, causal, window, softcap, fully_masked, masked):
    q, k, v = f"2x{heads}x{size}x4xf32", f"2x{kv_heads}x{size}x4xf32", f"2x{kv_heads}x{size}x3xf32"
    result, lse, mask = f"2x{heads}x{size}x3xf32", f"2x{heads}x{size}xf32", f"2x{size}xi1"
    shardings = f', dshard.sharding = #dshard.sharding<[{{}}, {{"tp"}}, {{}}, {{}} ]>' if tp > 1 else ""
    names = 'dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>' + shardings
    keys = f', %keys: tensor<{mask}> {{dshard.name = "keys", dshard.dim_names = ["batch", "seq"]}}' if masked else ""
    flags = ", causal" * causal + (f", window = {window} : i64" if window >= 0 else "")
    flags += (f", softcap = {softcap} : f64" if softcap else "") + f", fully_masked = #dshard.fully_masked<{fully_masked}>"
    return f"""module attributes {{dshard.mesh = #dshard.mesh<"cp"={cp}, "tp"={tp}>}} {{
func.func @run(%q: tensor<{q}> {{{names}}}, %k: tensor<{k}> {{{names}}}, %v: tensor<{v}> {{{names}}}{keys}) -> (tensor<{result}>, tensor<{lse}>) {{
  %0:2 = dshard.attention %q, %k, %v{", %keys" * masked} {{scale = 0.5 : f64{flags}, path = "a", part = #dshard.part<forward>}} : (tensor<{q}>, tensor<{k}>, tensor<{v}>{f", tensor<{mask}>" * masked}) -> (tensor<{result}>, tensor<{lse}>)
  return %0#0, %0#1 : tensor<{result}>, tensor<{lse}>
}}
}}
"""


def draw_attention(seed, method, layout):
    rng = np.random.default_rng(seed)
    cp = int(rng.choice([2, 3, 4]))
    tp = int(rng.choice([1, 2]))
    kv_heads = tp * (cp if method == "all_to_all" else int(rng.choice([1, 2, 4])))
    size = 2 * cp * int(rng.integers(1, 5))
    causal = bool(rng.integers(4))
    window = int(rng.integers(1, size)) if method not in ("ring", "hierarchical") and causal and rng.integers(2) else -1
    masked = bool(rng.integers(3))
    text = attention_program(
        cp,
        kv_heads * int(rng.choice([1, 3])),
        kv_heads,
        tp,
        size,
        causal,
        window,
        float(rng.choice([0, 1.5])),
        str(rng.choice(["zero", "uniform"])),
        masked,
    )
    mask = rng.random((2, size)) < 0.5
    mask[0, : rng.integers(size + 1)] = False  # rows that attend nothing
    return text, mask if masked else None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "method,layout",
    [(m, l) for m in ("ring", "all_gather", "all_to_all", "hierarchical") for l in ("zigzag", "contiguous", "striped")],
)
def test_attention(method, layout, seed, tmp_path):
    for number in range(3):
        text, mask = draw_attention(100 * number + seed, method, layout)
        if method in ("all_gather", "hierarchical") and layout == "striped":
            text = text.replace(", causal", "").replace("window = ", "window = -")
        source, ordered, local = tmp_path / "a.mlir", tmp_path / "b.mlir", tmp_path / "c.mlir"
        source.write_text(text)
        tools.run("dshard-opt", source, f"--dshard-context-parallel=method={method} layout={layout}", "-o", ordered)
        tools.run("dshard-opt", ordered, *[f"--dshard-{name}" for name in PASSES], "-o", local)
        flags = ["--random-inputs=3"]
        if mask is not None:
            np.save(tmp_path / "keys.npy", mask)
            flags += ["--input", f"keys={tmp_path / 'keys.npy'}"]
        done = tools.start("dshard-interpret", source, "--against", ordered, "--against", local, "--rtol=1e-9", *flags)
        assert done.status == 0, f"{text}\n{done.stderr}"
