"""One node case: compile, run, compare; whole, and with each dim of each input sharded."""

import pathlib
import re
import warnings

import numpy as np
import onnx
from library import BFLOAT16, CODES, Error
from onnx import numpy_helper

RTOL, ATOL = 1e-3, 1e-7
RANKS = (2, 4)
SCALAR_COUNT = 64


def _strip(error, model):
    """The reason, without the file and the node's name, which say nothing here."""
    text = error.replace(str(model) + ": ", "")
    text = re.sub(r"^error: ", "", text)
    text = re.sub(r"^(node|nodes) '[^']*' \(([\w:.]+)\): ", r"\2: ", text)
    text = re.sub(r"^node #?\d+ \(([\w:.]+)\): ", r"\1: ", text)
    text = re.sub(r"^node '[^']*': ", "", text)
    text = re.sub(r"; it must follow from constants and shapes \(--const gives an input a value\)$", "", text)
    text = re.sub(r", first .*?(?=; |$)", "", text)
    return text.split("\n")[0].strip()


def _load(path, value_info):
    data = path.read_bytes()
    kind = value_info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise Error(f"the data of '{value_info.name}' are no tensor")
    tensor = onnx.TensorProto()
    tensor.ParseFromString(data)
    return numpy_helper.to_array(tensor)


def _inverse_dft(inputs):
    x = inputs["x"].astype(np.float64)
    y = np.fft.ifft(x[..., 0] + 1j * x[..., 1], axis=1)
    return [np.stack((y.real, y.imag), axis=-1).astype(np.float32)]


# Cases whose outputs hold the rounding noise of numpy's single-precision FFT, more than atol where the exact value is 0:
# compared with the same function in double precision. The noise differs from machine to machine.
EXACT = {"test_dft_inverse": _inverse_dft, "test_dft_inverse_opset19": _inverse_dft}


# RTOL is less than one unit in the last place of a half. Two are allowed to graphs of several half-precision nodes whose official
# outputs round after each of them, and to sharded sums, whose parts are rounded.
TWO_UNITS = 2.0**-9
HALF_GRAPHS = {"test_attention_4d_causal_fp16_expanded"}


class Case:
    def __init__(self, folder, name):
        self.name = name
        self.model = folder / name / "model.onnx"
        self.data = folder / name / "test_data_set_0"
        self.graph = onnx.load_model_from_string(self.model.read_bytes()).graph

    def inputs(self):
        return {info.name: _load(self.data / f"input_{i}.pb", info) for i, info in enumerate(self.graph.input) if info.name}

    def outputs(self):
        return [_load(self.data / f"output_{i}.pb", info) for i, info in enumerate(self.graph.output)]

    def value_info(self, name):
        return next(info for info in self.graph.input if info.name == name)

    def is_tensor_case(self):
        infos = list(self.graph.input) + list(self.graph.output)
        return all(info.type.WhichOneof("value") == "tensor_type" for info in infos)


def _dims(case, inputs):
    """--dim for the symbolic dims of inputs, from the data."""
    flags = {}
    for info in case.graph.input:
        if info.type.WhichOneof("value") != "tensor_type" or info.name not in inputs:
            continue
        for i, dim in enumerate(info.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                flags[dim.dim_param or f"{info.name}_dim_{i}"] = inputs[info.name].shape[i]
    return [("dim", f"{name}={size}") for name, size in flags.items()]


def _text(array):
    values = array.reshape(-1).tolist() or [0]
    if array.dtype == np.bool_:
        return ",".join("true" if v else "false" for v in values)
    return ",".join(repr(float(v)) if array.dtype.kind == "f" else str(v) for v in values)


def _bind(case, inputs, error, bound):
    """Which further inputs to fix with --const after a refusal that asks for it; empty if nothing helps."""
    if "known at compile time" not in error and "must be a constant" not in error:
        return []
    named = [n for n in re.findall(r"'([^']*)'", error) if n in inputs and n not in bound]
    if named:
        return named[:1]
    small = [n for n, v in inputs.items() if n not in bound and v.size <= SCALAR_COUNT and v.ndim <= 1]
    whole = [n for n in small if inputs[n].dtype.kind in "iu"]
    return whole or [n for n in small if inputs[n].size <= 1] or small


def _differs(got, want, what, rtol=RTOL):
    """None, or how they differ."""
    want = np.asarray(want)
    if want.dtype not in CODES:
        return f"{what}: the case has {want.dtype}"
    if got.dtype != want.dtype:
        return f"{what}: type {got.dtype} != {want.dtype}"
    if got.shape != want.shape:
        return f"{what}: shape {list(got.shape)} != {list(want.shape)}"
    if want.dtype.kind in "biu":
        same = got == want
    else:
        rtol = 2.0**-6 if want.dtype == BFLOAT16 else rtol
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            same = np.isclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=ATOL, equal_nan=True)
    same = np.asarray(same)
    if same.all():
        return None
    at = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(~same)))
    at = at if want.ndim else ()
    return f"{what}{list(at) if at else ''}: {got[at]} != {want[at]}, {int((~same).sum())} of {want.size} differ"


