"""The transaction of a connection as the runtime's `Session`, over a pipeline.

What has no answer of interest (begin, savepoints, records) travels with the next statement that has one, so that a call
of N statements waits N times for the server, and once for its commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from psycopg import pq
from psycopg.types import TypeInfo
from psycopg.types.array import register_array

from apiary.engine.postgres.beside.pipeline import FAILED, Pipeline
from apiary.engine.postgres.errors import ConnectionLost, Repeated
from apiary.engine.postgres.link import Link
from apiary.engine.postgres.session import RESTORING, PostgresSession, check_columns, own_values
from apiary.engine.postgres.statement import Statement
from apiary.engine.postgres.types import ARRAYS, FIRST_OF_CATALOG, Types
from apiary.runtime.errors import DatabaseError, Error
from apiary.runtime.result import NO_COLUMNS, Convert, Result, Shape
from apiary.runtime.session import Part

SAVEPOINTS: dict[Part, str] = {"call": "apiary_call", "nested": "apiary_nested"}
STATEMENT = "apiary_statement"
QUERY = "apiary_query"
OUR_INDEXES = (b"calls_id", b"calls_key", b"calls_step", b"queue_pkey", b"queue_key")
ASKED = {
    "find",
    "instance",
    "steps",
    "take_message",
    "send",
    "wake",
    "check_constraints",
    "enqueue_unique",
    "claim",
}
"""Those of the engine's own statements whose answer is wanted."""
MAX_SHAPES = 1000
STALE_PLAN = b"RevalidateCachedQuery"
"""The function of the server that finds that a prepared statement would now give other columns."""


class StalePlan(DatabaseError):
    """A prepared statement would now give other columns than when it was prepared."""


