"""The reference value of every op against numpy and onnx's reference evaluator.

Each case is one op on random data, run through dshard-interpret in f64. The last
test fails when an op of the dialect has no case here.
"""

import math
import os
import pathlib
import re
import subprocess

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("TESTED_BUILD", ROOT / "build"))
TYPES = {"float64": "f64", "float32": "f32", "float16": "f16", "int64": "i64", "int32": "i32", "int8": "i8", "bool": "i1"}
# Ops that have no value of their own: test/Reference/{collectives,control,mlp-resolved}.mlir run them.
ELSEWHERE = set(
    "reshard all_gather all_reduce reduce_scatter all_to_all broadcast permute send recv "
    "local_slice rank_index repeat if fused yield".split()
)
tested = set()


def tensor_type(array):
    dims = "".join(f"{size}x" for size in array.shape)
    return f"tensor<{dims}{TYPES[str(array.dtype)]}>"


def evaluate(folder, op, operands, *expected, attributes="", precision="fp64"):
    """Runs `dshard.OP` on the operands; results have the types of `expected`."""
    tested.add(op)
    names = [f"%a{i}" for i in range(len(operands))]
    arguments = ", ".join(f"{name}: {tensor_type(a)}" for name, a in zip(names, operands))
    ins = ", ".join(tensor_type(a) for a in operands)
    outs = [tensor_type(e) for e in expected]
    results = ", ".join(f"%r{i}" for i in range(len(expected)))
    attributes = f" {{{attributes}}}" if attributes else ""
    (folder / "op.mlir").write_text(
        f"func.func @run({arguments}) -> ({', '.join(outs)}) {{\n"
        f"  {results} = dshard.{op} {', '.join(names)}{attributes} : ({ins}) -> ({', '.join(outs)})\n"
        f"  return {results} : {', '.join(outs)}\n}}\n"
    )
    command = [str(BUILD / "bin" / "dshard-interpret"), "op.mlir", f"--precision={precision}"]
    for i, array in enumerate(operands):
        np.save(folder / f"in{i}.npy", np.array(array, order="C"))
        command += ["--input", f"{i}=in{i}.npy"]
    for i in range(len(expected)):
        command += ["--output", f"{i}=out{i}.npy"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [np.load(folder / f"out{i}.npy") for i in range(len(expected))]


def check(folder, op, operands, *expected, attributes="", tolerance=1e-12):
    expected = [np.array(e, order="C") for e in expected]
    operands = [np.array(o, order="C") for o in operands]
    for ours, theirs in zip(evaluate(folder, op, operands, *expected, attributes=attributes), expected):
        assert ours.shape == theirs.shape
        scale = np.max(np.abs(theirs[np.isfinite(theirs)]), initial=0) if theirs.size else 0
        np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=0, atol=tolerance * scale)


@pytest.fixture
def random():
    return np.random.default_rng(7)


def onnx_value(op, inputs, opset=24, **attributes):
    """The value of one ONNX node by onnx's own reference implementation."""
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(inputs)]
    node = helper.make_node(op, names, ["y"], **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, inputs)
        if a is not None
    ]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model).run(None, {n: a for n, a in zip(names, inputs) if a is not None})[0]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


erf = np.vectorize(math.erf)

UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
    "tanh": np.tanh,
    "erf": erf,
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sign": np.sign,
    "reciprocal": lambda x: 1 / x,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(op, tmp_path, random):
    x = random.uniform(-3, 3, (3, 5, 2))
    x[0, 0] = [0.5, -1.5]  # ties
    check(tmp_path, op, [x], UNARY[op](x))


