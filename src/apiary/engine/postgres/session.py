"""A transaction of PostgreSQL as the runtime's `Session`: what is the same inside a backend and beside it.

Standard library only. A statement that fails undoes itself and nothing else, as on the embedded engine; after a
conflict or a lost connection nothing runs in the transaction any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from apiary.engine.postgres.errors import PASSING, translate
from apiary.engine.postgres.statement import Statement, parse
from apiary.engine.postgres.types import Kind
from apiary.engine.postgres.values import as_array, as_json, check_text, parameter
from apiary.engine.postgres.workflows import WorkflowRows, uuid_of
from apiary.engine.statements import load_statements
from apiary.runtime.chance import system_bytes
from apiary.runtime.errors import (
    ConstraintViolated,
    Duplicate,
    Error,
    RuleBroken,
    Unavailable,
)
from apiary.runtime.result import Result
from apiary.runtime.session import Part, Queued, Record

MAX_PARSED = 5000
RESTORING = ("reset_role", "reset_settings", "drop_temporary")
"""The statements that make a session again what it was in the beginning."""


class PostgresSession(WorkflowRows):
    """The open transaction of one connection; `inside` and `beside` say how statements and savepoints get there."""

    def __init__(self, log: str, *, recording: bool, read_only: bool) -> None:
        self.enqueued: list[Queued] = []
        self.records: list[Record] = []
        self.ended_by: Error | None = None
        self._own = own_statements(log)
        self.recording = recording
        self._read_only = read_only
        self._parsed: dict[str, Statement] = {}
        self._marks: list[int] = []

    def begin(self) -> None:
        """Forget what belonged to the transaction before."""
        self.enqueued = []
        self.ended_by = None

    def execute(self, sql: str, parameters: Mapping[str, Any], read_only: bool) -> Result:
        self._check_transaction()
        statement = self._parsed.get(sql) or self._parse(sql)
        if read_only and not statement.reads_only:
            raise RuleBroken("a query cannot write", hint="declare the function with @app.transaction")
        return self._run(statement, self._parameters(statement, parameters))

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> int:
        self._check_transaction()
        statement = self._parsed.get(sql) or self._parse(sql)
        values = [self._parameters(statement, dict(row)) for row in rows]
        return self._run_many(statement, values) if values else 0

    def confine(self, body: Callable[[], Any]) -> Any:
        """The text of a statement does not tell whether what it calls writes: the server takes care of that.

        Queries of apps that it calls are recorded afterwards.
        """
        if self._read_only:
            return body()
        self._read_only, self.records = True, []
        try:
            result = self._confined(body)
        finally:
            self._read_only, records, self.records = False, self.records, []
        for record in records:
            self.record(record)
        return result

    def savepoint(self, part: Part) -> None:
        if part == "call":
            self._check_transaction()
            self._marks.clear()
        self._enter(part)
        self._marks.append(len(self.enqueued))

    def release(self, part: Part) -> None:
        self._leave(part, keep=True)
        self._marks.pop()

    def undo(self, part: Part) -> None:
        self._leave(part, keep=False)
        mark = self._marks.pop(0 if part == "call" else -1)
        del self.enqueued[mark:]
        if part == "call":  # whatever the function made of the error, its transaction cannot go on
            self._check_transaction()

    def effects(self) -> bytes | None:
        return None

    def draw(self, size: int) -> bytes:
        return system_bytes(size)

    def conceal(self, secrets: Sequence[Any]) -> None:
        """Effects are not kept here."""

    def record(self, record: Record) -> None:
        """Write a record, or keep it for somebody who writes, where this session only reads."""
        self._check_transaction()
        if not self.recording:
            return
        if self._read_only:
            self.records.append(record)
            return
        try:
            self._platform("insert_call", record_row(record))
        except ConstraintViolated as error:
            raise Duplicate from error

    @property
    def lost(self) -> bool:
        """A call that was stopped never ends the transaction here."""
        return False

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        """The record of a call by its id or, failing that, by its idempotency key, which an open workflow may have."""
        rows = self._platform("find", (uuid_of(identifier), key))
        return row_record(rows[0]) if rows else None

    def dequeue(self, identifier: bytes) -> None:
        """Take a call out of the queue."""
        self._platform("dequeue", (UUID(bytes=identifier),))

    def count_attempt(self, identifier: bytes, attempt: int) -> None:
        """Write down that a call of the queue was tried so many times."""
        self._platform("count_attempt", (UUID(bytes=identifier), attempt))

    def check_unchanged(self, state: str) -> None:
        """Fail where what ran in this transaction has changed the session."""
        self._platform("unchanged", (state,))

    def _parse(self, sql: str) -> Statement:
        if len(self._parsed) >= MAX_PARSED:
            self._parsed.clear()
        statement = self._parsed[sql] = parse(sql)
        return statement

    def _parameters(self, statement: Statement, given: Mapping[str, Any]) -> list[Any]:
        values = [parameter(value) for value in statement.values(given)]
        if list in map(type, values):
            arrays = self._arrays(statement)
            values = [
                value if type(value) is not list else as_array(value) if array else as_json(value)
                for value, array in zip(values, arrays, strict=True)
            ]
        for value in values:
            check_text(value)
        return values

    def _check_transaction(self) -> None:
        if self.ended_by is not None:
            raise self.ended_by

    def _failed(self, state: str, message: str, sql: str = "", detail: str = "") -> Error:
        """The error of a statement; one after which the transaction cannot go on is remembered."""
        error = translate(state, message, sql, detail)
        if isinstance(error, Unavailable) and state not in PASSING:
            self.ended_by = error
        return error

    def _run(self, statement: Statement, values: Sequence[Any]) -> Result:
        """Run one statement of the user."""
        raise NotImplementedError

    def _run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        """Run one statement of the user once for each row; how many rows changed."""
        raise NotImplementedError

    def _platform(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        """Run one of the engine's own statements, by its name."""
        self._check_transaction()
        return self._run(self._own[name], own_values(values)).all()

    def _confined(self, body: Callable[[], Any]) -> Any:
        """Run this where the transaction only reads."""
        raise NotImplementedError

    def _arrays(self, statement: Statement) -> Sequence[bool]:
        """Which parameters of a statement are arrays."""
        raise NotImplementedError

    def _enter(self, part: Part) -> None:
        """Begin a savepoint."""
        raise NotImplementedError

    def _leave(self, part: Part, *, keep: bool) -> None:
        """End the latest savepoint of this kind, and all that was begun after it."""
        raise NotImplementedError


