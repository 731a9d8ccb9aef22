"""Tensor parallelism of what is no plain Linear: fused projections, convolutions, block-quantised weights, few KV
heads. Against onnxruntime and the unsharded program; the collectives are counted."""

import collections
import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import families
import tools
from test_block_quantized import two_layers
from test_training import ALL_OUTPUTS, compile_step, write_config

COLLECTIVE = re.compile(r"dshard\.(all_gather|all_reduce|reduce_scatter|all_to_all) .*?why \"([^\"]*)\"")


def collectives(model, mesh, dims, *flags):
    """{kind: [why, ...]} of the local phase."""
    text = tools.run("dshard-opt", *tools.compile_arguments(model, mesh, dims), *flags, "--to=local").stdout
    found = collections.defaultdict(list)
    for kind, why in COLLECTIVE.findall(text):
        found[kind].append(why)
    return found


def run_plan(model, mesh, dims, inputs, outputs, folder, *flags):
    plan = folder / "model.dsplan"
    tools.compile_plan(model, plan, mesh, dims, *flags)
    return tools.run_plan(plan, inputs, outputs, folder)[0]


def check(model, mesh, dims, inputs, folder, *flags):
    """The plan's outputs are onnxruntime's."""
    expected = tools.onnxruntime_outputs(model, inputs)
    ours = run_plan(model, mesh, dims, inputs, list(expected), folder, *flags)
    for name, theirs in expected.items():
        assert tools.largest_difference(ours[name], theirs) <= tools.tolerance(theirs), name


#
# Fused projections
#


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("families"), {}

    def get(name):
        if name not in made:
            made[name] = families.Case(name, folder)
        return made[name]

    return get


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "bloom", "phi3"])
@pytest.mark.parametrize("style", ["dynamo", "legacy"])
def test_fused_projections_add_no_collective(name, style, family):
    """Two all_reduces a layer, one of the embedding, one gather of the logits."""
    case = family(f"{style}/{name}")
    found = collectives(case.model, "tp=2", case.dims)
    layers = [why for why in found["all_reduce"] if "layers." in why or ".h." in why]
    assert len(layers) == 2 * 2, found
    assert len(found["all_reduce"]) == 2 * 2 + 1, found
    assert [why for why in found["all_gather"] if "lm_head" not in why and "embed_out" not in why] == []


# A bias of 192 over two axes: 48 elements that begin within a segment.
@pytest.mark.parametrize("name,mesh", [("gpt2", "tp=4"), ("gpt2", "dp_shard=2,tp=2"), ("phi3", "dp_shard=2,tp=2"), ("phi3", "tp=4")])
def test_fused_projections(name, mesh, family):
    case = family(f"dynamo/{name}")
    assert case.difference(mesh) <= 1
    assert case.difference(mesh + " sp") <= 1


def test_interleaved_states_say_so(family, tmp_path):
    case = family("dynamo/gpt2")
    plan = tmp_path / "gpt2.dsplan"
    tools.compile_plan(case.model, plan, "tp=2", case.dims)
    assert "c_attn.weight (interleaved)" in tools.run("dshard-plan", "print", plan).stdout


@pytest.mark.parametrize("style", ["genai", "genai-int4"])
def test_packed_projections_of_quantised_weights(style, family):
    """[q | k | v] of the builder, also in blocks of 4 bits, whose zero points lie in the model as constants."""
    case = family(f"{style}/phi3")
    found = collectives(case.model, "tp=2", case.dims, *[f"--const={name}=true" for name in case.fixed])
    assert [why for why in found["all_gather"] if "qkv_proj" in why] == []
    assert case.difference("tp=2") <= 1


#
# Sequences that no input has
#


@pytest.mark.parametrize("name", ["vit", "whisper-encoder"])
def test_sequence_parallel_of_patches_and_frames(name, family):
    """Two reduce_scatters and two all_gathers a layer, as of text; the 17 tokens of ViT are padded to 18."""
    case = family(f"dynamo/{name}")
    found = collectives(case.model, "tp=2", case.dims, "--sequence-parallel")
    assert len(found["reduce_scatter"]) == 4 and len(found["all_gather"]) == 4 and not found["all_reduce"], found


