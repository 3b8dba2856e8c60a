"""Tables for the console, of the measured values: what `python -m bench` prints when it has ended."""

from collections.abc import Iterator
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.mix import UNIFORM
from bench.stats import spread
from bench.summary import (
    INSIDE,
    MEGABYTE,
    OURS,
    Measured,
    cautions,
    faults,
    idle_load,
    keys_of,
    milliseconds,
    peers_of,
    rate_of,
    ratio_of,
    runs_of,
    verdicts,
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
        console.print(closed_table(name, workload))
        for line in network_lines(name, workload, result):
            console.print(line, highlight=False)
        if workload["open"]:
            console.print(open_table(name, workload))
        if workload["floor"]:
            console.print(floor_line(name, workload), highlight=False)
        if workload.get("server_floor"):
            console.print(server_floor_table(name, workload))
    console.print(costs_table(result))
    for verdict in verdicts(result):
        console.print(f"{'[green]met   [/]' if verdict.met else '[red]missed[/]'} {verdict}", highlight=False)
    for line in cautions(result):
        console.print(f"[yellow]{line}[/]", highlight=False)
    for fault in faults(result):
        console.print(f"[bold red]INVALID[/] {escape(fault)}", highlight=False)


def closed_table(name: str, workload: Measured) -> Table:
    table = Table(title=f"{name}: {workload['about']}\n{workload['clients']} clients, closed loop")
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
    for keys in keys_of(workload):
        for peer in peers_of(workload, keys):
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
        "at rest",
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
        idle_load(seen) if "idle_load" in seen else "",
        f"{memory['rss'] / MEGABYTE:,.0f}",
        f"{memory['pss'] / MEGABYTE:,.0f}",
    ]
