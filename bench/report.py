"""Tables from the measured values; nothing here is typed by hand. `python -m bench.report FILE` shows an older run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import targets
from bench.mix import UNIFORM
from bench.stats import Spread, spread

Measured = dict[str, Any]
MEGABYTE = 1_000_000
OURS = "apiary"
INSIDE = "apiary-postgres"
UNRECORDED = "apiary-unrecorded"
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


def show(result: Measured, console: Console) -> None:
    """Print all tables of a result."""
    host = result["host"]
    console.print(
        f"{host['cpu']}, {host['cores']} cores, {host['system']}, kernel {host['kernel']}, {host['filesystem']}, "
        f"a durable 4 KiB write {host['durable_write_ms']} ms; load before the run {host['load_average_before']:.2f}",
        highlight=False,
    )
    for name, workload in result["workloads"].items():
        console.print(closed_table(name, workload, result["settings"]))
        for line in network_lines(name, workload, result):
            console.print(line, highlight=False)
        if workload["open"]:
            console.print(open_table(name, workload))
        if workload["floor"]:
            console.print(floor_line(name, workload), highlight=False)
        if workload.get("server_floor"):
            console.print(server_floor_table(name, workload))
    console.print(costs_table(result))
    for line in verdicts(result):
        console.print(line, highlight=False)
    for line in _cautions(result):
        console.print(f"[yellow]{line}[/]", highlight=False)
    for fault in faults(result):
        console.print(f"[bold red]INVALID[/] {escape(fault)}", highlight=False)


def _cautions(result: Measured) -> Iterator[str]:
    """What a reader has to know before trusting these numbers."""
    if result["quick"]:
        yield "A quick run, cold and short: it shows that things run, not how fast they are."
    others = [run["others"] for workload in result["workloads"].values() for run in workload["closed"]]
    if max(others, default=0) > OTHERS_LIMIT:
        yield f"Others took up to {max(others):.0%} of the processors: run again on a quiet machine."


def closed_table(name: str, workload: Measured, settings: Measured) -> Table:
    table = Table(title=f"{name}: {workload['about']}\n{settings['clients']} clients, closed loop (wrk)")
    table.add_column("keys")
    table.add_column("peer")
    for column in (
        "requests/s",
        "min to max",
        "p50 ms",
        "p99 ms",
        "processor µs/request",
        "others busy",
        "failed",
        "apiary is",
    ):
        table.add_column(column, justify="right")
    for keys in dict.fromkeys(run["keys"] for run in workload["closed"]):
        for peer in workload["peers"]:
            runs = runs_of(workload, peer, keys)
            table.add_row(keys, peer, *closed_cells(runs), ratio_cell(workload, peer, keys))
    return table


def network_lines(name: str, workload: Measured, result: Measured) -> Iterator[str]:
    """What the network of the remote peers was worth, and what it took from the processors that they need."""
    taken = max((run.get("network", 0) for run in workload["closed"]), default=0)
    if taken and result.get("network"):
        seen = result["network"]
        yield (
            f"{name}, remote peers: the network adds {milliseconds(seen['added_us'])} ms to a round trip, carries "
            f"{seen['crowd_round_trips_per_second']:,.0f}/s, and took up to {taken:.0%} of one processor"
        )


def closed_cells(runs: list[Measured]) -> list[str]:
    rate = rate_of(runs)
    failed = sum(run["measured"][kind] for run in runs for kind in ("non_2xx", "socket_errors", "timeouts"))
    bad = any(run["fault"] for run in runs)
    return [
        "[red]invalid[/]" if bad else f"{rate.median:,.0f}",
        f"{rate.low:,.0f} to {rate.high:,.0f}",
        milliseconds(median(run["measured"]["p50_us"] for run in runs)),
        milliseconds(median(run["measured"]["p99_us"] for run in runs)),
        f"{median(run['processor_us'] for run in runs):,.0f}",
        f"{max(run['others'] for run in runs):.0%}",
        f"{failed:,}",
    ]


def ratio_cell(workload: Measured, peer: str, keys: str) -> str:
    ratio = ratio_of(workload, peer, keys)
    return "" if ratio is None or peer == OURS else f"{ratio:.2f}x"


def ratio_of(workload: Measured, peer: str, keys: str) -> float | None:
    """Median requests/s of ours over the peer's; None when one of them is missing or invalid."""
    ours, theirs = runs_of(workload, OURS, keys), runs_of(workload, peer, keys)
    if not ours or not theirs or any(run["fault"] for run in (*ours, *theirs)):
        return None
    return rate_of(ours).median / max(rate_of(theirs).median, 1e-9)


