"""The floor: the statements of each workload on bare APSW, in this process, without HTTP, records or conversion.

One commit per call, and 64 calls per commit; WAL, `synchronous=full`, like the embedded engine. The distance between a
platform on the same database and this loop is what the platform costs.
"""

import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import apsw

from bench import data_set
from bench.floor_functions import FUNCTIONS, Function
from bench.mix import UNIFORM, Workload
from bench.stream import Call, calls

CALLS_PER_COMMIT = (1, 64)
PRAGMAS = "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -65536"
DRAWN_CALLS = 20_000
CLOCK_EVERY = 16


@dataclass(frozen=True)
class FloorRun:
    """Calls/s of the bare loop."""

    calls_per_commit: int
    calls_per_second: float


def measure(workload: Workload, folder: Path, seconds: float, seed: int = 5) -> list[FloorRun]:
    """Load the workload into a new database in `folder`, and run it for `seconds` with each commit size."""
    sql = data_set.statements(workload.app)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        database = apsw.Connection(f"{place}/floor.db")
        try:
            prepare(database, workload)
            functions = FUNCTIONS[workload.app](database.cursor(), sql)
            return [run(database, workload, functions, size, seconds, seed) for size in CALLS_PER_COMMIT]
        finally:
            database.close()


def prepare(database: apsw.Connection, workload: Workload) -> None:
    database.execute(PRAGMAS)
    for migration in data_set.migrations(workload.app, postgresql=False):
        database.execute(migration)
    for load, texts in data_set.loads(workload):
        with database:
            for text in texts:
                database.execute(text, {"first": 1, "last": load.rows} if ":first" in text else None)


def run(
    database: apsw.Connection,
    workload: Workload,
    functions: dict[str, Function],
    calls_per_commit: int,
    seconds: float,
    seed: int,
) -> FloorRun:
    drawn = list(islice(calls(workload, UNIFORM, seed), DRAWN_CALLS))
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        if calls_per_commit == 1:
            for call in islice_around(drawn, done, CLOCK_EVERY):
                database.execute("begin" if call.operation.reads_only else "begin immediate")
                functions[call.operation.function](**call.arguments)
                database.execute("commit")
            done += CLOCK_EVERY
        else:
            database.execute("begin immediate")
            for call in islice_around(drawn, done, calls_per_commit):
                functions[call.operation.function](**call.arguments)
            database.execute("commit")
            done += calls_per_commit
    return FloorRun(calls_per_commit, done / (time.perf_counter() - start))


def islice_around(drawn: list[Call], start: int, count: int) -> list[Call]:
    """`count` calls from position `start` on, going around."""
    position = start % (len(drawn) - count)
    return drawn[position : position + count]
