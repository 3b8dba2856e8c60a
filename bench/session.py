"""One workload from start to end: set the peers up, check that they agree, measure, collect, tear down."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import agreement, costs, floor, rounds, server_floor
from bench.mix import Workload
from bench.peer import Peer
from bench.peers import OURS, PEERS
from bench.peers.apiary import APPS
from bench.rounds import Plan, Run
from bench.workloads import increment

COSTS_WORKLOAD = "increment"  # the smallest call: start, deployment and idle latency are measured with it

Say = Callable[[str], None]


@dataclass(frozen=True)
class Extent:
    """What to measure besides the closed and open loops, and how much of it. Zero leaves it out."""

    idle_calls: int
    starts: int
    floor_seconds: float
    floor_rounds: int
    tune: bool


def run(workload: Workload, names: Sequence[str], plan: Plan, extent: Extent, folder: Path, say: Say) -> dict[str, Any]:
    """Measure one workload on the named peers; everything that was seen, as JSON values."""
    with ExitStack() as stack:
        peers = [PEERS[name](folder) for name in names]
        for peer in peers:
            stack.callback(peer.tear_down)
            say(f"{workload.name}: setting up {peer.name}")
            peer.set_up(workload)
        agreement.check(workload, peers)
        if extent.tune:
            for peer in peers:
                peer.tune(rounds.trial(workload, peer, plan))
        described = {peer.name: describe(peer) for peer in peers}
        if workload.name == COSTS_WORKLOAD:
            for peer in peers:
                described[peer.name] |= idle(workload, peer, extent, say)
        closed = collect(rounds.closed_runs(workload, peers, plan), lambda run: say(closed_line(run)))
        opened = collect(rounds.open_runs(workload, peers, plan), lambda run: say(f"{run.peer} at {run.rate:.0f}/s"))
        for peer in peers:
            described[peer.name]["violations"] = rounds.violations(workload, peer)
            described[peer.name]["memory"] = costs.memory_of(peer)
            if workload.name == COSTS_WORKLOAD:
                described[peer.name] |= lifecycle(workload, peer, extent, say)
    measured = {"about": workload.about, "peers": described, "closed": closed, "open": opened}
    return measured | floors(workload, extent, folder, say)


def floors(workload: Workload, extent: Extent, folder: Path, say: Say) -> dict[str, Any]:
    seconds = extent.floor_seconds
    if not seconds:
        return {"floor": [], "server_floor": []}
    say(f"{workload.name}: the floors")
    return {
        "floor": [asdict(one) for one in floor.measure(workload, folder, seconds)],
        "server_floor": [asdict(one) for one in server_floor.measure(workload, folder, seconds, extent.floor_rounds)],
    }


def collect(runs: Any, tell: Callable[[Any], None]) -> list[dict[str, Any]]:
    found = []
    for run in runs:
        tell(run)
        found.append(asdict(run))
    return found


def closed_line(run: Run) -> str:
    rate = f"{run.measured.requests_per_second:,.0f}/s"
    return f"{run.workload}, {run.keys} keys, run {run.number}, {run.peer}: {run.fault or rate}"


def describe(peer: Peer) -> dict[str, Any]:
    return {
        "ours": peer.name == OURS,
        "guarantees": peer.guarantees,
        "lacks": peer.lacks,
        "settings": dict(peer.settings()),
    }


def idle(workload: Workload, peer: Peer, extent: Extent, say: Say) -> dict[str, Any]:
    if not extent.idle_calls:
        return {}
    say(f"{peer.name}: latency when idle")
    return {
        "idle": asdict(costs.idle_latency(workload, peer, extent.idle_calls)),
        "idle_one_statement": asdict(costs.idle_latency(increment.ADD, peer, extent.idle_calls)),
    }


def lifecycle(workload: Workload, peer: Peer, extent: Extent, say: Say) -> dict[str, Any]:
    """Times to deploy (first, while the server is warm) and to start."""
    if not extent.starts:
        return {}
    say(f"{peer.name}: time to deploy and to start")
    deployed = [costs.deploy_seconds(peer, APPS / workload.app, 2 + number) for number in range(extent.starts)]
    started = [costs.start_seconds(workload, peer) for _ in range(extent.starts)]
    return {"deploy": [asdict(one) for one in deployed if one is not None], "start_seconds": started}
