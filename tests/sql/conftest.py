"""Apps whose functions are called from SQL: deployed to a real database without a server, and clients of it."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from apiary.bundle import load_app, make_bundle, read_migrations
from apiary.codec import compile_program, convert_rows
from apiary.engine.places import Places, Source, open_engine, open_places
from apiary.platform.manifest import manifest_of
from apiary.runtime.declaration import App

APP = "from apiary import App, Rejected, Transaction\n\napp = App({name!r})\n\n"


class Database:
    """A database with apps, as a platform prepares it; `connect` is a client's way into it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._count = 0
        self.places: Places = open_places(url, folder)
        self.admin = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self.admin.close()
        self.places.close()

    def deploy(
        self, source: str, app: str = "shop", *, module: str | None = None, packages: Path | None = None, **more: Any
    ) -> list[str]:
        """Let a version of an app serve; `source` follows the declaration of `app`. Returns what people are told.

        `migrations`: texts of SQL, in order. `recording=False` leaves out the records.
        """
        self._count += 1
        folder = self._folder / f"version{self._count}"
        (folder / "migrations").mkdir(parents=True)
        module = module or app
        (folder / f"{module}.py").write_text(APP.format(name=app) + source)
        for number, migration in enumerate(more.pop("migrations", ()), start=1):
            (folder / "migrations" / f"{number:03}-part.sql").write_text(migration)
        return self.activate(folder, module, packages, **more)

    def activate(self, folder: Path, module: str, packages: Path | None = None, *, recording: bool = True) -> list[str]:
        version = make_bundle(folder).version
        with imported(folder, module, packages) as app:
            manifest = manifest_of(app, compile_program(app, version))
            folders = (folder,) if packages is None else (folder, packages)
            place = self.places.make(app.name, Source(module, version, folders))
            engine = open_engine(place, convert_rows, recording=recording)
            engine.migrate(read_migrations(app.migrations, engine.dialect), version)
            engine.close()
        return self.places.publish(place, manifest, recording=recording)

    def ask(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement, as somebody who may see everything."""
        cursor = self.admin.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def records(self, app: str = "shop") -> list[Any]:
        """Function, kind, status and caller of all calls in the log, in order."""
        return self.ask(f"select function, kind, status, caller from apiary_{app}.calls order by seq")


@contextmanager
def imported(folder: Path, module: str, packages: Path | None) -> Iterator[App]:
    """An app, imported for a moment, so that another version of it can follow."""
    before, path = set(sys.modules), list(sys.path)
    sys.path[:0] = [str(folder), *([str(packages)] if packages else [])]
    importlib.invalidate_caches()
    try:
        yield load_app(module)
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            del sys.modules[name]


@pytest.fixture
def database(postgres_database: str, tmp_path: Path) -> Iterator[Database]:
    found = Database(postgres_database, tmp_path)
    yield found
    found.close()


@pytest.fixture
def connect(database: Database, postgres: Any) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """A function that connects as a role, which it makes where there is none; `grants` are what it is given first."""
    opened: list[psycopg.Connection[Any]] = []
    name = database.admin.info.dbname
    made: set[str] = set()

    def connection(role: str = "web", *grants: str, **options: Any) -> psycopg.Connection[Any]:
        login = f"{name}_{role}"
        if not database.ask("select from pg_roles where rolname = %s", login):
            database.ask(f"create role {login} login")
            made.add(login)
        for grant in grants:
            database.ask(f"grant {grant} to {login}")
        opened.append(psycopg.connect(postgres.url(name, login), **{"autocommit": True, **options}))
        return opened[-1]

    yield connection
    for one in opened:
        one.close()
    for login in made:
        database.ask(f"drop owned by {login}")
        database.ask(f"drop role {login}")
