"""Writes a model whose inputs have symbolic dims of every form."""

import sys

from onnx import TensorProto, helper, numpy_helper
import numpy as np


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


inputs = [
    value("a", ["batch", "past + 1", "4*batch"]),
    value("b", ["2", "((batch**2)//1)"]),
    value("c", ["s43", "s77"]),
    value("d", [None, "Min(128, 32*batch*batch)"]),
    value("e", ["s77"]),
    value("flag", [], TensorProto.BOOL),
    value("keep", [], TensorProto.INT64),
]
nodes = [
    # keep columns of c, chosen at compile time.
    helper.make_node("Unsqueeze", ["keep", "zero"], ["end"]),
    helper.make_node("Slice", ["c", "zero", "end", "one"], ["part"]),
    helper.make_node("Neg", ["part"], ["negated"]),
    helper.make_node("Where", ["flag", "negated", "part"], ["y"]),
]
constants = [numpy_helper.from_array(np.array([i], np.int64), n) for i, n in enumerate(["zero", "one"])]
graph = helper.make_graph(nodes, "dims", inputs, [value("y", ["s43", 2])], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
with open(sys.argv[1], "wb") as file:
    file.write(model.SerializeToString())
