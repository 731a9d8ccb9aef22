"""What onnxruntime-genai's builder writes beyond products: attention with sinks, windows and biases over a cache,
mixtures of experts, packed embeddings. Against onnxruntime, node by node."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tools

RANDOM = np.random.default_rng(11)
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def save(path, op, inputs, outputs, attributes, constants=()):
    """One node; those of `inputs` named in `constants` are initializers."""
    names = list(inputs)
    while inputs[names[-1]] is None:
        names.pop()
    node = helper.make_node(
        op, [n if inputs[n] is not None else "" for n in names], outputs, "it", domain="com.microsoft", **attributes
    )
    given = {n: v for n, v in inputs.items() if v is not None}
    free = {n: v for n, v in given.items() if n not in constants}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in free.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(given[n], n) for n in constants if n in given],
    )
    onnx.save(helper.make_model(graph, opset_imports=OPSETS, ir_version=10), path)
    return path, free


def ours(model, inputs, outputs, folder, mesh=""):
    tools.compile_plan(model, folder / "p.dsplan", mesh)
    return tools.run_plan(folder / "p.dsplan", inputs, outputs, folder)[0]


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max()))


#
# GroupQueryAttention
#

HEADS, KV, SIZE = 4, 2, 16
ORDER = ["q", "k", "v", "pk", "pv", "s", "t", "cos", "sin", "pos", "bias", "sink"]
OUTPUTS = ["y", "nk", "nv"]


def attention(batch, new, past, valid, total, rotary=False, **more):
    inputs = dict.fromkeys(ORDER)
    inputs.update(q=normal(batch, new, HEADS * SIZE), k=normal(batch, new, KV * SIZE), v=normal(batch, new, KV * SIZE))
    inputs.update(pk=normal(batch, KV, past, SIZE), pv=normal(batch, KV, past, SIZE))
    inputs.update(s=np.array(valid, np.int32) - 1, t=np.array(total, np.int32))
    if rotary:
        inputs.update(cos=normal(32, SIZE // 2), sin=normal(32, SIZE // 2))
    inputs.update(more)
    return inputs


BIAS = normal(2, HEADS, 3, 3) * 3
ATTENTIONS = {
    "sinks": (attention(2, 3, 0, [3, 3], 3, sink=normal(HEADS)), {}),
    "sinks_decode": (attention(2, 1, 5, [6, 4], 6, True, sink=normal(HEADS)), dict(do_rotary=1)),
    "smooth": (attention(1, 4, 0, [4], 4), dict(smooth_softmax=1)),
    "bias": (attention(2, 3, 0, [3, 3], 3, bias=BIAS), {}),
    "bias_and_softcap": (attention(2, 3, 0, [3, 3], 3, bias=BIAS), dict(softcap=2.0)),
    "bias_past": (attention(1, 3, 5, [8], 8, bias=normal(1, 1, 3, 8)), {}),
    "window": (attention(1, 6, 0, [6], 6), dict(local_window_size=3)),
    "window_decode": (attention(2, 1, 7, [8, 6], 8), dict(local_window_size=3)),
    "window_chunk": (attention(1, 3, 7, [10], 10, True), dict(local_window_size=3, do_rotary=1)),
    "all": (attention(1, 6, 0, [6], 6, sink=normal(HEADS)), dict(local_window_size=3, softcap=1.5)),
    "room": (attention(2, 3, 12, [3, 2], 3, True), dict(do_rotary=1)),
}  # fmt: skip


# Only several new tokens behind a past depend on the total length.
@pytest.mark.parametrize(
    "name,total", [(name, "known") for name in ATTENTIONS] + [("room", "data"), ("window_chunk", "data")]
)
def test_attention(name, total, tmp_path):
    inputs, attributes = ATTENTIONS[name]
    attributes = dict(attributes, num_heads=HEADS, kv_num_heads=KV)
    constants = ["s", "t"] if total == "known" else []
    model, free = save(tmp_path / "a.onnx", "GroupQueryAttention", inputs, OUTPUTS, attributes, constants)
    expected = tools.onnxruntime_outputs(model, free)
    got = ours(model, free, OUTPUTS, tmp_path)
    rows = np.arange(inputs["q"].shape[1])[None, :] <= inputs["s"][:, None]
    if inputs["pk"].shape[2] == 0 or name == "room":  # behind the end of a row is anything
        close(got["y"][rows], expected["y"][rows])
    else:
        close(got["y"], expected["y"])


@pytest.mark.parametrize("mesh", ["", "dp_shard=2"])
def test_chunk_of_several_rows(mesh, tmp_path):
    """Which onnxruntime refuses: each row behind its own past, as alone."""
    inputs = attention(2, 3, 9, [12, 7], 12, True, sink=normal(HEADS))
    attributes = dict(num_heads=HEADS, kv_num_heads=KV, do_rotary=1, local_window_size=5)
    model, free = save(tmp_path / "a.onnx", "GroupQueryAttention", inputs, OUTPUTS, attributes)
    got = ours(model, free, ["y"], tmp_path, mesh)
    for row, length in enumerate([12, 7]):
        alone = {
            n: v if v is None or v.shape[:1] != (2,) else v[row : row + 1] for n, v in inputs.items() if n != "t"
        }
        alone = {n: alone.get(n) for n in ORDER} | {"t": np.array(length, np.int32)}
        one, fed = save(tmp_path / "one.onnx", "GroupQueryAttention", alone, OUTPUTS, attributes)
        close(got["y"][row : row + 1], tools.onnxruntime_outputs(one, fed)["y"])


#
# Mixtures of experts
#

ROWS, HIDDEN, INNER, EXPERTS = 6, 32, 64, 4
SWIGLU = dict(activation_type="swiglu", swiglu_fusion=1, swiglu_limit=1.0, activation_alpha=1.702, activation_beta=1.0)


def experts(gated, bias=True):
    width = INNER * (2 if gated else 1)
    return dict(
        x=normal(ROWS, HIDDEN), r=normal(ROWS, EXPERTS),
        w1=normal(EXPERTS, width, HIDDEN) / 4, b1=normal(EXPERTS, width) if bias else None,
        w2=normal(EXPERTS, HIDDEN, INNER) / 6, b2=normal(EXPERTS, HIDDEN) if bias else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "attributes,bias",
    [
        (dict(SWIGLU, k=2, normalize_routing_weights=1), True),
        (dict(SWIGLU, k=2, normalize_routing_weights=0), True),
        (dict(activation_type="silu", k=2, normalize_routing_weights=1), False),
        (dict(activation_type="gelu", k=1, normalize_routing_weights=0), True),
        (dict(activation_type="relu", k=4), True),
        (dict(activation_type="identity", k=3, normalize_routing_weights=1), True),
    ],
)
@pytest.mark.parametrize("mesh", ["", "dp_shard=2"])
def test_mixture(attributes, bias, mesh, tmp_path):
    inputs = experts(attributes["activation_type"] == "swiglu", bias)
    constants = [n for n in inputs if n not in ("x", "r")]
    model, free = save(tmp_path / "m.onnx", "MoE", inputs, ["y"], attributes, constants)
    expected = tools.onnxruntime_outputs(model, free)["y"]
    assert np.abs(expected).max() > 0.5
    close(ours(model, free, ["y"], tmp_path, mesh)["y"], expected)


def packed(n, k, block, bits, zeros):
    """Data, scales and zero points of random weights, as QMoE takes them."""
    blocks = k // block if block else 1
    data = RANDOM.integers(0, 256, (EXPERTS, n, k * bits // 8), dtype=np.uint8)
    scales = (RANDOM.random((EXPERTS, n, blocks)) / k**0.5 / 2**bits * 3).astype(np.float32)
    zero = RANDOM.integers(0, 256, (EXPERTS, n, -(-blocks * bits // 8)), dtype=np.uint8) if zeros else None
    return data, scales if block else scales[..., 0], zero


@pytest.mark.parametrize("block,bits,zeros", [(0, 4, False), (32, 4, False), (16, 4, True), (32, 8, True)])
def test_quantised_mixture(block, bits, zeros, tmp_path):
    inputs = experts(True)
    w1, s1, z1 = packed(2 * INNER, HIDDEN, block, bits, zeros)
    w2, s2, z2 = packed(HIDDEN, INNER, block, bits, zeros)
    inputs = dict(
        x=inputs["x"], r=inputs["r"], w1=w1, s1=s1, b1=inputs["b1"], w2=w2, s2=s2, b2=inputs["b2"],
        w3=None, s3=None, b3=None, z1=z1, z2=z2,
    )  # fmt: skip
    # What onnxruntime does with the routing weights does not depend on the attribute, as it does for MoE.
    attributes = dict(SWIGLU, k=2, normalize_routing_weights=int(zeros), expert_weight_bits=bits)
    if block:
        attributes["block_size"] = block
    constants = [n for n, v in inputs.items() if n not in ("x", "r") and v is not None]
    model, free = save(tmp_path / "m.onnx", "QMoE", inputs, ["y"], attributes, constants)
    got, theirs = ours(model, free, ["y"], tmp_path)["y"], tools.onnxruntime_outputs(model, free)["y"]
    if bits == 8:  # onnxruntime rounds the activations, too
        assert np.abs(got - theirs).max() < 1e-2 * np.abs(theirs).max()
        theirs = by_formula(inputs)
    close(got, theirs)


def by_formula(inputs):
    """SwiGLU of 8-bit weights with zero points, two experts per row, in float64."""

    def matrix(data, scales, zeros):
        values = data.reshape(*scales.shape, -1).astype(np.float64) - zeros[..., None]
        return (values * scales[..., None]).reshape(data.shape)

    up = matrix(inputs["w1"], inputs["s1"], inputs["z1"])
    down = matrix(inputs["w2"], inputs["s2"], inputs["z2"])
    result = np.zeros((ROWS, HIDDEN))
    for row, (x, logits) in enumerate(zip(inputs["x"], inputs["r"])):
        chosen = np.argsort(-logits)[:2]
        counts = np.exp(logits[chosen]) / np.exp(logits[chosen]).sum()
        for e, count in zip(chosen, counts):
            first = up[e] @ x + inputs["b1"][e]
            gate, linear = np.minimum(first[0::2], 1.0), np.clip(first[1::2], -1.0, 1.0)
            inner = gate / (1 + np.exp(-1.702 * gate)) * (linear + 1)
            result[row] += count * (down[e] @ inner + inputs["b2"][e])
    return result


@pytest.mark.parametrize("bits,block,zeros", [(4, 32, False), (4, 16, True), (8, 32, True), (4, 32, True)])
@pytest.mark.parametrize("shape", [(2, 5), (3,)])
def test_packed_embedding(bits, block, zeros, shape, tmp_path):
    rows, width = 50, 64
    inputs = dict(
        data=RANDOM.integers(0, 256, (rows, width * bits // 8), dtype=np.uint8),
        ids=RANDOM.integers(0, rows, shape, dtype=np.int64),
        scales=normal(rows, width // block),
        zeros=RANDOM.integers(0, 256, (rows, -(-width // block * bits // 8)), dtype=np.uint8) if zeros else None,
    )
    attributes = dict(bits=bits, block_size=block, gather_axis=0, quantize_axis=1)
    constants = ["data", "scales", "zeros"] if zeros else ["data", "scales"]
    model, free = save(tmp_path / "e.onnx", "GatherBlockQuantized", inputs, ["y"], attributes, constants)
    np.testing.assert_array_equal(
        ours(model, free, ["y"], tmp_path)["y"], tools.onnxruntime_outputs(model, free)["y"]
    )


@pytest.mark.parametrize(
    "op,attributes,message",
    [
        ("MoE", dict(activation_type="mish"), "activation_type is 'mish'; identity, relu, gelu, silu and swiglu are"),
        ("MoE", dict(k=5), "k is 5 of 4 experts"),
        ("MoE", dict(use_sparse_mixer=1, k=2), "use_sparse_mixer is not supported"),
        ("MoE", dict(activation_type="swiglu"), "swiglu_fusion 0 do not suit each other"),
        ("QMoE", dict(quant_type="fp4"), "quant_type 'fp4' is not supported; int is"),
        ("GroupQueryAttention", dict(num_heads=4, kv_num_heads=2), "input 9 (position_ids) is not supported"),
        ("GatherBlockQuantized", dict(bits=2), "bits is 2; 4 and 8 are supported"),
    ],
)
def test_refusals(op, attributes, message, tmp_path):
    inputs = experts(False, op == "MoE")
    if op == "QMoE":
        inputs = dict(x=inputs["x"], r=inputs["r"], w1=np.zeros((EXPERTS, INNER, 16), np.uint8), s1=normal(EXPERTS, INNER))
    if op == "GroupQueryAttention":
        inputs = attention(1, 3, 0, [3], 3, pos=np.zeros((1, 3), np.int64))
    if op == "GatherBlockQuantized":
        inputs = dict(data=np.zeros((9, 16), np.uint8), ids=np.zeros(2, np.int64), scales=normal(9, 1))
    model, _ = save(tmp_path / "m.onnx", op, inputs, ["y"], attributes)
    with pytest.raises(tools.CommandFailed) as refused:
        tools.compile_plan(model, tmp_path / "x.dsplan")
    assert message in str(refused.value) and "'it'" in str(refused.value)
