"""Makes room for the platform and its apps in a database of PostgreSQL: roles, schemas, system tables, code.

Done by the installer, the only role that may be a superuser; functions run as the roles that are made here.
"""

from __future__ import annotations

import hashlib
import hmac
import platform
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from apiary.engine.postgres.archive import folder_archive, platform_archive
from apiary.engine.postgres.connection import CONNECT_SECONDS, Target
from apiary.engine.postgres.errors import translate
from apiary.engine.postgres.publish import Publication, SqlFunction
from apiary.engine.statements import load_statements
from apiary.runtime.errors import BundleRefused, DatabaseUnavailable

Cursor = psycopg.RawCursor[Any]

PLATFORM = "apiary"
MAX_NAME = 63
OLDEST = 150000
RESERVED = re.compile(r"(apiary|pg)_|(apiary|public|information_schema)\Z")
SQL = load_statements("apiary.engine.postgres", "install.sql")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where functions run by default, and why there."""

    inside: bool
    reason: str


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
            self.placement = self._probe()
            self._install_platform()
        except psycopg.Error as error:
            raise translate(error.sqlstate or "", f"the database cannot be prepared: {error}") from error

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

    def registry(self) -> Target:
        """Make room for the platform's own records."""
        return self._make_place("registry", "apiary_registry", "apiary_registry_log")

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
        try:
            with self._transaction() as cursor:
                cursor.execute(SQL["lock"].encode())
                return Publication(cursor, app, self._role_of(app)).publish(functions)
        except psycopg.Error as error:
            raise translate(error.sqlstate or "", f"the functions of {app} for SQL are not made: {error}") from error

    def _role_of(self, app: str) -> str:
        return _fitting(f"apiary_{self.database}_{app}")

    def _make_place(self, name: str, schema: str, log: str) -> Target:
        role = self._role_of(name)
        try:
            with self._transaction() as cursor:
                cursor.execute(SQL["lock"].encode())
                password = self._password(cursor, role)
                self._make_role(cursor, role, password)
                self._make_schemas(cursor, schema, log, role)
        except psycopg.Error as error:
            raise translate(error.sqlstate or "", f"the app {name} cannot be given a place: {error}") from error
        return Target(make_conninfo(self._url, user=role, password=password), schema, log)

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        with self._lock:
            try:
                self._connection.execute("select 1")
            except psycopg.OperationalError:  # it is rarely used, and the server may have started again meanwhile
                self._connection = self._connect()
            with self._connection.transaction():
                yield psycopg.RawCursor(self._connection)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        except psycopg.Error as error:
            raise DatabaseUnavailable(f"the database cannot be reached: {error}", hint="is it running?") from error

    def program(self, app: str, log: str, module: str, version: str, folders: Sequence[Path]) -> str:
        """Keep the code of a version for the backends; returns the hash of its program.

        `folders`: what comes on the import path, besides the platform itself.
        """
        archives = [*map(folder_archive, folders), platform_archive()]
        identity = "\n".join([app, log, module, version, *(archive.hash for archive in archives)])
        digest = hashlib.sha256(identity.encode()).hexdigest()
        hashes = [archive.hash for archive in archives]
        with self._transaction() as cursor:
            for archive in archives:
                if not _value(cursor.execute(SQL["has_archive"].encode(), (archive.hash,))):
                    cursor.execute(SQL["insert_archive"].encode(), (archive.hash, archive.content))
            cursor.execute(SQL["insert_program"].encode(), (digest, app, module, version, log, hashes))
        return digest

    def _probe(self) -> Placement:
        """Whether backends can run the functions: they need Python, of the version for which packages are here."""
        ask = self._connection.execute
        if not _value(ask(SQL["has_python"].encode())):
            return Placement(False, "the server has no plpython3u (Debian: postgresql-plpython3-15)")
        if not _value(ask(SQL["is_superuser"].encode())):
            return Placement(False, "only a superuser may install functions in Python, and this role is none")
        here = f"{sys.version_info[0]}.{sys.version_info[1]} {sys.platform} {platform.machine()}"
        try:
            ask(SQL["create_python"].encode())
            ask(SQL["make_probe"].encode())
            there = _value(ask(SQL["probe"].encode()))
        except psycopg.Error as error:
            return Placement(False, f"the server's Python does not work: {error}")
        if there != here:
            return Placement(False, f"the server's Python is {there}, the platform's is {here}")
        return Placement(True, f"the server has plpython3u with Python {there}")

    def _install_platform(self) -> None:
        with self._transaction() as cursor:
            cursor.execute(SQL["lock"].encode())
            cursor.execute(SQL["create_platform_schema"].encode())
            self._bring_up_to_date(cursor, PLATFORM, "platform-", {})
            if self.placement.inside:
                cursor.execute(_shim().encode())

    def _bring_up_to_date(self, cursor: Cursor, schema: str, prefix: str, names: Mapping[str, sql.Composable]) -> None:
        """Apply the numbered files that this schema has not seen."""
        where = {"schema": sql.Identifier(schema)}
        _run(cursor, "create_schema_table", **where)
        installed = _value(_run(cursor, "schema_number", **where))
        folder = files("apiary.engine.postgres").joinpath("schema")
        found = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.startswith(prefix))
        for number, (name, entry) in enumerate(found, start=1):
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
        known = _value(cursor.execute(SQL["has_role"].encode(), (role,)))
        name = sql.Identifier(role)
        _run(cursor, "alter_role" if known else "create_role", role=name, password=sql.Literal(password))
        if not _value(cursor.execute(SQL["is_superuser"].encode())):
            _run(cursor, "grant_role", role=name)
        _run(cursor, "grant_connect", role=name, database=sql.Identifier(self.database))

    def _make_schemas(self, cursor: Cursor, name: str, log: str, role: str) -> None:
        owner = cursor.execute(SQL["schema_owner"].encode(), (name,)).fetchone()
        if owner is not None and owner[0] != role:
            raise BundleRefused(
                f"the database has a schema {name} already, which belongs to {owner[0]}",
                hint="give the app another name, or use another database",
            )
        names = {"role": sql.Identifier(role), "log": sql.Identifier(log)}
        _run(cursor, "create_app_schema", schema=sql.Identifier(name), role=names["role"])
        _run(cursor, "create_log_schema", log=names["log"])
        self._bring_up_to_date(cursor, log, "app-", {f"{{{mark}}}": value for mark, value in names.items()})
        if self.placement.inside:
            _run(cursor, "grant_run", role=names["role"])


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
