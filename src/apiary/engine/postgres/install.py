"""Makes room for the platform and its apps in a database of PostgreSQL: roles, schemas, system tables, code.

Done by the installer, the only role that may be a superuser; functions run as the roles that are made here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from apiary.engine.places import Source
from apiary.engine.postgres.connection import POOLED, Target, connect
from apiary.engine.postgres.errors import translate
from apiary.engine.postgres.placement import find_placement
from apiary.engine.postgres.programs import Programs
from apiary.engine.postgres.publish import Publication, SqlFunction
from apiary.engine.statements import load_statements
from apiary.runtime.errors import BundleRefused, DatabaseUnavailable

Cursor = psycopg.RawCursor[Any]

PLATFORM = "apiary"
REGISTRY_LOG = "apiary_registry_log"
MAX_NAME = 63
OLDEST = 150000
UNREACHABLE_HINT = "is it running, does it let this role in, and has it a connection left (max_connections)?"
LOCK_SECONDS = 10
"""So long the installer waits for a lock that another session holds."""
RESERVED = re.compile(r"(apiary|pg)_|(apiary|public|information_schema|registry|registry_log)\Z")
"""Schemas of PostgreSQL, and names whose log would be the platform's own."""
SQL = load_statements("apiary.engine.postgres", "install.sql")


