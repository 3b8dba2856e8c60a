"""The PostgreSQL engine: one app's schema, reached as its role."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from apiary.bundle import Migration, migrations_to_apply
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.errors import translate
from apiary.engine.postgres.lane import BesideLane, InsideLane, PostgresLane
from apiary.engine.postgres.session import own_statements, row_record
from apiary.runtime.call import Guard, Program
from apiary.runtime.errors import MigrationRefused
from apiary.runtime.result import Convert
from apiary.runtime.session import Queued, Record
from apiary.runtime.transaction import now_microseconds

MIGRATION_LOCK_SECONDS = 10


class PostgresEngine:
    """One app in PostgreSQL. `recording=False` leaves out the records (and so exactly-once), to measure their cost."""

    dialect = "postgresql"
    writers = 4
    readers = 2
    max_batch = 16

    def __init__(self, target: Target, convert_rows: Convert, *, recording: bool = True) -> None:
        self._target = target
        self._convert_rows = convert_rows
        self._recording = recording
        self._lock = threading.Lock()
        self._own = own_statements(target.log)
        self._connection: psycopg.Connection[Any] | None = None

    def migrate(self, migrations: Sequence[Migration], version: str) -> list[str]:
        lock = f"apiary migrate {self._target.schema}"
        with self._lock, self._target.connect() as connection, connection.transaction():
            run = psycopg.RawCursor(connection).execute
            run("select pg_advisory_xact_lock(hashtext($1))", (lock,))
            new = migrations_to_apply(migrations, dict(run(self._own["applied_migrations"].sql.encode()).fetchall()))
            for migration in new:
                self._apply(connection, migration)
                row = (migration.name, migration.checksum, version, now_microseconds())
                run(self._own["insert_migration"].sql.encode(), row)
        return [migration.name for migration in new]

    def _apply(self, connection: psycopg.Connection[Any], migration: Migration) -> None:
        before = connection.execute("select pg_current_xact_id()").fetchone()
        try:
            connection.execute(migration.sql.encode())
            if connection.execute("select pg_current_xact_id()").fetchone() != before:
                raise MigrationRefused(f"the migration {migration.name} ends the transaction in which it runs")
        except psycopg.Error as error:
            raise MigrationRefused(
                f"the migration {migration.name} failed: {error.diag.message_primary or error}",
                hint="nothing of this deploy was kept; mend the file and deploy again",
            ) from error

    def writer(self, program: Program, guard: Guard) -> PostgresLane:
        return self._lane(program, guard, read_only=False)

    def reader(self, program: Program, guard: Guard) -> PostgresLane:
        return self._lane(program, guard, read_only=True)

    def _lane(self, program: Program, guard: Guard, *, read_only: bool) -> PostgresLane:
        if self._target.program is not None:
            return InsideLane(self._target, program, recording=self._recording, read_only=read_only)
        return BesideLane(
            self._target, program, guard, self._convert_rows, recording=self._recording, read_only=read_only
        )

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
