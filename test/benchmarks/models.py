"""Makes the models of the speed benchmarks: MODEL... [--out DIR] (default: build/benchmark-models).

  bert-base       12 x 768, 12 heads, sequence 128, one row
  llama-12        12 x 768, intermediate 2048, 12/4 heads, vocabulary 32000, logits of all positions
  llama-12-decode the same, one token against 512 cached ones, which are inputs
  llama-12-decode-bf16, -int8, -int4, -int4-int8
                  that in bf16, and with weights in blocks of 32 by onnxruntime's quantiser (MatMulNBits), the last
                  with activations of 8 bits (accuracy_level 4)
  prefill-int4-int8-8, -32, -128
                  so many rows through 24 products of 4-bit weights (768 x 3072 and 3072 x 768 in turns), activations of
                  8 bits: what a prompt of a quantised model is made of
  attention, attention-causal
                  attention alone, of 12 heads of 64 on 512 positions (opset 23, one node)

Exported by torch.onnx.export(dynamo=True) and filled by scripts/fill-weights: run it with
.venv-peers/bin/python (scripts/setup --peers). A model that is there already is kept.
"""

import argparse
import importlib.machinery
import importlib.util
import os
import pathlib
import subprocess
import sys

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "benchmark-models"
LLAMA = dict(hidden=768, intermediate=2048, heads=12, kv_heads=4, layers=12, vocab=32000)
CACHED = 512


