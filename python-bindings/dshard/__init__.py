"""dshard: compile a model into one sharded execution plan, and run it.

    import dshard

    plan = dshard.compile("mlp.onnx", mesh={"tp": 2}, dims={"batch": 16}, tp_plan="mlp-tp.json")
    y = plan.run({"x": x})["y"]

Tensors are global: numpy arrays, or anything with `__dlpack__` in host memory, whatever the mesh.
The package is a thin layer over the C libraries of the compiler (loaded by `compile` alone) and of
the runtime. docs/Python.md is its tour.
"""

from dshard._compile import compile
from dshard._errors import Error
from dshard._plan import Entry, Plan, Tensor, load

__all__ = ["Entry", "Error", "Plan", "Tensor", "compile", "load"]
__version__ = "0.1.0"
