"""Data: the increment on tables of 10,000 to 10,000,000 rows."""

from dataclasses import replace
from pathlib import Path

from bench.mix import Key, Load, Workload
from bench.scaling.curve import Curve, Say, Scale, standing, values
from bench.workloads import increment

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
COMPARED = ("apiary", "apiary-postgres", "fastapi")
BATCH = 100_000


def of_size(rows: int) -> Workload:
    """The increment on so many counters."""
    operation = replace(increment.INCREMENT, draws={"key": Key(rows)})
    load = (Load("load", rows=rows, batch=min(BATCH, rows)),)
    return replace(increment.WORKLOAD, operations=(operation,), load=load)


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Throughput and latency, by rows of the table."""
    curve = Curve("data", "the increment, by rows of its table", "rows")
    for name in scale.among(COMPARED):
        for size in scale.of(SIZES):
            with standing(name, of_size(size), folder) as peer:
                curve.add(name, size, values(peer, of_size(size), scale))
                say(f"{curve.name}: {name}, {size:,}")
    return curve
