"""The interpreter on imported models: against onnxruntime, and with drawn weights
against the same weights in files."""

import numpy as np
import pytest

import tools

DIMS = {"mlp": {"batch": 16}, "llama-small": {"batch": 2, "seq": 16}}


def make_inputs(name):
    random = np.random.default_rng(3)
    if name == "mlp":
        return {"x": random.normal(size=(16, 64)).astype(np.float32)}
    mask = np.ones((2, 16), np.int64)
    mask[0, :5] = 0  # rows that attend nothing
    mask[1, -3:] = 0
    return {"input_ids": random.integers(0, 256, (2, 16)), "attention_mask": mask}


def interpret(program, inputs, output, folder, *flags):
    arguments = []
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", array)
        arguments += ["--input", f"{name}={folder / name}.npy"]
    tools.run("dshard-interpret", program, *arguments, "--output", f"{output}={folder / 'out.npy'}", *flags)
    return np.load(folder / "out.npy")


@pytest.mark.parametrize("name,output", [("mlp", "y"), ("llama-small", "logits")])
def test_imported_model_equals_onnxruntime(name, output, filled, tmp_path):
    model, inputs = filled(name), make_inputs(name)
    program = tmp_path / "import.mlir"
    tools.run("dshard-opt", *tools.compile_arguments(model, "", DIMS[name]), "--to=import", "-o", program)
    theirs = tools.onnxruntime_outputs(model, inputs)[output]
    limit = 1e-4 * max(1, np.abs(theirs).max())
    for precision in ("fp64", "model"):
        flags = ["--weights", model.parent, f"--precision={precision}"]
        ours = interpret(program, inputs, output, tmp_path, *flags)
        assert np.abs(ours - theirs).max() <= limit
        # Unrounded in fp64, and such a file may be an input again.
        assert ours.dtype == (np.float64 if precision == "fp64" else np.float32)
        assert np.array_equal(ours, ours.astype(np.float32)) == (precision == "model")
    if name == "mlp":
        exact = np.linspace(-1, 1, inputs["x"].size).reshape(inputs["x"].shape)
        flags = ["--weights", model.parent]
        given = interpret(program, {"x": exact}, output, tmp_path, *flags)
        assert not np.array_equal(given, interpret(program, {"x": exact.astype(np.float32)}, output, tmp_path, *flags))
    drawn = interpret(program, inputs, output, tmp_path, "--weights", model.parent, "--random-weights")
    read = interpret(program, inputs, output, tmp_path, "--weights", model.parent)
    assert np.array_equal(drawn, read)
    other = interpret(program, inputs, output, tmp_path, "--weights", model.parent, "--random-weights=1")
    assert not np.allclose(drawn, other)