def runs_of(workload: Measured, peer: str, keys: str) -> list[Measured]:
    return [run for run in workload["closed"] if run["peer"] == peer and run["keys"] == keys]


def rate_of(runs: list[Measured]) -> Spread:
    return spread([run["measured"]["requests_per_second"] for run in runs])


def open_table(name: str, workload: Measured) -> Table:
    table = Table(title=f"{name}: open loop, latency from the moment a request was due")
    for column in ("keys", "peer"):
        table.add_column(column)
    for column in ("offered/s", "answered/s", "p50 ms", "p99 ms", "p99.9 ms", "unfinished", "failed", "driver late"):
        table.add_column(column, justify="right")
    for keys, rate, peer in dict.fromkeys((run["keys"], run["rate"], run["peer"]) for run in workload["open"]):
        seen = [
            run["measured"] for run in workload["open"] if (run["keys"], run["rate"], run["peer"]) == (keys, rate, peer)
        ]
        table.add_row(
            keys,
            peer,
            f"{rate:,.0f}",
            f"{median(one['answered_per_second'] for one in seen):,.0f}",
            *(milliseconds(median(one[part] for one in seen)) for part in ("p50_us", "p99_us", "p999_us")),
            f"{sum(one['unfinished'] for one in seen):,}",
            f"{sum(one['non_2xx'] for one in seen):,}",
            "[red]yes[/]" if any(one["driver_limited"] for one in seen) else "no",
        )
    return table


def floor_line(name: str, workload: Measured) -> str:
    parts = [f"{one['calls_per_second']:,.0f}/s at {one['calls_per_commit']} a commit" for one in workload["floor"]]
    return f"{name}, bare APSW loop without HTTP: {', '.join(parts)}"


def server_floor_table(name: str, workload: Measured) -> Table:
    """What PostgreSQL reaches without a platform, and our engine without its gateway, beside what the peer reached."""
    table = Table(title=f"{name}: the floors of PostgreSQL, uniform keys")
    table.add_column("what")
    for column in ("in flight", "calls/s", "min to max", "mean ms", "processor µs/call", f"{INSIDE} is"):
        table.add_column(column, justify="right")
    inside = runs_of(workload, INSIDE, UNIFORM)
    for kind in dict.fromkeys(run["kind"] for run in workload["server_floor"]):
        seen = [run for run in workload["server_floor"] if run["kind"] == kind]
        rate = spread([run["calls_per_second"] for run in seen])
        table.add_row(
            kind,
            str(seen[0]["in_flight"]),
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f} to {rate.high:,.0f}",
            f"{median(run['mean_ms'] for run in seen):,.2f}",
            f"{median(run['processor_us'] for run in seen):,.0f}",
            f"{rate_of(inside).median / rate.median:.2f}x" if inside else "",
        )
    return table


def costs_table(result: Measured) -> Table:
    table = Table(title="start, deployment, latency of an idle server, memory after the runs (medians)")
    for column in ("workload", "peer"):
        table.add_column(column)
    for column in (
        "idle p50 ms",
        "idle p99 ms",
        "1 statement p50 ms",
        "start s",
        "deploy s",
        "to first call s",
        "failed calls",
        "RSS MB",
        "PSS MB",
    ):
        table.add_column(column, justify="right")
    for name, workload in result["workloads"].items():
        for peer, seen in workload["peers"].items():
            table.add_row(name, peer, *cost_cells(seen))
    return table


