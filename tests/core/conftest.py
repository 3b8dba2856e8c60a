"""What the tests of the core share: apps with tables of their own, on each engine that runs functions in this process.

Functions of these tests use what is around them, so none of them runs inside PostgreSQL: tests/contract does that.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import apiary
from apiary import App, OpenApp
from apiary.codec import convert_rows
from apiary.config import ALWAYS_REPLAY, always_replay
from apiary.engine.places import replaying
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.engine.postgres.log import PostgresLog

ENGINES = ["sqlite", "postgresql"]

MakeApp = Callable[..., App]
OpenEngine = Callable[..., OpenApp]


@pytest.fixture
def make_app(tmp_path: Path) -> MakeApp:
    """A function that makes an app whose only migration is the SQL that it is given."""
    made = 0

    def make(sql: str = "", name: str = "core") -> App:
        nonlocal made
        made += 1
        folder = tmp_path / f"migrations-{made}"
        folder.mkdir()
        if sql:
            (folder / "001-tables.sql").write_text(sql)
        return App(name, migrations=folder)

    return make


@pytest.fixture(scope="session")
def core_database(new_postgres_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of a database that all these tests use, one after the other."""
    with new_postgres_database() as url:
        yield url


@pytest.fixture
def postgres_url(core_database: str) -> Iterator[str]:
    """The URL of a database without apps."""
    yield core_database
    with psycopg.connect(core_database, autocommit=True) as connection:
        schemas = connection.execute("select nspname from pg_namespace where nspname !~ '^(pg_|information_|public)'")
        for (name,) in schemas.fetchall():
            if name != "apiary":
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))


@pytest.fixture(params=ENGINES)
def engine_app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenEngine]:
    """A function that opens an app on one engine, each time on the same database. Closed after the test.

    `writers` is how many lanes write, where an engine can have several.
    """
    if request.param == "sqlite":
        yield from closing(partial(on_sqlite, tmp_path))
    else:
        yield from closing(partial(on_postgres, request.getfixturevalue("postgres_url")))


@pytest.fixture(params=["together", "each"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether steps of a workflow share a run and its commit, or `each` is a run of its own."""
    monkeypatch.setenv(ALWAYS_REPLAY, "1" if request.param == "each" else "0")
    return str(request.param)


@pytest.fixture
def flow_app(alarm: None, steps: str, engine_app: OpenEngine) -> OpenEngine:
    """`engine_app` in both ways to run workflows."""
    return engine_app


@pytest.fixture
def sqlite_app(tmp_path: Path) -> Iterator[OpenEngine]:
    """The same on SQLite alone, for tests of what only SQLite has."""
    yield from closing(partial(on_sqlite, tmp_path))


def on_sqlite(folder: Path, app: App, *, writers: int = 1) -> OpenApp:
    return apiary.open(app, f"sqlite:///{folder}/database.db")


def on_postgres(url: str, app: App, *, writers: int = 4) -> OpenApp:
    installer = Installer(url)
    engine = PostgresEngine(installer.app(app.name), convert_rows, writers=writers)
    if always_replay():
        replaying(engine)
    return OpenApp(app, engine, PostgresLog(installer, installer.log_of(app.name)))


def closing(make: OpenEngine) -> Iterator[OpenEngine]:
    opened: list[OpenApp] = []

    def keep(app: App, **options: int) -> OpenApp:
        opened.append(make(app, **options))
        return opened[-1]

    yield keep
    for app in opened:
        app.close()
