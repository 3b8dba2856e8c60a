"""Apps whose functions are called from SQL: deployed to a real database without a server, and clients of it."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from apiary.bundle import load_app, make_bundle, read_migrations
from apiary.codec import compile_program, convert_rows
from apiary.engine.places import Places, Source, open_engine, open_places
from apiary.platform.manifest import manifest_of
from apiary.runtime.declaration import App

APP = "from apiary import App, Rejected, Transaction\n\napp = App({name!r})\n\n"

CALL = "usage on schema shop", "execute on all functions in schema shop"


class Database:
    """A database with apps, as a platform prepares it, and its superuser's connection."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.place: dict[str, Any] = {}
        self._folder = folder
        self._count = 0
        self.places: Places = open_places(url, folder)
        self.admin = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self.admin.close()
        self.places.close()

    def deploy(
        self,
        source: str,
        app: str = "shop",
        *,
        module: str | None = None,
        packages: Path | None = None,
        migrations: tuple[str, ...] = (),
        recording: bool = True,
        host: UUID | None = None,
    ) -> list[str]:
        """Let a version of an app serve, as a server does; `source` follows the declaration of `app`.

        `migrations` are texts of SQL, in their order. `host`: one that is made known, and stays until somebody deletes
        it. Returns what people are told.
        """
        folder = self.folder = self.fresh_folder()
        (folder / "migrations").mkdir()
        module = module or app
        (folder / f"{module}.py").write_text(APP.format(name=app) + source)
        for number, migration in enumerate(migrations, start=1):
            (folder / "migrations" / f"{number:03}-part.sql").write_text(migration)
        version = make_bundle(folder).version
        with imported(folder, module, packages) as loaded:
            manifest = manifest_of(loaded, compile_program(loaded, version))
            folders = (folder,) if packages is None else (folder, packages)
            if host is not None:
                self.ask("insert into apiary.hosts (id, server, app, version) values (%s, %s, %s, %s)",
                         host, host, app, version)  # fmt: skip
            self.place = self.places.make(app, Source(module, version, folders), host)
            engine = open_engine(self.place, convert_rows, recording=recording)
            engine.migrate(read_migrations(loaded.migrations, engine.dialect), version)
            engine.close()
        return self.places.publish(self.place, manifest, recording=recording)

    def fresh_folder(self) -> Path:
        """A new folder."""
        self._count += 1
        folder = self._folder / f"folder{self._count}"
        folder.mkdir()
        return folder

    def ask(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement, as somebody who may see everything."""
        cursor = self.admin.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: Any) -> Any:
        """The only value of a statement."""
        return self.ask(statement, *values)[0][0]

    def records(self, app: str = "shop") -> list[Any]:
        """Function, status and caller of all calls in the log, in order."""
        return self.ask(f"select function, status, caller from apiary_{app}.calls order by seq")


@contextmanager
def imported(folder: Path, module: str, packages: Path | None) -> Iterator[App]:
    """An app, imported for a moment, so that another version of it can follow."""
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == module}
    before, path = set(sys.modules), list(sys.path)
    sys.path[:0] = [str(folder), *([str(packages)] if packages else [])]
    importlib.invalidate_caches()
    try:
        yield load_app(module)
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            del sys.modules[name]
        sys.modules.update(hidden)


@pytest.fixture
def database(postgres_database: str, tmp_path: Path) -> Iterator[Database]:
    found = Database(postgres_database, tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def module_database(
    new_postgres_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """One that the tests of a module share."""
    with new_postgres_database() as url:
        found = Database(url, tmp_path_factory.mktemp("database"))
        yield found
        found.close()


class Client:
    """A connection of a role that is no superuser."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.name = connection.info.user
        self.caller = f"postgresql:{self.name}"
        self.transaction = connection.transaction

    def ask(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement."""
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: Any) -> Any:
        """The only value of a statement."""
        return self.ask(statement, *values)[0][0]

    def refused(self, statement: str, *values: Any) -> psycopg.Error:
        """The error that a statement ends with."""
        with pytest.raises(psycopg.Error) as caught:
            self.ask(statement, *values)
        return caught.value


@pytest.fixture
def client(database: Database, postgres: Any) -> Iterator[Callable[..., Client]]:
    """A function that connects as a role, which it makes and gives what it shall have: `execute on …`, or a role."""
    opened: list[Client] = []
    name = database.admin.info.dbname
    made: set[str] = set()

    def connect(role: str = "web", *grants: str, **options: Any) -> Client:
        login = f"{name}_{role}"
        if login not in made:
            database.ask(f"create role {login} login")
            made.add(login)
        for grant in grants:
            database.ask(f"grant {grant} to {login}")
        opened.append(Client(psycopg.connect(postgres.url(name, login), autocommit=True, **options)))
        return opened[-1]

    yield connect
    for one in opened:
        one.connection.close()
    for login in made:
        database.ask(f"drop owned by {login} cascade")
    for login in made:
        database.ask(f"drop role {login}")
