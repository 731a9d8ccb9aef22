"""Models of the usual families, from the usual exporters, do what docs/families.md says."""

import pytest

import families

SLOW = ["tp=4", "dp_shard=2,tp=2"]  # between those that are tried
TABLE = families.read_table()


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """family("dynamo/gpt2"): the graph with weights, inputs and onnxruntime's outputs; made once."""
    folder = tmp_path_factory.mktemp("families")
    made = {}

    def get(name):
        if name not in made:
            made[name] = families.Case(name, folder)
        return made[name]

    return get


def pytest_generate_tests(metafunc):
    if {"name", "mesh"} <= set(metafunc.fixturenames):
        cases = [
            pytest.param(name, mesh, marks=[pytest.mark.slow] if mesh in SLOW else [], id=f"{name}-{mesh or '1 rank'}")
            for name in families.all_cases()
            for mesh in families.meshes_of(name)
        ]
        metafunc.parametrize("name,mesh", cases)


def test_the_table_has_every_graph():
    assert sorted(TABLE) == families.all_cases(), "run .venv/bin/python test/EndToEnd/families.py --write"


def test_outputs(name, mesh, family):
    assert families.attempt(family(name), mesh) == TABLE[name][mesh]


@pytest.mark.parametrize("name", families.all_cases())
def test_attention_is_raised(name, family):
    assert families.raised(family(name)) == TABLE[name]["attention"]


# The first rows of a left-padded sequence attend to nothing.
@pytest.mark.parametrize("style", ["dynamo", "hf", "legacy"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "bert"])
def test_left_padding(name, style, family, tmp_path):
    path = families.path_of(f"{style}/{name}")
    if not path.exists():
        pytest.skip("no such graph")
    case = family(f"{style}/{name}")
    assert case.difference("tp=2", padding="left") <= 1
