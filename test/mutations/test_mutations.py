"""Every small fault in a phase's IR or in the plan is seen by the check that it names."""

import re

import pytest

from bases import CHECKS, Base
from mutations import MUTATIONS
import cuda_mutations  # noqa: F401: registers its mutations
import training_mutations  # noqa: F401: registers its mutations

import tools


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """base(NAME): a compiled program; its checks are green before any edit."""
    folder = tmp_path_factory.mktemp("mutations")
    made = {}

    def filled(name):
        path = folder / "models" / f"{name}.onnx"
        return path if path.exists() else tools.model_with_weights(name, folder / "models")

    def get(name):
        if name not in made:
            made[name] = Base(name, folder, filled)
        return made[name]

    return get


green = {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name.replace(" ", "-"))
def test_mutation_turns_red(mutation, base):
    program = base(mutation.base)
    phase, check = CHECKS[mutation.red]
    phase = mutation.phase or phase
    text = program.phases[phase]
    key = (mutation.base, phase, check)
    if key not in green:
        green[key] = check(program, text)
    assert green[key] is None, f"{mutation.red} is red without a fault: {green[key]}"
    edited = mutation.edit(text)
    assert edited != text
    message = check(program, edited)
    assert message is not None, f"{mutation.red} did not see: {mutation.name}"
    assert re.search(mutation.says, message), f"{mutation.red} is red for another reason: {message}"


def test_there_are_enough():
    assert len(MUTATIONS) >= 150
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    assert {m.red for m in MUTATIONS} == set(CHECKS)  # every check is turned red by something