class BesideSession(PostgresSession):
    """The transaction that is open on one connection."""

    def __init__(
        self,
        link: Link,
        log: str,
        convert_rows: Convert,
        *,
        recording: bool,
        read_only: bool,
    ) -> None:
        super().__init__(log, recording=recording, read_only=read_only)
        self._log = log.encode()
        self._convert_rows = convert_rows
        self._connection = link.connection
        self._state = link.state
        self._pipeline = Pipeline(link)
        self._types = Types(self._type)
        self._shapes: dict[tuple[tuple[bytes | None, int], ...], Shape] = {}
        self._array_parameters: dict[str, list[bool]] = {}

    @property
    def lost(self) -> bool:
        """A call was stopped in the middle of what it said to the server."""
        return self._pipeline.torn

    def begin(self) -> None:
        super().begin()
        self._send(f"begin isolation level serializable read {'only' if self._read_only else 'write'}")

    def commit(self, *, several: bool) -> bool:
        """End the transaction; durable when this returns. Returns whether the session is as it was in the beginning.

        `several` calls have run in it, of which none may have changed it.
        """
        if several:
            self.check_unchanged(self._state)
        self._send("commit")
        if self._look():
            return True
        for name in RESTORING:
            self._send(self._own[name].sql)
        return self._look()

    def _look(self) -> bool:
        """Wait for all that was sent, and compare the session with what it was in the beginning."""
        place = self._send(self._own["after"].sql)
        return self._sync()[place].get_value(0, 0) == self._state.encode()

    def rollback(self) -> None:
        """Leave the transaction, whatever its state; `ConnectionLost` where that is not possible."""
        self.ended_by = None
        self._send("rollback")
        for _ in range(2):  # what was sent before may have failed, and have taken the first with it
            if all(result.status != pq.ExecStatus.PIPELINE_ABORTED for result in self._pipeline.sync()):
                self._look()
                return
            self._send("rollback")

    def _run(self, statement: Statement, values: Sequence[Any]) -> Result:
        try:
            result = self._alone(statement, values)
        except StalePlan:
            self._pipeline.forget(statement.sql)
            result = self._alone(statement, values)
        if not result.nfields:
            changed = 0 if statement.is_command else result.command_tuples or 0
            return Result(NO_COLUMNS, [], changed, self._convert_rows)
        columns = tuple((result.fname(column), result.ftype(column)) for column in range(result.nfields))
        shape = self._shapes.get(columns) or self._learn(columns)
        return Result(shape, self._pipeline.rows(result), result.ntuples, self._convert_rows)

    def _run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        """All rows in one round trip, in one savepoint."""
        self._send(f"savepoint {STATEMENT}")
        places = [self._send(statement.sql, values) for values in rows]
        results = self._undone_alone(statement.source)
        if statement.reads_only or statement.is_command:
            return 0
        return sum(results[place].command_tuples or 0 for place in places)

    def _alone(self, statement: Statement, values: Sequence[Any]) -> pq.abc.PGresult:
        self._send(f"savepoint {STATEMENT}")
        place = self._send(statement.sql, values)
        return self._undone_alone(statement.source)[place]

    def _learn(self, columns: tuple[tuple[bytes | None, int], ...]) -> Shape:
        """The shape of rows with these columns, each a name and the OID of a type."""
        names = tuple((name or b"").decode() for name, _ in columns)
        kinds = [self._types.kind(oid) for _, oid in columns]
        check_columns(names, kinds)
        for (_, oid), kind in zip(columns, kinds, strict=True):
            if kind.element is not None and oid not in ARRAYS and oid >= FIRST_OF_CATALOG:
                register_array(TypeInfo(f"apiary_{oid}", kind.element, oid), self._connection)
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        shape = self._shapes[columns] = Shape(names)
        return shape

    def _platform(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        if name in ASKED:
            return super()._platform(name, values)
        self._send(self._own[name].sql, own_values(values))
        return ()

    def _enter(self, part: Part) -> None:
        self._send(f"savepoint {SAVEPOINTS[part]}")

    def _leave(self, part: Part, *, keep: bool) -> None:
        if not keep:
            self._send(f"rollback to {SAVEPOINTS[part]}")
        self._send(f"release {SAVEPOINTS[part]}")

    def _confined(self, body: Callable[[], Any]) -> Any:
        self._send(f"savepoint {QUERY}")
        self._platform("only_read", ())
        try:
            return body()
        finally:
            if self.ended_by is None:
                self._send(f"rollback to {QUERY}")
                self._send(f"release {QUERY}")

    def _undone_alone(self, sql: str) -> list[pq.abc.PGresult]:
        """Wait for what was sent since the last savepoint; where it fails, that alone is undone."""
        self._send(f"release {STATEMENT}")
        try:
            return self._sync(sql)
        except Error:
            if self.ended_by is None:
                self._send(f"rollback to {STATEMENT}")
                self._send(f"release {STATEMENT}")
            raise

    def _send(self, sql: str, values: Sequence[Any] = ()) -> int:
        self._check_transaction()
        if self._pipeline.torn:
            raise ConnectionLost("the call was stopped while it spoke to the database")
        return self._pipeline.send(sql, values)

    def _sync(self, sql: str = "") -> list[pq.abc.PGresult]:
        results = self._pipeline.sync()
        failed = next((result for result in results if result.status == FAILED), None)
        if failed is not None:
            raise self._error(failed, sql)
        return results

    def _error(self, failed: pq.abc.PGresult, sql: str) -> Error:
        field = failed.error_field
        ours = field(pq.DiagnosticField.SCHEMA_NAME) == self._log
        if ours and field(pq.DiagnosticField.CONSTRAINT_NAME) in OUR_INDEXES:
            self.ended_by = Repeated("the call has a record already")
            return self.ended_by
        if field(pq.DiagnosticField.SOURCE_FUNCTION) == STALE_PLAN:
            return StalePlan("the tables changed after the statement was prepared")
        fields = (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_DETAIL)
        state, message, detail = ((field(name) or b"").decode() for name in fields)
        return self._failed(state, message, sql, detail)

    def _arrays(self, statement: Statement) -> Sequence[bool]:
        arrays = self._array_parameters.get(statement.sql)
        if arrays is None:
            self._send(f"savepoint {STATEMENT}")
            place = self._pipeline.describe(statement.sql)
            described = self._undone_alone(statement.source)[place]
            oids = [described.param_type(number) for number in range(described.nparams)]
            arrays = [self._types.kind(oid).element is not None for oid in oids]
            self._array_parameters[statement.sql] = arrays
        return arrays

    def _type(self, oid: int) -> Sequence[Any] | None:
        rows = self._pipeline.rows(self._alone(self._own["type"], [str(oid)]))
        return rows[0] if rows else None
