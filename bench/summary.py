"""What the runs of a result come to: medians, ratios, faults, cautions. The tables and the page are made of these."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from bench import targets
from bench.mix import UNIFORM
from bench.stats import Spread, spread

Measured = dict[str, Any]
MEGABYTE = 1_000_000
OURS = "apiary"
INSIDE = "apiary-postgres"
FLOOR = "bare"
UNRECORDED = "apiary-unrecorded"
UNCAPTURED = "apiary-capture-off"
OTHERS_LIMIT = 0.05  # a machine on which others take more than this of the processors is not quiet


def faults(result: Measured) -> list[str]:
    """Everything that makes a number of this result invalid."""
    failures: list[str] = result["failures"]
    return (
        failures
        + [
            f"{run['workload']}, {run['keys']} keys, run {run['number']}, {run['peer']}: {run['fault']}"
            for workload in result["workloads"].values()
            for run in (*workload["closed"], *workload["open"])
            if run["fault"]
        ]
        + [
            f"{name}, {peer}: {seen['violations']} rows break the conditions of consistency"
            for name, workload in result["workloads"].items()
            for peer, seen in workload["peers"].items()
            if seen.get("violations")
        ]
    )


def cautions(result: Measured) -> Iterator[str]:
    """What a reader has to know before trusting these numbers."""
    if result["quick"]:
        yield "A quick run, cold and short: it shows that things run, not how fast they are."
    others = [run["others"] for workload in result["workloads"].values() for run in workload["closed"]]
    if max(others, default=0) > OTHERS_LIMIT:
        yield f"Others took up to {max(others):.0%} of the processors: run again on a quiet machine."
    for name, workload in result["workloads"].items():
        for peer, why in workload.get("left_out", {}).items():
            yield f"{name}: {peer} was left out. {why}"


def runs_of(workload: Measured, peer: str, keys: str) -> list[Measured]:
    return [run for run in workload["closed"] if run["peer"] == peer and run["keys"] == keys]


def rate_of(runs: list[Measured]) -> Spread:
    return spread([run["measured"]["requests_per_second"] for run in runs])


def ratio_of(workload: Measured, peer: str, keys: str, ours: str = OURS) -> float | None:
    """Median requests/s of ours over the peer's; None when one of them is missing or invalid."""
    our_runs, their_runs = runs_of(workload, ours, keys), runs_of(workload, peer, keys)
    if not our_runs or not their_runs or any(run["fault"] for run in (*our_runs, *their_runs)):
        return None
    return rate_of(our_runs).median / max(rate_of(their_runs).median, 1e-9)


def keys_of(workload: Measured) -> list[str]:
    return list(dict.fromkeys(run["keys"] for run in workload["closed"]))


def peers_of(workload: Measured, keys: str) -> list[str]:
    """The peers that were measured with these keys, in their order."""
    return list(dict.fromkeys(run["peer"] for run in workload["closed"] if run["keys"] == keys))


def idle_load(seen: Measured) -> str:
    """Statements a second of a peer's database at rest; what it takes of a processor where there is no server."""
    load = seen["idle_load"]
    share = f"{load['processor_share']:.1%} of a processor"
    statements = load["statements_per_second"]
    return share if statements is None else f"{statements:,.1f} statements/s, {share}"


def milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:,.2f}"


class Verdict:
    """A target, and what was reached."""

    def __init__(self, what: str, value: float, wanted: float, at_least: bool = False) -> None:
        self.what, self.value, self.wanted, self.at_least = what, value, wanted, at_least

    @property
    def met(self) -> bool:
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def __str__(self) -> str:
        return f"{self.what}: {self.value:,.2f} (wanted {'≥' if self.at_least else '≤'} {self.wanted:,g})"


def verdicts(result: Measured) -> Iterator[Verdict]:
    """Each target that this result can be held against."""
    for name, workload in result["workloads"].items():
        yield from _rate_verdicts(name, workload)
        ours = workload["peers"].get(OURS)
        if ours:
            yield from _cost_verdicts(name, ours)
        inside = workload["peers"].get(INSIDE, {}).get("idle_one_statement")
        if inside:
            wanted = targets.IDLE_MEDIAN_IN_POSTGRES_US
            yield Verdict(f"{INSIDE}, idle median of one statement in µs", inside["p50_us"], wanted)


def _rate_verdicts(name: str, workload: Measured) -> Iterator[Verdict]:
    for (ours, target_name, peer), times in targets.TIMES_A_PEER.items():
        ratio = ratio_of(workload, peer, UNIFORM, ours)
        if target_name == name and ratio is not None:
            yield Verdict(f"{name}, {ours}, times {peer}", ratio, times, at_least=True)
    runs = runs_of(workload, OURS, UNIFORM)
    if not runs or any(run["fault"] for run in runs):
        return
    wanted = targets.REQUESTS_PER_SECOND.get(name)
    if wanted:
        yield Verdict(f"{name} requests/s", rate_of(runs).median, wanted, at_least=True)
    share = ratio_of(workload, FLOOR, UNIFORM)
    if share is not None:
        yield Verdict(f"{name}, share of the floor behind HTTP", share, targets.SHARE_OF_FLOOR, at_least=True)
    recording = ratio_of(workload, UNRECORDED, UNIFORM, UNCAPTURED)
    if recording is not None:
        yield Verdict(f"{name}, cost of recording in %", (1 - recording) * 100, targets.RECORDING_COST * 100)
    capture = ratio_of(workload, UNCAPTURED, UNIFORM)
    if capture is not None:
        yield Verdict(f"{name}, cost of capture in %", (1 - capture) * 100, targets.CAPTURE_COST * 100)


def _cost_verdicts(name: str, seen: Measured) -> Iterator[Verdict]:
    pss = seen["memory"]["sum"]["pss"]  # pages that processes share are there once
    yield Verdict(f"{name}, memory in MB", pss / MEGABYTE, targets.MEMORY_BYTES / MEGABYTE)
    if "idle_one_statement" in seen:
        yield Verdict(f"{name}, idle median in µs", seen["idle"]["p50_us"], targets.IDLE_MEDIAN_US)
    if seen.get("start_seconds"):
        yield Verdict(f"{name}, start to first answer in s", median(seen["start_seconds"]), targets.START_SECONDS)
    if seen.get("deploy"):
        first_calls = [one["first_call_seconds"] for one in seen["deploy"]]
        yield Verdict("deploy to first call in s", median(first_calls), targets.DEPLOY_SECONDS)
