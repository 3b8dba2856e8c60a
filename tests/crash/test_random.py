"""Random workflows, and crashes at random points of them and of what comes after crashes: nothing shows afterwards."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from tests.crash.shapes import SHAPES
from tests.crash.world import Lane, World, flow_of, lane

STEPS = ("take", "undoable", "act", "child", "start", "gather", "sleep", "refuse", "publish", "now")
POINTS = {
    "sqlite": (None, "commit", "committed", "sync", "synced", "act", "acted", "answered"),
    "beside": (None, "send", "received", "act", "acted", "answered"),
    "inside": (None, "send", "received", "act", "acted", "answered"),
}
MOST_POINTS = 150


class Machine(RuleBasedStateMachine):
    """Workflows begin, processes are killed, others go on. `undisturbed`: a world in which nothing goes wrong."""

    def __init__(self, world: World, undisturbed: World) -> None:
        super().__init__()
        self.world = world
        self.undisturbed = undisturbed
        self.lanes: list[Lane] = []
        world.begin()

    @rule(steps=st.lists(st.sampled_from(STEPS), max_size=8), fails=st.booleans(), waits=st.booleans())
    def begin(self, steps: list[str], fails: bool, waits: bool) -> None:
        """A workflow of these steps, whose caller waits for its end or not."""
        self.lanes.append(lane("play", steps=[*steps, "fail"] if fails else steps, wait=None if waits else 0.0))

    @rule(shape=st.sampled_from(sorted(SHAPES)))
    def begin_a_shape(self, shape: str) -> None:
        self.lanes += SHAPES[shape]()

    @precondition(lambda self: self.lanes)
    @rule(data=st.data(), number=st.integers(1, MOST_POINTS), power=st.booleans())
    def crash(self, data: st.DataObject, number: int, power: bool) -> None:
        """A process goes on with all of it, and is killed, if it comes so far."""
        kind = data.draw(st.sampled_from(POINTS[self.world.name]))
        self.world.crash(self.lanes, kind, number, power=power and self.world.name == "sqlite")

    @precondition(lambda self: self.lanes)
    @rule()
    def end(self) -> None:
        """A process goes on with all of it to the end: there is left what is left where nothing goes wrong."""
        self.world.finish(self.lanes)
        left = self.world.left(self.lanes)
        waited_for = [one if one[1:] else [replace(one[0], wait=None)] for one in self.lanes]
        whole = self.undisturbed.undisturbed(waited_for)[0]
        for one in self.lanes:
            found, expected = left[flow_of(one)], whole[flow_of(one)]
            assert found.effects == expected.effects, self.world.output()
            for answer, other in zip(found.answers, expected.answers, strict=True):
                assert answer[0] or answer == other, self.world.output()

    def teardown(self) -> None:
        if self.lanes:
            self.end()


def play(world: World, undisturbed: World, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: Machine(world, undisturbed),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=examples < 100,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_workflows_survive_random_crashes(sqlite_world, undisturbed):
    play(sqlite_world, undisturbed, examples=6, steps=8)


@pytest.mark.soak
def test_many_random_workflows_survive_many_random_crashes(world, undisturbed):
    play(world, undisturbed, examples=300, steps=15)
