"""One contest, in one process: reads a JSON object from standard input, writes one to standard output.

In:  model (file.onnx; a contestant may have its own), inputs (name -> file.npy), rounds, pause (seconds), torch (name of the
     model in models.py or null), contestants: a list of {kind, name, threads, plan?} where kind
     is dshard, onnxruntime, openvino or torch
Out: samples (name -> [[wall ms, CPU ms] per call]), skipped (name -> why), difference (name ->
     largest |difference| of the first output from onnxruntime's, of the largest |value|)

The contestants are called in turns, after two calls each that do not count. CPU time is the
whole process's during the call, pauses left out: on a busy machine it tells more than the wall's.
Runs under any Python that has what the contestants need (.venv-peers has it all).
"""

import ctypes
import json
import os
import pathlib
import sys
import time

sys.dont_write_bytecode = True
import numpy as np  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIBRARY = pathlib.Path(os.environ.get("TESTED_BUILD", ROOT / "build")) / "lib" / "libdshard-runtime.so"


class Port(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("is_check", ctypes.c_int32),
    ]


class Tensor(ctypes.Structure):
    _fields_ = Port._fields_[:4] + [("data", ctypes.c_void_p)]


class Options(ctypes.Structure):
    _fields_ = [
        ("weights", ctypes.c_char_p),
        ("random_weights", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
    ]


class Dshard:
    """The C API of include/dshard/CAPI/Runtime.h."""

    DTYPES = {8: np.int64, 11: np.uint16, 12: np.float32}  # bf16 as its bits

    def __init__(self, entry, model, inputs):
        self.library = ctypes.CDLL(str(LIBRARY))
        for name in ("open", "verify"):
            getattr(self.library, f"dshard_plan_{name}").restype = ctypes.c_void_p
        for name in ("create", "load", "bind", "run"):
            getattr(self.library, f"dshard_session_{name}").restype = ctypes.c_void_p
        self.library.dshard_plan_output.restype = self.library.dshard_plan_input.restype = Port
        plan = ctypes.c_void_p()
        path = str(entry["plan"]).encode()
        self.check(self.library.dshard_plan_open(path, ctypes.byref(plan)))
        count = self.library.dshard_plan_outputs(plan, 0)
        ports = [self.library.dshard_plan_output(plan, 0, i) for i in range(count)]
        self.codes = [p.dtype for p in ports]
        self.outputs = [self.aligned([p.dims[d] for d in range(p.rank)], self.DTYPES[p.dtype]) for p in ports]
        names = [p.name for p in ports]
        count = self.library.dshard_plan_inputs(plan, 0)
        taken = {p.name.decode(): p.dtype for p in (self.library.dshard_plan_input(plan, 0, i) for i in range(count))}
        options = Options(str(model.parent).encode(), 0, 0, entry["threads"])
        self.session = ctypes.c_void_p()
        self.check(self.library.dshard_session_create(path, ctypes.byref(options), ctypes.byref(self.session)))
        self.check(self.library.dshard_session_load(self.session))
        codes = [taken[name] for name in inputs]
        self.inputs = [self.aligned(a.shape, self.DTYPES[code]) for a, code in zip(inputs.values(), codes)]
        for mine, array in zip(self.inputs, inputs.values()):
            mine[...] = array if mine.dtype == array.dtype else array.view(np.uint32) >> 16
        self.given = self.tensors([n.encode() for n in inputs], self.inputs, codes)
        self.wanted = self.tensors(names, self.outputs, self.codes)
        for tensor in [*self.given, *self.wanted]:
            # Refused where it is sharded; then it is copied.
            self.library.dshard_session_bind(self.session, b"run", tensor.name, ctypes.c_void_p(tensor.data))

    @staticmethod
    def aligned(shape, dtype):
        count = int(np.prod(shape))
        memory = np.zeros(count + 64, dtype)
        skip = -memory.ctypes.data % 64 // memory.itemsize
        return memory[skip : skip + count].reshape(shape)

    def check(self, error):
        if error:
            raise RuntimeError(ctypes.string_at(error).decode())

    def tensors(self, names, arrays, codes):
        result = (Tensor * len(arrays))()
        for tensor, name, array, code in zip(result, names, arrays, codes):
            dims = (ctypes.c_int64 * array.ndim)(*array.shape)
            tensor.name, tensor.dtype, tensor.rank, tensor.dims = name, code, array.ndim, dims
            tensor.data = array.ctypes.data
        return result

    def run(self):
        self.check(
            self.library.dshard_session_run(
                self.session, b"run", self.given, len(self.given), self.wanted, len(self.wanted)
            )
        )

    def output(self):
        first = self.outputs[0]
        return first if first.dtype == np.float32 else (first.astype(np.uint32) << 16).view(np.float32)


class OnnxRuntime:
    def __init__(self, entry, model, inputs):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = entry["threads"]
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        for name, array in inputs.items():
            self.binding.bind_cpu_input(name, array)
        self.values = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in self.session.run(None, inputs)]
        for output, value in zip(self.session.get_outputs(), self.values):
            self.binding.bind_ortvalue_output(output.name, value)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def output(self):
        return self.values[0].numpy()


