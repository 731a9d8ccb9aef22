"""Corners of operators that the official node cases leave out, each once wrong: against onnxruntime."""

import numpy as np
import onnx
import pytest
import tools
from onnx import helper

RANDOM = np.random.default_rng(5)


def normal(*shape, dtype=np.float32):
    return RANDOM.standard_normal(shape).astype(dtype)


def constant(name, value):
    return onnx.numpy_helper.from_array(np.asarray(value), name)


def node(op, inputs, outputs="y", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def masked(shape, low):
    x = normal(*shape)
    x[0] += np.float32(low)
    return x


def static_cache(past, new, valid):
    """`new` tokens of a cache with room for `past`, after which `valid` keys count."""
    attributes = dict(num_heads=4, kv_num_heads=2, domain="com.microsoft")
    inputs = dict(q=normal(1, new, 32), k=normal(1, new, 16), v=normal(1, new, 16))
    inputs.update(pk=normal(1, 2, past, 8), pv=normal(1, 2, past, 8))
    weights = [constant("s", np.array([valid - 1], np.int32)), constant("t", np.array(valid, np.int32))]
    # Without the outputs of the cache onnxruntime does not read it.
    return [node("GroupQueryAttention", "q k v pk pv s t", "y nk nv", **attributes)], inputs, weights, (1, new, 32)


def recurrent(op, gates, directions, activations, clip, **attributes):
    """Five steps of a batch of two; clipped so that it is felt."""
    inputs = dict(x=normal(5, 2, 4), w=normal(directions, gates * 6, 4), r=normal(directions, gates * 6, 6))
    inputs.update(b=normal(directions, 2 * gates * 6))
    attributes.update(hidden_size=6, clip=clip, direction="bidirectional" if directions == 2 else "forward")
    made = node(op, "x w r b", **attributes)
    if activations:
        made.attribute.append(helper.make_attribute("activations", activations))
    return [made], inputs, [], (5, directions, 2, 6)


X = normal(7, 33)
CASES = {
    # One window, and that in the pads alone.
    "conv_of_pads_alone": (
        [node("Conv", "x w b", kernel_shape=[1], strides=[3], pads=[2, 0])],
        dict(x=normal(1, 2, 1)),
        [constant("w", normal(3, 2, 1)), constant("b", normal(3))],
        (1, 3, 1),
    ),
    # A product and the largest of it, rounded apart, must cancel.
    **{
        f"softmax_scaled_after_mask_{name}": (
            [node("Mul", "x c", "s"), node("Softmax", "s", axis=-1)],
            dict(x=masked((7, 33), low)),
            [constant("c", np.float32(0.35))],
            (7, 33),
        )
        for name, low in [("1e9", -1e9), ("lowest", np.finfo(np.float32).min)]
    },
    "product_less_itself": (
        [node("Mul", "a b", "p"), node("Mul", "c d", "q"), node("Sub", "p q", "r"), node("Sign", "r")],
        dict(a=X, b=X[::-1].copy(), c=X.copy(), d=X[::-1].copy()),
        [],
        (7, 33),
    ),
    "prompt_into_a_cache_with_room": static_cache(12, 4, 4),
    "chunk_into_a_cache_with_room": static_cache(12, 3, 7),
    "decode_into_a_cache_with_room": static_cache(12, 1, 8),
    # Activations are given, as the defaults or not; what they read is clipped.
    "rnn_clip": recurrent("RNN", 1, 1, ["Tanh"], 0.6),
    "rnn_relu": recurrent("RNN", 1, 2, ["Relu", "Tanh"], 1.5),
    "gru_clip": recurrent("GRU", 3, 2, ["Sigmoid", "Tanh"] * 2, 0.6, linear_before_reset=1),
    "gru_reset_after": recurrent("GRU", 3, 1, [], 0.6),
    "lstm_clip": recurrent("LSTM", 4, 1, [], 0.6),
    "lstm_relu": recurrent("LSTM", 4, 2, ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Relu", "Relu"], 1.0),
    "integer_nonzero_of_floats": (
        [node("NonZero", "c", "places"), node("Add", "places one")],
        dict(one=np.ones((2, 1), np.int64)),
        [constant("c", np.array([[0, -0.5, 0], [1e-30, 0, -0.0]], np.float32))],
        (2, 2),
    ),
    "integer_to_a_fraction": (
        [node("Pow", "x e")],
        dict(x=np.array([4, 9, 16], np.int64)),
        [constant("e", np.array([0.5, 0.5, 1.5], np.float32))],
        (3,),
    ),
    "norm_of_large_halves": (
        [node("ReduceL2", "x axes", keepdims=0)],
        dict(x=np.full((3, 600), 200, np.float16)),
        [constant("axes", np.array([1]))],
        (3,),
    ),
    "transposed_convolution_with_room": (
        [node("ConvTranspose", "x w", strides=[3], output_shape=[17])],
        dict(x=normal(1, 1, 5)),
        [constant("w", normal(1, 1, 3))],
        (1, 1, 17),
    ),
}


def save(folder, nodes, inputs, weights, shape, dtype):
    def info(name, element, dims):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(element)), dims)

    graph = helper.make_graph(
        nodes, "g", [info(n, a.dtype, a.shape) for n, a in inputs.items()], [info("y", dtype, shape)], weights
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx")
    return folder / "model.onnx"


def ours(model, folder, inputs):
    tools.compile_plan(model, folder / "model.dsplan")
    results, _ = tools.run_plan(folder / "model.dsplan", inputs, ["y"], folder)
    return results["y"]


@pytest.mark.parametrize("name", CASES)
def test_equals_onnxruntime(name, tmp_path):
    nodes, inputs, weights, shape = CASES[name]
    dtype = np.int64 if name.startswith("integer") else next(iter(inputs.values())).dtype
    model = save(tmp_path, nodes, inputs, weights, shape, dtype)
    theirs = tools.onnxruntime_outputs(model, inputs)["y"]
    got = ours(model, tmp_path, inputs)
    assert got.shape == theirs.shape and got.dtype == theirs.dtype
    np.testing.assert_allclose(got, theirs, rtol=1e-3 if dtype == np.float16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("largest", [0, 1])
def test_a_nan_is_larger_than_all(largest, tmp_path):
    """As for numpy's sort; every index is one of the dim, and none is there twice."""
    x = X[:, :9].copy()
    x[0, 2] = x[1, 0] = x[1, 8] = x[2, 4] = np.nan
    x[3] = np.nan
    nodes = [node("TopK", "x k", "v y", axis=1, largest=largest)]
    model = save(tmp_path, nodes, dict(x=x), [constant("k", np.array([9]))], (7, 9), np.int64)
    order = np.argsort(x if not largest else -x, axis=1, kind="stable")
    if largest:  # numpy puts NaN last
        order = np.stack([[*row[np.isnan(v[row])], *row[~np.isnan(v[row])]] for row, v in zip(order, x)])
    np.testing.assert_array_equal(ours(model, tmp_path, dict(x=x)), order)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_a_nan_is_the_extreme(op, tmp_path):
    """As for numpy; onnxruntime's answer depends on the order that it compares in."""
    x = np.where(np.arange(33) == 20, np.float32(np.nan), X)
    model = save(tmp_path, [node(op, "x", axis=1, keepdims=0)], dict(x=x), [], (7,), np.int64)
    np.testing.assert_array_equal(ours(model, tmp_path, dict(x=x)), getattr(np, op.lower())(x, axis=1))


def test_a_cubic_of_bytes_does_not_wrap(tmp_path):
    """onnxruntime has no such kernel; a step from 0 to 255 overshoots on both sides."""
    x = np.repeat(np.array([0, 0, 0, 255, 255, 255], np.uint8)[None, None, None], 6, axis=2)
    nodes = [node("Resize", "x roi scales", mode="cubic")]
    weights = [constant("roi", np.zeros(0, np.float32)), constant("scales", np.array([1, 1, 1, 2], np.float32))]
    model = save(tmp_path, nodes, dict(x=x), weights, (1, 1, 6, 12), np.uint8)
    row = ours(model, tmp_path, dict(x=x))[0, 0, 0].astype(int)
    assert (np.diff(row) >= 0).all() and row[0] == 0 and row[-1] == 255
