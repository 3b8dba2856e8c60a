"""What tests share: a real PostgreSQL (a private server, or the one that APIARY_TEST_POSTGRES names), and calls.

Calls are what the platform makes of them below `OpenApp.call`: with ids, keys and roles, and at the same time.
"""

import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from bench import provision
from bench.postgres import Postgres
from hypothesis import settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import apiary
from apiary import OpenApp
from apiary.engine.dispatch import Dispatcher
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome

# How long an example takes says nothing beside other tests.
settings.register_profile("beside others", deadline=None)
settings.load_profile("beside others")

GIVEN = "APIARY_TEST_POSTGRES"
SETTINGS = {"wal_level": "logical", "max_connections": "200", "shared_buffers": "128MB", "max_wal_size": "256MB"}
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1 << 30
DATABASES = count(1)
WAIT_SECONDS = 60.0
ALARM_SECONDS = 100.0


def pytest_collection_finish() -> None:
    """What is loaded now stays, so that the collector of cycles need not look at it again and again."""
    gc.collect()
    gc.freeze()


class PostgresServer(Protocol):
    """A PostgreSQL with PL/Python of which tests are superusers."""

    @property
    def running(self) -> bool: ...
    def url(self, database: str = ..., user: str = ..., *, tcp: bool = False) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def crash(self) -> None: ...
    def pids(self) -> list[int]: ...


class GivenPostgres:
    """A server that somebody else runs: it has databases for us, and tests that end it are skipped."""

    running = True

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)

    def url(self, database: str = "postgres", user: str | None = None, *, tcp: bool = False) -> str:
        login, at, place = self.parts.netloc.rpartition("@")
        if user is not None:
            login, at = quote(user), "@"
        return self.parts._replace(netloc=f"{login}{at}{place}", path=f"/{quote(database)}").geturl()

    def start(self) -> None:
        pytest.skip(f"the server of {GIVEN} is not ours to start")

    def stop(self) -> None:
        pytest.skip(f"the server of {GIVEN} is not ours to stop")

    crash = stop

    def pids(self) -> list[int]:
        pytest.skip(f"the processes of the server of {GIVEN} are not ours")


def in_memory() -> Path:
    """A folder in memory, if there is room: the many tables of tests are made in half the time there."""
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    return MEMORY if roomy else Path(tempfile.gettempdir())


@pytest.fixture(scope="session")
def private_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of this session, started when the first test asks for it; its log stays with pytest's folders."""
    if os.environ.get(GIVEN) and provision.newest_postgres() is None:
        pytest.skip(f"{GIVEN} is set, and PostgreSQL is not installed here")
    log = tmp_path_factory.mktemp("postgres") / "postgres.log"
    server = Postgres(in_memory(), log, SETTINGS)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """The server. A test may crash or stop it, and starts it again."""
    given = os.environ.get(GIVEN)
    server: PostgresServer = GivenPostgres(given) if given else request.getfixturevalue("private_postgres")
    return server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    """The superuser's URL of a database that is new and empty, and dropped afterwards."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def new_postgres_database(postgres: PostgresServer) -> Callable[[], AbstractContextManager[str]]:
    """A function that makes such a database, for those that keep it longer than a test."""
    return partial(new_database, postgres)


@contextmanager
def new_database(postgres: PostgresServer) -> Iterator[str]:
    database = f"test_{os.getpid()}_{next(DATABASES)}"
    name = sql.Identifier(database)
    with administration(postgres) as connection:  # of the two strategies the faster one: 25 ms
        connection.execute(sql.SQL("create database {} template template0 strategy wal_log").format(name))
    yield postgres.url(database)
    with administration(postgres) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(name))


def administration(postgres: PostgresServer) -> psycopg.Connection:
    """A connection beside all databases of tests; the server is started where a test left it ended."""
    if not postgres.running:
        postgres.start()
    return psycopg.connect(postgres.url(), autocommit=True)


class Platform:
    """What the platform does with an open app, below `call`: ids, keys, roles and query strings of its choice."""

    def __init__(self, opened: OpenApp, *, caller: str = "tester") -> None:
        self.dispatcher: Dispatcher = opened._dispatcher
        self._caller = caller

    def submit(self, function: str, arguments: str | bytes = b"{}", **options: Any) -> "Pending":
        """`wait`: so many seconds the end of a workflow is waited for, once it has begun."""
        body = arguments.encode() if isinstance(arguments, str) else arguments
        wait = options.pop("wait", None)
        roles = frozenset(options.pop("roles", {"admin"}))
        call = Call(options.pop("id", None) or new_id(), function, body, self._caller, roles, **options)
        pending = Pending(call)
        self.dispatcher.submit(call, pending.reply, wait=wait)
        return pending

    def run(self, function: str, arguments: str | bytes = b"{}", **options: Any) -> Outcome:
        return self.submit(function, arguments, **options).outcome()


class Pending:
    """A call that was submitted."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._arrived = threading.Event()
        self._outcome: Outcome | None = None

    def reply(self, call: Call, outcome: Outcome) -> None:
        assert self._outcome is None, "answered twice"
        self._outcome = outcome
        self._arrived.set()

    def outcome(self) -> Outcome:
        assert self._arrived.wait(WAIT_SECONDS), f"{self.call.function} was not answered"
        assert self._outcome is not None
        return self._outcome


def eventually(condition: Callable[[], Any], seconds: float = WAIT_SECONDS, what: str = "") -> Any:
    """What `condition` returns once that is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.005)
    return found


@contextmanager
def crowd(postgres: PostgresServer, url: str) -> Iterator[None]:
    """Somebody has all connections that a role may have which is no superuser, and takes each that becomes free.

    `url`: the superuser's, of the database that they are connected to.
    """
    name = conninfo_to_dict(url)["dbname"]
    role = f"crowd_{name}"
    taken: list[psycopg.Connection] = []
    full, over = threading.Event(), threading.Event()

    def take() -> None:
        while not over.is_set():
            try:
                taken.append(psycopg.connect(postgres.url(name, role)))
            except psycopg.OperationalError:
                full.set()
                over.wait(0.002)

    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        thread = threading.Thread(target=take)
        thread.start()
        try:
            assert full.wait(WAIT_SECONDS)
            yield
        finally:
            over.set()
            thread.join()
            for connection in taken:
                connection.close()
            left = "select pid from pg_stat_activity where usename = %s"
            eventually(lambda: not admin.execute(left, [role]).fetchall())
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.fixture
def alarm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that hangs. It waits in the main thread, which is what a signal interrupts."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"{request.node.name} took longer than {ALARM_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, ALARM_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def platform() -> type[Platform]:
    """The platform's way into an open app."""
    return Platform


@pytest.fixture(scope="session")
def together() -> Callable[..., list[Any]]:
    """Run a function once for each item, all in threads of their own at the same time; results in order."""

    def run(function: Callable[[Any], Any], items: Any) -> list[Any]:
        given = list(items)
        barrier = threading.Barrier(len(given))

        def one(item: Any) -> Any:
            barrier.wait(WAIT_SECONDS)
            try:
                return function(item)
            except apiary.Error as error:
                return error

        with ThreadPoolExecutor(len(given)) as pool:
            return list(pool.map(one, given, timeout=WAIT_SECONDS))

    return run


@pytest.fixture(scope="session")
def promptly() -> Callable[[Callable[[], Any]], Any]:
    """Run something that must not hang, in a thread; raises what it raises."""

    def run(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(WAIT_SECONDS)

    return run
