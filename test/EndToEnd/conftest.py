"""Fixtures: models with weights, made once per run."""

import pytest

import tools


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """filled(NAME): the path of a committed model with its weights beside it."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def get(name):
        if name not in made:
            made[name] = tools.model_with_weights(name, folder)
        return made[name]

    return get


@pytest.fixture(scope="session")
def reference():
    """reference(MODEL, KEY, INPUTS): onnxruntime's outputs, computed once per (model, key)."""
    made = {}

    def get(model, key, inputs):
        if (model, key) not in made:
            made[model, key] = tools.onnxruntime_outputs(model, inputs)
        return made[model, key]

    return get
