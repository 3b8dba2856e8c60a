"""The PostgreSQL engine: one app's schema, reached as its role."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from apiary.bundle import Migration, migrations_to_apply
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.errors import translate
from apiary.engine.postgres.lane import BesideLane, InsideLane
from apiary.engine.postgres.placed import BESIDE, PlacedLane
from apiary.engine.postgres.session import own_statements, row_record
from apiary.engine.postgres.statement import check_script
from apiary.engine.protocol import Lane
from apiary.runtime.call import Guard, Program
from apiary.runtime.errors import BundleRefused, InternalError, MigrationRefused, Unavailable
from apiary.runtime.result import Convert
from apiary.runtime.session import Queued, Record
from apiary.runtime.transaction import now_microseconds

MIGRATION_LOCK_SECONDS = 10


WRITERS = 4
READERS = 2


class PostgresEngine:
    """One app in PostgreSQL. `recording=False` leaves out the records (and so exactly-once), to measure their cost."""

    dialect = "postgresql"
    max_batch = 16

    def __init__(
        self,
        target: Target,
        convert_rows: Convert,
        *,
        recording: bool = True,
        writers: int = WRITERS,
        readers: int = READERS,
    ) -> None:
        self.writers = writers
        self.readers = readers
        self._target = target
        self._convert_rows = convert_rows
        self._recording = recording
        self._lock = threading.Lock()
        self._own = own_statements(target.log)
        self._connection: psycopg.Connection[Any] | None = None

    def pending(self, migrations: Sequence[Migration]) -> list[str]:
        with self._migrating() as connection:
            return [migration.name for migration in self._new(connection, migrations)]

    def migrate(self, migrations: Sequence[Migration], version: str) -> list[str]:
        with self._migrating() as connection:
            new = self._new(connection, migrations)
            for migration in new:
                self._apply(connection, migration)
                row = (migration.name, migration.checksum, version, now_microseconds())
                psycopg.RawCursor(connection).execute(self._own["insert_migration"].sql.encode(), row)
        return [migration.name for migration in new]

    @contextmanager
    def _migrating(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction in which nobody else migrates, not even a backend whose client has died."""
        try:
            with self._lock, self._target.connect() as connection:
                lock = (f"apiary migrate {self._target.schema}",)
                psycopg.RawCursor(connection).execute(self._own["migration_lock"].sql.encode(), lock)
                with connection.transaction():  # sees what was committed before it had the lock
                    yield connection
        except psycopg.Error as error:
            found = translate(error.sqlstate or "", error.diag.message_primary or str(error))
            if isinstance(found, Unavailable):
                raise found from error
            raise MigrationRefused(f"the migrations cannot be committed: {found.message}") from error

    def _new(self, connection: psycopg.Connection[Any], migrations: Sequence[Migration]) -> list[Migration]:
        applied = connection.execute(self._own["applied_migrations"].sql.encode()).fetchall()
        return migrations_to_apply(migrations, dict(applied))

    def _apply(self, connection: psycopg.Connection[Any], migration: Migration) -> None:
        before = connection.execute("select pg_current_xact_id()").fetchone()
        try:
            check_script(migration.sql)
            connection.execute(migration.sql.encode())
            if connection.execute("select pg_current_xact_id()").fetchone() != before:
                raise MigrationRefused(f"the migration {migration.name} ends the transaction in which it runs")
        except InternalError as error:
            raise MigrationRefused(f"the migration {migration.name}: {error.message}") from error
        except psycopg.Error as error:
            raise MigrationRefused(
                f"the migration {migration.name} failed: {error.diag.message_primary or error}",
                hint="nothing of this deploy was kept; mend the file and deploy again",
            ) from error

    def writer(self, program: Program, guard: Guard) -> Lane:
        return self._lane(program, guard, read_only=False)

    def reader(self, program: Program, guard: Guard) -> Lane:
        return self._lane(program, guard, read_only=True)

    def _lane(self, program: Program, guard: Guard, *, read_only: bool) -> Lane:
        target = self._target
        how = {"recording": self._recording, "read_only": read_only}
        wanted = {bound.function.options.placement: name for name, bound in program.functions.items()}
        if target.program is None and target.why_beside is not None and "database" in wanted:
            raise BundleRefused(
                f"{wanted['database']} must run inside the database, and cannot: {target.why_beside}",
                hint='apiary doctor looks at the database; without placement="database" it runs beside it',
            )
        beside = BesideLane(target, program, guard, self._convert_rows, **how)
        if target.program is None:
            return beside
        inside = InsideLane(target, program, **how)
        return PlacedLane(inside, beside, program) if BESIDE in wanted else inside

    def sync(self) -> None:
        """A commit waits for the disk by itself."""

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        rows = self._ask_own("find", (UUID(bytes=identifier) if identifier else None, key))
        return row_record(rows[0]) if rows else None

    def queued(self, limit: int) -> list[Queued]:
        return self._queue(limit, None)

    def queued_call(self, identifier: bytes) -> Queued | None:
        return next(iter(self._queue(1, UUID(bytes=identifier))), None)

    def _queue(self, limit: int, wanted: UUID | None) -> list[Queued]:
        return [
            Queued(row[0].bytes, row[1], row[2].encode(), row[3], row[4].bytes if row[4] else None, *row[5:])
            for row in self._ask_own("queued", (limit, wanted))
        ]

    def _ask_own(self, name: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None or self._connection.closed:
                        self._connection = self._target.connect()
                    cursor = psycopg.RawCursor(self._connection)
                    return cursor.execute(self._own[name].sql.encode(), values).fetchall()
                except psycopg.Error as error:
                    if last or not self._connection or not self._connection.closed:
                        raise translate(error.sqlstate or "", str(error)) from error
        raise AssertionError("the second attempt returns or raises")

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
