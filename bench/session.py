"""One workload from start to end: set the peers up, check that they agree, measure, collect, tear down."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import agreement, costs, floor, idle, provision, rounds, server_floor
from bench.mix import Workload
from bench.peer import Peer
from bench.peers import OURS, PEERS
from bench.peers.apiary import APPS
from bench.rounds import Plan, Run
from bench.workloads import increment

# The smallest calls: the latency of a peer at rest is measured with them, and with the first two its start.
IDLE_WORKLOADS = ("increment", "workflow1", "queued")
START_WORKLOADS = ("increment", "workflow1")
DEPLOY_WORKLOAD = "increment"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Extent:
    """What to measure besides the closed and open loops, and how much of it. Zero leaves it out."""

    idle_calls: int
    idle_seconds: float
    starts: int
    floor_seconds: float
    floor_rounds: int
    tune: bool


def run(
    workload: Workload, names: Sequence[str], plan: Plan, extent: Extent, folder: Path, say: Say
) -> dict[str, Any] | None:
    """Measure one workload on those of the named peers that can; everything that was seen, as JSON values."""
    with ExitStack() as stack:
        peers, left_out = ready(workload, names, folder, stack, say)
        if not peers:
            return None
        agreement.check(workload, [peer for peer in peers if not peer.floor])
        if extent.tune:
            for peer in peers:
                peer.tune(rounds.trial(workload, peer, plan))
        described = {peer.name: describe(peer) for peer in peers}
        if workload.name in IDLE_WORKLOADS:
            for peer in peers:
                described[peer.name] |= at_rest(workload, peer, extent, say)
        closed = collect(rounds.closed_runs(workload, peers, plan), lambda run: say(closed_line(run)))
        opened = collect(
            rounds.open_runs(workload, peers, plan, lambda peer: reached(closed, peer)),
            lambda run: say(f"{run.peer} at {run.rate:.0f}/s"),
        )
        for peer in peers:
            described[peer.name]["violations"] = rounds.violations(workload, peer)
            described[peer.name]["memory"] = costs.memory_of(peer)
            if workload.name in START_WORKLOADS:
                described[peer.name] |= lifecycle(workload, peer, extent, say)
    measured = {"about": workload.about, "clients": workload.clients or plan.clients, "left_out": left_out}
    measured |= {"peers": described, "closed": closed, "open": opened}
    return measured | floors(workload, extent, folder, say)


def ready(
    workload: Workload, names: Sequence[str], folder: Path, stack: ExitStack, say: Say
) -> tuple[list[Peer], dict[str, str]]:
    """The named peers that run this workload, set up; and why others are left out."""
    peers, left_out = [], {}
    for name in names:
        try:
            peer = PEERS[name](folder)
        except provision.Missing as missing:
            left_out[name] = str(missing)
            say(f"{name} is left out: {missing}")
            continue
        stack.callback(peer.tear_down)
        if workload.name in peer.workloads:
            peers.append(peer)
            say(f"{workload.name}: setting up {name}")
            peer.set_up(workload)
    return peers, left_out


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


def reached(closed: Sequence[dict[str, Any]], peer: str) -> float:
    """The best rate of a peer in the closed loop."""
    return max((run["measured"]["requests_per_second"] for run in closed if run["peer"] == peer), default=0.0)


def closed_line(run: Run) -> str:
    rate = f"{run.measured.requests_per_second:,.0f}/s"
    return f"{run.workload}, {run.keys} keys, run {run.number}, {run.peer}: {run.fault or rate}"


def describe(peer: Peer) -> dict[str, Any]:
    return {
        "ours": peer.name.startswith(OURS),
        "guarantees": peer.guarantees,
        "lacks": peer.lacks,
        "settings": dict(peer.settings()),
    }


def at_rest(workload: Workload, peer: Peer, extent: Extent, say: Say) -> dict[str, Any]:
    if not extent.idle_calls:
        return {}
    say(f"{peer.name}: at rest")
    found = {"idle": asdict(idle.latency(workload, peer, extent.idle_calls))}
    if workload.name == increment.WORKLOAD.name:
        found["idle_one_statement"] = asdict(idle.latency(increment.ADD, peer, extent.idle_calls))
    return found | {"idle_load": asdict(idle.load(peer, extent.idle_seconds))}


def lifecycle(workload: Workload, peer: Peer, extent: Extent, say: Say) -> dict[str, Any]:
    """Times to deploy (first, while the server is warm) and to start."""
    if not extent.starts:
        return {}
    say(f"{peer.name}: time to deploy and to start")
    numbers = range(extent.starts) if workload.name == DEPLOY_WORKLOAD else ()
    deployed = [costs.deploy_seconds(peer, APPS / workload.app, 2 + number) for number in numbers]
    started = [costs.start_seconds(workload, peer) for _ in range(extent.starts)]
    return {"deploy": [asdict(one) for one in deployed if one is not None], "start_seconds": started}
