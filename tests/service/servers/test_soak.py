"""Two servers, many workflows, and servers, hosts and the database killed, or standing still: nothing is lost.

APIARY_SOAK_SECONDS says how long it goes on, APIARY_SOAK_FLIGHT how many workflows are under way at the same time.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

INSIDE = True
SOAK_SECONDS = float(os.environ.get("APIARY_SOAK_SECONDS", "600"))
FLIGHT = int(os.environ.get("APIARY_SOAK_FLIGHT", "1000"))
CLIENTS = 4
BEYOND_A_LEASE_SECONDS = 5.0
DRAIN_SECONDS = 240.0
MOST_SLEEP_SECONDS = 5.0
LEFT = ("order-first", "order-second", "first", "last")
"""The effects of a journey."""


class Travellers:
    """Clients that begin journeys as long as there are fewer than so many under way, each with a key of its own.

    What gets no answer is asked for again, with the same key, of any server.
    """

    def __init__(self, servers: Any, path: Path, flight: int) -> None:
        self.servers = servers
        self.path = path
        self.flight = flight
        self.begun: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def under_way(self) -> int:
        """How many have begun and not ended, asked past the servers; many, while the database cannot be asked."""
        try:
            with psycopg.connect(self.servers.database, autocommit=True) as connection:
                row = connection.execute("select count(*) from apiary_grow.queue where parent is null").fetchone()
                return int(row[0]) if row else 0
        except psycopg.Error:
            return self.flight

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(timeout=10.0) as http:
            count = 0
            while not self._stop.is_set():
                if self.under_way() >= self.flight:
                    self._stop.wait(0.1)
                    continue
                for _ in range(10):
                    count += 1
                    self._begin(http, f"soak-{number}-{count}", chance)

    def _begin(self, http: httpx.Client, key: str, chance: random.Random) -> None:
        given = {"key": key, "path": str(self.path), "seconds": chance.uniform(0.0, MOST_SLEEP_SECONDS)}
        headers = {"Idempotency-Key": key, "Prefer": "respond-async"}
        while True:
            server = chance.choice(self.servers.started)
            with suppress(httpx.TransportError):
                answer = http.post(f"{server.url}/apps/grow/journey", json=given, headers=headers)
                if answer.status_code in (200, 202):
                    with self._lock:
                        self.begun.append(key)
                    return
                assert answer.status_code in (404, 503), answer.text
            time.sleep(0.05)


def mishaps(servers: Any, postgres: Any, chance: random.Random) -> dict[str, Callable[[], None]]:
    """What may happen, by its name."""

    def one() -> Any:
        return chance.choice(servers.started)

    def kill_a_server() -> None:
        servers.kill(one())
        servers.start()

    def kill_a_host() -> None:
        with suppress(ProcessLookupError, httpx.HTTPError, AssertionError):
            os.kill(one().host("grow"), signal.SIGKILL)

    def crash_the_database() -> None:
        postgres.crash()
        postgres.start()

    def stand_still() -> None:
        server = one()
        servers.signal(server, signal.SIGSTOP)
        time.sleep(BEYOND_A_LEASE_SECONDS)
        servers.signal(server, signal.SIGCONT)

    return {
        "a server killed": kill_a_server,
        "a host killed": kill_a_host,
        "the database crashed": crash_the_database,
        "a server stood still": stand_still,
    }


def soak(servers: Any, postgres: Any, tools: Any, path: Path, seconds: float, flight: int) -> None:
    """Let workflows run, and mishaps happen; then count."""
    chance = random.Random(11)
    happens = mishaps(servers, postgres, chance)
    happened: Counter[str] = Counter()
    travellers = Travellers(servers, path, flight)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(happened) < len(happens):
            missing = [name for name in happens if name not in happened]
            name = chance.choice(missing or list(happens))
            happens[name]()
            happened[name] += 1
            servers.start()
            time.sleep(chance.uniform(0.5, 3.0))
    finally:
        travellers.stop()
    tools.eventually(lambda: travellers.under_way() == 0, DRAIN_SECONDS, "all have ended")
    found = effects(servers.database)
    expected = {f"{key}-{what}" for key in travellers.begun for what in LEFT}
    lost, doubled = expected - found.keys(), {key: times for key, times in found.items() if times > 1}
    said = Counter(path.read_text().split())
    unsaid = {line for key in travellers.begun for line in (key, f"{key}-order")} - said.keys()
    again = sum(said.values()) - len(said)
    print(f"\n{len(travellers.begun)} journeys, {dict(happened)}; actions run again: {again}")
    assert (lost, doubled, unsaid) == (set(), {}, set()), failures(servers.database)
    assert found.keys() == expected
    assert len(travellers.begun) >= flight
    for key in chance.sample(travellers.begun, 20):
        answer = servers.a.post("order", {"key": f"{key}-again", "path": str(path)}, app="grow")
        assert answer.status_code == 200, answer.text


def effects(database: str) -> Counter[str]:
    """What journeys have left, and how often, asked past the servers."""
    with psycopg.connect(database) as connection:
        rows = connection.execute("select key, count(*) from grow.effects where key like 'soak-%' group by key")
        return Counter(dict(rows.fetchall()))


def failures(database: str) -> list[Any]:
    """What failed, and why, asked past the servers."""
    with psycopg.connect(database) as connection:
        failed = (
            "select function, status, attempt, started, duration, error from apiary_grow.calls where status = 'failed'"
        )
        return connection.execute(failed).fetchall()


def test_nothing_is_lost_or_done_twice_whatever_is_killed(servers, postgres, tools, tmp_path):
    soak(servers, postgres, tools, tmp_path / "lines", seconds=0.0, flight=100)


@pytest.mark.soak
def test_nothing_is_lost_or_done_twice_for_minutes(servers, postgres, tools, tmp_path):
    soak(servers, postgres, tools, tmp_path / "lines", SOAK_SECONDS, FLIGHT)