@pytest.mark.parametrize("op", ["log", "sqrt", "rsqrt"])
def test_unary_of_positive(op, tmp_path, random):
    x = random.uniform(0.1, 3, (4, 3))
    value = {"log": np.log, "sqrt": np.sqrt, "rsqrt": lambda x: x**-0.5}[op](x)
    check(tmp_path, op, [x], value)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_against_onnx(approximate, tmp_path, random):
    x = random.uniform(-4, 4, (7,))
    attributes = "tanh_approximation" if approximate == "tanh" else ""
    # onnx's reference computes this one in float32
    check(tmp_path, "gelu", [x], onnx_value("Gelu", [x], approximate=approximate), attributes=attributes, tolerance=1e-6)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "swiglu": lambda x, y: x * sigmoid(x) * y,
    "mod": np.mod,
}
SHAPES = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((1, 4), (3, 1)), ((), (2, 2)), ((5,), ())]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("op", BINARY)
def test_binary_broadcasts(op, shapes, tmp_path, random):
    x, y = (random.uniform(-2, 2, shape) for shape in shapes)
    check(tmp_path, op, [x, y], BINARY[op](x, y))


def test_pow(tmp_path, random):
    x, y = random.uniform(0.1, 2, (3, 4)), random.uniform(-2, 2, (4,))
    check(tmp_path, "pow", [x, y], x**y)


def test_mod_of_dividend(tmp_path, random):
    x, y = random.uniform(-5, 5, (20,)), random.uniform(0.5, 2, (20,))
    check(tmp_path, "mod", [x, y], onnx_value("Mod", [x, y], fmod=1), attributes="fmod")


def test_integer_division_and_wrapping(tmp_path):
    x, y = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    check(tmp_path, "div", [x, y], np.array([3, -3, -3, 3]))
    check(tmp_path, "mod", [x, y], np.mod(x, y))
    x = np.array([100, -100], dtype=np.int8)
    check(tmp_path, "add", [x, x], x + x)


BITS = {
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
}


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
@pytest.mark.parametrize("op", BITS)
def test_bits(op, dtype, tmp_path, random):
    x, y = (random.integers(-100, 100, (3, 7)).astype(dtype) for _ in range(2))
    if op.startswith("shift"):
        y = random.integers(0, x.itemsize * 8, (7,)).astype(dtype)
    expected = BITS[op](x, y)
    exact = np.abs(expected.astype(object)) <= 2**53  # the interpreter's numbers are doubles
    ours = evaluate(tmp_path, op, [x, y], expected)[0]
    assert np.array_equal(ours[exact], expected[exact])


def test_shifts_by_the_width_and_beyond(tmp_path):
    x, y = np.array([5, -5, 5, -5], np.int8), np.array([8, 100, -1, -1], np.int8)
    check(tmp_path, "shift_left", [x, y], np.array([0, 0, 0, 0], np.int8))
    check(tmp_path, "shift_right", [x, y], np.array([0, -1, 0, -1], np.int8))


def test_bit_cast(tmp_path, random):
    x = random.uniform(-3, 3, (4, 3)).astype(np.float32)
    check(tmp_path, "bit_cast", [x], x.view(np.int32))
    check(tmp_path, "bit_cast", [x.view(np.int32)], x, tolerance=0)
    x = x.astype(np.float16)
    assert np.array_equal(evaluate(tmp_path, "bit_cast", [x], x, precision="model")[0], x)


def test_mod_of_infinities(tmp_path):
    x, y = np.array([3.0, -3.0, 3.0, -3.0, 0.0]), np.array([np.inf, np.inf, -np.inf, -np.inf, np.inf])
    assert np.array_equal(evaluate(tmp_path, "mod", [x, y], x)[0], np.mod(x, y))
    assert np.array_equal(evaluate(tmp_path, "mod", [x, y], x, attributes="fmod")[0], np.fmod(x, y))


def test_nan(tmp_path):
    x = np.array([np.nan, 1.0, np.inf])
    check(tmp_path, "is_nan", [x], np.isnan(x))
    for op, function in (("max", np.maximum), ("min", np.minimum)):
        y = np.array([0.0, np.nan, 0.0])
        assert np.array_equal(evaluate(tmp_path, op, [x, y], x)[0], function(x, y), equal_nan=True)


