"""Any one statement fails, before it was sent or after it was applied: what is left is as if it had not."""

import pytest
from tests.crash.mishaps import AFTER, BEFORE
from tests.crash.shapes import SHAPES, everything


def failed(world, lanes, whole, when, number) -> bool:
    """Have a statement fail, and compare; false where there is no such statement."""
    reached = world.mishap(lanes, when, number)
    left = world.left(lanes)
    for flow, undisturbed in whole.items():
        assert left[flow].effects == undisturbed.effects, f"{flow} {when} {number}\n{world.output()}"
        assert left[flow].answers == undisturbed.answers, f"{flow} {when} {number}\n{world.output()}"
    return reached


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_a_statement_fails_with_workflows_of_all_shapes(world, when):
    lanes = everything()
    whole = world.undisturbed(lanes)[0]
    for number in {"sqlite": (3, 100, 333), "beside": (100, 333), "inside": (10,)}[world.name]:
        assert failed(world, lanes, whole, when, number)


@pytest.mark.soak
@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_statement_fails(world, shape, when):
    lanes = SHAPES[shape]()
    whole = world.undisturbed(lanes)[0]
    number = 1
    while failed(world, lanes, whole, when, number):
        number += 1
    assert number > 3