class OpenVino:
    def __init__(self, entry, model, inputs):
        import openvino

        core = openvino.Core()
        graph = core.read_model(str(model))
        graph.reshape({name: list(array.shape) for name, array in inputs.items()})
        properties = {
            "INFERENCE_NUM_THREADS": entry["threads"],
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self.request = core.compile_model(graph, "CPU", properties).create_infer_request()
        for name, array in inputs.items():
            self.request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(array)))

    def run(self):
        self.request.infer()

    def output(self):
        return self.request.get_output_tensor(0).data


class Torch:
    """Eager, the exported module itself; its weights are others (times do not depend on them)."""

    def __init__(self, entry, model, inputs):
        import torch

        import models

        self.torch, self.threads = torch, entry["threads"]
        values = [torch.from_numpy(array) for array in inputs.values()]
        if entry["model"] in models.ATTENTION:
            self.module, self.arguments = models.Attention(models.ATTENTION[entry["model"]]), values
            return
        self.module = models.MODELS[entry["model"]]()["module"].eval()
        self.arguments = values[:2] + ([values[2:]] if len(values) > 2 else [])

    def run(self):
        if self.torch.get_num_threads() != self.threads:
            self.torch.set_num_threads(self.threads)
        with self.torch.no_grad():
            self.module(*self.arguments)

    def output(self):
        return None


KINDS = {"dshard": Dshard, "onnxruntime": OnnxRuntime, "openvino": OpenVino, "torch": Torch}


def main():
    task = json.load(sys.stdin)
    model = pathlib.Path(task["model"])
    inputs = {name: np.load(path) for name, path in task["inputs"].items()}
    runners, skipped = {}, {}
    for entry in task["contestants"]:
        try:
            runners[entry["name"]] = KINDS[entry["kind"]](entry, pathlib.Path(entry.get("file", model)), inputs)
        except ImportError as error:
            skipped[entry["name"]] = str(error)
    samples = {name: [] for name in runners}
    for number in range(task["rounds"] + 2):
        for name, runner in runners.items():
            time.sleep(task["pause"])
            cpu, begin = time.process_time(), time.perf_counter()
            runner.run()
            took = [(time.perf_counter() - begin) * 1e3, (time.process_time() - cpu) * 1e3]
            if number >= 2:
                samples[name].append(took)
    reference = next((r.output() for n, r in runners.items() if isinstance(r, OnnxRuntime)), None)
    difference = {}
    for name, runner in runners.items():
        if reference is not None and isinstance(runner, (Dshard, OpenVino)):
            size = max(1.0, float(np.abs(reference).max()))
            difference[name] = float(np.abs(np.asarray(runner.output()) - reference).max()) / size
    json.dump({"samples": samples, "skipped": skipped, "difference": difference}, sys.stdout)


if __name__ == "__main__":
    main()