@pytest.mark.parametrize("op", ["and", "or", "xor", "not"])
def test_boolean(op, tmp_path):
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    operands = [x] if op == "not" else [x, y]
    check(tmp_path, op, operands, getattr(np, f"logical_{op}")(*operands))


@pytest.mark.parametrize("predicate", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_compare(predicate, tmp_path, random):
    function = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    x, y = random.integers(0, 3, (4, 5)), random.integers(0, 3, (5,))
    check(tmp_path, "compare", [x, y], function[predicate](x, y), attributes=f"predicate = #dshard.predicate<{predicate}>")


def test_select(tmp_path, random):
    c, x, y = random.integers(0, 2, (3, 1)).astype(bool), random.normal(size=(3, 4)), random.normal(size=())
    check(tmp_path, "select", [c, x, y], np.where(c, x, y))


def test_cast(tmp_path):
    x = np.array([1.7, -1.7, 0.2, 300.0])
    check(tmp_path, "cast", [x], x.astype(np.int64))
    check(tmp_path, "cast", [x], x != 0)
    check(tmp_path, "cast", [np.array([300, -129], np.int64)], np.array([300, -129]).astype(np.int8))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cast_rounds_in_model_precision(dtype, tmp_path, random):
    x = random.normal(size=(300,)) * 10.0 ** random.integers(-12, 6, (300,))
    with np.errstate(over="ignore"):
        theirs = x.astype(dtype)
    ours = evaluate(tmp_path, "cast", [x], theirs, precision="model")[0]
    assert np.array_equal(ours, theirs.astype(np.float32))


@pytest.mark.parametrize(
    "lhs,rhs,flags",
    [((3, 4), (4, 5), ""), ((2, 3, 4), (4, 5), ""), ((2, 1, 3, 4), (5, 4, 6), ""), ((4, 3), (4, 5), "lhs"), ((2, 3, 4), (2, 5, 4), "rhs"), ((7, 300), (300, 520), "")],
)
def test_matmul(lhs, rhs, flags, tmp_path, random):
    x, y = random.normal(size=lhs), random.normal(size=rhs)
    value = np.matmul(x.swapaxes(-1, -2) if flags == "lhs" else x, y.swapaxes(-1, -2) if flags == "rhs" else y)
    check(tmp_path, "matmul", [x, y], value, attributes=f"transpose_{flags}" if flags else "")


def attention(q, k, v, keep, scale, softcap=0.0, uniform=False, bias=0.0):
    """Attention by its definition; keep [B,S,T] says which keys a query sees."""
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, 1), np.repeat(v, repeats, 1)
    scores = np.einsum("bhsd,bhtd->bhst", q, k) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = scores + bias
    keep = np.broadcast_to(keep[:, None], scores.shape)
    scores = np.where(keep, scores, -np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        lse = np.log(np.exp(scores).sum(-1))
        weights = np.where(keep, np.exp(scores - lse[..., None]), 0)
    if uniform:
        weights = np.where(keep.any(-1, keepdims=True), weights, 1 / k.shape[2])
    return np.einsum("bhst,bhtd->bhsd", weights, v), lse.astype(np.float32)


def check_attention(folder, operands, expected, attributes):
    value, lse = evaluate(folder, "attention", operands, *expected, attributes=attributes)
    np.testing.assert_allclose(value, expected[0], atol=1e-12)
    np.testing.assert_allclose(lse, expected[1], rtol=1e-6)


@pytest.mark.parametrize("offset,window", [(0, -1), (3, -1), (2, 2), (-2, -1), (0, 1)])
@pytest.mark.parametrize("fully_masked", ["zero", "uniform"])
def test_attention_masks(offset, window, fully_masked, tmp_path, random):
    q, k, v = random.normal(size=(2, 4, 5, 6)), random.normal(size=(2, 2, 7, 6)), random.normal(size=(2, 2, 7, 3))
    padding = random.integers(0, 2, (2, 7)).astype(bool)
    padding[1, :4] = False  # a row sees none of them
    i, j = np.arange(5)[:, None], np.arange(7)[None]
    keep = (j <= i + offset) & ((window < 0) | (j > i + offset - window))
    keep = keep[None] & padding[:, None]
    assert not keep.any(-1).all()  # some row attends nothing
    expected = attention(q, k, v, keep, 0.3, uniform=fully_masked == "uniform")
    check_attention(
        tmp_path,
        [q, k, v, padding],
        expected,
        f"scale = 0.3 : f64, causal, offset = {offset} : i64, window = {window} : i64, "
        f"fully_masked = #dshard.fully_masked<{fully_masked}>",
    )


def test_attention_softcap(tmp_path, random):
    q, k, v = (random.normal(size=(1, 2, 4, 8)) * 3 for _ in range(3))
    expected = attention(q, k, v, np.ones((1, 4, 4), bool), 0.5, softcap=2.0)
    check_attention(tmp_path, [q, k, v], expected, "scale = 0.5 : f64, softcap = 2.0 : f64")


@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 4, 5, 7), (2, 1, 1, 7), (1, 4, 5, 1), (2, 1, 5, 7)])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_bias(padded, shape, tmp_path, random):
    q, k, v = random.normal(size=(2, 4, 5, 6)), random.normal(size=(2, 2, 7, 6)), random.normal(size=(2, 2, 7, 3))
    bias, keep = random.normal(size=shape), np.ones((2, 5, 7), bool)
    operands = [q, k, v]
    if padded:
        operands.append(random.uniform(size=(2, 7)) < 0.7)
        keep &= operands[-1][:, None]
    expected = attention(q, k, v, keep, 0.5, softcap=2.0, bias=bias)
    check_attention(tmp_path, [*operands, bias], expected, "scale = 0.5 : f64, softcap = 2.0 : f64")


