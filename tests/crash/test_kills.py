"""A process is killed at any point of any workflow, and started again: what is left is as if nothing had happened."""

from dataclasses import replace

import pytest
from tests.crash.shapes import SHAPES, everything
from tests.crash.world import World


def killed(world: World, lanes, whole, kind, number, *, power=False, forgetful=False) -> bool:
    """Kill at a point, start again, compare with the `whole`; false where there is no such point."""
    world.begin()
    reached = world.crash(lanes, kind, number, power=power)
    if reached:
        world.finish(lanes, forgetful=forgetful)
    left = world.left(lanes)
    where = f"at {kind or 'point'} {number}\n{world.output()}"
    for flow, undisturbed in whole.items():
        found = left[flow]
        if forgetful and not found:
            continue
        assert found.effects == undisturbed.effects, f"{flow} {where}"
        if forgetful and not found.answers:
            continue
        assert len(found.answers) == len(undisturbed.answers), f"{flow} {where}"
        for answer, expected in zip(found.answers, undisturbed.answers, strict=True):
            assert answer[0] or answer == expected, f"{flow} {where}"  # one that has begun has no result yet
        assert all(times <= 1 + reached for times in found.outside.values()), f"{flow} {where}"
    return reached


def begun(lanes):
    """The same, for callers who only want to know that it has begun."""
    return [[replace(first, wait=0.0), *rest] for first, *rest in lanes]


def sweep(world, lanes, kinds, **how):
    """Kill at every point of these kinds."""
    whole, points = world.undisturbed(lanes)
    for kind in kinds:
        number = 1
        while killed(world, lanes, whole, kind, number, **how):
            number += 1
        assert number > (points.count(kind) if kind else len(points)) // 2


def spread(points, times):
    """The numbers of some points, from the first to the last."""
    return [1 + round((len(points) - 1) * (number + 0.5) / times) for number in range(times)]


def test_a_process_is_killed_around_every_commit_and_action(sqlite_world):
    sweep(sqlite_world, SHAPES["linear"](), ["commit", "committed", "acted"])


def test_power_is_lost_before_the_disk_has_what_is_committed(sqlite_world):
    """What was answered, or told outside, was durable before; of the rest nothing is left, or it comes to its end."""
    lanes = begun(SHAPES["linear"]())
    sweep(sqlite_world, lanes, ["sync", "act", "acted", "answered"], power=True, forgetful=True)


def test_a_process_is_killed_with_workflows_of_all_shapes(world):
    lanes = everything()
    whole, points = world.undisturbed(lanes)
    for number in spread(points, {"sqlite": 3, "beside": 2, "inside": 1}[world.name]):
        killed(world, lanes, whole, None, number)
        killed(world, begun(lanes), whole, None, number, power=world.name == "sqlite", forgetful=True)


def test_a_backend_is_killed_with_workflows_of_all_shapes(inside, fatal):
    lanes = everything()
    whole = inside.undisturbed(lanes)[0]
    assert backend_killed(inside, fatal, lanes, whole, 150)


def backend_killed(world, fatal, lanes, whole, number) -> bool:
    """End the backend at the n-th statement; false where there are not so many."""
    world.begin()
    fatal(number)
    world.finish(lanes)
    left = world.left(lanes)
    for flow, undisturbed in whole.items():
        assert left[flow].effects == undisturbed.effects, f"{flow} at statement {number}\n{world.output()}"
        assert left[flow].answers == undisturbed.answers, f"{flow} at statement {number}\n{world.output()}"
    return "connection" in world.output()


# At every point, for hours


@pytest.mark.soak
@pytest.mark.parametrize("steps", ["together", "each"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_process_is_killed_at_every_point(world, shape, steps, monkeypatch):
    """Whether steps share a run and its commit, or `each` is a run of its own."""
    monkeypatch.setattr(world, "always_replay", steps == "each")
    lanes = begun(SHAPES[shape]())
    sweep(world, SHAPES[shape](), [None])
    sweep(world, lanes, ["act", "acted", "answered"], power=world.name == "sqlite", forgetful=True)


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPES)
def test_power_is_lost_at_every_wait_for_the_disk(sqlite_world, shape):
    sweep(sqlite_world, begun(SHAPES[shape]()), ["sync", "synced", "committed"], power=True, forgetful=True)


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPES)
def test_a_backend_is_killed_at_every_statement(inside, fatal, shape):
    lanes = SHAPES[shape]()
    whole = inside.undisturbed(lanes)[0]
    number = 1
    while backend_killed(inside, fatal, lanes, whole, number):
        number += 1
    assert number > 10
