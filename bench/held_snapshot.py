"""What a long report costs the queue: its throughput, and the sizes of the tables, while a snapshot is held.

A transaction that reads for minutes keeps the server from removing what was deleted since it began. Workflows go
through the queue of `bench/apps/flow` at full speed, first without one, then with one, then without one again.

`python -m bench.held_snapshot --seconds 300`
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg

from bench.peers.apiary import ApiaryPostgres
from bench.probe import Connection
from bench.workloads import WORKLOADS

CLIENTS = 4
AT_ONCE = 50
"""Workflows that a client leaves in the queue by one call."""
MOST_WAITING = 500
WINDOW_SECONDS = 10.0
TABLES = ("queue", "calls", "messages")


class Load:
    """Clients that keep the queue from being empty."""

    def __init__(self, port: int, database: psycopg.Connection[tuple[int]]) -> None:
        self._port = port
        self._database = database
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with Connection(self._port) as connection:
            key = number * 20_000
            while not self._stop.is_set():
                if self.waiting() > MOST_WAITING:
                    self._stop.wait(0.02)
                    continue
                key += AT_ONCE
                given = {"item": key % 90_000 + 1, "account": key % 90_000 + 1, "count": AT_ONCE}
                connection.call("/apps/flow/leave", given)

    def waiting(self) -> int:
        """How many workflows are in the queue."""
        row = self._database.execute("select count(*) from apiary_flow.queue").fetchone()
        return row[0] if row else 0


def windows(port: int, database: psycopg.Connection[tuple[int]], seconds: float) -> list[float]:
    """Workflows a second, in windows one after another."""
    found = []
    with Connection(port) as connection:
        end = time.monotonic() + seconds
        before, at = connection.call("/apps/flow/effects", {}), time.monotonic()
        while time.monotonic() < end:
            time.sleep(min(WINDOW_SECONDS, seconds))
            now, after = time.monotonic(), connection.call("/apps/flow/effects", {})
            found.append(round((after - before) / (now - at), 1))
            before, at = after, now
    return found


def sizes(database: psycopg.Connection[tuple[int]]) -> dict[str, int]:
    """Bytes of the platform's tables with their indexes."""
    size = "select pg_total_relation_size(%s::regclass)"
    return {name: database.execute(size, (f"apiary_flow.{name}",)).fetchone()[0] for name in TABLES}  # type: ignore[index]


@contextmanager
def held(url: str) -> Iterator[None]:
    """A snapshot that is held."""
    with psycopg.connect(url) as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("select count(*) from flow.entries")
        yield


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.held_snapshot", description="What a long report costs.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the snapshot is held")
    parser.add_argument("--beside", action="store_true", help="functions run beside the database")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        peer = ApiaryPostgres(Path(folder), inside=not given.beside)
        stack.callback(peer.tear_down)
        peer.set_up(WORKLOADS["workflow1"])
        url = peer.postgres.url("bench")
        database = stack.enter_context(closing(psycopg.connect(url, autocommit=True)))
        stack.enter_context(Load(peer.port, database))
        windows(peer.port, database, WINDOW_SECONDS)
        quiet = max(given.seconds / 5, WINDOW_SECONDS)
        for name, seconds in (("before", quiet), ("held", given.seconds), ("after", quiet)):
            with held(url) if name == "held" else ExitStack():
                rates = windows(peer.port, database, seconds)
                print(
                    json.dumps({"snapshot": name, "workflows_per_second": rates, "bytes": sizes(database)}), flush=True
                )


if __name__ == "__main__":
    main()