def exporter():
    loader = importlib.machinery.SourceFileLoader("export_models", str(ROOT / "scripts" / "export-models"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def export(name, path):
    """As scripts/export-models does, but small tensors (tables of indices) stay in the graph."""
    import onnx
    import onnx_ir
    import torch

    common = exporter()
    spec = MODELS[name]()
    common.randomise(spec["module"], seed=0)
    program = torch.onnx.export(
        spec["module"].eval(),
        spec["args"],
        dynamo=True,
        input_names=spec["input_names"],
        output_names=spec["output_names"],
        dynamic_shapes=spec["dynamic_shapes"],
        verbose=False,
    )
    onnx_ir.save(program.model, path, external_data=f"{path.name}.data", size_threshold_bytes=16384)
    model = onnx.load(path, load_external_data=False)
    common.strip_stack_traces(model.graph)
    path.write_bytes(model.SerializeToString(deterministic=True))


def bert():
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(attn_implementation="sdpa")  # the defaults are BERT-base

    class Encoder(BertModel):
        def forward(self, input_ids, attention_mask):
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=torch.zeros_like(input_ids),
                position_ids=torch.arange(input_ids.shape[1]).unsqueeze(0),
            ).last_hidden_state

    model = BertModel(config, add_pooling_layer=False).eval()
    model.__class__ = Encoder
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    seq = torch.export.Dim("seq", min=2, max=512)
    ids = torch.arange(2 * 16).reshape(2, 16)
    shapes = {"input_ids": {0: batch, 1: seq}, "attention_mask": {0: batch, 1: seq}}
    return dict(
        module=model,
        args=(ids, torch.ones(2, 16, dtype=torch.int64)),
        input_names=list(shapes),
        output_names=["last_hidden_state"],
        dynamic_shapes=shapes,
    )


def decode(dtype="float32"):
    import torch
    from transformers import DynamicCache, LlamaForCausalLM

    dtype = getattr(torch, dtype)
    spec = exporter().build_llama(dtype, **LLAMA)
    layers, heads, size = LLAMA["layers"], LLAMA["kv_heads"], LLAMA["hidden"] // LLAMA["heads"]

    class Step(LlamaForCausalLM):
        def forward(self, input_ids, attention_mask, cache):
            past = DynamicCache(list(zip(cache[0::2], cache[1::2])))
            result = super().forward(
                input_ids=input_ids, attention_mask=attention_mask, past_key_values=past, use_cache=True
            )
            present = []
            for layer in result.past_key_values.layers:
                present += [layer.keys, layer.values]
            return result.logits, present

    model = spec["module"]
    model.__class__ = Step
    names = [f"{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]
    cache = [torch.zeros(1, heads, CACHED, size, dtype=dtype) for _ in names]
    return dict(
        module=model,
        args=(torch.ones(1, 1, dtype=torch.int64), torch.ones(1, CACHED + 1, dtype=torch.int64), cache),
        input_names=["input_ids", "attention_mask"] + [f"past_{name}" for name in names],
        output_names=["logits"] + [f"present_{name}" for name in names],
        dynamic_shapes=None,
    )


def llama():
    import torch

    return exporter().build_llama(torch.float32, **LLAMA)


def quantise(base, bits, accuracy_level, path):
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    make(base, path.parent)
    graph = onnx.load(path.with_name(f"{base}.onnx"))
    quantizer = MatMulNBitsQuantizer(
        graph, bits=bits, block_size=32, is_symmetric=True, accuracy_level=accuracy_level
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(path), use_external_data_format=True)


def prefill(rows, path):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for layer in range(PREFILL_PRODUCTS):
        k, n = PREFILL_SIZES[:: 1 if layer % 2 == 0 else -1]
        data = random.integers(0, 256, (n, k // 32, 16), dtype=np.uint8)
        scales = (random.uniform(0.5, 1.5, (n, k // 32)) / (4.6 * np.sqrt(k))).astype(np.float32)
        weights += [numpy_helper.from_array(data, f"q{layer}"), numpy_helper.from_array(scales.ravel(), f"s{layer}")]
        out = "y" if layer == PREFILL_PRODUCTS - 1 else f"x{layer}"
        node = helper.make_node("MatMulNBits", [name, f"q{layer}", f"s{layer}"], [out], domain="com.microsoft")
        for key, value in dict(K=k, N=n, bits=4, block_size=32, accuracy_level=4).items():
            node.attribute.append(helper.make_attribute(key, value))
        nodes.append(node)
        name = out
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, PREFILL_SIZES[0]]) for name in "xy"]
    graph = helper.make_graph(nodes, path.stem, ports[:1], ports[1:], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


class Attention:
    """What Torch of contest.py calls."""

    def __init__(self, causal):
        self.causal = causal

    def eval(self):
        return self

    def __call__(self, q, k, v):
        import torch

        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


def attention(causal, path):
    import onnx
    from onnx import TensorProto, helper

    shape = [1, 12, 512, 64]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("q", "k", "v", "out")]
    node = helper.make_node("Attention", ["q", "k", "v"], ["out"], "attention", is_causal=int(causal))
    graph = helper.make_graph([node], path.stem, ports[:3], ports[3:])
    opsets = [helper.make_opsetid("", 23)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=11), path)


MODELS = {
    "bert-base": bert,
    "llama-12": llama,
    "llama-12-decode": decode,
    "llama-12-decode-bf16": lambda: decode("bfloat16"),
}
PREFILL_SIZES = (768, 3072)
PREFILL_PRODUCTS = 24
PREFILL = {f"prefill-int4-int8-{rows}": rows for rows in (8, 32, 128)}
ATTENTION = {"attention": False, "attention-causal": True}
QUANTISED = {  # bits, accuracy_level
    "llama-12-decode-int8": (8, 0),
    "llama-12-decode-int4": (4, 0),
    "llama-12-decode-int4-int8": (4, 4),
}


def make(name, out):
    path = out / f"{name}.onnx"
    if name in ATTENTION:
        return attention(ATTENTION[name], path)
    if path.exists() and path.with_suffix(".onnx.data").exists():
        return
    if name in PREFILL:
        return prefill(PREFILL[name], path)
    if name in QUANTISED:
        return quantise("llama-12-decode", *QUANTISED[name], path)
    export(name, path)
    subprocess.run([sys.executable, ROOT / "scripts" / "fill-weights", path], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODEL")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = [*MODELS, *QUANTISED, *PREFILL, *ATTENTION]
    for name in arguments.names or known:
        if name not in known:
            parser.error(f"unknown model '{name}'; there are: {', '.join(known)}")
        make(name, arguments.out)


if __name__ == "__main__":
    main()
