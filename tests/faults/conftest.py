"""An app on PostgreSQL, in both placements, behind a network that obeys; clients that count effects against answers."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bench.proxy import Proxy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.conftest import new_database

from apiary import OpenApp
from apiary.bundle import load_from
from apiary.codec import convert_rows
from apiary.embedded import LOCAL_VERSION
from apiary.engine.places import Source
from apiary.engine.postgres import connection, lane, link
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.runtime.session import Outcome

APPS = Path(__file__).parent / "apps"
PACKAGE = "faults_app"
PLACEMENTS = ["inside", "beside"]
UNKNOWN = "may or may not"
WAIT_SECONDS = 60.0
KEYS = count(1)


def eventually(condition: Callable[[], Any], seconds: float = WAIT_SECONDS, what: str = "") -> Any:
    """What `condition` returns once that is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.01)
    return found


class World:
    """The app, open in this process; its database, reached through `proxy`; and `look`, beside both."""

    def __init__(self, placement: str, url: str, proxy: Proxy, make_calls: Any, writers: int) -> None:
        self.placement = placement
        self.url = url
        self.proxy = proxy
        self.looking: list[psycopg.Connection[Any]] = []
        installer = Installer(url)
        target = installer.app("faults")
        program = None
        if placement == "inside":
            assert installer.placement.inside, installer.placement.reason
            program = installer.program("faults", target.log, Source(PACKAGE, LOCAL_VERSION, (APPS,)))
        conninfo = make_conninfo(target.conninfo, port=proxy.port)
        installer.close()
        self.target = replace(target, conninfo=conninfo, program=program)
        engine = PostgresEngine(self.target, convert_rows, writers=writers, readers=1)
        self.opened = OpenApp(load_from(APPS / PACKAGE), engine)
        self.calls = make_calls(self.opened)

    def look(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement, by a connection of its own that sees everything; waits for a server that starts."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                with psycopg.connect(self.url, autocommit=True, options="-c search_path=faults") as looking:
                    cursor = looking.execute(statement.encode(), values or None)
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def look_open(self) -> psycopg.Connection[Any]:
        """A connection that sees everything, and stays open."""
        self.looking.append(psycopg.connect(self.url, autocommit=True, options="-c search_path=faults"))
        return self.looking[-1]

    def numbers(self, key: str) -> list[int]:
        """The numbers of the rows that a key has left."""
        return [row[0] for row in self.look("select id from effects where key = %s order by id", key)]

    def backends(self, state: str = "%") -> list[int]:
        """The processes of the server that serve the app's role."""
        found = self.look(
            "select pid from pg_stat_activity where datname = current_database() and usename <> 'postgres' "
            "and state like %s order by pid",
            state,
        )
        return [row[0] for row in found]

    def run(self, function: str, /, _key: str | None = None, **arguments: Any) -> Outcome:
        return self.submit(function, _key=_key, **arguments).outcome()

    def submit(self, function: str, /, _key: str | None = None, **arguments: Any) -> Any:
        return self.calls.submit(function, json.dumps(arguments), key=_key)

    def true(self, outcome: Outcome, key: str) -> None:
        """What was answered is what happened: one row and its number, or none, or, where that was said, who knows."""
        numbers = self.numbers(key)
        if outcome.error is None:
            assert numbers == [json.loads(outcome.output)], (numbers, outcome)
        else:
            assert outcome.error["status"] in (503, 504), outcome.error
            assert len(numbers) <= (UNKNOWN in outcome.error["detail"]), (numbers, outcome.error)

    def recovers(self) -> None:
        """Calls of every kind are answered after a while, and nothing is left in the queue."""
        for function in ("act", "effect", "effects"):
            eventually(lambda function=function: self.run(function, key=new_key()).error is None)
        eventually(lambda: not self.look("select id from apiary_faults.queue"))

    def works(self) -> None:
        """Calls of every kind are answered, and do what they say."""
        self.recovers()
        key = new_key()
        for _ in range(4):
            assert self.run("act", key=key).error is None
            assert self.run("effect", key=key).error is None
            assert self.run("effects", key=key).error is None
        assert len(self.numbers(key)) == 4


def new_key() -> str:
    return f"key {next(KEYS)}"


@dataclass
class Load:
    """Clients that call without a pause, with and without idempotency keys; what they were answered, by key."""

    world: World
    answers: dict[str, Outcome] = field(default_factory=dict)
    refused: int = 0
    slowest: float = 0.0

    def client(self, number: int, stop: threading.Event) -> None:
        keyed = number % 2 == 0
        while not stop.is_set():
            key = new_key()
            outcome = self.ask(key, keyed)
            end = time.monotonic() + WAIT_SECONDS
            while keyed and outcome.error is not None:
                assert time.monotonic() < end, outcome.error
                time.sleep(0.02)
                outcome = self.ask(key, keyed)
            self.answers[key] = outcome

    def ask(self, key: str, keyed: bool) -> Outcome:
        started = time.monotonic()
        outcome = self.world.run("effect", _key=key if keyed else None, key=key)
        self.slowest = max(self.slowest, time.monotonic() - started)
        if outcome.error is not None:
            assert outcome.error["status"] == 503, outcome.error
            self.refused += 1
        return outcome

    def check(self) -> None:
        """Every answer is true, and no effect is there twice."""
        found: dict[str, list[int]] = {}
        for key, number in self.world.look("select key, id from effects"):
            found.setdefault(key, []).append(number)
        for key, outcome in self.answers.items():
            numbers = found.get(key, [])
            if outcome.error is None:
                assert numbers == [json.loads(outcome.output)], (key, numbers, outcome)
            else:
                assert len(numbers) <= (UNKNOWN in outcome.error["detail"]), (key, numbers, outcome.error)


@contextmanager
def loaded(world: World, clients: int = 8) -> Iterator[Load]:
    """Clients that call as long as the block lasts; their answers are checked at its end."""
    load = Load(world)
    stop = threading.Event()
    failed: list[BaseException] = []

    def client(number: int) -> None:
        try:
            load.client(number, stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_SECONDS)
    assert not failed, failed[0]
    assert not any(thread.is_alive() for thread in threads), "a call is not answered"
    load.check()


@pytest.fixture(scope="module")
def worlds(request: pytest.FixtureRequest, private_postgres: Any, platform: Any) -> Iterator[Callable[[str], World]]:
    """The app in each placement, opened when it is first asked for, in a database of its own.

    A module says with `WRITERS` how many lanes write.
    """
    made: dict[str, World] = {}
    with ExitStack() as stack:

        def world(placement: str) -> World:
            if placement not in made:
                url = stack.enter_context(new_database(private_postgres))
                url = private_postgres.url(conninfo_to_dict(url)["dbname"], tcp=True)
                proxy = stack.enter_context(Proxy("127.0.0.1", private_postgres.port))
                writers = getattr(request.module, "WRITERS", 2)
                made[placement] = World(placement, url, proxy, platform, writers)
                stack.callback(made[placement].opened.close)
            return made[placement]

        yield world


@pytest.fixture(params=PLACEMENTS)
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> Iterator[World]:
    """The app in one placement."""
    yield from lent(worlds(request.param))


@pytest.fixture
def inside(worlds: Callable[[str], World]) -> Iterator[World]:
    """The app inside the backends."""
    yield from lent(worlds("inside"))


def lent(found: World) -> Iterator[World]:
    found.recovers()
    yield found
    found.proxy.heal()
    for other in found.looking:
        other.close()
    found.looking.clear()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubts come sooner, so that a test need not wait for them."""
    monkeypatch.setattr(link, "DOUBT_SECONDS", 0.5)
    monkeypatch.setitem(connection.KEEPALIVE, "connect_timeout", 2)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for a server that starts again, however long that takes on a machine that is busy."""
    monkeypatch.setattr(lane, "RIDE_OUT_SECONDS", WAIT_SECONDS)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    """Patience ends sooner, too."""
    monkeypatch.setattr(lane, "RIDE_OUT_SECONDS", 1.0)