def check_columns(names: Sequence[str], kinds: Iterable[Kind]) -> None:
    """`RuleBroken` where a column holds rows: PL/Python and psycopg read those differently, and not to the end."""
    for name, kind in zip(names, kinds, strict=True):
        if kind.is_row:
            raise RuleBroken(f"the column {name} is itself a row", hint=f"select its columns, or to_jsonb({name})")


@cache
def own_statements(log: str) -> dict[str, Statement]:
    """The engine's own statements for an app whose log is the schema `log`, by name."""
    texts = load_statements("apiary.engine.postgres", "statements.sql")
    texts = {name: sql.replace("{state}", texts["state"]) for name, sql in texts.items()}
    return {
        name: Statement(name, sql.replace("{log}", quoted(log)), tuple(sorted(set(re.findall(r"\$(\d+)", sql)))))
        for name, sql in texts.items()
    }


def own_values(values: Sequence[Any]) -> list[Any]:
    """The parameters of one of the engine's own statements, as text."""
    found = list(map(parameter, values))
    for value in found:
        check_text(value)
    return found


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def record_row(record: Record) -> tuple[Any, ...]:
    """A record as the columns of `calls`, in their order."""
    return (
        UUID(bytes=record.id),
        record.function,
        record.kind,
        record.version,
        record.caller,
        record.attempt,
        record.started,
        record.duration,
        record.status,
        record.input.decode(),
        None if record.output is None else record.output.decode(),
        record.error,
        record.lines,
        record.nested,
        uuid_of(record.parent),
        record.key,
        record.step,
    )


def row_record(row: Sequence[Any]) -> Record:
    """The record that a row of `calls` holds."""
    names = ("id", "function", "kind", "version", "caller", "attempt", "started", "duration", "status")
    fields = dict(
        zip((*names, "input", "output", "error", "lines", "nested", "parent", "key", "step"), row, strict=True)
    )
    fields["id"] = UUID(str(fields["id"])).bytes
    fields["parent"] = UUID(str(fields["parent"])).bytes if fields["parent"] else None
    fields["input"] = fields["input"].encode()
    fields["output"] = None if fields["output"] is None else fields["output"].encode()
    return Record(**fields)