class Installer:
    """A privileged connection to one database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._connection = self._connect()
        self.database = self._connection.info.dbname
        try:
            version = self._connection.info.server_version
            if version < OLDEST:
                raise DatabaseUnavailable(
                    f"the server is PostgreSQL {version // 10000}, and Apiary needs {OLDEST // 10000} or newer"
                )
            self.placement = find_placement(self._connection)
            self._install_platform()
        except psycopg.Error as error:
            self.close()
            raise translate(error.sqlstate or "", f"the server does not tell what it has: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> str:
        """Which database this is, for people: without passwords."""
        info = self._connection.info
        return f"{info.dbname} at {info.host or 'this machine'}:{info.port}"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, text: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of a statement of the platform itself."""
        with self._lock:
            for last in (False, True):
                try:
                    if self._connection.closed:
                        self._connection = self._connect()
                    cursor = psycopg.RawCursor(self._connection, row_factory=dict_row)
                    cursor.execute(text.encode(), values)
                    return cursor.fetchall() if cursor.description else []
                except psycopg.Error as error:
                    if last or not self._connection.closed:
                        raise translate(error.sqlstate or "", str(error)) from error
        raise AssertionError("the second attempt returns or raises")

    def change(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[int]:
        """Run statements of the platform itself in one transaction; how many rows each has changed."""
        with self._lock:
            try:
                if self._connection.closed:
                    self._connection = self._connect()
                with self._connection.transaction():
                    cursor = psycopg.RawCursor(self._connection)
                    return [cursor.execute(text.encode(), values).rowcount for text, values in statements]
            except psycopg.Error as error:
                raise translate(error.sqlstate or "", str(error)) from error

    def registry(self) -> Target:
        """Make room for the platform's own records."""
        return self._make_place("registry", "apiary_registry", REGISTRY_LOG)

    def app(self, name: str) -> Target:
        """Make the role, the schema and the log of an app, where they are not there yet."""
        if RESERVED.match(name):
            raise BundleRefused(f"{name!r} cannot be the name of an app on PostgreSQL", hint="give it another one")
        return self._make_place(name, name, self.log_of(name))

    def log_of(self, app: str) -> str:
        """The schema of an app's log."""
        return _fitting(f"apiary_{app}")

    def publish(self, app: str, functions: Sequence[SqlFunction]) -> list[str]:
        """Let these be the app's functions for SQL, all at once; returns what to tell people."""
        with self._transaction(f"the functions of {app} for SQL are not made") as cursor:
            return Publication(cursor, app, self._role_of(cursor, app, app, self.log_of(app))).publish(functions)

    def _role_of(self, cursor: Cursor, name: str, schema: str, log: str) -> str:
        """The role of an app: the owner of its schema, where that is there. A database may be given another name.

        Roles belong to all databases of a server, so a new one has the name of this database too. Names of apps have no
        dot, which tells `a` and `b_c` from `a_b` and `c`.
        """
        found = cursor.execute(SQL["schema_owner"].encode(), (schema, log)).fetchone()
        if found is None:
            return _fitting(f"apiary_{self.database}.{name}")
        owner, ours = found
        if not ours:
            raise BundleRefused(
                f"the database has a schema {schema} already, which belongs to {owner}",
                hint="give the app another name, or use another database",
            )
        return str(owner)

    def _make_place(self, name: str, schema: str, log: str) -> Target:
        with self._transaction(f"the app {name} cannot be given a place") as cursor:
            role = self._role_of(cursor, name, schema, log)
            password = self._password(cursor, role)
            self._make_role(cursor, role, password)
            self._make_schemas(cursor, schema, log, role)
        return Target(make_conninfo(self._url, user=role, password=password), schema, log)

    @contextmanager
    def _transaction(self, failed: str) -> Iterator[Cursor]:
        """A transaction of the only installer at work in this database; `failed` is what an error means."""
        with self._lock:
            try:
                self._connection.execute("select 1")
            except psycopg.OperationalError:  # it is rarely used, and the server may have started again meanwhile
                self._connection.close()
                self._connection = self._connect()
            try:
                with self._connection.transaction():
                    cursor = psycopg.RawCursor(self._connection)
                    cursor.execute(SQL["lock"].encode())
                    yield cursor
            except psycopg.Error as error:
                raise translate(error.sqlstate or "", f"{failed}: {error}") from error

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = connect(self._url, {"lock_timeout": f"{LOCK_SECONDS}s"})
            direct = _value(connection.execute(SQL["backend"])) == connection.info.backend_pid
        except psycopg.Error as error:
            raise DatabaseUnavailable(f"the database cannot be reached: {error}", hint=UNREACHABLE_HINT) from error
        if not direct:
            connection.close()
            raise DatabaseUnavailable(POOLED)
        return connection

    def program(self, app: str, log: str, source: Source, host: UUID | None = None) -> str:
        """Keep the code of a version for the backends, as `Programs.keep` does; returns the hash of its program."""
        with self._transaction(f"the code of {app} cannot be kept") as cursor:
            return Programs(cursor).keep(app, log, source, host)

    def _install_platform(self) -> None:
        with self._transaction("the database cannot be prepared") as cursor:
            cursor.execute(SQL["create_platform_schema"].encode())
            self._refuse_newer(cursor)
            self._bring_up_to_date(cursor, PLATFORM, "platform-", {})
            if self.placement.inside:
                cursor.execute(_shim().encode())

    def _refuse_newer(self, cursor: Cursor) -> None:
        """A server of an earlier release goes on where it runs, and does not begin.

        Of all apps the registry is the first whose tables are brought up to date.
        """
        for schema, prefix in ((PLATFORM, "platform-"), (REGISTRY_LOG, "app-")):
            there = _value(cursor.execute(SQL["has_schema_table"].encode(), (schema,)))
            number = _value(_run(cursor, "schema_number", schema=sql.Identifier(schema))) if there else 0
            known = len(schema_files(prefix))
            if number > known:
                raise DatabaseUnavailable(
                    f"the database was prepared by a newer release of Apiary (system tables {number} in {schema}, of "
                    f"which this release knows {known})",
                    hint="start that release; to go back to this one, restore a backup from before the upgrade",
                )

    def _bring_up_to_date(self, cursor: Cursor, schema: str, prefix: str, names: Mapping[str, sql.Composable]) -> None:
        """Apply the numbered files that this schema has not seen."""
        where = {"schema": sql.Identifier(schema)}
        _run(cursor, "create_schema_table", **where)
        installed = _value(_run(cursor, "schema_number", **where))
        for number, (name, entry) in enumerate(schema_files(prefix), start=1):
            if number > installed:
                text = entry.read_text(encoding="utf-8")
                for mark, value in names.items():
                    text = text.replace(mark, value.as_string(cursor))
                cursor.execute(text.encode())
                cursor.execute(_composed("insert_schema", **where), (number, name))

    def _password(self, cursor: Cursor, role: str) -> str:
        """The same for every server that uses this database."""
        secret: str = _value(cursor.execute(SQL["secret"].encode()))
        return hmac.digest(secret.encode(), role.encode(), "sha256").hex()

    def _make_role(self, cursor: Cursor, role: str, password: str) -> None:
        known = cursor.execute(SQL["known_role"].encode(), (role,)).fetchone()
        if known is not None and known[0]:
            raise BundleRefused(
                f"the role {role} is there already, and has rights that no app may have",
                hint="take them from it: alter role … nosuperuser nocreaterole nocreatedb noreplication nobypassrls",
            )
        name = sql.Identifier(role)
        _run(cursor, "create_role" if known is None else "alter_role", role=name, password=sql.Literal(password))
        superuser = _value(cursor.execute(SQL["is_superuser"].encode()))
        _run(cursor, "find_deadlocks_soon" if superuser else "grant_role", role=name)
        _run(cursor, "grant_connect", role=name, database=sql.Identifier(self.database))

    def _make_schemas(self, cursor: Cursor, name: str, log: str, role: str) -> None:
        names = {"role": sql.Identifier(role), "log": sql.Identifier(log)}
        _run(cursor, "create_app_schema", schema=sql.Identifier(name), role=names["role"])
        _run(cursor, "create_log_schema", log=names["log"])
        self._bring_up_to_date(cursor, log, "app-", {f"{{{mark}}}": value for mark, value in names.items()})
        _run(cursor, "forget_order", log=names["log"])
        if self.placement.inside:
            _run(cursor, "grant_run", role=names["role"])


def schema_files(prefix: str) -> list[tuple[str, Traversable]]:
    """The files of system tables, in their order: `platform-` of the platform, `app-` of each app."""
    folder = files("apiary.engine.postgres").joinpath("schema")
    return sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.startswith(prefix))


def _shim() -> str:
    """The functions in Python, with the loader inside, and with the name under which a session keeps that."""
    folder = files("apiary.engine.postgres").joinpath("inside")
    shim, loader = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("shim.sql", "loader.py"))
    key = f"apiary {hashlib.sha256(loader.encode()).hexdigest()[:16]}"
    return shim.replace("{source}", repr(loader)).replace("{key}", repr(key))


def _composed(name: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(SQL[name]).format(**parts)


def _run(cursor: Cursor, name: str, **parts: sql.Composable) -> Cursor:
    return cursor.execute(_composed(name, **parts))


def _value(cursor: Cursor | psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


def _fitting(name: str) -> str:
    """A name that PostgreSQL does not cut."""
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name[:46]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
