"""Long models and many ranks: what the compiler makes grows with the layers, not faster, and not with the ranks.

Times are scale.py's; here operations and bytes are counted.
"""

import json
import pathlib
import re
import resource
import subprocess
import sys

import onnx
import pytest

import large_llama
import scale

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "EndToEnd"))
import tools  # noqa: E402

DIMS = ["--dim", "batch=512", "--dim", "seq=16"]


def small(layers):
    """Widths that 4,096 ranks divide, so that none pads; the compiler does not see them otherwise."""
    return large_llama.Shape(
        layers=layers, hidden=4096, intermediate=4096, heads=16, kv_heads=8, vocabulary=4096, head=256
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    for layers in (10, 20, 40, 80):
        large_llama.write(folder / f"{layers}.onnx", small(layers))
    (folder / "train.json").write_text(json.dumps({"shift_labels": True, "clip_norm": 1.0}))
    return folder


def compiled(model, out, *flags):
    done = tools.start("dshard-opt", model, *DIMS, "--quiet", *flags, "-o", out)
    assert done.status == 0, done.stderr
    return out


def counts(plan):
    done = tools.start("dshard-plan", "stat", "--json", plan)
    assert done.status == 0, done.stderr
    return {p["name"]: sum(p["instructions"].values()) for p in json.loads(done.stdout)["programs"]}


def test_generator_repeats_the_export(tmp_path):
    """With the export's own sizes, its nodes are the export's, but for one count that it had merged with an axis."""
    large_llama.write(tmp_path / "same.onnx", large_llama.EXPORTED)
    ours = onnx.load(tmp_path / "same.onnx", load_external_data=False).graph
    exported = onnx.load(tools.MODELS / "llama.onnx", load_external_data=False).graph
    different = [a.name for a, b in zip(exported.node, ours.node, strict=True) if a != b]
    assert different == ["node_Concat_112"]
    assert (tmp_path / "same.onnx.data").stat().st_size == 4 * large_llama.EXPORTED.parameters()


def test_sizes_are_those_of_the_models():
    assert large_llama.LLAMA_70B.parameters() == pytest.approx(70.55e9, rel=1e-3)
    assert large_llama.LLAMA_405B.parameters() == pytest.approx(405.85e9, rel=1e-3)


@pytest.mark.parametrize("layers,train", [(20, False), (10, True)], ids=["inference", "training"])
def test_plans_grow_with_the_layers(layers, train, models):
    """A layer more costs the same at any depth: 20 -> 40 adds half of what 40 -> 80 does."""
    few, more, many = layers, 2 * layers, 4 * layers
    flags = ["--mesh=dp_shard=8,tp=8"] + ([f"--train={models / 'train.json'}"] if train else [])
    plans = {n: compiled(models / f"{n}.onnx", models / f"{n}.dsplan", *flags) for n in (few, more, many)}
    count = {n: counts(plan) for n, plan in plans.items()}
    assert set(count[few]) == {"load", "run"} | ({"train_step"} if train else set())
    for program in count[few]:
        first, second = count[more][program] - count[few][program], count[many][program] - count[more][program]
        assert first >= layers, f"{program}: {layers} layers more are {first} instructions"
        assert abs(second - 2 * first) <= 2 * first // 20, f"{program}: {first}, then {second} instructions"
    sizes = {n: plan.stat().st_size for n, plan in plans.items()}
    assert sizes[many] - sizes[more] <= 2.2 * (sizes[more] - sizes[few]) + 8192, sizes


def test_plans_do_not_grow_with_the_ranks(models):
    """64 and 4,096 ranks: the same instructions; tables over coordinates are all that grows, once each."""
    few, many = (
        compiled(models / "80.onnx", models / f"dp{dp}.dsplan", f"--mesh=dp_shard={dp},tp=8")
        for dp in (8, 512)
    )
    assert counts(few) == counts(many)
    growth = many.stat().st_size - few.stat().st_size
    tables = 16  # more than there are kinds of weights
    assert growth <= tables * 8 * 4096, f"{growth} bytes more"


def test_compiler_reads_the_ends_of_weights_only(tmp_path):
    """70B parameters in a file of holes: 282 GB cannot be read, and 1 GiB holds all that is kept."""
    model = tmp_path / "70b.onnx"
    size = large_llama.write(model, large_llama.LLAMA_70B)
    assert size > 2e11 and pathlib.Path(f"{model}.data").stat().st_blocks == 0
    command = [tools.build_dir() / "bin" / "dshard-opt", model, "--mesh=dp_shard=8,tp=8", "--to=import", "-o", "/dev/null"]
    limit = 4 << 30  # of addresses: a mapping of the file would not fit

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    if tools.sanitized():
        bounded = None  # noqa: F811
    done = subprocess.run([*map(str, command), *DIMS, "--quiet"], preexec_fn=bounded, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_check_is_red_outside_the_bounds(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(scale.SHAPES, "70b", small(4))
    monkeypatch.setitem(scale.CPU_SECONDS, "70b", 1e-3)
    monkeypatch.setattr(scale, "TP", 8)
    monkeypatch.setattr("sys.argv", ["scale.py", "70b", "--check", "--rounds", "1", "--no-training"])
    assert scale.main() == 1
    assert re.search(r"out of bounds: 70b inference, 64 ranks: .* CPU seconds > 0", capsys.readouterr().err)