#
# Convolutions
#


def bottleneck(folder, groups):
    """Two layers as ResNet's bottlenecks (or ResNeXt's, in groups): 1x1, 3x3, 1x1, and the sum."""
    random, nodes, weights = np.random.default_rng(groups), [], []

    def conv(value, path, channels, outputs, size, groups=1, stride=1):
        weight = random.standard_normal((outputs, channels // groups, size, size)) / (channels // groups * size**2) ** 0.5
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{path}.weight"))
        weights.append(numpy_helper.from_array(random.standard_normal(outputs).astype(np.float32), f"{path}.bias"))
        nodes.append(
            helper.make_node(
                "Conv", [value, f"{path}.weight", f"{path}.bias"], [path], "/" + path.replace(".", "/") + "/Conv",
                pads=[size // 2] * 4, group=groups, strides=[stride] * 2,
            )
        )
        return path

    def relu(value):
        nodes.append(helper.make_node("Relu", [value], [value + ".relu"], value + ".relu"))
        return value + ".relu"

    value = relu(conv("x", "embedder.convolution", 3, 16, 3, stride=2))
    for layer in range(2):
        path = f"stages.0.layers.{layer}.layer"
        inner = relu(conv(value, f"{path}.0.convolution", 16, 8, 1))
        inner = relu(conv(inner, f"{path}.1.convolution", 8, 8, 3, groups))
        inner = conv(inner, f"{path}.2.convolution", 8, 16, 1)
        nodes.append(helper.make_node("Add", [inner, value], [f"sum.{layer}"], f"sum.{layer}"))
        value = relu(f"sum.{layer}")
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"], "pool"))
    graph = helper.make_graph(
        nodes,
        "bottleneck",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, 1, 1])],
        weights,
    )
    model = folder / "bottleneck.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, model, save_as_external_data=True, location="bottleneck.data", size_threshold=0)
    return model


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("mesh", ["tp=2", "tp=4", "dp_shard=2,tp=2"])
def test_convolutions(groups, mesh, tmp_path):
    model = bottleneck(tmp_path, groups)
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    check(model, mesh, {"batch": 2}, {"x": x}, tmp_path)


def test_collectives_of_convolutions(tmp_path):
    """One all_reduce a layer; a middle convolution without groups also wants all channels."""
    for groups, gathers in ((1, 2), (4, 0)):
        found = collectives(bottleneck(tmp_path, groups), "tp=2", {"batch": 2})
        assert len(found["all_reduce"]) == 2, found
        assert len(found["all_gather"]) == gathers, found


@pytest.mark.parametrize("length,kernel,pad", [(9, 3, 1), (3, 3, 0), (4, 1, 0)])
def test_convolutions_of_one_dim(length, kernel, pad, tmp_path):
    """Also with one window, and with windows of one element."""
    random = np.random.default_rng(kernel)
    weights = {"a": (8, 4, kernel), "b": (4, 8, 1 if length == kernel else kernel)}
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["h"], "/a/Conv", pads=[pad, pad]),
        helper.make_node("Relu", ["h"], ["r"], "/relu"),
        helper.make_node("Conv", ["r", "b.weight"], ["y"], "/b/Conv", pads=[pad, pad]),
    ]
    graph = helper.make_graph(
        nodes,
        "one_dim",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, length])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), f"{name}.weight")
            for name, shape in weights.items()
        ],
    )
    model, plan = tmp_path / "one_dim.onnx", tmp_path / "plan.json"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, model, save_as_external_data=True, location="one_dim.data", size_threshold=0)
    plan.write_text(json.dumps({"a": "colwise", "b": "rowwise"}))
    x = random.standard_normal((2, 4, length)).astype(np.float32)
    check(model, "tp=2", {"batch": 2}, {"x": x}, tmp_path, f"--tp-plan={plan}")
    assert {kind: len(whys) for kind, whys in collectives(model, "tp=2", {"batch": 2}, f"--tp-plan={plan}").items()} == {"all_reduce": 1}


