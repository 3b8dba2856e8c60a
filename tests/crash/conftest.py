"""Databases for the processes that are killed: one for each engine and placement, made once for a session."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bench.postgres import Postgres
from tests.crash.apps.forge.backend import COUNTED, TARGET
from tests.crash.victim import FORGE
from tests.crash.world import SYSTEM, TABLES, Forker, World

from apiary.bundle import load_from, migrations_of
from apiary.codec import convert_rows
from apiary.embedded import LOCAL_VERSION
from apiary.engine.places import Source
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.engine.sqlite.engine import SqliteEngine


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """The process that forks those that are killed."""
    found = Forker()
    yield found
    found.end()


@pytest.fixture(scope="session")
def sqlite_world(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The app on SQLite."""
    return on_sqlite(tmp_path_factory.mktemp("sqlite"), forker)


@pytest.fixture(scope="session")
def undisturbed(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Another one, in which nothing goes wrong."""
    return on_sqlite(tmp_path_factory.mktemp("undisturbed"), forker)


def on_sqlite(folder: Path, forker: Forker) -> World:
    engine = SqliteEngine(folder / "empty.db", convert_rows)
    engine.migrate(migrations_of(load_from(FORGE), "sqlite"), LOCAL_VERSION)
    engine.close()

    def reset() -> None:
        for file in folder.glob("forge.db*"):
            file.unlink()
        shutil.copyfile(folder / "empty.db", folder / "forge.db")

    database = str(folder / "forge.db")
    return World("sqlite", folder, forker, database, database, reset)


@pytest.fixture(scope="session")
def postgres_worlds(
    forker: Forker, tmp_path_factory: pytest.TempPathFactory, new_postgres_database: Any
) -> Iterator[Callable[[str], World]]:
    """The app on PostgreSQL, by the placement of its functions."""
    made: dict[str, World] = {}
    with ExitStack() as stack:

        def world(placement: str) -> World:
            if placement not in made:
                url = stack.enter_context(new_postgres_database())
                made[placement] = on_postgres(placement, url, tmp_path_factory.mktemp(placement), forker)
            return made[placement]

        yield world


@pytest.fixture(params=["sqlite", "beside", "inside"])
def world(request: pytest.FixtureRequest) -> World:
    """The app on one engine, in one placement."""
    if request.param == "sqlite":
        found: World = request.getfixturevalue("sqlite_world")
    else:
        found = request.getfixturevalue("postgres_worlds")(request.param)
    return found


@pytest.fixture
def inside(postgres_worlds: Callable[[str], World]) -> World:
    """The app inside the backends of PostgreSQL."""
    return postgres_worlds("inside")


@pytest.fixture
def fatal(private_postgres: Postgres) -> Iterator[Callable[[int], None]]:
    """Have the backend end that runs the n-th statement of the app from now on, and of the platform for it."""

    def clear() -> None:
        for name in (TARGET, COUNTED):
            (private_postgres.data / name).unlink(missing_ok=True)

    def arm(number: int) -> None:
        clear()
        (private_postgres.data / TARGET).write_text(str(number))

    yield arm
    clear()


def on_postgres(placement: str, url: str, folder: Path, forker: Forker) -> World:
    installer = Installer(url)
    target = installer.app("forge")
    if placement == "inside":
        assert installer.placement.inside, installer.placement.reason
        source = Source(FORGE.name, LOCAL_VERSION, (FORGE.parent,))
        target = replace(target, program=installer.program("forge", target.log, source))
    installer.close()
    engine = PostgresEngine(target, convert_rows)
    engine.migrate(migrations_of(load_from(FORGE), "postgresql"), LOCAL_VERSION)
    engine.close()
    emptied = ", ".join([f"forge.{table}" for table in TABLES] + [f"apiary_forge.{table}" for table in SYSTEM])

    def reset() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            connection.execute(f"truncate {emptied}".encode())

    return World(placement, folder, forker, asdict(target), url, reset)
