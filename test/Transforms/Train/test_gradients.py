"""The gradient of every op against finite differences, in the interpreter in fp64.

A case is a function of one op (or a few). dshard-differentiate makes its
vector-Jacobian product; for each float argument and some random directions d the
number <gradient, d> must be the central difference of <cotangent, f>. The last
test fails when an op of the dialect has neither a case nor a refusal here.
"""

import os
import pathlib
import re
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
BUILD = pathlib.Path(os.environ.get("TESTED_BUILD", ROOT / "build"))
TYPES = {"float64": "f64", "float32": "f32", "int64": "i64", "bool": "i1"}
tested = set()


def tensor(shape, element="f64"):
    return "tensor<" + "".join(f"{size}x" for size in shape) + element + ">"


def type_of(array):
    return tensor(array.shape, TYPES[str(array.dtype)])


def run(tool, *arguments, folder):
    done = subprocess.run([BUILD / "bin" / tool, *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpret(folder, entry, steps, outputs):
    """Results of a function of the differentiated module, one array per output, for each list of inputs in `steps`."""
    arguments = ["vjp.mlir", f"--entry={entry}", f"--steps={len(steps)}"]
    for i, arrays in enumerate(zip(*steps)):
        np.save(folder / f"in{i}.npy", np.stack(arrays))
        arguments += ["--input", f"{i}=in{i}.npy"]
    for i in range(outputs):
        arguments += ["--output", f"{i}=out{i}.npy"]
    run("dshard-interpret", *arguments, folder=folder)
    return [np.load(folder / f"out{i}.npy") for i in range(outputs)]


def program(body, operands, results):
    """A function @run of arguments %a0, %a1, ...; `results` are pairs of a value of `body` and its type."""
    arguments = ", ".join(f"%a{i}: {type_of(a)}" for i, a in enumerate(operands))
    names, types = (", ".join(column) for column in zip(*results))
    return f"func.func @run({arguments}) -> ({types}) {{\n{body}\n  return {names} : {types}\n}}\n"


def op_program(op, operands, results, attributes="", returned=None):
    """The program of one op; results are shapes (of f64) or types, `returned` the indices of those that it returns."""
    tested.add(op)
    results = [r if isinstance(r, str) else tensor(r) for r in results]
    names = ", ".join(f"%a{i}" for i in range(len(operands)))
    outs = ", ".join(f"%r{i}" for i in range(len(results)))
    ins = ", ".join(type_of(a) for a in operands)
    attributes = f" {{{attributes}}}" if attributes else ""
    body = f"  {outs} = dshard.{op} {names}{attributes} : ({ins}) -> ({', '.join(results)})"
    return program(body, operands, [(f"%r{i}", results[i]) for i in returned or range(len(results))])


def check_program(folder, text, operands, zero=(), step=1e-5, tolerance=1e-7, directions=3):
    """`zero`: arguments whose gradient is zero."""
    random = np.random.default_rng(11)
    (folder / "op.mlir").write_text(text)
    run("dshard-opt", "op.mlir", "--dshard-differentiate", "-o", "vjp.mlir", folder=folder)
    cotangents = []
    for match in re.findall(r"tensor<([^>]*)>", text[text.rindex("return") :]):
        *shape, element = match.split("x")
        dtype = np.float32 if element == "f32" else np.float64
        cotangents.append(random.normal(size=tuple(map(int, shape))).astype(dtype))
    floats = [i for i, a in enumerate(operands) if a.dtype.kind == "f"]
    gradients = [g[0] for g in interpret(folder, "run_vjp", [[*operands, *cotangents]], len(floats))]
    # All displaced arguments in one run: + and - along each direction.
    moves, expected = [], []
    for gradient, argument in zip(gradients, floats):
        assert gradient.shape == operands[argument].shape
        assert np.all(np.isfinite(gradient))
        if argument in zero:
            assert not np.any(gradient)
            continue
        assert np.any(gradient), f"argument {argument} has no gradient"
        for _ in range(directions):
            direction = random.normal(size=gradient.shape)
            expected.append((argument, float(np.sum(gradient * direction)), float(np.sum(np.abs(gradient * direction)))))
            for sign in (1, -1):
                moved = list(operands)
                moved[argument] = operands[argument] + sign * step * direction
                moves.append(moved)
    if not moves:
        return
    values = interpret(folder, "run", moves, len(cotangents))
    weighted = sum(np.sum((v * c).reshape(len(moves), -1), axis=1) for v, c in zip(values, cotangents))
    for i, (argument, ours, scale) in enumerate(expected):
        slope = (weighted[2 * i] - weighted[2 * i + 1]) / (2 * step)
        assert abs(slope - ours) <= tolerance * max(1.0, scale), f"argument {argument}: {ours}, finite differences give {slope}"


def check(folder, op, operands, *results, attributes="", returned=None, **options):
    """One op on %a0, %a1, ...; results are shapes (of f64) or types."""
    check_program(folder, op_program(op, operands, results, attributes, returned), operands, **options)


@pytest.fixture
def random():
    return np.random.default_rng(7)


UNARY = {
    "neg": (-2, 2), "abs": (0.1, 2), "exp": (-2, 2), "log": (0.2, 3), "sqrt": (0.2, 3), "rsqrt": (0.2, 3),
    "reciprocal": (0.3, 2), "sin": (-3, 3), "cos": (-3, 3), "atan": (-4, 4), "tanh": (-2, 2), "erf": (-2, 2),
    "sigmoid": (-3, 3), "silu": (-3, 3), "gelu": (-3, 3),
}  # fmt: skip


@pytest.mark.parametrize("op", UNARY)
def test_unary(op, tmp_path, random):
    check(tmp_path, op, [random.uniform(*UNARY[op], (3, 5))], (3, 5))


@pytest.mark.parametrize("op", ["abs", "relu"])
def test_kinked(op, tmp_path, random):
    x = random.uniform(0.1, 2, (3, 5)) * random.choice([-1, 1], (3, 5))
    check(tmp_path, op, [x], (3, 5))


@pytest.mark.parametrize("op", ["floor", "ceil", "round", "sign"])
def test_flat(op, tmp_path, random):
    check(tmp_path, op, [random.uniform(0.1, 0.4, (3, 5))], (3, 5), zero=[0])


def test_gelu_tanh(tmp_path, random):
    check(tmp_path, "gelu", [random.uniform(-3, 3, (3, 5))], (3, 5), attributes="tanh_approximation")


SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 1), (2, 1, 4)), ((), (3,)), ((1, 4), (3, 1))]


