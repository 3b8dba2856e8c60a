"""A real PostgreSQL for the tests that ask for one: a private server, or the one that APIARY_TEST_POSTGRES names."""

import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from bench import provision
from bench.postgres import Postgres
from psycopg import sql

GIVEN = "APIARY_TEST_POSTGRES"
SETTINGS = {"wal_level": "logical", "max_connections": "200", "shared_buffers": "128MB"}
DATABASES = count(1)


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


@pytest.fixture(scope="session")
def private_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of this session, started when the first test asks for it; its log stays with pytest's folders."""
    if os.environ.get(GIVEN) and provision.newest_postgres() is None:
        pytest.skip(f"{GIVEN} is set, and PostgreSQL is not installed here")
    log = tmp_path_factory.mktemp("postgres") / "postgres.log"
    server = Postgres(Path(tempfile.gettempdir()), log, SETTINGS)
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