def test_groups_that_do_not_divide(tmp_path):
    model = bottleneck(tmp_path, 2)
    done = tools.start("dshard-opt", model, "--mesh=tp=4", "--dim", "batch=2", "-o", tmp_path / "x.dsplan")
    assert done.status == 1
    assert len(done.lines()) == 1 and "of size 2 of its weight is not divisible by tp=4" in done.stderr


def test_sequence_parallel_of_convolutions_is_a_remark(tmp_path):
    model = bottleneck(tmp_path, 1)
    done = tools.run("dshard-opt", model, "--mesh=tp=2", "--dim", "batch=2", "--sequence-parallel", "-o", tmp_path / "x.dsplan")
    assert "2 of 2 row-parallel outputs stay whole, because they have no sequence dim" in done.stderr


#
# Block-quantised weights
#

QUANTISED_PLAN = {"up": "colwise", "down": "rowwise"}


@pytest.mark.parametrize(
    "bits,block,zeros,bias,hidden,calls",
    [
        (4, 32, False, True, 128, 2),
        (4, 16, True, True, 128, 2),
        (8, 32, True, False, 128, 2),
        (4, 32, True, True, 192, 1),  # three blocks a rank: their zero points share a byte
    ],
)
@pytest.mark.parametrize("seq", [1, 7])
def test_quantised_weights(bits, block, zeros, bias, hidden, calls, seq, tmp_path):
    model = two_layers(tmp_path, bits, block, zeros, bias, hidden)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(QUANTISED_PLAN))
    x = np.random.default_rng(1).standard_normal((2, seq, 64)).astype(np.float32)
    dims, flag = {"batch": 2, "seq": seq}, f"--tp-plan={plan}"
    check(model, "tp=2", dims, {"x": x}, tmp_path, flag)
    assert tools.run("dshard-plan", "print", tmp_path / "model.dsplan").stdout.count("matmul_nbits") == calls
    found = collectives(model, "tp=2", dims, flag)
    assert {kind: len(whys) for kind, whys in found.items()} == {"all_reduce": 1}
    # Every rank holds its half of the weights.
    text = tools.run("dshard-opt", *tools.compile_arguments(model, "tp=2", dims), flag, "--to=local").stdout
    assert f"tensor<{hidden // 2}x{64 // block}x{block * bits // 8}xui8>" in text
    assert f"tensor<64x{hidden // block // 2}x{block * bits // 8}xui8>" in text


def test_blocks_are_not_cut(tmp_path):
    model = two_layers(tmp_path, 4, 32, False, False, 96)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(QUANTISED_PLAN))
    done = tools.start("dshard-opt", model, "--mesh=tp=2", f"--tp-plan={plan}", "--dim", "batch=2", "--dim", "seq=1", "-o", tmp_path / "x")
    assert done.status == 1
    assert len(done.lines()) == 1 and "dim 1 of size 3 of 'down.data' is not divisible by tp=2" in done.stderr


#
# Fewer KV heads than ranks
#


