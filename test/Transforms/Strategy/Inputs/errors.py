"""Runs dshard-tensor-parallel with one wrong plan after another; prints name and message.

Usage: errors.py DSHARD_OPT MODULE.mlir FOLDER
"""

import json
import pathlib
import subprocess
import sys

OPT, MODULE, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
FOLDER.mkdir(parents=True, exist_ok=True)

PLANS = {
    "typo": {"blok.up": "colwise"},
    "far": {"transformer.h.*.attn": "colwise"},
    "style": {"block.up": "sideways"},
    "sequence": {"block.up": "sequence_parallel"},
    "number": {"block.up": 3},
    "field": {"block.up": {"style": "colwise", "output": "replicate"}},
    "layout": {"block.up": {"style": "colwise", "out": "shard"}},
    "no-style": {"block.up": {"out": "replicate"}},
    "no-layout": {"block.up": {"style": "prepare_output"}},
    "no-linear": {"block": "colwise"},
    "features": {"block.down": "colwise"},
    "shared": {"tied": "colwise", "tied_again": "rowwise"},
    "in": {"block.up": {"style": "colwise", "in": "shard(-1)"}},
    "dim": {"block.up": {"style": "colwise", "out": "shard(7)"}},
    "empty": {},
    "list": ["colwise"],
}

for name, plan in PLANS.items():
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(plan))
for name in [*PLANS, "absent", "text", "llama"]:
    path = FOLDER / f"{name}.json"
    if name == "text":
        path.write_text("{block.up: colwise")
    if name == "llama":
        path = "llama"
    done = subprocess.run([OPT, MODULE, f"--dshard-tensor-parallel=plan={path}"], capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    print(f"{name}: status {done.returncode}, {len(errors)} error: {errors[0].split('error: ', 1)[1] if errors else ''}")
