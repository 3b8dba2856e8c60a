"""Options, the order of things, and the result: `python -m bench --help`."""

import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bench import ceilings, evaluation, host, network, provision, session, summary, tables
from bench.agreement import Disagreement
from bench.closed_loop import LoadFailed
from bench.mix import UNIFORM, ZIPF
from bench.peers import OURS, PEERS, REMOTE
from bench.probe import CallFailed
from bench.process import ServerFailed
from bench.rounds import Plan
from bench.session import Extent
from bench.workloads import WORKLOADS

LATEST = Path(__file__).parent / "results" / "latest.json"
QUICK_CLIENTS = 4
FAILURES = (
    ServerFailed,
    CallFailed,
    Disagreement,
    LoadFailed,
    OSError,
)  # of one workload; the next one is measured all the same. OSError: a connection that broke or waited too long


def main(
    workload: Annotated[str, typer.Option(envvar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}")] = "",
    peers: Annotated[
        str, typer.Option(envvar="PEERS", help=f"of {', '.join(PEERS)}; {OURS} is always among them")
    ] = "",
    runs: Annotated[int, typer.Option(min=1, help="runs of each peer, in turn")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="length of a run")] = 2,
    warmup: Annotated[int, typer.Option(min=0, help="load before each run, not measured, in seconds")] = 1,
    clients: Annotated[int, typer.Option(min=1, help="connections of the closed loop; workflows have 8")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="threads of wrk")] = 1,
    keys: Annotated[str, typer.Option(help="uniform, zipf or both")] = "",
    open_rates: Annotated[
        str, typer.Option("--open", metavar="RATE[,RATE…]", help="open loop at these requests/s")
    ] = "",
    connections: Annotated[int, typer.Option(min=1, max=900, help="connections of the open loop")] = 128,
    costs: Annotated[bool, typer.Option(help="latency and load at rest, time to start and to deploy")] = True,
    floor: Annotated[bool, typer.Option(help="the floors: bare APSW, PL/pgSQL, our engine alone")] = True,
    folder: Annotated[Path | None, typer.Option(help="where databases live; default: the temporary folder")] = None,
    json_file: Annotated[Path, typer.Option("--json", help="where the result goes")] = LATEST,
    quick: Annotated[bool, typer.Option("--quick", help="a second of each: does it run? Not a measurement")] = False,
) -> None:
    """Measure Apiary and its peers side by side, in turn, on this machine.

    Without names: the whole evaluation, as bench/evaluation.py has it.
    """
    console = Console()
    rates = tuple(float(rate) for rate in open_rates.split(",") if rate)
    plan = Plan(
        runs=runs,
        seconds=seconds,
        warmup=warmup,
        clients=clients,
        threads=threads,
        keys=chosen(keys, (UNIFORM, ZIPF), "--keys") or (UNIFORM, ZIPF),
        connections=connections,
        combined=(lambda *_: True) if keys else evaluation.measured,
        open_rates=(lambda *_: rates) if rates else evaluation.rates_of,
        beyond=bool(rates),
    )
    extent = extent_of(costs, floor, runs)
    if quick:
        keys_and_clients = {"clients": min(clients, QUICK_CLIENTS), "keys": (UNIFORM,)}
        plan = replace(plan, runs=1, seconds=1, warmup=0, open_rates=lambda *_: rates, **keys_and_clients)
        extent = Extent(50 * costs, 0.5, 1 * costs, 0.2 * floor, floor_rounds=1, tune=False)
    workloads = chosen(workload, WORKLOADS, "--workload") or evaluation.CHOSEN_WORKLOADS
    named = chosen(peers, PEERS, "--peers")
    if named and not any(name.startswith(OURS) for name in named):
        named = (OURS, *named)
    work = {name: named or evaluation.peers_of(name) for name in workloads}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        result = measure(work, plan, extent, folder, console)
    except provision.Missing as problem:
        console.print(f"[red]{problem}[/]")
        raise typer.Exit(2) from None
    result["quick"] = quick
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    tables.show(result, console)
    console.print(f"Every single run is in {json_file}.", highlight=False)
    if summary.faults(result):
        raise typer.Exit(1)


def extent_of(costs: bool, floor: bool, runs: int) -> Extent:
    few = min(runs, 3)
    return Extent(300 * costs, 5.0, few * costs, floor_seconds=2.0 * floor, floor_rounds=few, tune=True)


def values(plan: Plan) -> dict[str, Any]:
    """What of the plan can be written down."""
    return {name: value for name, value in asdict(plan).items() if not callable(value)}


def measure(
    work: dict[str, tuple[str, ...]],
    plan: Plan,
    extent: Extent,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """The whole result, as it goes into the JSON file: each workload on its peers."""
    wrk, start = provision.wrk(), time.monotonic()
    remote = any(name.endswith(REMOTE) for names in work.values() for name in names)

    def say(line: str) -> None:
        console.print(f"  {line}", highlight=False, markup=False)

    with tempfile.TemporaryDirectory(prefix="apiary-bench-", dir=folder, ignore_cleanup_errors=True) as name:
        place = Path(name)
        facts = host.facts(place, wrk)
        if facts["filesystem"] in host.MEMORY_FILESYSTEMS:
            console.print(f"[red]{place} is in memory: a commit is not durable there. Choose --folder on a disk.[/]")
        result: dict[str, Any] = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": facts,
            "settings": values(plan),
            "ceilings": ceilings.measure(place, plan),
            "network": asdict(network.quality(place)) if remote else None,
            "workloads": {},
            "failures": [],
        }
        for one, names in work.items():
            try:
                measured = session.run(WORKLOADS[one], names, plan, extent, place, say)
            except FAILURES as problem:
                result["failures"].append(f"{one}: {problem}")
                console.print(f"[red]{one}: {escape(str(problem))}[/]", highlight=False)
            else:
                if measured is not None:
                    result["workloads"][one] = measured
    facts["load_average_after"] = host.load_average()
    result["lasted_seconds"] = round(time.monotonic() - start)
    return result


def chosen(names: str, known: Any, option: str) -> tuple[str, ...]:
    """Comma-separated names, each a known one."""
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in found:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(known)}", param_hint=option)
    return found


if __name__ == "__main__":
    typer.run(main)
