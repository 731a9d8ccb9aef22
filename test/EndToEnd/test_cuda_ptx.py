"""The PTX of whole plans: ptxas takes it for every architecture, and kernels that wait for memory move 128 bits at a time."""

import json
import re
import shutil
import subprocess

import pytest

import tools

PTXAS = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
ARCHITECTURES = ["sm_80", "sm_90", "sm_100"]
needs_ptxas = pytest.mark.skipif(PTXAS is None, reason="no ptxas in PATH or /usr/local/cuda/bin; CUDA's toolkit has it")
# Model, mesh and flags, whether with a training step.
PLANS = [
    ("mlp", "", False),
    ("mlp", "dp_replicate=2,tp=2", True),
    ("llama-small", "tp=2 --sequence-parallel", False),
    ("llama-small", "cp=2", False),
    ("llama-small", "cp=2 --cp-method=all_gather", False),
    ("llama-small", "cp=2 --cp-method=all_to_all", False),
    ("llama-small", "pp=2 --micro-batches=2", False),
    ("llama-small", "", True),
    ("llama-small", "dp_shard=2,tp=2 --sequence-parallel", True),
    ("llama-small-bf16", "tp=2", False),
]


def ptx_of(name, mesh, training, target, folder, seq=16):
    """The text that the plan carries. No weights are needed for it."""
    mesh, *flags = mesh.split(" ")
    if training:
        config = {"logits": "y"} if name == "mlp" else {"shift_labels": True, "clip_norm": 1.0}
        (folder / "train.json").write_text(json.dumps(config))
        flags.append(f"--train={folder / 'train.json'}")
    dims = {"batch": 16} if name == "mlp" else {"batch": 4, "seq": seq}
    tools.compile_plan(tools.MODELS / f"{name}.onnx", folder / "p.dsplan", mesh, dims, *flags, f"--target=cuda:{target}")
    data = (folder / "p.dsplan").read_bytes()
    begin = data.index(b".version ")
    return data[begin : data.index(b"\0", begin)].decode()


@needs_ptxas
@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("name,mesh,training", PLANS)
def test_ptxas_takes_it(name, mesh, training, target, tmp_path):
    text = ptx_of(name, mesh, training, target, tmp_path)
    assert f".target {target}\n" in text and text.count(".visible .entry") >= 1
    (tmp_path / "p.ptx").write_text(text)
    command = [PTXAS, f"-arch={target}", "-O1", tmp_path / "p.ptx", "-o", tmp_path / "cubin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:1000]


@needs_ptxas
def test_ptxas_refuses_what_is_wrong(tmp_path):
    """The check above can fail."""
    text = ptx_of("mlp", "", False, "sm_90", tmp_path)
    (tmp_path / "p.ptx").write_text(text.replace("st.global", "st.globe"))
    done = subprocess.run([PTXAS, "-arch=sm_90", tmp_path / "p.ptx", "-o", tmp_path / "cubin"], capture_output=True)
    assert done.returncode != 0


def accesses(text):
    """Kernel name → {access: how often}, as {"ld.global.nc.v4.b32": 2}."""
    found = {}
    for body in re.split(r"(?=\.visible \.entry )", text)[1:]:
        name = re.match(r"\.visible \.entry k\d+_(\w+)", body)[1]
        counts = found.setdefault(name, {})
        for access in re.findall(r"\b(?:ld|st)\.global[.\w]*", body):
            counts[access] = counts.get(access, 0) + 1
    return found


def bits(access):
    return int(re.search(r"\d+$", access)[0]) * int((re.search(r"\.v(\d)", access) or [0, 1])[1])


# Kernels over all tokens or all parameters, and what they read a number of at a time: ids and labels, one per row, and
# the step's scalars (b32).
WIDE = [
    ("gather", {"b64"}),  # the embedding
    ("rms_norm", set()),
    ("add_rms_norm", set()),
    ("rotary", set()),
    ("swiglu", set()),
    ("sub_exp_compare", {"b64", "b32"}),  # the loss's gradient
    ("sub_exp_reduce", {"b32"}),  # the softmax's sum
    ("mul_sub_div", {"b8", "b32"}),  # AdamW
]


@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("name", ["llama-small", "llama-small-bf16"])
def test_memory_moves_in_128_bits(name, target, tmp_path):
    """Every vector access of those kernels is 128 bits wide, and there are both loads and stores of that kind."""
    training = name == "llama-small"
    mesh = "tp=2 --sequence-parallel"
    found = accesses(ptx_of(name, mesh, training, target, tmp_path, seq=32))
    for ending, narrow in WIDE:
        kernels = {kernel: counts for kernel, counts in found.items() if kernel.endswith(ending)}
        assert kernels or not training, f"no kernel ends in {ending}: {list(found)}"
        for kernel, counts in kernels.items():
            rest = {access for access in counts if bits(access) != 128 and access.rsplit(".", 1)[1] not in narrow}
            assert not rest and any(bits(a) == 128 for a in counts if a.startswith("ld.")), (kernel, counts)
            if not ending.endswith("reduce"):  # one number per row
                assert any(bits(a) == 128 for a in counts if a.startswith("st.")), (kernel, counts)
                assert not any(bits(a) < 128 for a in counts if a.startswith("st.")), (kernel, counts)