def cost_cells(seen: Measured) -> list[str]:
    idle, deploys, starts = seen.get("idle"), seen.get("deploy"), seen.get("start_seconds")
    memory = seen["memory"]["sum"]
    return [
        milliseconds(idle["p50_us"]) if idle else "",
        milliseconds(idle["p99_us"]) if idle else "",
        milliseconds(seen["idle_one_statement"]["p50_us"]) if "idle_one_statement" in seen else "",
        f"{median(starts):.2f}" if starts else "",
        f"{median(one['command_seconds'] for one in deploys):.2f}" if deploys else "",
        f"{median(one['first_call_seconds'] for one in deploys):.2f}" if deploys else "",
        str(sum(one["failed_meanwhile"] for one in deploys)) if deploys else "",
        f"{memory['rss'] / MEGABYTE:,.0f}",
        f"{memory['pss'] / MEGABYTE:,.0f}",
    ]


def verdicts(result: Measured) -> Iterator[str]:
    """Each target that this result can be held against."""
    for name, workload in result["workloads"].items():
        yield from rate_verdicts(name, workload)
        ours = workload["peers"].get(OURS)
        if ours:
            yield from cost_verdicts(name, ours)
        inside = workload["peers"].get(INSIDE, {}).get("idle_one_statement")
        if inside:
            wanted = targets.IDLE_MEDIAN_IN_POSTGRES_US
            yield verdict(f"{INSIDE}, idle median of one statement in µs", inside["p50_us"], wanted)


def rate_verdicts(name: str, workload: Measured) -> Iterator[str]:
    runs = runs_of(workload, OURS, UNIFORM)
    if not runs or any(run["fault"] for run in runs):
        return
    wanted = targets.REQUESTS_PER_SECOND.get(name)
    if wanted:
        yield verdict(f"{name} requests/s", rate_of(runs).median, wanted, at_least=True)
    for (target_name, peer), times in targets.TIMES_A_PEER.items():
        ratio = ratio_of(workload, peer, UNIFORM)
        if target_name == name and ratio is not None:
            yield verdict(f"{name}, times {peer}", ratio, times, at_least=True)
    ratio = ratio_of(workload, UNRECORDED, UNIFORM)
    if ratio is not None:
        yield verdict(f"{name}, cost of recording in %", (1 - ratio) * 100, targets.RECORDING_COST * 100)


def cost_verdicts(name: str, seen: Measured) -> Iterator[str]:
    rss = seen["memory"]["sum"]["rss"]
    yield verdict(f"{name}, resident memory in MB", rss / MEGABYTE, targets.MEMORY_BYTES / MEGABYTE)
    if "idle" in seen:
        yield verdict("idle median in µs", seen["idle"]["p50_us"], targets.IDLE_MEDIAN_US)
    if seen.get("start_seconds"):
        yield verdict("start to first answer in s", median(seen["start_seconds"]), targets.START_SECONDS)
    if seen.get("deploy"):
        first_calls = [one["first_call_seconds"] for one in seen["deploy"]]
        yield verdict("deploy to first call in s", median(first_calls), targets.DEPLOY_SECONDS)


def verdict(what: str, value: float, wanted: float, at_least: bool = False) -> str:
    met = value >= wanted if at_least else value <= wanted
    mark = "[green]met   [/]" if met else "[red]missed[/]"
    return f"{mark} {what}: {value:,.2f} (wanted {'≥' if at_least else '≤'} {wanted:,g})"


def milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:,.2f}"


if __name__ == "__main__":
    show(json.loads(Path(sys.argv[1]).read_text()), Console())
