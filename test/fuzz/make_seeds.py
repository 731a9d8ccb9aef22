#!/usr/bin/env python3
"""Write what the fuzzers begin with: good models, IR of every phase, plans.

Usage: make_seeds.py BIN FOLDER

BIN holds dshard-opt. They are made anew and not kept, because formats and
syntax change; what is kept in seeds/ are inputs that once were findings.
"""

import json
import pathlib
import re
import subprocess
import sys

import onnx

TEST = pathlib.Path(__file__).resolve().parent.parent
MODELS = TEST / "models"
LARGEST_CASE = 2000  # bytes
LARGEST_TEXT = 64 << 10
DIMS = {"mlp": ["--dim", "batch=4"], "llama-small": ["--dim", "batch=2", "--dim", "seq=8"]}
MLP_PLAN = f"--tp-plan={MODELS / 'mlp-tp.json'}"
# name -> model, flags
COMPILATIONS = {
    "one": ("mlp", []),
    "tp": ("mlp", ["--mesh=tp=2", MLP_PLAN]),
    "fsdp": ("mlp", ["--mesh=dp_shard=2"]),
    "llama-tp": ("llama-small", ["--mesh=tp=2", "--sequence-parallel"]),
    "llama-cp": ("llama-small", ["--mesh=cp=2"]),
    "llama-pp": ("llama-small", ["--mesh=pp=2", "--micro-batches=2"]),
    "llama-train": ("llama-small", ["--mesh=dp_shard=2", "--train={train}"]),
}
PHASES = ("import", "graph", "train", "annotate", "resolve", "local", "schedule", "plan")


def bare_model(name):
    """Without the exporter's notes, which would take most of the mutations."""
    model = onnx.load(MODELS / f"{name}.onnx", load_external_data=False)
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        kept = [p for p in node.metadata_props if p.key.endswith("name_scopes")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return model.SerializeToString()


def write_models(folder):
    for name in DIMS:
        (folder / f"{name}.onnx").write_bytes(bare_model(name))
    import onnx.backend.test.case.node as node_cases

    perOp = {}
    for case in node_cases.collect_testcases(None):
        data = case.model.SerializeToString()
        ops = ",".join(n.op_type for n in case.model.graph.node)
        if len(data) <= LARGEST_CASE and perOp.setdefault(ops, 0) < 2:
            perOp[ops] += 1
            (folder / f"{case.name}.onnx").write_bytes(data)


def without_locations(text):
    """They are half of the text, and nothing depends on them."""
    text = re.sub(r"^#loc\d* = .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r" loc\((?:[^()]|\([^()]*\))*\)", "", text)


def compile_model(binary, folder, model, flags, train):
    flags = [flag.format(train=train) for flag in flags]
    path = MODELS / f"{model}.onnx"
    return [binary / "dshard-opt", path, *DIMS[model], "--quiet", "--target=cpu:x86-64-v3", *flags]


def main():
    binary, folder = map(pathlib.Path, sys.argv[1:])
    for target in ("import", "ir", "plan"):
        (folder / target).mkdir(parents=True, exist_ok=True)
    write_models(folder / "import")
    train = folder / "train.json"
    train.write_text(json.dumps({"shift_labels": True, "clip_norm": 1.0}))
    for name, (model, flags) in COMPILATIONS.items():
        command = compile_model(binary, folder, model, flags, train)
        subprocess.run([*command, "-o", folder / "plan" / f"{name}.dsplan"], check=True)
        for phase in PHASES:
            out = folder / "ir" / f"{name}-{phase}.mlir"
            subprocess.run([*command, f"--to={phase}", "-o", out], check=True)
            text = without_locations(out.read_text())
            out.write_text(text)
            if len(text) > LARGEST_TEXT:
                out.unlink()


main()
