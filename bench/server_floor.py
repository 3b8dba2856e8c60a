"""The floors of PostgreSQL: a statement that does nothing, each function by hand in PL/pgSQL, and our engine alone.

The first two are driven by pgbench with prepared statements: no HTTP, no Python, no record, arguments unchecked. The
third is `engine_only.py`. All have a cluster of their own with the settings of the peers' servers, and serializable
transactions. Uniform keys; the kinds take turns.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import data_set
from bench.mix import Draw, Key, Range, Word, Workload
from bench.peers.apiary import APPS
from bench.postgres import POSTGRES_SETTINGS, Postgres
from bench.process import ServerFailed, cpu_seconds_with_ended

FUNCTIONS = Path(__file__).parent / "plpgsql"
CLIENTS = 8
IN_FLIGHT = 32
MAX_TRIES = 100
BY_HAND, NOTHING, ENGINE = "PL/pgSQL, pgbench", "select 1, pgbench", "apiary without its gateway"
BY_HAND_DATABASE, ENGINE_DATABASE = "by_hand", "engine"
SETTINGS = {"PGOPTIONS": "-c default_transaction_isolation=serializable"}


@dataclass(frozen=True)
class ServerFloorRun:
    """One measurement. `processor_us` is that of PostgreSQL, and of our engine where it takes part, for each call."""

    kind: str
    in_flight: int
    calls_per_second: float
    mean_ms: float
    processor_us: float


@dataclass(frozen=True)
class Seen:
    """What a driver counted, and the processor time that it used on the engine's behalf."""

    calls: int
    seconds: float
    mean_ms: float
    engine_seconds: float = 0.0


def has_floor(workload: Workload) -> bool:
    """Whether the workload is one operation that stands in `plpgsql/`."""
    return len(workload.operations) == 1 and (FUNCTIONS / f"{workload.app}.sql").exists()


def measure(workload: Workload, folder: Path, seconds: float, rounds: int) -> list[ServerFloorRun]:
    """Measure each kind `rounds` times for `seconds`, in turn; nothing for a workload that has no such floor."""
    if not has_floor(workload):
        return []
    log = folder / f"floor-{workload.name}.log"
    with cluster(folder, log) as postgres, Engine(workload, postgres, log) as engine:
        postgres.psql("postgres", f"create database {BY_HAND_DATABASE}")
        postgres.psql(BY_HAND_DATABASE, data_set.postgresql_script(workload))
        postgres.psql(BY_HAND_DATABASE, (FUNCTIONS / f"{workload.app}.sql").read_text())
        drivers: dict[str, tuple[int, Callable[[], Seen]]] = {
            NOTHING: (CLIENTS, lambda: pgbench(postgres, "select 1;\n", seconds)),
            BY_HAND: (CLIENTS, lambda: pgbench(postgres, script(workload), seconds)),
            ENGINE: (IN_FLIGHT, lambda: engine.run(seconds)),
        }
        return [run(postgres, kind, *drivers[kind]) for _ in range(rounds) for kind in drivers]


@contextmanager
def cluster(folder: Path, log: Path) -> Iterator[Postgres]:
    folder.chmod(folder.stat().st_mode | 0o011)  # the database's user walks through to its own folder
    postgres = Postgres(folder, log, POSTGRES_SETTINGS)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.remove()


def run(postgres: Postgres, kind: str, in_flight: int, drive: Callable[[], Seen]) -> ServerFloorRun:
    before = cpu_seconds_with_ended(postgres.pids())
    seen = drive()
    used = cpu_seconds_with_ended(postgres.pids()) - before + seen.engine_seconds
    calls = max(1, seen.calls)
    return ServerFloorRun(kind, in_flight, seen.calls / seen.seconds, seen.mean_ms, used * 1e6 / calls)


def script(workload: Workload) -> str:
    """The workload's operation for pgbench."""
    operation = workload.operations[0]
    draws = [f"\\set {name} {drawn(what)}\n" for name, what in operation.draws.items()]
    values = ", ".join(f":{value}" for value in operation.sends.values())
    return f"{''.join(draws)}select {operation.function}({values});\n"


def drawn(what: Draw) -> str:
    match what:
        case Key(count):
            return f"random(1, {count})"
        case Range(first, last):
            return f"random({first}, {last})"
        case Word():
            raise ValueError("pgbench draws no words")


def pgbench(postgres: Postgres, text: str, seconds: float) -> Seen:
    """Run the script on CLIENTS connections over the Unix socket; conflicts are run again, other failures raise."""
    how = ["--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", f"--max-tries={MAX_TRIES}"]
    argv = [str(postgres.bin / "pgbench"), *how, f"--time={max(1, round(seconds))}", "--file=/dev/stdin"]
    environment = {**os.environ, **SETTINGS}
    done = subprocess.run(
        [*argv, postgres.url(BY_HAND_DATABASE)],
        input=text,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode != 0 or number("number of failed transactions: ", done.stdout) != 0:
        raise ServerFailed(f"pgbench failed: {(done.stderr or done.stdout).strip()}")
    calls = number("number of transactions actually processed: ", done.stdout)
    return Seen(int(calls), calls / number("tps = ", done.stdout), number("latency average = ", done.stdout))


def number(name: str, output: str) -> float:
    found = re.search(re.escape(name) + r"([\d.]+)", output)
    if found is None:
        raise ServerFailed(f"pgbench did not tell its {name.strip(' :=')}: {output.strip()}")
    return float(found.group(1))


class Engine:
    """`engine_only.py` in a process of its own: it loads the workload, then runs it each time it is asked to."""

    def __init__(self, workload: Workload, postgres: Postgres, log: Path) -> None:
        self.workload, self.postgres, self.log = workload, postgres, log

    def __enter__(self) -> "Engine":
        self.postgres.psql("postgres", f"create database {ENGINE_DATABASE}")
        url = self.postgres.url(ENGINE_DATABASE)
        argv = [sys.executable, "-m", "bench.engine_only", self.workload.name, url, str(IN_FLIGHT)]
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=APPS.parent.parent
            )
        self._answer()
        self.postgres.psql(ENGINE_DATABASE, "vacuum analyze")
        return self

    def run(self, seconds: float) -> Seen:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n".encode())
        self.process.stdin.flush()
        return Seen(**self._answer())

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ServerFailed(f"the engine alone failed: {self.log.read_text(errors='replace')[-2000:]}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
