"""Measures the curves: `python -m bench.scaling [NAME …]`. About half an hour for all."""

import json
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import host, provision
from bench.agreement import Disagreement
from bench.closed_loop import LoadFailed
from bench.probe import CallFailed
from bench.process import ServerFailed
from bench.scaling import apps, clients, cores, data, log, sleepers, steps
from bench.scaling.curve import Scale

CURVES = {
    "clients": clients,
    "data": data,
    "log": log,
    "steps": steps,
    "sleepers": sleepers,
    "cores": cores,
    "apps": apps,
}
# The largest sizes of a quick run.
QUICK_MOST = {"clients": 2, "data": 10_000, "log": 100_000, "steps": 100, "sleepers": 1_000, "cores": 1, "apps": 2}
FULL = Scale(runs=3, seconds=2, warmup=1, clients=32, idle_calls=300, most=float("inf"))
QUICK = Scale(runs=1, seconds=1, warmup=0, clients=4, idle_calls=20, most=0)
LATEST = Path(__file__).parent.parent / "results" / "scaling.json"
FAILURES = (ServerFailed, CallFailed, Disagreement, LoadFailed)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(CURVES)}; all where none is named")] = None,
    most: Annotated[float, typer.Option(help="no size above this one")] = FULL.most,
    peers: Annotated[str, typer.Option(help="only these, comma-separated")] = "",
    folder: Annotated[Path | None, typer.Option(help="where databases live; default: the temporary folder")] = None,
    json_file: Annotated[Path, typer.Option("--json", help="where the result goes")] = LATEST,
    quick: Annotated[bool, typer.Option("--quick", help="the smallest sizes, briefly: does it run?")] = False,
) -> None:
    """Measure how things grow; 1 where something failed."""
    for name in names or ():
        if name not in CURVES:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(CURVES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        result = measure(names or list(CURVES), most, tuple(filter(None, peers.split(","))), folder, quick)
    except provision.Missing as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    typer.echo(f"Every value is in {json_file}.")
    if result["failures"]:
        raise typer.Exit(1)


def measure(names: list[str], most: float, peers: tuple[str, ...], folder: Path | None, quick: bool) -> dict[str, Any]:
    """All that goes into the file."""
    with tempfile.TemporaryDirectory(prefix="apiary-bench-", dir=folder, ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o711)
        result: dict[str, Any] = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": quick,
            "host": host.facts(Path(place), provision.wrk()),
            "curves": [],
            "failures": [],
        }
        for name in names:
            size = min(most, QUICK_MOST[name]) if quick else most
            scale = replace(QUICK if quick else FULL, most=size, peers=peers)
            try:
                result["curves"].append(asdict(CURVES[name].measure(Path(place), scale, typer.echo)))
            except FAILURES as problem:
                result["failures"].append(f"{name}: {problem}")
                typer.echo(f"{name}: {problem}", err=True)
        result["host"]["load_average_after"] = host.load_average()
    return result


if __name__ == "__main__":
    typer.run(main)
