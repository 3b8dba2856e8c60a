"""The runs: peers measured in turn (A B A B …), each after a warm-up that is dropped, and audited for lost effects."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from bench import front_door, open_loop
from bench.closed_loop import Measured, Wrk
from bench.mix import Workload
from bench.open_loop import OpenMeasured
from bench.peer import Peer
from bench.process import cpu_seconds, machine_busy_seconds, own_seconds

TRIAL_SECONDS = 2
OPEN_RUNS = 3  # at most; there are many rates
SETTLE_SECONDS = 15.0
SETTLE_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    runs: int
    seconds: int
    warmup: int
    clients: int
    threads: int
    keys: tuple[str, ...]
    connections: int
    combined: Callable[[str, str, str], bool]  # whether a workload is run on a peer with these keys
    open_rates: Callable[[str, str], tuple[float, ...]]  # the rates of the open loop for a workload and a peer
    beyond: bool  # whether the open loop offers more than a peer has reached in the closed loop


@dataclass(frozen=True)
class Run:
    """One closed-loop run of one peer.

    `processor_us` is the servers' processor time for each request; `others` the share of the machine's processors that
    went to anything but servers, load generator and network; `network` the share of one processor that the network
    took, where there is one; `fault` is empty when every answer was right.
    """

    workload: str
    peer: str
    keys: str
    number: int
    measured: Measured
    processor_us: float
    others: float
    network: float
    fault: str


@dataclass(frozen=True)
class Processors:
    """Readings of processor time, in seconds: of the servers, the network, this process with wrk, the whole machine."""

    at: float
    servers: float
    network: float
    own: float
    machine: float

    @classmethod
    def now(cls, peer: Peer) -> Self:
        servers = cpu_seconds([pid for role in peer.processes().values() for pid in role])
        return cls(time.monotonic(), servers, cpu_seconds(peer.network()), own_seconds(), machine_busy_seconds())

    def since(self, later: Self) -> tuple[float, float, float]:
        """What happened until a later reading.

        The servers' seconds, the share of the machine that others took, and of one processor that the network took.
        """
        seconds, machine = later.at - self.at, later.machine - self.machine
        servers, network, own = later.servers - self.servers, later.network - self.network, later.own - self.own
        capacity = seconds * len(os.sched_getaffinity(0))
        return servers, max(0.0, (machine - servers - network - own) / capacity), network / seconds


@dataclass(frozen=True)
class OpenRun:
    """One open-loop run of one peer."""

    workload: str
    peer: str
    keys: str
    number: int
    rate: float
    measured: OpenMeasured
    fault: str


def trial(workload: Workload, peer: Peer, plan: Plan) -> Callable[[], float]:
    """A short load for choosing a peer's settings: warm-up, then requests/s."""
    wrk = Wrk(plan.clients, plan.threads)

    def measure() -> float:
        front_door.load(peer, workload, plan.keys[0], 1, 1, wrk)
        return front_door.load(
            peer, workload, plan.keys[0], 2, min(TRIAL_SECONDS, plan.seconds), wrk
        ).requests_per_second

    return measure


def closed_runs(workload: Workload, peers: Sequence[Peer], plan: Plan) -> Iterator[Run]:
    wrk = Wrk(plan.clients, plan.threads)
    for keys in plan.keys:
        for number in range(1, plan.runs + 1):
            for peer in peers:
                if plan.combined(workload.name, peer.name, keys):
                    yield closed_run(wrk, workload, peer, keys, number, plan)


def closed_run(wrk: Wrk, workload: Workload, peer: Peer, keys: str, number: int, plan: Plan) -> Run:
    if plan.warmup > 0:
        front_door.load(peer, workload, keys, 1000 + number, plan.warmup, wrk)
    effects_before, before = effects(workload, peer), Processors.now(peer)
    measured = front_door.load(peer, workload, keys, number, plan.seconds, wrk)
    servers, others, network = before.since(Processors.now(peer))
    effects_after = effects(workload, peer)
    cut_off = (workload.clients or plan.clients) * (2 if plan.warmup else 1)
    fault = failure_of(measured.failures) or audit(measured, effects_before, effects_after, cut_off)
    processor_us = servers * 1e6 / max(1, measured.requests)
    return Run(workload.name, peer.name, keys, number, measured, processor_us, others, network, fault)


def open_runs(
    workload: Workload, peers: Sequence[Peer], plan: Plan, reached: Callable[[str], float]
) -> Iterator[OpenRun]:
    """At rates above what a peer has `reached` in the closed loop its queue only grows."""
    able = [peer for peer in peers if front_door.by_http(peer, workload)]
    rates = sorted({rate for peer in able for rate in plan.open_rates(workload.name, peer.name)})
    for keys in plan.keys[:1]:
        for rate in rates:
            for number in range(1, min(plan.runs, OPEN_RUNS) + 1):
                for peer in able:
                    wanted = rate in plan.open_rates(workload.name, peer.name)
                    if wanted and (plan.beyond or rate <= reached(peer.name)):
                        yield open_run(front_door.seen_by(peer, workload), peer, keys, rate, number, plan)


def open_run(workload: Workload, peer: Peer, keys: str, rate: float, number: int, plan: Plan) -> OpenRun:
    if plan.warmup > 0:
        open_loop.measure(workload, peer.port, keys, 1000 + number, rate, plan.warmup, plan.connections)
    measured = open_loop.measure(workload, peer.port, keys, number, rate, plan.seconds, plan.connections)
    return OpenRun(workload.name, peer.name, keys, number, rate, measured, failure_of(measured.failures))


def failure_of(failures: int) -> str:
    return f"{failures} failed requests" if failures else ""


def effects(workload: Workload, peer: Peer) -> int | None:
    """How many requests have taken effect, where the workload can tell.

    Requests that the end of a run cut off may still be under way: read until the number stays the same.
    """
    if workload.effects is None:
        return None
    deadline = time.monotonic() + SETTLE_SECONDS
    with front_door.opened(peer) as call:
        seen = int(call(workload, workload.effects, {}))
        while time.monotonic() < deadline:
            time.sleep(SETTLE_PAUSE_SECONDS)
            previous, seen = seen, int(call(workload, workload.effects, {}))
            if seen == previous:
                break
    return seen


def violations(workload: Workload, peer: Peer) -> int:
    """How many rows break the workload's conditions of consistency, where it has such."""
    if workload.violations is None:
        return 0
    with front_door.opened(peer) as call:
        return int(call(workload, workload.violations, {}))


def audit(measured: Measured, before: int | None, after: int | None, cut_off: int) -> str:
    """Each answered request must have its one effect.

    At most the requests that were cut off may have more: those at the end of the run, and those at the end of its
    warm-up, which may still have been waiting to be run again when the effects were counted.
    """
    if before is None or after is None:
        return ""
    extra = after - before - measured.requests
    if extra < 0:
        return f"{-extra} answered requests without effect"
    return f"{extra} effects without request" if extra > cut_off else ""
