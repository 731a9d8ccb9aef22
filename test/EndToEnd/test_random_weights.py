"""scripts/fill-weights, Support/Philox.h and dshard-run --random-weights agree bit for bit."""

import importlib.machinery
import importlib.util
import shutil
import subprocess

import numpy as np
import pytest

import families
import tools

PROGRAM = r"""
#include "dshard/Support/Philox.h"
#include <cstdio>
int main() {
  for (unsigned long long fanIn : {0ull, 1ull, 511ull}) {
    dshard::RandomStream stream(7, "model.layers.0.self_attn.q_proj.weight");
    for (uint64_t i = 0; i < 100003; ++i) {
      float value = stream.weight(i, fanIn);
      fwrite(&value, sizeof value, 1, stdout);
    }
  }
}
"""


def load_script():
    path = str(tools.ROOT / "scripts" / "fill-weights")
    loader = importlib.machinery.SourceFileLoader("fill_weights", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fill_weights", loader))
    loader.exec_module(module)
    return module


def test_script_equals_header(tmp_path):
    (tmp_path / "main.cpp").write_text(PROGRAM)
    command = ["g++", "-std=c++17", "-O1", "-I", str(tools.ROOT / "include")]
    command += [str(tmp_path / "main.cpp"), "-o", str(tmp_path / "main")]
    subprocess.run(command, check=True)
    header = subprocess.run([str(tmp_path / "main")], check=True, capture_output=True).stdout
    script = load_script()
    ours = b"".join(
        piece.tobytes()
        for fan_in in (0, 1, 511)
        for piece in script.random_weight("model.layers.0.self_attn.q_proj.weight", 100003, fan_in, 7)
    )
    assert ours == header


@pytest.mark.parametrize("name", ["mlp", "llama-small", "llama-small-bf16", "llama-small-fp16"])
def test_runtime_makes_the_same_bytes(name, tmp_path):
    """One plan, compiled without weights: random weights and the filled file give equal outputs."""
    model = tmp_path / f"{name}.onnx"
    shutil.copyfile(tools.MODELS / model.name, model)
    if name == "mlp":
        dims, inputs, output = {"batch": 16}, tools.mlp_inputs(16), "y"
    else:
        dims, inputs, output = {"batch": 2, "seq": 16}, tools.llama_inputs(256, 2, 16), "logits"
    plan = tmp_path / "model.dsplan"
    tools.compile_plan(model, plan, "tp=2", dims)
    random, _ = tools.run_plan(plan, inputs, [output], tmp_path, "--random-weights=5")
    tools.fill_weights(model, seed=5)
    filled, _ = tools.run_plan(plan, inputs, [output], tmp_path)
    other, _ = tools.run_plan(plan, inputs, [output], tmp_path, "--random-weights=6")
    assert random[output].tobytes() == filled[output].tobytes()
    assert random[output].tobytes() != other[output].tobytes()
    assert np.abs(filled[output].astype(np.float32)).max() > 0


@pytest.mark.parametrize("name", ["mistral", "llama-tied"])
def test_packed_weights(name, tmp_path):
    """Bytes of 4-bit numbers, their zero points and scales: the same bytes, and numbers of an ordinary size."""
    model = tmp_path / "model.onnx"
    shutil.copyfile(families.path_of(f"genai-int4/{name}"), model)
    graph = families.onnx.load(str(model), load_external_data=False)
    inputs = families.inputs_of(graph, "genai-int4")
    plan = tmp_path / "model.dsplan"
    tools.compile_plan(model, plan, "", families.dims_of(graph, "genai-int4"))
    random, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path, "--random-weights=5")
    tools.fill_weights(model, seed=5)
    filled, _ = tools.run_plan(plan, inputs, ["logits"], tmp_path)
    assert random["logits"].tobytes() == filled["logits"].tobytes()
    assert 0.5 < filled["logits"].std() < 2