@pytest.mark.parametrize("left,right", SHAPES)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "pow", "max", "min", "mod", "swiglu"])
def test_binary(op, left, right, tmp_path, random):
    result = np.broadcast_shapes(left, right)
    check(tmp_path, op, [random.uniform(0.3, 2.4, left), random.uniform(0.5, 2.3, right)], result)


def test_fmod(tmp_path, random):
    x = random.uniform(2.1, 2.9, (3, 4)) * random.choice([-1, 1], (3, 4))
    check(tmp_path, "mod", [x, np.full((3, 4), 2.0) * random.choice([-1, 1], (3, 4))], (3, 4), attributes="fmod")


def test_power_at_zero(tmp_path):
    x, y = np.array([0.0, 0.0, 2.0, -1.5]), np.array([0.0, 2.0, 0.0, 3.0])
    (tmp_path / "op.mlir").write_text(op_program("pow", [x, y], [(4,)]))
    run("dshard-opt", "op.mlir", "--dshard-differentiate", "-o", "vjp.mlir", folder=tmp_path)
    gradient = interpret(tmp_path, "run_vjp", [[x, y, np.ones(4)]], 1)[0][0]
    np.testing.assert_allclose(gradient, [0, 0, 0, 3 * 1.5**2])


@pytest.mark.parametrize("op", ["max", "min"])
def test_extreme_ties(op, tmp_path, random):
    """Where both are equal each gets half, which is what the central difference gives."""
    x = random.normal(size=(3, 4))
    y = np.where(random.uniform(size=(3, 4)) < 0.5, x, random.normal(size=(3, 4)))
    check(tmp_path, op, [x, y], (3, 4))