class Runner:
    """Runs cases in this process; `folder` is for its plan files."""

    def __init__(self, library, cases, folder):
        self.library, self.cases = library, cases
        self.plan = pathlib.Path(folder) / "case.dsplan"

    def _once(self, case, flags, inputs):
        """None, or (verdict, reason)."""
        try:
            self.library.compile(case.model, flags, self.plan)
        except Error as error:
            text = _strip(str(error).replace(str(self.plan) + ": ", ""), case.model)
            return ("wrong" if "defect of dshard" in text else "refused", text, str(error))
        try:
            taken, given, explained = self.library.ports(self.plan)
            self.explained = explained
            got = self.library.run(self.plan, {name: inputs[name] for name, _, _ in taken}, given)
        except Error as error:
            text = _strip(str(error).replace(str(self.plan) + ": ", ""), case.model)
            return ("refused", "at run time: " + text, "")
        try:
            expected = EXACT[case.name](inputs) if case.name in EXACT else case.outputs()
        except Error as error:
            return ("refused", str(error), "")
        halves = case.name in HALF_GRAPHS or any(name == "mesh" for name, _ in flags)
        names = {name: array for (name, _, _), array in zip(given, got)}
        for info, want in zip(case.graph.output, expected):
            if info.name not in names:
                return ("wrong", f"output '{info.name}' is missing", "")
            is_half = np.asarray(want).dtype == np.float16
            difference = _differs(names[info.name], want, info.name, TWO_UNITS if is_half and halves else RTOL)
            if difference:
                return ("wrong", difference, "")
        return None

    def whole(self, name):
        """(verdict, reason, bound inputs)."""
        case = Case(self.cases, name)
        try:
            inputs = case.inputs() if case.is_tensor_case() else {}
        except Error:
            inputs = {}
        bound = []
        for _ in range(12):
            flags = _dims(case, inputs) + [("const", f"{n}={_text(inputs[n])}") for n in bound]
            result = self._once(case, flags, inputs)
            if result is None:
                return ("passed", "", bound)
            verdict, reason, error = result
            more = _bind(case, inputs, error, bound) if verdict == "refused" else []
            if not more:
                return (verdict, reason, bound)
            bound += more
        return (verdict, reason, bound)

    def sharded(self, name, bound, ranks=RANKS):
        """[(input, dim, ranks, verdict, reason)] for every dim of every input that is not fixed."""
        case = Case(self.cases, name)
        inputs = case.inputs()
        results = []
        fixed = _dims(case, inputs) + [("const", f"{n}={_text(inputs[n])}") for n in bound]
        for target, array in inputs.items():
            if target in bound:
                continue
            for dim, size in enumerate(array.shape):
                for count in ranks:
                    if size == 0 or size % count:
                        continue
                    flags = list(fixed) + [("mesh", f"dp_shard={count}"), ("fsdp", "none")]
                    for other, value in inputs.items():
                        if other in bound or not value.ndim:
                            continue
                        roles = [""] * value.ndim
                        roles[0] = "none"
                        if other == target:
                            roles[dim] = "batch"
                        # A symbol of the file must keep its size under the new name.
                        info = case.value_info(other)
                        for i, (role, d) in enumerate(zip(roles, info.type.tensor_type.shape.dim)):
                            if role and not d.HasField("dim_value"):
                                roles[i] = role
                                flags.append(("dim", f"{role}={value.shape[i]}"))
                        flags.append(("dims", f"{other}=" + ",".join(roles)))
                    result = self._once(case, flags, inputs)
                    verdict, reason = ("passed", "") if result is None else result[:2]
                    results.append((target, dim, count, verdict, reason))
        return results