def test_attention_bias_that_hides(tmp_path, random):
    """A row of -inf attends nothing."""
    q, k, v = (random.normal(size=(1, 2, 4, 8)) for _ in range(3))
    bias = np.where(random.uniform(size=(1, 1, 4, 4)) < 0.5, -np.inf, 0.0)
    bias[0, 0, 2] = -np.inf
    bias[0, 0, 1, 1] = 0
    expected = attention(q, k, v, ~np.isinf(bias[:, 0]), 0.5, uniform=True)
    check_attention(tmp_path, [q, k, v, bias], expected, "scale = 0.5 : f64, fully_masked = #dshard.fully_masked<uniform>")


def test_attention_against_onnx(tmp_path, random):
    q, k, v = random.normal(size=(2, 4, 6, 8)), random.normal(size=(2, 2, 6, 8)), random.normal(size=(2, 2, 6, 8))
    theirs = onnx_value("Attention", [q, k, v], is_causal=1, scale=0.25)
    keep = np.broadcast_to(np.tril(np.ones((6, 6), bool)), (2, 6, 6))
    check_attention(tmp_path, [q, k, v], (theirs, attention(q, k, v, keep, 0.25)[1]), "scale = 0.25 : f64, causal")


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary(batch, interleaved, tmp_path, random):
    x, angle = random.normal(size=(2, 3, 5, 8)), random.uniform(-3, 3, (batch, 5, 4))
    full = np.broadcast_to(angle, (2, 5, 4))
    theirs = onnx_value("RotaryEmbedding", [x, np.cos(full), np.sin(full)], interleaved=interleaved)
    check(tmp_path, "rotary", [x, np.cos(angle), np.sin(angle)], theirs, attributes="interleaved" if interleaved else "")


