"""The workflows of the tests: one of each shape, or all of them at the same time."""

from collections.abc import Callable

from tests.crash.world import Lane, approved, lane

SHAPES: dict[str, Callable[[], list[Lane]]] = {
    "linear": lambda: [lane("linear")],
    "branching": lambda: [lane("branching")],
    "fan-out": lambda: [lane("fan_out")],
    "family": lambda: [lane("family")],
    "saga": lambda: [lane("saga")],
    "messages": lambda: [lane("messages")],
    "timers": lambda: [lane("timers")],
    "approval": lambda: [approved()],
    "rounds": lambda: [lane("rounds")],
    "left": lambda: [lane("leave")],
    "turn": lambda: [lane("turn")],
    "queues": lambda: [lane("line_up")],
    "fibonacci": lambda: [lane("fibonacci")],
}


def everything() -> list[Lane]:
    """All shapes, at the same time."""
    return [one for shape in SHAPES.values() for one in shape()]
