"""Runs of BERT-base and of a 12-layer Llama against onnxruntime, OpenVINO and PyTorch.

Each setting (threads) is one process that calls its contestants in turns (contest.py). A
ratio is the peer's time by ours: above 1 we are faster. The models are made by models.py.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import numpy as np

import measure
import models
import tools

PEERS = measure.ROOT / ".venv-peers" / "bin" / "python"
PEER_KINDS = ("onnxruntime", "openvino", "torch")
# Multiplications and additions of a run's products, in 1e9: all layers, attention (causal: half
# of the scores) and, of the Llama, the logits of all positions.
GFLOP = {"bert-base": 22.35, "llama-12": 107.3, "attention": 0.805, "attention-causal": 0.403}
GFLOP |= {
    name: 2e-9 * rows * models.PREFILL_PRODUCTS * models.PREFILL_SIZES[0] * models.PREFILL_SIZES[1]
    for name, rows in models.PREFILL.items()
}
DECODE_GFLOP = 0.25
# Without a PyTorch form, and not sharded here.
PLAIN = {*models.QUANTISED, *models.PREFILL}
DIMS = {"bert-base": {"batch": 1, "seq": 128}, "llama-12": {"batch": 1, "seq": 512}}
# --check: the least ratio to a peer, best to best and median to median.
BOUNDS = {
    ("bert-base", 1): {"onnxruntime": 1.10, "openvino": 1.08},
    ("bert-base", 2): {"onnxruntime": 1.15, "openvino": 1.10},
    ("llama-12", 1): {"onnxruntime": 1.10, "openvino": 1.08},
    ("llama-12", 2): {"onnxruntime": 1.15, "openvino": 1.10},
    ("llama-12-decode", 1): {"onnxruntime": 1.0},
    ("llama-12-decode-bf16", 1): {"onnxruntime": 1.9},  # in fp32
    ("llama-12-decode-int8", 1): {"onnxruntime": 1.4},
    ("llama-12-decode-int4", 1): {"onnxruntime": 2.5},
    ("llama-12-decode-int4-int8", 1): {"onnxruntime": 1.4},
    **{(name, 1): {"onnxruntime": 1.5} for name in models.PREFILL},
    ("attention", 1): {"onnxruntime": 1.0, "openvino": 1.0, "torch": 1.0},
    ("attention-causal", 1): {"onnxruntime": 1.4, "openvino": 1.4, "torch": 1.4},
}
PAUSE_SECONDS = 0.25  # OpenMP's threads, PyTorch's, spin on for 0.2
SHARDED = 0.95  # of our own speed on the same cores without sharding


def peak(folder):
    """GFLOP/s of one core."""
    program = folder / "peak"
    source = pathlib.Path(__file__).with_name("peak.c")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", source, "-o", program], check=True)
    return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def inputs_of(name, folder):
    random = np.random.default_rng(0)
    if name.startswith("llama-12-decode"):
        layers, heads = models.LLAMA["layers"], models.LLAMA["kv_heads"]
        size = models.LLAMA["hidden"] // models.LLAMA["heads"]
        arrays = {
            "input_ids": np.full((1, 1), 7, np.int64),
            "attention_mask": np.ones((1, models.CACHED + 1), np.int64),
        }
        for layer in range(layers):
            for kind in ("key", "value"):
                cache = random.standard_normal((1, heads, models.CACHED, size))
                arrays[f"past_{kind}_{layer}"] = cache.astype(np.float32)
    elif name in models.PREFILL:
        arrays = {"x": random.standard_normal((models.PREFILL[name], models.PREFILL_SIZES[0])).astype(np.float32)}
    elif name in models.ATTENTION:
        arrays = {key: random.standard_normal((1, 12, 512, 64)).astype(np.float32) for key in "qkv"}
    else:
        seq = DIMS[name]["seq"]
        arrays = {
            "input_ids": random.integers(0, 30000, (1, seq), dtype=np.int64),
            "attention_mask": np.ones((1, seq), np.int64),
        }
    paths = {}
    for key, array in arrays.items():
        paths[key] = str(folder / f"{key}.npy")
        np.save(paths[key], array)
    return paths


def contest(name, model, plans, threads, rounds, inputs):
    entries = [{"kind": "dshard", "name": f"1 rank x {threads}", "plan": str(plans[""]), "threads": threads}]
    if threads > 1 and "tp=2" in plans:
        sharded = {"kind": "dshard", "name": "tp=2 x 1", "plan": str(plans["tp=2"]), "threads": threads // 2}
        entries.append(sharded)
    # Where there is no such file for them, the peers run fp32.
    peers = "llama-12-decode" if name == "llama-12-decode-bf16" else name
    kinds = [kind for kind in PEER_KINDS if kind != "torch" or peers not in PLAIN]
    for kind in kinds:
        file = str(model.with_name(f"{peers}.onnx"))
        entries.append({"kind": kind, "name": kind, "threads": threads, "model": peers, "file": file})
    task = {
        "model": str(model),
        "inputs": inputs,
        "rounds": rounds,
        "pause": PAUSE_SECONDS,
        "contestants": entries,
    }
    python = PEERS if PEERS.exists() else sys.executable
    environment = {k: v for k, v in os.environ.items() if k != "DSHARD_THREADS"}
    environment |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, pathlib.Path(__file__).with_name("contest.py")],
        input=json.dumps(task),
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"contest.py failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def judge(name, threads, samples):
    """The bounds that a contest missed."""
    missed = []

    def figures(key):
        wall = [sample[0] for sample in samples[key]]
        return {"best": min(wall), "median": statistics.median(wall)}

    ours = figures(f"1 rank x {threads}")
    for peer, bound in BOUNDS.get((name, threads), {}).items():
        if peer not in samples:
            continue
        for figure, value in figures(peer).items():
            if value / ours[figure] < bound:
                missed.append(
                    f"{name}, {threads} threads: {figure} {value / ours[figure]:.2f} x the speed of {peer}, "
                    f"at least {bound:.2f} is wanted"
                )
    if "tp=2 x 1" in samples and (name, 2) in BOUNDS:
        ratio = ours["best"] / figures("tp=2 x 1")["best"]
        if ratio < SHARDED:
            missed.append(f"{name}: tp=2 runs at {ratio:.2f} of the speed of 1 rank, at least {SHARDED} is wanted")
    return missed


def speed(name):
    def benchmark(rounds, folder):
        model = models.FOLDER / f"{name}.onnx"
        if not model.exists():
            raise RuntimeError(f"{model} is missing: run .venv-peers/bin/python test/benchmarks/models.py {name}")
        inputs = inputs_of(name, folder)
        plans = {}
        for mesh in [""] if name in PLAIN or name in models.ATTENTION else ["", "tp=2"]:
            plans[mesh] = folder / f"plan{mesh}.dsplan"
            tools.compile_plan(model, plans[mesh], mesh, DIMS.get(name, {}))
        rows, missed, raw, notes = [], [], [], []
        core = peak(folder)
        gflop = GFLOP.get(name, DECODE_GFLOP)
        worst = 0.0
        for threads in sorted({1, min(2, len(os.sched_getaffinity(0)))}):
            meter = measure.Meter()
            result = contest(name, model, plans, threads, rounds, inputs)
            worst = max(worst, meter.others())
            samples = result["samples"]
            missed += judge(name, threads, samples)
            ours = samples[f"1 rank x {threads}"]
            for key, values in samples.items():
                wall, cpu = [v[0] for v in values], [v[1] for v in values]
                ratios = [f(v[0] for v in values) / f(v[0] for v in ours) for f in (min, statistics.median)]
                rows.append(
                    [
                        f"{threads} threads",
                        key,
                        f"{statistics.median(wall):.1f} ms",
                        f"{min(wall):.1f} ms",
                        f"{100 * (max(wall) - min(wall)) / statistics.median(wall):.0f} %",
                        f"{gflop / min(wall) * 1e3:.0f}",
                        f"{100 * gflop / min(wall) * 1e3 / core / threads:.0f} %",
                        f"{ratios[0]:.2f}",
                        f"{ratios[1]:.2f}",
                        f"{min(cpu):.1f} ms",
                        f"{min(cpu) / min(v[1] for v in ours):.2f}",
                    ]
                )
                raw += [f"  {threads} threads | {key} | " + " ".join(f"{v[0]:.2f}/{v[1]:.2f}" for v in values)]
            notes += [f"not here: {key} ({why})" for key, why in result["skipped"].items()]
            notes += [
                f"{threads} threads, {key}: largest difference from onnxruntime {d:.1e} of the largest output"
                for key, d in result["difference"].items()
            ]
        header = [name, "", "median", "best", "spread", "GFLOP/s", "of peak"]
        header += ["time by ours: best", "median", "CPU time, best", "by ours"]
        text = measure.table(header, rows) + f"\npeak of a core: {core:.1f} GFLOP/s\n" + "\n".join(notes)
        return text, "samples, milliseconds wall/CPU, one per call\n" + "\n".join(raw), missed, worst

    return benchmark


BENCHMARKS = {name: speed(name) for name in [*models.MODELS, *models.QUANTISED, *models.PREFILL, *models.ATTENTION]}