def test_select(tmp_path, random):
    condition = random.uniform(size=(3, 1)) < 0.5
    condition[0], condition[1] = True, False
    check(tmp_path, "select", [condition, random.normal(size=(3, 4)), random.normal(size=(4,))], (3, 4))


def test_cast(tmp_path, random):
    check(tmp_path, "cast", [random.normal(size=(3, 4))], tensor((3, 4), "f32"))


def test_through_integers(tmp_path, random):
    """What passes through an integer, a boolean or a comparison has no gradient; its neighbour has."""
    x = random.uniform(0.1, 0.9, (4,)) * 5
    body = """
      %i = dshard.cast %a0 : (tensor<4xf64>) -> tensor<4xi64>
      %one = dshard.constant dense<1> : tensor<4xi64>
      %l = dshard.shift_left %i, %one : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
      %h = dshard.shift_right %l, %one : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
      %p = dshard.bit_or %h, %i : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
      %q = dshard.bit_xor %p, %one : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
      %b = dshard.bit_and %q, %p : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
      %d = dshard.bit_cast %b : (tensor<4xi64>) -> tensor<4xf64>
      %v = dshard.cast %b : (tensor<4xi64>) -> tensor<4xf64>
      %f = dshard.add %v, %d : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xf64>
      %c = dshard.compare %a0, %f {predicate = #dshard.predicate<gt>} : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xi1>
      %n = dshard.not %c : (tensor<4xi1>) -> tensor<4xi1>
      %u = dshard.is_nan %a0 : (tensor<4xf64>) -> tensor<4xi1>
      %o = dshard.or %n, %u : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>
      %a = dshard.and %o, %c : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>
      %e = dshard.xor %a, %c : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>
      %t = dshard.iota {dim = 0 : i64} : () -> tensor<4xf64>
      %k = dshard.constant dense<2.0> : tensor<4xf64>
      %s = dshard.mul %a0, %k : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xf64>
      %w = dshard.mul %s, %t : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xf64>
      %r0 = dshard.select %e, %w, %f : (tensor<4xi1>, tensor<4xf64>, tensor<4xf64>) -> tensor<4xf64>"""
    tested.update("compare not is_nan or and xor iota constant".split())
    tested.update("bit_and bit_or bit_xor bit_cast shift_left shift_right".split())
    check_program(tmp_path, program(body, [x], [("%r0", tensor((4,)))]), [x])


def test_several_uses(tmp_path, random):
    """Gradients of several uses add up; a result of the function may feed another op."""
    x, y = random.normal(size=(3, 4)), random.normal(size=(3, 4))
    body = """
      %r0 = dshard.mul %a0, %a0 : (tensor<3x4xf64>, tensor<3x4xf64>) -> tensor<3x4xf64>
      %s = dshard.sin %r0 : (tensor<3x4xf64>) -> tensor<3x4xf64>
      %m = dshard.mul %s, %a1 : (tensor<3x4xf64>, tensor<3x4xf64>) -> tensor<3x4xf64>
      %r1 = dshard.add %m, %a0 : (tensor<3x4xf64>, tensor<3x4xf64>) -> tensor<3x4xf64>"""
    check_program(tmp_path, program(body, [x, y], [("%r0", tensor((3, 4))), ("%r1", tensor((3, 4)))]), [x, y])


# Products.

PRODUCTS = [
    ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 6, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)),
    ((1, 3, 4), (2, 4, 5)), ((2, 3, 4), (1, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)),
]  # fmt: skip


