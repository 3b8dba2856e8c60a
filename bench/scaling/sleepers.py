"""Sleepers: workflows of one transaction while 0 to 100,000 others sleep."""

from pathlib import Path

from bench import costs, front_door, idle
from bench.peers.apiary import Apiary
from bench.scaling.curve import AT_REST, MEGABYTE, MEMORY, RATE, START, Curve, Say, Scale, standing, throughput
from bench.workloads import flow

SIZES = (0, 1_000, 10_000, 100_000)
COMPARED = ("apiary", "apiary-postgres")
BATCH = 1_000


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Throughput, memory, time to start and load at rest, by sleeping workflows."""
    curve = Curve("sleepers", "workflows of one transaction, by others that sleep", "sleeping workflows")
    for name in scale.among(COMPARED):
        with standing(name, flow.WORKFLOW_1, folder) as peer:
            assert isinstance(peer, Apiary)
            asleep = 0
            for size in scale.of(SIZES):
                put_to_sleep(peer, size - asleep)
                asleep = size
                curve.add(name, size, seen(peer, scale))
                say(f"{curve.name}: {name}, {size:,}")
    return curve


def put_to_sleep(peer: Apiary, count: int) -> None:
    with front_door.opened(peer) as call:
        for first in range(0, count, BATCH):
            call(flow.WORKFLOW_1, "put_to_sleep", {"count": min(BATCH, count - first)})
    idle.wait_for_rest(peer)  # each of them runs once before it sleeps


def seen(peer: Apiary, scale: Scale) -> dict[str, list[float]]:
    return {
        START: [costs.start_seconds(flow.WORKFLOW_1, peer)],
        RATE: throughput(peer, flow.WORKFLOW_1, scale),
        MEMORY: [costs.memory_of(peer)["sum"]["pss"] / MEGABYTE],
        AT_REST: [idle.load(peer, scale.seconds).processor_share * 100],
    }
