"""Products with block-quantised weights (com.microsoft MatMulNBits): against onnxruntime, computed
from the packed form where the CPU's kernels take it, dequantised where they do not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tools


def quantised(name, k, n, bits, block, zeros, bias, random, level=0):
    """A node of a [., k] input, and its initializers."""
    blocks = -(-k // block)
    tensors = {
        "data": random.integers(0, 256, (n, blocks, block * bits // 8), dtype=np.uint8),
        "scales": (random.random((n, blocks)) / block**0.5 / 2**bits).astype(np.float32),
    }
    if zeros:
        tensors["zeros"] = random.integers(0, 256, (n, -(-blocks * bits // 8)), dtype=np.uint8)
    if bias:
        tensors["bias"] = random.standard_normal(n).astype(np.float32)
    inputs = [f"{name}.{key}" if key in tensors else "" for key in ("data", "scales", "zeros", "", "bias")]
    while not inputs[-1]:
        inputs.pop()
    attributes = dict(K=k, N=n, bits=bits, block_size=block, accuracy_level=level)
    initializers = [numpy_helper.from_array(value, f"{name}.{key}") for key, value in tensors.items()]
    return inputs, attributes, initializers


def two_layers(folder, bits, block, zeros, bias, hidden=96, level=0):
    random = np.random.default_rng(bits + block)
    nodes, weights, value = [], [], "x"
    for name, k, n in [("up", 64, hidden), ("down", hidden, 64)]:
        inputs, attributes, initializers = quantised(name, k, n, bits, block, zeros, bias, random, level)
        nodes.append(
            helper.make_node("MatMulNBits", [value, *inputs], [name], name, domain="com.microsoft", **attributes)
        )
        nodes.append(helper.make_node("Relu", [name], [f"{name}.out"], f"{name}.relu"))
        weights += initializers
        value = f"{name}.out"
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "seq", 64])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", "seq", 64])],
        weights,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = folder / "quantised.onnx"
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    # Outside, as in real files: small tensors inside are constants, which are folded.
    onnx.save(proto, model, save_as_external_data=True, location="quantised.data", size_threshold=0)
    return model


@pytest.mark.parametrize(
    "bits,block,zeros,bias,hidden,calls",
    [
        (4, 32, False, True, 96, 2),
        (4, 16, True, False, 128, 2),
        (8, 32, False, False, 96, 2),
        (8, 32, True, True, 96, 2),
        (4, 32, True, True, 96, 1),  # three blocks: their zero points end within a byte
        (4, 64, False, True, 80, 1),  # the last block is padded
    ],
)
@pytest.mark.parametrize("seq", [1, 7])
def test_equals_onnxruntime(bits, block, zeros, bias, hidden, calls, seq, tmp_path):
    model = two_layers(tmp_path, bits, block, zeros, bias, hidden)
    x = np.random.default_rng(1).standard_normal((2, seq, 64)).astype(np.float32)
    expected = tools.onnxruntime_outputs(model, {"x": x})
    plan = tmp_path / "quantised.dsplan"
    tools.compile_plan(model, plan, dims={"batch": 2, "seq": seq})
    stat = tools.run("dshard-plan", "print", plan).stdout
    assert stat.count("matmul_nbits") == calls
    outputs, _ = tools.run_plan(plan, {"x": x}, expected, tmp_path)
    for name, value in expected.items():
        assert np.abs(value).max() > 0.1
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-5 * max(1, np.abs(value).max()))


@pytest.mark.parametrize("bits,block,kernels", [(4, 32, ""), (4, 32, "portable"), (4, 64, ""), (8, 32, "")])
@pytest.mark.parametrize("zeros", [False, True])
def test_activations_of_8_bits(bits, block, kernels, zeros, tmp_path, monkeypatch):
    """Asked for by the file; onnxruntime rounds its activations in the same way."""
    model = two_layers(tmp_path, bits, block, zeros, True, 128, level=4)
    exact = tmp_path / "exact"
    exact.mkdir()
    x = {"x": np.random.default_rng(1).standard_normal((2, 7, 64)).astype(np.float32)}
    rounded = tools.onnxruntime_outputs(model, x)
    precise = tools.onnxruntime_outputs(two_layers(exact, bits, block, zeros, True, 128), x)
    plan = tmp_path / "quantised.dsplan"
    tools.compile_plan(model, plan, dims={"batch": 2, "seq": 7})
    monkeypatch.setenv("DSHARD_KERNELS", kernels)
    outputs, _ = tools.run_plan(plan, x, rounded, tmp_path)
    for name, value in rounded.items():
        size = np.abs(value).max()
        distance = np.abs(outputs[name] - precise[name]).max()
        assert 1e-5 * size < distance < 2e-2 * size  # rounded, but not by more than 8 bits do
        assert np.abs(outputs[name] - value).max() < 2e-2 * size


@pytest.mark.parametrize("mesh", ["dp_shard=2", "dp_replicate=2"])
def test_batches_are_sharded(mesh, tmp_path):
    model = two_layers(tmp_path, 4, 32, False, True)
    x = np.random.default_rng(1).standard_normal((2, 3, 64)).astype(np.float32)
    expected = tools.onnxruntime_outputs(model, {"x": x})
    plan = tmp_path / "quantised.dsplan"
    tools.compile_plan(model, plan, mesh, {"batch": 2, "seq": 3})
    outputs, _ = tools.run_plan(plan, {"x": x}, expected, tmp_path)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(bits=3), "bits is 3; 4 and 8 are supported"),
        (dict(N=65), "the packed data has 3072 elements; 3120 are needed"),
        (dict(block_size=24), "block_size 24 are not positive, or the last is no power of two"),
    ],
)
def test_refusals(change, message, tmp_path):
    path = two_layers(tmp_path, 4, 32, False, False)
    model = onnx.load(path)
    for attribute in model.graph.node[2].attribute:
        if attribute.name in change:
            attribute.i = change[attribute.name]
    onnx.save(model, path)
    with pytest.raises(tools.CommandFailed) as refused:
        tools.compile_plan(path, tmp_path / "x.dsplan", dims={"batch": 1, "seq": 1})
    assert message in str(refused.value)