@pytest.mark.parametrize("left,right", PRODUCTS)
@pytest.mark.parametrize("flags", ["", "transpose_lhs", "transpose_rhs", "transpose_lhs, transpose_rhs"])
def test_matmul(flags, left, right, tmp_path, random):
    result = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    lhs, rhs = random.normal(size=left), random.normal(size=right)
    if "lhs" in flags:
        lhs = np.swapaxes(lhs, -1, -2).copy()
    if "rhs" in flags:
        rhs = np.swapaxes(rhs, -1, -2).copy()
    check(tmp_path, "matmul", [lhs, rhs], result, attributes=flags)


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_weight_grad(lead, tmp_path, random):
    check(tmp_path, "weight_grad", [random.normal(size=(*lead, 4)), random.normal(size=(*lead, 5))], (4, 5))


@pytest.mark.parametrize("lead", [(6,), (2, 3)])
@pytest.mark.parametrize("flags", ["", "transpose_weights"])
def test_grouped_matmul(flags, lead, tmp_path, random):
    """Group 1 has no rows."""
    weights = random.normal(size=(3, 5, 4) if flags else (3, 4, 5))
    groups = np.array([2, 0, 2, 2, 0, 2]).reshape(lead)
    check(tmp_path, "grouped_matmul", [random.normal(size=(*lead, 4)), weights, groups], (*lead, 5), attributes=flags)


def test_grouped_weight_grad(tmp_path, random):
    operands = [random.normal(size=(6, 4)), random.normal(size=(6, 5)), np.array([2, 0, 2, 2, 0, 2])]
    check(tmp_path, "grouped_weight_grad", operands, (3, 4, 5))


# Attention.


@pytest.mark.parametrize("attributes", [
    "", "causal", "causal, offset = 2 : i64", "causal, window = 2 : i64", "window = 3 : i64, offset = 1 : i64",
    "softcap = 1.5 : f64", "causal, offset = -1 : i64", "causal, offset = -1 : i64, fully_masked = #dshard.fully_masked<uniform>",
])  # fmt: skip
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention(kv_heads, padded, attributes, tmp_path, random):
    q, k, v = random.normal(size=(2, 4, 5, 6)), random.normal(size=(2, kv_heads, 7, 6)), random.normal(size=(2, kv_heads, 7, 3))
    operands = [q, k, v]
    if padded:
        padding = random.uniform(size=(2, 7)) < 0.7
        padding[1, :2] = False  # rows of a causal mask see none of them
        operands.append(padding)
    check(
        tmp_path, "attention", operands, (2, 4, 5, 3), tensor((2, 4, 5), "f32"), returned=[0],
        attributes=f"scale = 0.4 : f64{', ' if attributes else ''}{attributes}",
    )  # fmt: skip