def test_rms_norm(tmp_path, random):
    x, w = random.normal(size=(2, 3, 8)), random.normal(size=(8,))
    theirs = onnx_value("RMSNormalization", [x, w], axis=-1, epsilon=0.125)
    check(tmp_path, "rms_norm", [x, w], theirs, attributes="epsilon = 0.125 : f64", tolerance=1e-6)
    check(tmp_path, "rms_norm", [x, w], x / np.sqrt((x * x).mean(-1, keepdims=True) + 0.125) * w, attributes="epsilon = 0.125 : f64")


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm(bias, tmp_path, random):
    x, w, b = random.normal(size=(2, 3, 8)), random.normal(size=(8,)), random.normal(size=(8,))
    value = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.125) * w + (b if bias else 0)
    check(tmp_path, "layer_norm", [x, w, b][: 2 + bias], value, attributes="epsilon = 0.125 : f64")


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_softmax(dim, tmp_path, random):
    x = random.normal(size=(3, 4, 5)) * 5
    check(tmp_path, "softmax", [x], onnx_value("Softmax", [x], axis=dim), attributes=f"dim = {dim} : i64")


@pytest.mark.parametrize("dims", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", ["sum", "max", "min", "mean", "product"])
def test_reduce(kind, keep, dims, tmp_path, random):
    x = random.normal(size=(3, 4, 5))
    function = {"sum": np.sum, "max": np.max, "min": np.min, "mean": np.mean, "product": np.prod}[kind]
    value = np.asarray(function(x, axis=dims, keepdims=keep))
    attributes = f"kind = #dshard<reduction {kind}>, dims = array<i64{':' if dims else ''} {', '.join(map(str, dims))}>"
    check(tmp_path, "reduce", [x], value, attributes=attributes + (", keep_dims" if keep else ""))


def array_attribute(values):
    return f"array<i64: {', '.join(map(str, values))}>"


def test_reshape_and_transpose(tmp_path, random):
    x = random.normal(size=(2, 3, 4))
    check(tmp_path, "reshape", [x], x.reshape(4, 6))
    for permutation in [(2, 0, 1), (0, 2, 1), (0, 1, 2)]:
        check(tmp_path, "transpose", [x], x.transpose(permutation), attributes=f"permutation = {array_attribute(permutation)}")


def test_broadcast_to(tmp_path, random):
    for shape in [(3, 1), (1,), (), (2, 3, 4)]:
        x = random.normal(size=shape)
        check(tmp_path, "broadcast_to", [x], np.broadcast_to(x, (2, 3, 4)))


@pytest.mark.parametrize("dim", [0, 1])
def test_concat(dim, tmp_path, random):
    shapes = [[3, 3], [3, 3], [3, 3]]
    shapes[0][dim], shapes[2][dim] = 1, 4
    parts = [random.normal(size=shape) for shape in shapes]
    check(tmp_path, "concat", parts, np.concatenate(parts, dim), attributes=f"dim = {dim} : i64")


def test_slice(tmp_path, random):
    x = random.normal(size=(5, 6, 7))
    check(tmp_path, "slice", [x], x[1:4, ::2, 5:1:-2], attributes="starts = array<i64: 1, 0, 5>, strides = array<i64: 1, 2, -2>")


def test_pad(tmp_path, random):
    x = random.normal(size=(2, 3))
    check(
        tmp_path, "pad", [x], np.pad(x, ((1, 0), (2, 3)), constant_values=-1.5),
        attributes="low = array<i64: 1, 2>, high = array<i64: 0, 3>, value = -1.5 : f64",
    )


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gather(dim, tmp_path, random):
    x = random.normal(size=(3, 4, 5))
    indices = random.integers(-3, 3, (2, 3))
    check(tmp_path, "gather", [x, indices], np.take(x, indices, axis=dim), attributes=f"dim = {dim} : i64")


def test_gather_with_offset_sums_to_the_whole(tmp_path, random):
    x, indices = random.normal(size=(6, 3)), random.integers(0, 6, (2, 4))
    total = 0
    for rank in range(2):
        ours = evaluate(
            tmp_path, "gather", [x[3 * rank : 3 * rank + 3], indices, np.array(3 * rank)], np.zeros((2, 4, 3)), attributes="dim = 0 : i64"
        )[0]
        total = total + ours
    assert np.array_equal(total, x[indices])


@pytest.mark.parametrize("batch_dims,index_shape", [(0, (2, 2)), (0, (5, 1)), (1, (2, 3, 2)), (0, (3,))])
def test_gather_nd(batch_dims, index_shape, tmp_path, random):
    x, indices = random.normal(size=(2, 3, 4)), random.integers(-2, 2, index_shape)
    theirs = onnx_value("GatherND", [x, indices], batch_dims=batch_dims)
    check(tmp_path, "gather_nd", [x, indices], np.asarray(theirs), attributes=f"batch_dims = {batch_dims} : i64")


def test_scatter_add(tmp_path, random):
    for dim in (0, 1, 2):
        indices = random.integers(-3, 3, (2, 6))
        shape = [3, 4, 5]
        updates = random.normal(size=(*shape[:dim], 2, 6, *shape[dim + 1 :]))
        value = np.zeros(shape)
        flat = np.moveaxis(updates.reshape(*shape[:dim], 12, *shape[dim + 1 :]), dim, 0)
        np.add.at(np.moveaxis(value, dim, 0), indices.reshape(-1), flat)
        check(tmp_path, "scatter_add", [indices, updates], value, attributes=f"dim = {dim} : i64")


def test_scatter_add_with_offset_is_a_shard(tmp_path, random):
    indices, updates = random.integers(0, 6, (2, 4)), random.normal(size=(2, 4, 3))
    whole = np.zeros((6, 3))
    np.add.at(whole, indices.reshape(-1), updates.reshape(-1, 3))
    for rank in range(2):
        shard = whole[3 * rank : 3 * rank + 3]
        check(tmp_path, "scatter_add", [indices, updates, np.array(3 * rank)], shard, attributes="dim = 0 : i64")


def natural_positions(layout, parts, size):
    """Which natural element lies where, from the words of the op's description."""
    if layout == "zigzag":
        chunks = np.split(np.arange(size), 2 * parts)
        return np.concatenate([np.concatenate([chunks[r], chunks[2 * parts - 1 - r]]) for r in range(parts)])
    if layout == "striped":
        return np.concatenate([np.arange(r, size, parts) for r in range(parts)])
    return np.arange(size)


@pytest.mark.parametrize("layout", ["contiguous", "zigzag", "striped"])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_reorder(parts, layout, tmp_path, random):
    x = random.normal(size=(2, 12, 3))
    order = natural_positions(layout, parts, 12)
    attributes = f"dim = 1 : i64, layout = #dshard.layout<{layout}>, parts = {parts} : i64"
    check(tmp_path, "reorder", [x], x[:, order], attributes=attributes)
    check(tmp_path, "reorder", [x[:, order]], x, attributes=attributes + ", inverse")


@pytest.mark.parametrize("layout", ["zigzag", "striped"])
def test_attention_layout(layout, tmp_path, random):
    """Rows and keys in another order give the rows of the natural order in that order."""
    q, k, v = (random.normal(size=(2, 2, 8, 4)) for _ in range(3))
    padding = random.uniform(size=(2, 8)) < 0.7
    i, j = np.arange(8)[:, None], np.arange(8)[None]
    keep = ((j <= i) & (j > i - 3))[None] & padding[:, None]
    bias = random.normal(size=(1, 2, 8, 8))  # its keys stay in natural order
    value, lse = attention(q, k, v, keep, 0.5, bias=bias)
    order = natural_positions(layout, 2, 8)
    check_attention(
        tmp_path,
        [q[:, :, order], k[:, :, order], v[:, :, order], padding[:, order], bias[:, :, order]],
        (value[:, :, order], lse[:, :, order]),
        f"scale = 0.5 : f64, causal, window = 3 : i64, layout = #dshard.layout<{layout}>, parts = 2 : i64",
    )


def test_attention_query_offset(tmp_path, random):
    """The rows of the second half, as a rank that holds them computes them."""
    q, k, v = (random.normal(size=(1, 2, 6, 4)) for _ in range(3))
    keep = np.tril(np.ones((6, 6), bool))[None]
    value, lse = attention(q, k, v, keep, 0.5)
    operands = [q[:, :, 3:], k, v, np.array(3)]
    check_attention(tmp_path, operands, (value[:, :, 3:], lse[:, :, 3:]), "scale = 0.5 : f64, causal")
    padded = [q[:, :, 3:], k, v, np.ones((1, 6), bool), np.array(3)]
    check_attention(tmp_path, padded, (value[:, :, 3:], lse[:, :, 3:]), "scale = 0.5 : f64, causal")


def test_attention_grad(tmp_path, random):
    """One head, no mask, by the formulas; test/Transforms/Train compares all attributes with finite differences."""
    q, k, v, g = (random.normal(size=(2, 1, 5, 4)) for _ in range(4))
    scores = 0.5 * q @ k.swapaxes(-1, -2)
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    out, lse = p @ v, np.log(np.exp(scores).sum(-1))
    ds = p * (g @ v.swapaxes(-1, -2) - (g * out).sum(-1, keepdims=True)) * 0.5
    expected = (ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g)
    check(tmp_path, "attention_grad", [q, k, v, out, lse.astype(np.float32), g], *expected, attributes="scale = 0.5 : f64", tolerance=1e-6)


def test_weight_grad(tmp_path, random):
    x, g = random.normal(size=(2, 3, 4)), random.normal(size=(2, 3, 5))
    check(tmp_path, "weight_grad", [x, g], np.einsum("abm,abn->mn", x, g))


@pytest.mark.parametrize("flags", ["", "transpose_weights"])
def test_grouped_matmul(flags, tmp_path, random):
    x, w, groups = random.normal(size=(2, 3, 4)), random.normal(size=(5, 4, 6)), random.integers(0, 5, (2, 3))
    stored = w.swapaxes(1, 2).copy() if flags else w
    expected = np.einsum("abk,abkn->abn", x, w[groups])
    check(tmp_path, "grouped_matmul", [x, stored, groups], expected, attributes=flags)
    # A rank that holds groups 2 and 3: other rows are zero.
    expected = np.where(((groups == 2) | (groups == 3))[..., None], expected, 0)
    check(tmp_path, "grouped_matmul", [x, stored[2:4], groups, np.array(2)], expected, attributes=flags)


def test_grouped_weight_grad(tmp_path, random):
    x, g, groups = random.normal(size=(2, 3, 4)), random.normal(size=(2, 3, 5)), random.integers(0, 4, (2, 3))
    expected = np.stack([np.einsum("abm,abn->mn", x * (groups == e)[..., None], g) for e in range(6)])
    check(tmp_path, "grouped_weight_grad", [x, g, groups], expected)
    check(tmp_path, "grouped_weight_grad", [x, g, groups, np.array(1)], expected[1:4])


def test_cross_entropy(tmp_path, random):
    logits, labels = random.normal(size=(2, 5, 7)) * 3, random.integers(0, 7, (2, 5))
    labels[1, 2] = labels[0, 0] = -100
    lse = np.log(np.exp(logits).sum(-1))
    loss = np.where(labels == -100, 0, lse - np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0])
    check(tmp_path, "cross_entropy", [logits, labels], loss, lse)


