"""A curve: what is measured of some peers at several sizes of one thing; and how one point of it is measured."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import costs, front_door, idle
from bench.closed_loop import LoadFailed, Wrk
from bench.mix import UNIFORM, Workload
from bench.peer import Peer
from bench.peers import PEERS

RATE, IDLE_P50, MEMORY = "requests/s", "idle p50, ms", "PSS, MB"
START, AT_REST = "start, s", "of a processor at rest, %"
MEGABYTE = 1_000_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Scale:
    """How much of everything: no size above `most`, and only these peers, if any are named."""

    runs: int
    seconds: int
    warmup: int
    clients: int
    idle_calls: int
    most: float
    peers: tuple[str, ...] = ()

    def of(self, sizes: Iterable[int]) -> list[int]:
        return [size for size in sizes if size <= self.most]

    def among(self, peers: Iterable[str]) -> list[str]:
        return [name for name in peers if name in self.peers or not self.peers]


@dataclass
class Curve:
    """Values by their names, for each peer at each size; every value once a run."""

    name: str
    about: str
    size: str
    points: list[dict[str, object]] = field(default_factory=list)

    def add(self, peer: str, size: float, values: dict[str, list[float]]) -> None:
        self.points.append({"peer": peer, "size": size, "values": values})


@contextmanager
def standing(name: str, workload: Workload, folder: Path) -> Iterator[Peer]:
    """A peer that is set up, in a folder of its own that goes away with it."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o711)  # the database's user walks through to its own folder
        peer = PEERS[name](Path(place))
        try:
            peer.set_up(workload)
            yield peer
        finally:
            peer.tear_down()


def throughput(peer: Peer, workload: Workload, scale: Scale, clients: int | None = None) -> list[float]:
    """Requests/s of each run, after a warm-up; raises `LoadFailed` where a request failed."""
    wrk = Wrk(clients or scale.clients, threads=1)
    if scale.warmup:
        front_door.load(peer, workload, UNIFORM, 1, scale.warmup, wrk)
    rates = []
    for number in range(scale.runs):
        seen = front_door.load(peer, workload, UNIFORM, 2 + number, scale.seconds, wrk)
        if seen.failures:
            raise LoadFailed(f"{peer.name}: {seen.failures} requests failed")
        rates.append(seen.requests_per_second)
    return rates


def values(peer: Peer, workload: Workload, scale: Scale) -> dict[str, list[float]]:
    """What most curves tell: throughput, the latency of a peer at rest, memory."""
    latency = idle.latency(workload, peer, scale.idle_calls).p50_us / 1000
    rates = throughput(peer, workload, scale)
    return {RATE: rates, IDLE_P50: [latency], MEMORY: [costs.memory_of(peer)["sum"]["pss"] / MEGABYTE]}