@pytest.mark.parametrize("attributes", ["", ", causal", ", softcap = 1.5 : f64", ", causal, offset = -1 : i64, fully_masked = #dshard.fully_masked<uniform>"])
@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 4, 5, 7), (2, 1, 1, 7), (1, 4, 5, 1)])
def test_attention_bias(shape, attributes, tmp_path, random):
    """Also of the bias: summed over what it repeats."""
    q, k, v = random.normal(size=(2, 4, 5, 6)), random.normal(size=(2, 2, 7, 6)), random.normal(size=(2, 2, 7, 3))
    check(
        tmp_path, "attention", [q, k, v, random.normal(size=shape)], (2, 4, 5, 3), tensor((2, 4, 5), "f32"), returned=[0],
        attributes=f"scale = 0.4 : f64{attributes}",
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("interleaved", ["", "interleaved"])
def test_rotary(interleaved, batch, tmp_path, random):
    operands = [random.normal(size=(2, 3, 5, 8)), random.normal(size=(batch, 5, 4)), random.normal(size=(batch, 5, 4))]
    check(tmp_path, "rotary", operands, (2, 3, 5, 8), attributes=interleaved)


# Norms and reductions.


def test_rms_norm(tmp_path, random):
    check(tmp_path, "rms_norm", [random.normal(size=(2, 3, 8)), random.normal(size=(8,))], (2, 3, 8), attributes="epsilon = 0.01 : f64")


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm(bias, tmp_path, random):
    operands = [random.normal(size=(2, 3, 8)), random.normal(size=(8,))] + ([random.normal(size=(8,))] if bias else [])
    check(tmp_path, "layer_norm", operands, (2, 3, 8), attributes="epsilon = 0.01 : f64")


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_softmax(dim, tmp_path, random):
    check(tmp_path, "softmax", [random.normal(size=(2, 3, 4))], (2, 3, 4), attributes=f"dim = {dim} : i64")


@pytest.mark.parametrize("dims,keep", [([0], False), ([1], True), ([0, 2], False), ([0, 1, 2], True), ([], False)])
@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min", "product"])
def test_reduce(kind, dims, keep, tmp_path, random):
    x = random.permutation(np.linspace(-2, 2, 24)).reshape(2, 3, 4)  # no two are near each other
    shape = [1 if i in dims else n for i, n in enumerate(x.shape) if keep or i not in dims]
    attributes = f"kind = #dshard<reduction {kind}>, dims = array<i64: {', '.join(map(str, dims))}>"
    attributes = attributes.replace("array<i64: >", "array<i64>") + (", keep_dims" if keep else "")
    check(tmp_path, "reduce", [x], tuple(shape), attributes=attributes)


@pytest.mark.parametrize("kind", ["max", "min"])
def test_reduce_ties(kind, tmp_path):
    """Two equal extremes get half each: their mean one-sided slope."""
    x = np.array([[1.0, 3.0, 3.0], [-3.0, -3.0, 1.0], [2.0, 0.0, -2.0]])
    check(tmp_path, "reduce", [x], (3,), attributes=f"kind = #dshard<reduction {kind}>, dims = array<i64: 1>")


@pytest.mark.parametrize("zeros", [1, 2])
def test_product_with_zeros(zeros, tmp_path):
    x = np.array([[2.0, 3.0, 4.0], [2.0, -3.0, 0.5]])
    x[0, :zeros] = 0
    check(tmp_path, "reduce", [x], (2,), attributes="kind = #dshard<reduction product>, dims = array<i64: 1>")


# Layout.


def test_reshape(tmp_path, random):
    check(tmp_path, "reshape", [random.normal(size=(2, 3, 4))], (6, 2, 2))


def test_transpose(tmp_path, random):
    check(tmp_path, "transpose", [random.normal(size=(2, 3, 4))], (4, 2, 3), attributes="permutation = array<i64: 2, 0, 1>")


def test_broadcast_to(tmp_path, random):
    check(tmp_path, "broadcast_to", [random.normal(size=(3, 1))], (2, 3, 4))


def test_concat(tmp_path, random):
    operands = [random.normal(size=(2, size, 3)) for size in (1, 4, 2)]
    check(tmp_path, "concat", operands, (2, 7, 3), attributes="dim = 1 : i64")


@pytest.mark.parametrize("start,stride,size", [
    (0, 1, 7), (2, 1, 3), (0, 2, 4), (1, 2, 3), (1, 3, 2), (6, -1, 7), (5, -2, 3), (4, -3, 2), (3, 5, 1), (3, -5, 1),
])  # fmt: skip
def test_slice(start, stride, size, tmp_path, random):
    attributes = f"starts = array<i64: 0, {start}, 1>, strides = array<i64: 1, {stride}, 2>"
    check(tmp_path, "slice", [random.normal(size=(2, 7, 4))], (2, size, 2), attributes=attributes)


def test_empty_slice(tmp_path):
    x = np.ones((3, 4))
    check(tmp_path, "slice", [x], (3, 0), attributes="starts = array<i64: 0, 0>, strides = array<i64: 1, 1>", zero=[0])


def test_pad(tmp_path, random):
    attributes = "low = array<i64: 0, 2>, high = array<i64: 1, 3>, value = 5.0 : f64"
    check(tmp_path, "pad", [random.normal(size=(2, 3))], (3, 8), attributes=attributes)


@pytest.mark.parametrize("inverse", ["", ", inverse"])
@pytest.mark.parametrize("layout", ["contiguous", "zigzag", "striped"])
def test_reorder(layout, inverse, tmp_path, random):
    attributes = f"dim = 1 : i64, layout = #dshard.layout<{layout}>, parts = 3 : i64{inverse}"
    check(tmp_path, "reorder", [random.normal(size=(2, 12, 3))], (2, 12, 3), attributes=attributes)


# Look-ups.


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gather(dim, tmp_path, random):
    x, indices = random.normal(size=(4, 5, 3)), random.integers(-3, 3, (2, 6))
    shape = (*x.shape[:dim], 2, 6, *x.shape[dim + 1 :])
    check(tmp_path, "gather", [x, indices], shape, attributes=f"dim = {dim} : i64")


def test_scatter_add(tmp_path, random):
    check(tmp_path, "scatter_add", [random.integers(0, 4, (2, 6)), random.normal(size=(5, 2, 6, 3))], (5, 4, 3), attributes="dim = 1 : i64")


@pytest.mark.parametrize("batch,indices,result", [(0, (5, 2), (5, 6)), (0, (4, 3), (4,)), (1, (4, 7, 1), (4, 7, 6)), (2, (4, 5, 1), (4, 5)), (1, (4, 2), (4,))])
def test_gather_nd(batch, indices, result, tmp_path, random):
    x, where = random.normal(size=(4, 5, 6)), random.integers(-3, 3, indices)
    check(tmp_path, "gather_nd", [x, where], result, attributes=f"batch_dims = {batch} : i64")


@pytest.mark.parametrize("returned", [[0, 1], [0], [1]])
def test_cross_entropy(returned, tmp_path, random):
    logits, labels = random.normal(size=(2, 5, 7)) * 2, random.integers(0, 7, (2, 5))
    labels[0, 1] = labels[1, 4] = -100
    check(tmp_path, "cross_entropy", [logits, labels], (2, 5), (2, 5), returned=returned)


def test_gradient(tmp_path, random):
    check(tmp_path, "gradient", [random.normal(size=(3, 4))], (3, 4), attributes='of = "w"')


# Whole models.


@pytest.mark.parametrize("model", ["llama-small", "char"])
def test_model(model, tmp_path):
    """Every parameter of a real export: <gradient, d> along a random direction d of that parameter."""
    random = np.random.default_rng(5)
    dims = ["--dim", "batch=2", "--dim", "seq=6"]
    run("dshard-opt", ROOT / f"test/models/{model}.onnx", *dims, "--to=graph", "-o", "graph.mlir", folder=tmp_path)
    run("dshard-opt", "graph.mlir", "--dshard-differentiate", "-o", "vjp.mlir", folder=tmp_path)
    signature = next(line for line in (tmp_path / "vjp.mlir").read_text().splitlines() if "func.func @run_vjp(" in line)
    values = {}
    for shape, attributes in re.findall(r"%arg\d+: tensor<([^>]*)> \{(.*?)\}(?=[,)] )", signature.split(") -> (")[0] + ") "):
        sizes = [int(size) for size in shape.split("x")[:-1]]
        name = re.search(r'#dshard.weight<"([^"]*)"', attributes) or re.search(r'dshard.name = "([^"]*)"', attributes)
        if "weight<" in attributes:
            values[name[1]] = random.normal(size=sizes) * (0.3 if len(sizes) > 1 else 1.0)
        elif "cotangent" in attributes:
            values[name[1]] = random.normal(size=sizes)
        elif name[1] == "attention_mask":
            values[name[1]] = np.array([[1] * 6, [0, 0] + [1] * 4])  # padded on the left
        else:
            values[name[1]] = random.integers(0, 32, sizes)
    parameters = [name for name, value in values.items() if value.dtype.kind == "f" and not name.endswith(".cotangent")]
    cotangents = [name for name in values if name.endswith(".cotangent")]
    assert len(parameters) > 10 and len(cotangents) == 1
    for name, value in values.items():
        np.save(tmp_path / f"{name}.npy", value)

    def interpret_model(entry, outputs, given):
        inputs = [f"--input={name}={name}.npy" for name in given]
        run("dshard-interpret", "vjp.mlir", f"--entry={entry}", *inputs, *(f"--output={o}=out.{o}.npy" for o in outputs), folder=tmp_path)
        return [np.load(tmp_path / f"out.{o}.npy") for o in outputs]

    gradients = interpret_model("run_vjp", [f"{name}.grad" for name in parameters], values)
    forward = [name for name in values if name not in cotangents]
    output = cotangents[0].removesuffix(".cotangent")
    step = 1e-5
    for name, gradient in zip(parameters, gradients):
        assert gradient.shape == values[name].shape and np.any(gradient)
        direction = random.normal(size=gradient.shape)
        ends = []
        for sign in (1, -1):
            np.save(tmp_path / f"{name}.npy", values[name] + sign * step * direction)
            ends.append(np.sum(interpret_model("run", [output], forward)[0] * values[cotangents[0]]))
        np.save(tmp_path / f"{name}.npy", values[name])
        slope, ours = (ends[0] - ends[1]) / (2 * step), np.sum(gradient * direction)
        assert abs(slope - ours) <= 1e-6 * np.sum(np.abs(gradient * direction)), f"{name}: {ours}, finite differences give {slope}"


# Refusals.


def refuse(folder, text, message):
    (folder / "op.mlir").write_text(text)
    done = subprocess.run([BUILD / "bin" / "dshard-opt", "op.mlir", "--dshard-differentiate"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr


def test_refused_reshard(tmp_path):
    body = """
      %q = dshard.reshard %a0 to <[{}, {} ]> why "test" : tensor<3x4xf64>
      %r0 = dshard.neg %q : (tensor<3x4xf64>) -> tensor<3x4xf64>"""
    text = program(body, [np.zeros((3, 4))], [("%r0", tensor((3, 4)))])
    refuse(tmp_path, text, "'dshard.reshard' op has no gradient; training through it is refused")


def test_refused_second_derivatives(tmp_path):
    q, lse = np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 3), np.float32)
    text = op_program("attention_grad", [q, q, q, q, lse, q], [q.shape] * 3, "scale = 1.0 : f64")
    refuse(tmp_path, text, "'dshard.attention_grad' op has no gradient; training through it is refused")
    scalar, enabled, w = np.zeros(()), np.ones((), bool), np.zeros((3,))
    operands = [w, w, w, w, scalar, scalar, scalar, scalar, enabled]
    attributes = "beta1 = 0.9 : f64, beta2 = 0.9 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.0 : f64"
    text = op_program("adamw", operands, [w.shape] * 3, attributes)
    refuse(tmp_path, text, "'dshard.adamw' op has no gradient; training through it is refused")


def test_refused_log_sum_exp_and_layout(tmp_path):
    q = np.zeros((1, 2, 4, 4))
    results = [q.shape, tensor((1, 2, 4), "f32")]
    refuse(tmp_path, op_program("attention", [q, q, q], results, "scale = 1.0 : f64"), "has no gradient through log_sum_exp")
    attributes = "scale = 1.0 : f64, layout = #dshard.layout<zigzag>, parts = 2 : i64"
    refuse(tmp_path, op_program("attention", [q, q, q], results, attributes, [0]), "has no gradient with the layout zigzag")


def test_every_op_has_a_case():
    """Reads the ops off the .td files; those of the local phase and of control have no gradient."""
    exempt = set(
        "reshard all_gather all_reduce reduce_scatter all_to_all broadcast permute send recv local_slice rank_index "
        "repeat if fused yield".split()
    )
    declared = set()
    for file in (ROOT / "include/dshard/Dialect/DShard/IR").glob("*Ops.td"):
        declared |= set(re.findall(r"def DShard_\w+Op\s*:\s*\w+<\s*(?:DShard_Dialect, )?\"(\w+)\"", file.read_text()))
    assert len(declared) > 60
    assert declared - exempt - tested == set()
