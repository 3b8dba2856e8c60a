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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from apiary.engine.postgres.archive import Archive, folder_archive, platform_archive
from apiary.engine.postgres.connection import CONNECT_SECONDS, Target
from apiary.engine.postgres.errors import translate
from apiary.runtime.errors import BundleRefused, DatabaseUnavailable

PLATFORM = "apiary"
MAX_NAME = 63
OLDEST = 150000
RESERVED = re.compile(r"(apiary|pg)_|(apiary|public|information_schema)\Z")
INSTALLING = "select pg_advisory_xact_lock(hashtext('apiary install'))"
PROBE = """
create or replace function pg_temp.apiary_probe() returns text language plpython3u as $$
    import ctypes, platform, sys
    ctypes.CDLL(None).timer_create
    return "%d.%d %s %s" % (*sys.version_info[:2], sys.platform, platform.machine())
$$
"""


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
        self.database = self._connection.info.dbname

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
                    return cursor.execute(text.encode(), values).fetchall()
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

    def _make_place(self, name: str, schema: str, log: str) -> Target:
        role = _fitting(f"apiary_{self.database}_{name}")
        try:
            with self._transaction() as cursor:
                cursor.execute(INSTALLING)
                password = self._password(role)
                self._make_role(cursor, role, password)
                self._make_schemas(cursor, schema, log, role)
        except psycopg.Error as error:
            raise translate(error.sqlstate or "", f"the app {name} cannot be given a place: {error}") from error
        return Target(make_conninfo(self._url, user=role, password=password), schema, log)

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        with self._lock:
            if self._connection.closed:
                self._connection = self._connect()
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor

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
        with self._transaction() as cursor:
            for archive in archives:
                self._keep(cursor, archive)
            cursor.execute(
                "insert into apiary.programs (hash, app, module, version, log, archives) "
                "values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
                (digest, app, module, version, log, [archive.hash for archive in archives]),
            )
        return digest

    def _keep(self, cursor: psycopg.Cursor[Any], archive: Archive) -> None:
        if not cursor.execute("select 1 from apiary.archives where hash = %s", (archive.hash,)).fetchone():
            cursor.execute(
                "insert into apiary.archives (hash, content) values (%s, %s) on conflict do nothing",
                (archive.hash, archive.content),
            )

    def _probe(self) -> Placement:
        """Whether backends can run the functions: they need Python, of the version for which packages are here."""
        row = self._connection.execute(
            "select (select rolsuper from pg_roles where rolname = current_user), "
            "exists (select from pg_available_extensions where name = 'plpython3u')"
        ).fetchone()
        assert row is not None
        superuser, available = row
        if not available:
            return Placement(False, "the server has no plpython3u (Debian: postgresql-plpython3-15)")
        if not superuser:
            return Placement(False, "only a superuser may install functions in Python, and this role is none")
        here = f"{sys.version_info[0]}.{sys.version_info[1]} {sys.platform} {platform.machine()}"
        try:
            self._connection.execute("create extension if not exists plpython3u")
            self._connection.execute(PROBE)
            found = self._connection.execute("select pg_temp.apiary_probe()").fetchone()
        except psycopg.Error as error:
            return Placement(False, f"the server's Python does not work: {error}")
        there = found[0] if found else ""
        if there != here:
            return Placement(False, f"the server's Python is {there}, the platform's is {here}")
        return Placement(True, f"the server has plpython3u with Python {there}")

    def _install_platform(self) -> None:
        with self._transaction() as cursor:
            cursor.execute(INSTALLING)
            cursor.execute("create schema if not exists apiary")
            self._bring_up_to_date(cursor, PLATFORM, "platform-", {})
            if self.placement.inside:
                shim = files("apiary.engine.postgres").joinpath("inside", "shim.sql").read_text(encoding="utf-8")
                cursor.execute(shim.encode())

    def _bring_up_to_date(
        self, cursor: psycopg.Cursor[Any], schema: str, prefix: str, names: dict[str, sql.Composable]
    ) -> None:
        """Apply the numbered files that this schema has not seen."""
        table = sql.Identifier(schema, "schema")
        cursor.execute(
            sql.SQL("create table if not exists {} (number integer primary key, name text not null)").format(table)
        )
        row = cursor.execute(sql.SQL("select coalesce(max(number), 0) from {}").format(table)).fetchone()
        assert row is not None
        folder = files("apiary.engine.postgres").joinpath("schema")
        found = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.startswith(prefix))
        for number, (name, entry) in enumerate(found, start=1):
            if number > row[0]:
                text = entry.read_text(encoding="utf-8")
                for mark, value in names.items():
                    text = text.replace(mark, value.as_string(cursor))
                cursor.execute(text.encode())
                cursor.execute(sql.SQL("insert into {} values (%s, %s)").format(table), (number, name))

    def _password(self, role: str) -> str:
        row = self._connection.execute("select value from apiary.secrets where name = 'roles'").fetchone()
        assert row is not None
        return hmac.digest(row[0].encode(), role.encode(), "sha256").hex()

    def _make_role(self, cursor: psycopg.Cursor[Any], role: str, password: str) -> None:
        known = cursor.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone()
        verb = sql.SQL("alter" if known else "create")
        cursor.execute(
            sql.SQL("{} role {} login nosuperuser nocreatedb nocreaterole noinherit password {}").format(
                verb, sql.Identifier(role), sql.Literal(password)
            )
        )
        if not self._is_superuser(cursor):
            cursor.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(role)))
        cursor.execute(
            sql.SQL("grant connect on database {} to {}").format(sql.Identifier(self.database), sql.Identifier(role))
        )

    def _is_superuser(self, cursor: psycopg.Cursor[Any]) -> bool:
        row = cursor.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
        return bool(row and row[0])

    def _make_schemas(self, cursor: psycopg.Cursor[Any], name: str, log: str, role: str) -> None:
        owner = cursor.execute(
            "select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner where nspname = %s", (name,)
        ).fetchone()
        if owner is not None and owner[0] != role:
            raise BundleRefused(
                f"the database has a schema {name} already, which belongs to {owner[0]}",
                hint="give the app another name, or use another database",
            )
        made = sql.Identifier(role)
        cursor.execute(sql.SQL("create schema if not exists {} authorization {}").format(sql.Identifier(name), made))
        cursor.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(log)))
        self._bring_up_to_date(cursor, log, "app-", {"{log}": sql.Identifier(log), "{role}": made})
        if self.placement.inside:
            cursor.execute(sql.SQL("grant execute on function apiary.run to {}").format(made))


def _fitting(name: str) -> str:
    """A name that PostgreSQL does not cut."""
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name[:46]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
