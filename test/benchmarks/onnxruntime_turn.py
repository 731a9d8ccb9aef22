"""One turn of onnxruntime: MODEL THREADS WARMUP REPEAT NAME=FILE.npy...

Prints the milliseconds of each run as a JSON list. Inputs and outputs are bound to
arrays made beforehand, as the arena of a plan is.
"""

import json
import sys
import time

import numpy as np
import onnxruntime

model, threads, warmup, repeat = sys.argv[1], *map(int, sys.argv[2:5])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.log_severity_level = 3
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
inputs = {name: np.load(path) for name, path in (a.split("=", 1) for a in sys.argv[5:])}
binding = session.io_binding()
for name, array in inputs.items():
    binding.bind_cpu_input(name, array)
for output, array in zip(session.get_outputs(), session.run(None, inputs)):
    array = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    binding.bind_ortvalue_output(output.name, array)
times = []
for number in range(warmup + repeat):
    begin = time.perf_counter()
    session.run_with_iobinding(binding)
    if number >= warmup:
        times.append((time.perf_counter() - begin) * 1e3)
print(json.dumps(times))
