"""The two C libraries of a build, called in this process: what a case needs of them.

The package `dshard` is the same for users; this needs no installation, and takes the libraries of any build folder.
"""

import ctypes
import os
import pathlib

import numpy as np

try:
    import ml_dtypes

    BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    BFLOAT16 = np.dtype(np.uint16)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# dshard_dtype_t of CAPI/Runtime.h.
_TYPES = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
_TYPES += [np.float16, BFLOAT16, np.float32, np.float64]
DTYPES = {i + 1: np.dtype(t) for i, t in enumerate(_TYPES)}
CODES = {dtype: code for code, dtype in DTYPES.items()}


class Error(Exception):
    """The one line of text of the C libraries."""


class _Option(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_char_p)]


class _Port(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("is_check", ctypes.c_int32),
    ]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("data", ctypes.c_void_p),
    ]


class _SessionOptions(ctypes.Structure):
    _fields_ = [
        ("weights", ctypes.c_char_p),
        ("random_weights", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
    ]


class Library:
    def __init__(self, build=None):
        folder = pathlib.Path(build or os.environ.get("TESTED_BUILD") or ROOT / "build") / "lib"
        for name in ("libdshard-compiler.so", "libdshard-runtime.so"):
            if not (folder / name).exists():
                raise SystemExit(f"onnx-suite: {folder / name} does not exist: run scripts/build")
        self.compiler = ctypes.CDLL(str(folder / "libdshard-compiler.so"))
        self.runtime = ctypes.CDLL(str(folder / "libdshard-runtime.so"))
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]
        self.compiler.dshard_compile.restype = ctypes.c_void_p
        for name in ("plan_open", "plan_explain", "plan_verify", "session_create", "session_load", "session_run"):
            getattr(self.runtime, "dshard_" + name).restype = ctypes.c_void_p
        for name in ("plan_input", "plan_output"):
            getattr(self.runtime, "dshard_" + name).restype = _Port

    def _text(self, pointer):
        text = ctypes.string_at(pointer).decode("utf-8", "replace")
        self.free(pointer)
        return text

    def _check(self, pointer):
        if pointer:
            raise Error(self._text(pointer))

    def compile(self, model, flags, output):
        """`flags`: pairs of text, as dshard-opt's."""
        options = (_Option * max(1, len(flags)))()
        for option, (name, value) in zip(options, flags):
            option.name, option.value = name.encode(), value.encode()
        messages = ctypes.c_void_p()
        error = self.compiler.dshard_compile(str(model).encode(), options, len(flags), str(output).encode(), ctypes.byref(messages))
        if messages:
            self.free(messages)
        self._check(error)

    def ports(self, plan_path):
        """(inputs, outputs), each [(name, dtype, shape)], and the explanation of the collectives."""
        plan = ctypes.c_void_p()
        self._check(self.runtime.dshard_plan_open(str(plan_path).encode(), ctypes.byref(plan)))
        try:
            lists = []
            for kind in ("input", "output"):
                found = []
                for i in range(getattr(self.runtime, f"dshard_plan_{kind}s")(plan, 0)):
                    port = getattr(self.runtime, f"dshard_plan_{kind}")(plan, 0, i)
                    found.append((port.name.decode(), DTYPES[port.dtype], tuple(port.dims[: port.rank])))
                lists.append(found)
            text = ctypes.c_void_p()
            self._check(self.runtime.dshard_plan_explain(plan, ctypes.byref(text)))
            return lists[0], lists[1], self._text(text)
        finally:
            self.runtime.dshard_plan_close(plan)

    def _tensors(self, named):
        made = (_Tensor * max(1, len(named)))()
        for tensor, (name, array) in zip(made, named):
            dims = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
            tensor.name, tensor.dtype, tensor.rank = name.encode(), CODES[array.dtype], array.ndim
            tensor.dims, tensor.data = dims, array.ctypes.data
        return made

    def run(self, plan_path, inputs, outputs):
        """`inputs`: name -> array; `outputs`: [(name, dtype, shape)]. The outputs as a list of arrays."""
        session = ctypes.c_void_p()
        options = _SessionOptions(None, 0, 0, 1)
        self._check(self.runtime.dshard_session_create(str(plan_path).encode(), ctypes.byref(options), ctypes.byref(session)))
        try:
            self._check(self.runtime.dshard_session_load(session))
            given = [(name, np.ascontiguousarray(value).reshape(np.shape(value))) for name, value in inputs.items()]
            # What a run does not write must not pass by chance.
            collected = [(name, np.frombuffer(b"\xa5" * max(1, int(np.prod(shape)) * dtype.itemsize), np.uint8).copy()) for name, dtype, shape in outputs]
            arrays = [
                (name, raw[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape))
                for (name, raw), (_, dtype, shape) in zip(collected, outputs)
            ]
            self._check(
                self.runtime.dshard_session_run(session, b"run", self._tensors(given), len(given), self._tensors(arrays), len(arrays))
            )
            return [array for _, array in arrays]
        finally:
            self.runtime.dshard_session_destroy(session)
