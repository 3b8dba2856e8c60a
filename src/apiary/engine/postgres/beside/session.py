"""The transaction of a connection as the runtime's `Session`, over psycopg in pipeline mode.

What has no answer of interest (begin, savepoints, records) travels with the next statement that has one, so that a call
of N statements waits N times for the server, and once for its commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from apiary.engine.postgres.errors import ConnectionLost, Repeated
from apiary.engine.postgres.session import PostgresSession
from apiary.engine.postgres.statement import Statement
from apiary.engine.postgres.types import DEALLOCATE, PREPARE, TYPES
from apiary.engine.postgres.values import as_array, as_json
from apiary.runtime.errors import Error
from apiary.runtime.result import NO_COLUMNS, Convert, Result, Shape
from apiary.runtime.session import Part

SAVEPOINTS: dict[Part | None, str] = {"call": "apiary_call", "nested": "apiary_nested", None: "apiary_statement"}
Cursor = psycopg.RawCursor[tuple[Any, ...]]


class BesideSession(PostgresSession):
    """The transaction that is open on one connection."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        log: str,
        convert_rows: Convert,
        *,
        recording: bool,
        read_only: bool,
    ) -> None:
        super().__init__(log, recording=recording, read_only=read_only)
        self.connection = connection
        self._log = log
        self._convert_rows = convert_rows
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._array_types: dict[str, list[bool]] = {}
        self._in_pipeline = connection.pipeline()
        self._pipeline = self._in_pipeline.__enter__()

    def begin(self) -> None:
        super().begin()
        self._send(f"begin isolation level serializable read {'only' if self._read_only else 'write'}")

    def commit(self) -> None:
        """End the transaction; durable when this returns."""
        self._check_transaction()
        self._send("commit")
        with self._translated():
            self._pipeline.sync()

    def rollback(self) -> None:
        """Leave the transaction, whatever its state."""
        with self._translated():
            self._pipeline.sync()
        self._send("rollback")
        with self._translated():
            self._pipeline.sync()

    def _run(self, statement: Statement, values: Sequence[Any]) -> Result:
        if any(type(value) is list for value in values):
            values = self._lists(statement, values)
        cursor = self._answered(statement.sql, values)
        if cursor.description is None:
            return Result(NO_COLUMNS, [], max(cursor.rowcount, 0), self._convert_rows)
        names = tuple(column.name for column in cursor.description)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._shapes[names] = Shape(names)
        rows = cursor.fetchall()
        return Result(shape, rows, len(rows), self._convert_rows)

    def _run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        """All rows in one round trip, in one savepoint."""
        if any(type(value) is list for values in rows for value in values):
            rows = [self._lists(statement, values) for values in rows]
        with self._undone_alone(statement.sql):
            cursors = [self._send(statement.sql, values) for values in rows]
        return sum(max(cursor.rowcount, 0) for cursor in cursors)

    def _platform(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        if name == "find":
            return super()._platform(name, values)
        self._send(self._own[name].sql, [None if value is None else str(value) for value in values])
        return ()

    def _enter(self, part: Part) -> None:
        self._send(f"savepoint {SAVEPOINTS[part]}")

    def _leave(self, part: Part, *, keep: bool) -> None:
        if not keep:
            self._send(f"rollback to {SAVEPOINTS[part]}")
        self._send(f"release {SAVEPOINTS[part]}")

    def _answered(self, sql: str, values: Sequence[Any]) -> Cursor:
        with self._undone_alone(sql):
            cursor = self._send(sql, values)
        return cursor

    @contextmanager
    def _undone_alone(self, sql: str) -> Iterator[None]:
        """Run what is sent in this block, and wait for it; where it fails, that alone is undone."""
        self._send(f"savepoint {SAVEPOINTS[None]}")
        try:
            yield
            self._send(f"release {SAVEPOINTS[None]}")
            with self._translated(sql):
                self._pipeline.sync()
        except Error:
            if self.ended_by is None:
                self._send(f"rollback to {SAVEPOINTS[None]}")
                self._send(f"release {SAVEPOINTS[None]}")
            raise

    def _send(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        self._check_transaction()
        with self._translated(sql):
            cursor: Cursor = psycopg.RawCursor(self.connection)
            cursor.execute(sql.encode(), values)
        return cursor

    @contextmanager
    def _translated(self, sql: str = "") -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if self.connection.closed:
                self.ended_by = ConnectionLost(f"the connection to the database was lost: {error}")
                raise self.ended_by from None
            diagnosis = error.diag
            if diagnosis.schema_name == self._log and diagnosis.constraint_name in ("calls_id", "calls_key"):
                self.ended_by = Repeated("the call has a record already")
                raise self.ended_by from None
            raise self._failed(error.sqlstate or "58000", diagnosis.message_primary or str(error), sql) from error

    def _lists(self, statement: Statement, values: Sequence[Any]) -> list[Any]:
        """Write lists as what their parameter is: an array, else JSON."""
        arrays = self._array_types.get(statement.sql)
        if arrays is None:
            with self._undone_alone(statement.sql):
                self._send(PREPARE + statement.sql)
                types = self._send(TYPES)
                self._send(DEALLOCATE)
            row = types.fetchone()
            assert row is not None
            arrays = self._array_types[statement.sql] = [name.endswith("[]") for name in row[0]]
        return [
            (as_array(value) if array else as_json(value)) if type(value) is list else value
            for value, array in zip(values, arrays, strict=True)
        ]
