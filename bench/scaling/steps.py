"""Steps: workflows of 10 to 10,000 transactions, one after the other, each awaited over HTTP."""

import time
from pathlib import Path

from bench import front_door
from bench.peer import Peer
from bench.scaling.curve import Curve, Say, Scale, standing
from bench.workloads import flow

SIZES = (1, 10, 100, 1_000, 10_000)
COMPARED = ("apiary", "apiary-postgres")
A_STEP, WHOLE = "a step, ms", "the workflow, s"


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Time of a workflow and of each of its steps, by steps."""
    curve = Curve("steps", "one workflow of many transactions, on a system at rest", "steps")
    for name in scale.among(COMPARED):
        with standing(name, flow.WORKFLOW_1, folder) as peer:
            for size in scale.of(SIZES):
                took = [seconds(peer, size, number) for number in range(scale.runs + 1)][1:]
                curve.add(name, size, {A_STEP: [1000 * one / size for one in took], WHOLE: took})
                say(f"{curve.name}: {name}, {size:,}")
    return curve


def seconds(peer: Peer, steps: int, number: int) -> float:
    with front_door.opened(peer) as call:
        before = time.perf_counter()
        call(flow.WORKFLOW_1, "many", {"item": 7 + number, "account": 11 + number, "steps": steps})
        return time.perf_counter() - before