def test_cross_entropy_names_a_bad_label(tmp_path):
    with pytest.raises(AssertionError, match="label 7 is none of 7 classes and not the ignored -100"):
        evaluate(tmp_path, "cross_entropy", [np.zeros((2, 7)), np.array([1, 7])], np.zeros(2), np.zeros(2))


def test_gradient(tmp_path, random):
    x = random.normal(size=(3, 4))
    check(tmp_path, "gradient", [x], x, attributes='of = "w"')


@pytest.mark.parametrize("enabled", [True, False])
def test_adamw(enabled, tmp_path, random):
    w, g, m, v = random.normal(size=(3, 4)), random.normal(size=(3, 4)), random.normal(size=(3, 4)), random.uniform(0, 1, (3, 4))
    rate, c1, c2, scale = 0.1, 1 - 0.9**3, 1 - 0.99**3, 0.5
    expected = (w, m, v)
    if enabled:
        m1 = 0.9 * m + 0.1 * (scale * g)
        v1 = 0.99 * v + 0.01 * (scale * g) ** 2
        expected = (w * (1 - rate * 0.2) - rate * (m1 / c1) / (np.sqrt(v1 / c2) + 1e-3), m1, v1)
    operands = [w, g, m, v, *map(np.array, (rate, c1, c2, scale, enabled))]
    check(tmp_path, "adamw", operands, *expected, attributes="beta1 = 0.9 : f64, beta2 = 0.99 : f64, epsilon = 1.0e-3 : f64, weight_decay = 0.2 : f64")


