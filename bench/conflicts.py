"""What conflicts cost: many clients on few rows of PostgreSQL, and on many. `python -m bench.conflicts`.

By functions that name a key, that do not, and that cannot; over HTTP, on one server or several that share the database.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bench import provision
from bench.closed_loop import LoadFailed, Measured, Wrk
from bench.mix import UNIFORM, ZIPF, Key, Load, Operation, Workload
from bench.peers.apiary import Apiary, ApiaryPostgres
from bench.probe import CallFailed, Connection, wait_until_healthy
from bench.process import ServerFailed

MOST_ROWS = 100_000
FUNCTIONS = ("keyed", "unkeyed", "move")
WARMUP_SECONDS = 2
JOIN_SECONDS = 60
LATEST = Path(__file__).parent / "results" / "conflicts.json"


@dataclass(frozen=True)
class Case:
    """A function, on so many rows, drawn by one of two laws."""

    function: str
    rows: int
    keys: str

    @property
    def workload(self) -> Workload:
        names = ("key", "other") if self.function == "move" else ("key",)
        draws, sends = {name: Key(self.rows) for name in names}, {name: name for name in names}
        return Workload(
            name=f"{self.function}-{self.rows}",
            app="rows",
            about="",
            operations=(Operation(self.function, 1.0, draws=draws, sends=sends),),
            load=(Load("load", rows=MOST_ROWS, batch=20_000),),
        )


def main(
    function: Annotated[list[str], typer.Option(help="keyed, unkeyed, move")] = list(FUNCTIONS),  # noqa: B006
    rows: Annotated[list[int], typer.Option(help="numbers of rows")] = [100, MOST_ROWS],  # noqa: B006
    clients: Annotated[int, typer.Option(min=1, help="connections to each server")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="runs of each case, in turn")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="length of a run")] = 5,
    servers: Annotated[int, typer.Option(min=1, help="servers on one database")] = 1,
    beside: Annotated[bool, typer.Option("--beside", help="functions beside the database")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="where the result goes")] = LATEST,
) -> None:
    """Measure each case; 1 where a call failed."""
    cases = [Case(name, count, keys) for name in function for count in rows for keys in (UNIFORM, ZIPF)]
    found: dict[Case, list[list[Measured]]] = {case: [] for case in cases}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="apiary-bench-", ignore_cleanup_errors=True) as folder,
            serving(Path(folder), servers, inside=not beside) as ports,
        ):
            wrk = Wrk(clients, 1)
            for run in range(runs):
                for case in cases:
                    measure(wrk, case, ports, run, WARMUP_SECONDS)
                    found[case].append(measure(wrk, case, ports, run, seconds))
    except (provision.Missing, ServerFailed, LoadFailed, CallFailed) as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    told = [told_of(case, several) for case, several in found.items()]
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(
        json.dumps({"clients": clients, "seconds": seconds, "servers": servers, "cases": told}, indent=1)
    )
    typer.echo(
        f"{'function':8} {'rows':>7} {'law':8} {'calls/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'slowest ms':>10} failed"
    )
    for one in told:
        typer.echo(
            f"{one['function']:8} {one['rows']:7} {one['keys']:8} {one['rate']:8,.0f} {one['p50_ms']:8.1f} "
            f"{one['p99_ms']:8.1f} {one['slowest_ms']:10.0f} {one['failures']}"
        )
    if any(one["failures"] for one in told):
        raise typer.Exit(1)


def told_of(case: Case, runs: Sequence[Sequence[Measured]]) -> dict[str, float]:
    """The medians of the runs, the slowest of all calls; of several servers, all their calls and the worse times."""
    every = [one for run in runs for one in run]
    return {
        **asdict(case),
        "rate": median(sum(one.requests_per_second for one in run) for run in runs),
        "p50_ms": median(max(one.p50_us for one in run) for run in runs) / 1000,
        "p99_ms": median(max(one.p99_us for one in run) for run in runs) / 1000,
        "slowest_ms": max(one.max_us for one in every) / 1000,
        "failures": sum(one.failures for one in every),
    }


def measure(wrk: Wrk, case: Case, ports: Sequence[int], seed: int, seconds: int) -> list[Measured]:
    """The same load on each server at the same time."""
    with ThreadPoolExecutor(len(ports)) as pool:
        return list(
            pool.map(lambda at: wrk.run(case.workload, at[1], case.keys, 10 * seed + at[0], seconds), enumerate(ports))
        )


@contextmanager
def serving(folder: Path, servers: int, *, inside: bool) -> Iterator[list[int]]:
    """The ports of so many servers that share a database, with the rows in it."""
    first = ApiaryPostgres(folder, inside)
    with ExitStack() as stack:
        stack.callback(first.tear_down)
        first.set_up(Case("keyed", MOST_ROWS, UNIFORM).workload)
        ports = [first.port]
        for _ in range(1, servers):
            other = Apiary(folder)
            stack.callback(other.tear_down)
            other.database, other.key = first.database, first.key
            other.launch()
            assert other.server is not None
            wait_until_healthy(other.server, other.port, "/healthz")
            wait_until_serving(other.port)
            ports.append(other.port)
        yield ports


def wait_until_serving(port: int) -> None:
    """Return when a server that has joined runs calls; `CallFailed` where it does not in time."""
    end = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            with Connection(port) as connection:
                connection.call("/apps/rows/keyed", {"key": 1})
            return
        except CallFailed:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    typer.run(main)