def grouped_queries(folder, heads=8, kv_heads=4, size=4, vocabulary=32):
    """One layer of attention between an embedding and a head."""
    random, hidden = np.random.default_rng(heads + kv_heads), heads * size
    shapes = {
        "model.embed_tokens": (vocabulary, hidden),
        "model.layers.0.self_attn.q_proj": (hidden, heads * size),
        "model.layers.0.self_attn.k_proj": (hidden, kv_heads * size),
        "model.layers.0.self_attn.v_proj": (hidden, kv_heads * size),
        "model.layers.0.self_attn.o_proj": (heads * size, hidden),
        "lm_head": (hidden, vocabulary),
    }
    weights = [
        numpy_helper.from_array((random.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32), f"{path}.weight")
        for path, shape in shapes.items()
    ]
    weights[0] = numpy_helper.from_array(random.standard_normal((vocabulary, hidden)).astype(np.float32), weights[0].name)

    def linear(value, path):
        node = "/" + path.replace(".", "/") + "/MatMul"
        return helper.make_node("MatMul", [value, f"{path}.weight"], [path], node)

    attention = "model.layers.0.self_attn"
    nodes = [
        helper.make_node("Gather", ["model.embed_tokens.weight", "input_ids"], ["x"], "/model/embed_tokens/Gather"),
        *[linear("x", f"{attention}.{key}_proj") for key in "qkv"],
        helper.make_node(
            "Attention", [f"{attention}.{key}_proj" for key in "qkv"], ["context"], "/model/layers/0/self_attn/Attention",
            q_num_heads=heads, kv_num_heads=kv_heads, is_causal=1,
        ),
        linear("context", f"{attention}.o_proj"),
        helper.make_node("Add", ["x", f"{attention}.o_proj"], ["y"], "/model/layers/0/Add"),
        linear("y", "lm_head"),
    ]
    nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        nodes,
        "grouped_queries",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "seq"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "seq", vocabulary])],
        weights,
    )
    model = folder / "grouped_queries.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(proto, model, save_as_external_data=True, location="grouped_queries.data", size_threshold=0)
    return model, [f"{path}.weight" for path in shapes]


@pytest.mark.parametrize("kv_heads,mesh", [(4, "tp=8"), (2, "tp=8"), (1, "tp=4"), (2, "dp_shard=2,tp=4")])
def test_kv_heads_are_replicated(kv_heads, mesh, tmp_path):
    """Neighbouring ranks hold one KV head: outputs, and the gradient, which sums over them."""
    model, weights = grouped_queries(tmp_path, kv_heads=kv_heads)
    random = np.random.default_rng(3)
    ids, dims = random.integers(0, 32, (2, 6)), {"batch": 2, "seq": 6}
    check(model, mesh, dims, {"input_ids": ids}, tmp_path)
    config = write_config(tmp_path, shift_labels=True, outputs=ALL_OUTPUTS)
    inputs = {"input_ids": ids, "labels": random.integers(0, 32, (2, 6))}
    outputs = ["loss", "grad_norm"] + [f"{name}.grad" for name in weights]
    exact = tools.interpret_step(compile_step(model, config, tmp_path / "fp64", dims), inputs, outputs, tmp_path / "fp64")
    got = {}
    for key in ("", mesh):
        plan = tmp_path / "step.dsplan"
        tools.compile_plan(model, plan, key, dims, f"--train={config}")
        got[key], _ = tools.run_plan(plan, inputs, outputs, tmp_path, "--entry=train_step")
    for name, value in exact.items():
        scale = np.abs(value).max()
        one, ours = (np.abs(got[key][name].astype(np.float64) - value).max() for key in ("", mesh))
        assert scale > 0 and one <= 1e-4 * scale, name
        assert ours <= 2 * one + 2e-6 * scale, name


#
# Training steps
#


@pytest.mark.parametrize("name", ["dynamo/gpt2", "dynamo/vit", "hf/resnet"])
def test_training_steps(name, family, tmp_path):
    """Fused projections (gathered there), padded patches and convolutions: loss and gradient norm of one rank."""
    case = family(name)
    config = write_config(tmp_path, logits=case.outputs[0], outputs=["loss", "grad_norm"])
    inputs, expected = case.inputs_and_expected("right")
    inputs = {**inputs, "labels": np.zeros(expected[case.outputs[0]].shape[:-1], np.int64)}
    got = {}
    for mesh, flags in (("", []), ("tp=2", []), ("dp_shard=2,tp=2", ["--sequence-parallel"])):
        plan = tmp_path / "step.dsplan"
        tools.compile_plan(case.model, plan, mesh, case.dims, f"--train={config}", *flags)
        got[mesh], _ = tools.run_plan(plan, inputs, ["loss", "grad_norm"], tmp_path, "--entry=train_step")
    for mesh, ours in got.items():
        for key, value in got[""].items():
            assert np.all(value > 0.1)
            np.testing.assert_allclose(ours[key], value, rtol=5e-6, err_msg=f"{key} on {mesh}")