def test_iota(tmp_path):
    value = np.broadcast_to((2 + 0.5 * np.arange(4))[:, None], (3, 4, 2))
    check(tmp_path, "iota", [], value, attributes="dim = 1 : i64, start = 2.0 : f64, step = 0.5 : f64")
    check(tmp_path, "iota", [], np.arange(5), attributes="dim = 0 : i64")


@pytest.mark.parametrize(
    "text,value",
    [
        ("dense<[[1.5, -2.0], [0.0, 3.25]]> : tensor<2x2xf64>", np.array([[1.5, -2], [0, 3.25]])),
        ("dense<0.1> : tensor<3xf64>", np.full(3, 0.1)),
        ("dense<[true, false]> : tensor<2xi1>", np.array([True, False])),
        ("dense<-5> : tensor<2xi8>", np.full(2, -5, np.int8)),
        ("dense<[9007199254740992, -1]> : tensor<2xi64>", np.array([2**53, -1])),
        ("dense_resource<blob> : tensor<3xf32>", np.array([1, -2, 0.5], np.float32)),
        ("dense<> : tensor<0x2xf64>", np.zeros((0, 2))),
    ],
)
def test_constant(text, value, tmp_path):
    tested.add("constant")
    bytes_ = "0x04000000" + np.array([1, -2, 0.5], np.float32).tobytes().hex()
    resources = f"\n{{-# dialect_resources: {{ builtin: {{ blob: \"{bytes_}\" }} }} #-}}\n" if "resource" in text else ""
    kind = tensor_type(value)
    (tmp_path / "op.mlir").write_text(
        f"func.func @run() -> {kind} {{\n  %r = dshard.constant {text}\n  return %r : {kind}\n}}\n{resources}"
    )
    command = [str(BUILD / "bin" / "dshard-interpret"), "op.mlir", "--output", "0=out.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = np.load(tmp_path / "out.npy")
    written = np.float64 if value.dtype.kind == "f" else value.dtype
    assert ours.dtype == written and np.array_equal(ours, value)


def test_bf16_rounds_to_nearest_even(tmp_path, random):
    tested.add("cast")
    x = random.normal(size=(500,)).astype(np.float32) * np.float32(10) ** random.integers(-20, 20, 500).astype(np.float32)
    (tmp_path / "op.mlir").write_text(
        "func.func @run(%x: tensor<500xf32>) -> tensor<500xbf16> {\n"
        "  %r = dshard.cast %x : (tensor<500xf32>) -> tensor<500xbf16>\n  return %r : tensor<500xbf16>\n}\n"
    )
    np.save(tmp_path / "x.npy", x)
    command = [str(BUILD / "bin" / "dshard-interpret"), "op.mlir", "--precision=model", "--input", "0=x.npy", "--output", "0=y.npy"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    assert np.array_equal(np.load(tmp_path / "y.npy"), rounded)


def test_every_op_is_tested(request):
    if request.config.option.keyword or any("::" in argument for argument in request.config.args):
        pytest.skip("only some of the cases ran")
    folder = ROOT / "include" / "dshard" / "Dialect" / "DShard" / "IR"
    text = "".join(path.read_text() for path in folder.glob("*Ops.td"))
    ops = set(re.findall(r"^def DShard_\w+Op\s*:\s*\w+<(?:DShard_Dialect,\s*)?\"(\w+)\"", text, re.M))
    assert len(ops) > 60
    assert ops - tested - ELSEWHERE == set()
