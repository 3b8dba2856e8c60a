"""What a call from SQL costs: pgbench on `select 1` and on a function of an app, in turn. `python -m bench.sqlcall`.

The function asks the database for nothing and its record is left out, so that what is measured is the way in and out.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from bench import provision, targets
from bench.peers.apiary import APPS, ApiaryPostgres
from bench.probe import wait_until_healthy
from bench.process import ServerFailed
from bench.stats import spread

STATEMENTS = {"select 1": "select 1;", "function": "select sums.add(7, 12);"}
WARMUP_SECONDS = 5
LATEST = Path(__file__).parent / "results" / "sqlcall.json"


def main(
    runs: Annotated[int, typer.Option(min=1, help="runs of each statement, in turn")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="length of a run")] = 5,
    clients: Annotated[int, typer.Option(min=1, help="connections")] = 8,
    json_file: Annotated[Path, typer.Option("--json", help="where the result goes")] = LATEST,
) -> None:
    """Measure `select 1` and a function from SQL, in turn; 1 where the function reaches less than its target."""
    try:
        with tempfile.TemporaryDirectory(prefix="apiary-bench-", ignore_cleanup_errors=True) as folder:
            rates = measure(Path(folder), runs, seconds, clients)
    except (provision.Missing, ServerFailed) as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    found = {name: spread(values) for name, values in rates.items()}
    share = found["function"].median / found["select 1"].median
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps({"clients": clients, "seconds": seconds, "rates": rates, "share": share}, indent=1))
    for name, one in found.items():
        typer.echo(f"{name:10} {one.median:10,.0f}/s   {one.low:,.0f} to {one.high:,.0f}")
    met = share >= targets.SHARE_OF_SELECT_1
    typer.echo(
        f"the function reaches {share:.2f} of select 1; {'met' if met else 'missed'}: {targets.SHARE_OF_SELECT_1:.2f}"
    )
    if not met:
        raise typer.Exit(1)


def measure(folder: Path, runs: int, seconds: int, clients: int) -> dict[str, list[float]]:
    """Transactions a second of each statement, of each run."""
    peer = ApiaryPostgres(folder, recorded=False)
    try:
        peer.postgres.start()
        peer.database = peer.postgres.url()
        peer.launch()
        assert peer.server is not None
        wait_until_healthy(peer.server, peer.port, "/healthz")
        peer.deploy(APPS / "sums")
        rates: dict[str, list[float]] = {name: [] for name in STATEMENTS}
        for _ in range(runs):
            for name, statement in STATEMENTS.items():
                rates[name].append(pgbench(peer, statement, seconds, clients))
        return rates
    finally:
        peer.tear_down()


def pgbench(peer: ApiaryPostgres, statement: str, seconds: int, clients: int) -> float:
    """Transactions a second, once all sessions have loaded the app; each is one prepared statement."""
    script = peer.folder / "script.sql"
    script.write_text(statement)
    how: list[Any] = ["--no-vacuum", "--protocol=prepared", "--client", clients, "--jobs", 2, "--progress", 1]
    time = ["--time", WARMUP_SECONDS + seconds + 1]  # the last second may go untold
    argv = [peer.postgres.bin / "pgbench", *how, *time, "--file", script, peer.postgres.url()]
    done = subprocess.run(list(map(str, argv)), check=False, capture_output=True, text=True)
    rates = [float(rate) for rate in re.findall(r"^progress: .* ([\d.]+) tps", done.stderr, re.MULTILINE)]
    if done.returncode != 0 or len(rates) < WARMUP_SECONDS + seconds:
        raise ServerFailed(f"pgbench failed: {done.stderr.strip()}")
    return mean(rates[WARMUP_SECONDS:][:seconds])


if __name__ == "__main__":
    typer.run(main)
