"""A SQLite connection as the runtime's `Session`: statements of the user are examined once, then only run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import apsw

from apiary.engine.effects import pack_event
from apiary.engine.sqlite.capture import Capture
from apiary.engine.sqlite.errors import UNIQUE, extended_code, translate
from apiary.engine.sqlite.examine import Examiner, Statement
from apiary.engine.sqlite.values import EXACT, bind, check_numbers, convert, native
from apiary.engine.sqlite.workflows import SQL, WorkflowRows
from apiary.runtime.chance import system_bytes
from apiary.runtime.errors import DatabaseError, DatabaseUnavailable, Duplicate, Error, RuleBroken, Unavailable
from apiary.runtime.plain import plain
from apiary.runtime.result import NO_COLUMNS, Convert, Result
from apiary.runtime.session import Part, Queued, Record

SAVEPOINT: dict[Part, str] = {"call": SQL["savepoint_call"], "nested": SQL["savepoint_nested"]}
RELEASE: dict[Part, str] = {"call": SQL["release_call"], "nested": SQL["release_nested"]}
UNDO: dict[Part, str] = {"call": SQL["undo_call"], "nested": SQL["undo_nested"]}
STATEMENT_CACHE = 1000
BUSY_MILLISECONDS = 10_000
MAX_EXAMINED = 5000
CHECKPOINT_PAGES = 16_000
READ_CACHE_KIB = 8_000
WRITE_CACHE_KIB = 16_000
BESIDE_CACHE_KIB = 4_000
"""For the file beside an app's: who writes that has time."""


def connect(
    path: str, *, read_only: bool = False, waiting: bool = True, cache_kib: int = WRITE_CACHE_KIB
) -> apsw.Connection:
    """Open the file as every connection of the engine does: WAL, foreign keys.

    A commit waits for the disk, unless `waiting` is false: then it can be lost (not torn) until the engine's `sync`.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (0 if read_only else apsw.SQLITE_OPEN_CREATE)
    connection = apsw.Connection(path, flags=flags, statementcachesize=STATEMENT_CACHE)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    pragmas = ["journal_mode = wal", f"synchronous = {'full' if waiting else 'normal'}", "foreign_keys = on"]
    if read_only:
        pragmas += ["query_only = on", f"cache_size = -{READ_CACHE_KIB}"]
    else:
        pragmas += [f"wal_autocheckpoint = {CHECKPOINT_PAGES}", f"cache_size = -{cache_kib}"]
    for pragma in pragmas:
        connection.execute(f"pragma {pragma}").fetchall()
    connection.convert_binding = bind
    return connection


class SqliteSession(WorkflowRows):
    """The open transaction of one connection."""

    def __init__(
        self,
        connection: apsw.Connection,
        convert_rows: Convert,
        capture: Capture,
        *,
        recording: bool,
    ) -> None:
        self.connection = connection
        self.capture = capture
        self.enqueued: list[Queued] = []
        self.records: list[Record] = []
        self._convert_rows = convert_rows
        self.recording = recording
        self._statements: dict[str, Statement] = {}
        self._schema: int | None = None
        self._examiner = Examiner(connection, capture)
        self._marks: list[tuple[int, int]] = []
        self._broken = False
        self.ended_by: Error | None = None
        self._run = connection.execute

    def platform(self, name: str, parameters: tuple[Any, ...] = ()) -> apsw.Cursor:
        """Run one of the engine's own statements, by its name in `statements.sql`."""
        return self._run(SQL[name], parameters)

    def begin(self, statement: str) -> None:
        """Begin a transaction, and forget what is known of statements when the schema has changed since."""
        self.enqueued = []
        self.ended_by = None
        self._broken = False
        self.platform(statement)
        schema: Any = self.platform("schema_version").fetchall()[0][0]
        if schema != self._schema:
            self.platform("load_schema").fetchall()
            self._schema = schema
            self._statements.clear()
            self.capture.forget()

    def commit(self) -> None:
        """Commit, and with it the terms that effects of this transaction, or of queries, refer to."""
        written = self.capture.write_terms()
        self.platform("commit")
        self.capture.terms.forget(written)

    def effects(self) -> bytes | None:
        try:
            return self.capture.take()
        except apsw.Error as error:
            self._broken = True
            raise self._failed(error, "the columns of tables") from error

    def draw(self, size: int) -> bytes:
        drawn = system_bytes(size)
        if self.capture.reads:
            self.capture.drew(drawn)
        return drawn

    def conceal(self, secrets: Sequence[Any]) -> None:
        self.capture.conceal(secrets)

    def execute(self, sql: str, parameters: Mapping[str, Any], read_only: bool) -> Result:
        try:
            return self._execute(sql, parameters, read_only)
        except Error as error:
            self._refused(sql, parameters, error)
            raise

    def _execute(self, sql: str, parameters: Mapping[str, Any], read_only: bool) -> Result:
        self._check_transaction()
        statement = self._statements.get(sql) or self._examine(sql)
        if read_only and not statement.read_only:
            raise RuleBroken("a query cannot write", hint="declare the function with @app.transaction")
        if parameters.keys() != statement.names:
            raise _wrong_names(sql, statement.names, parameters)
        capture = self.capture
        mark = len(capture.events)
        plain = EXACT.issuperset(map(type, parameters.values()))
        try:
            if not plain:
                check_numbers(parameters.values())
            if statement.changes_schema:
                capture.before_schema()
            rows: list[Any] = self._run(statement.sql, parameters).fetchall()
            if statement.changes_schema:
                self._forget()
                capture.after_schema(mark, sql)
        except (apsw.Error, OverflowError, UnicodeEncodeError) as error:
            capture.failed(mark)
            raise self._failed(error, sql) from error
        if statement.shape is not NO_COLUMNS:
            count = len(rows)
        else:
            count = 0 if statement.changes_schema else self.connection.changes()
        if capture.reads:
            rows = self._traced(statement, parameters if plain else native(parameters), rows, count)
        if statement.readers:
            rows = convert(rows, statement.readers)
        return Result(statement.shape, rows, count, self._convert_rows)

    def _traced(self, statement: Statement, parameters: Mapping[str, Any], rows: list[Any], count: int) -> list[Any]:
        """Note that a statement ran; returns its rows as the function is to see them."""
        self.capture.ran(statement.term, parameters, rows if statement.shape is not NO_COLUMNS else count)
        width = statement.width
        return rows if width is None else [row[:width] for row in rows]

    def _refused(self, sql: str, parameters: Mapping[str, Any] | None, error: Error) -> None:
        """Note that a statement failed, where the call goes on."""
        if not self.capture.reads or isinstance(error, Unavailable):
            return
        given = None
        with suppress(TypeError, ValueError, OverflowError):
            fitting = parameters and native(parameters)
            pack_event((fitting,))  # what is refused may be what has no form
            given = fitting
        known = self._statements.get(sql)
        term = known.term if known is not None else self._examiner.unknown(sql)
        self.capture.refused(term, given, json.dumps(plain(error.problem())))

    def _forget(self) -> None:
        """The schema changed in this transaction, which may yet be undone: know nothing until the next begins."""
        self._schema = None
        self._statements.clear()

    def confine(self, body: Callable[[], Any]) -> Any:
        """Each statement tells by itself whether it writes."""
        return body()

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> int:
        self._check_transaction()
        statement = self._statements.get(sql) or self._examine(sql)
        given = [dict(row) for row in rows]
        for row in given:
            if row.keys() != statement.names:
                raise _wrong_names(sql, statement.names, row)
        self._step(SQL["savepoint_many"])
        mark = len(self.capture.events)
        try:
            changed = self._each(sql, given)
        except BaseException as error:
            if self.connection.in_transaction:
                self._step(SQL["undo_many"])
                self._step(SQL["release_many"])
                self.capture.undo(mark)
            if isinstance(error, Error):
                self._refused(sql, None, error)
            raise
        self._step(SQL["release_many"])
        changed = 0 if statement.read_only else changed
        if self.capture.reads:
            self.capture.ran(statement.term, None, changed)
        return changed

    def _each(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> int:
        changed = 0
        run, changes = self._run, self.connection.changes
        try:
            for row in rows:
                check_numbers(row.values())
                run(sql, row).fetchall()
                changed += changes()
        except (apsw.Error, OverflowError, UnicodeEncodeError) as error:
            raise self._failed(error, sql) from error
        return changed

    def savepoint(self, part: Part) -> None:
        if part == "call":
            self._broken = False
            self._marks.clear()
            self.capture.begin()
        self._step(SAVEPOINT[part])
        self._marks.append((len(self.enqueued), len(self.capture.events)))

    def release(self, part: Part) -> None:
        self._step(RELEASE[part])
        self._marks.pop()

    def undo(self, part: Part) -> None:
        if part == "call":
            self._broken = False
        self._step(UNDO[part])
        self._step(RELEASE[part])
        enqueued, mark = self._marks.pop(0 if part == "call" else -1)
        del self.enqueued[enqueued:]
        self.capture.undo(mark)

    def record(self, record: Record) -> None:
        self._check_transaction()
        if not self.recording:
            return
        try:
            self.platform("insert_call", record_row(record))
            if record.effects is not None:
                self.platform("insert_effects", (record.effects,))
        except apsw.ConstraintError as error:
            if extended_code(error) in UNIQUE:
                raise Duplicate from None
            raise translate(error) from error
        except apsw.Error as error:
            raise translate(error) from error

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        return find(self.connection, identifier, key)

    def dequeue(self, identifier: bytes) -> None:
        self.platform("dequeue", (identifier,))

    def count_attempt(self, identifier: bytes, attempt: int) -> None:
        self.platform("count_attempt", (attempt, identifier))

    @property
    def lost(self) -> bool:
        return not self.connection.in_transaction

    def _ask(self, name: str, *parameters: Any) -> list[Any]:
        self._check_transaction()
        try:
            return self._run(SQL[name], parameters).fetchall()
        except apsw.ConstraintError:
            raise
        except apsw.Error as error:
            self._broken = True
            raise self._failed(error, name) from error

    def _examine(self, sql: str) -> Statement:
        if len(self._statements) >= MAX_EXAMINED:
            self._statements.clear()
            self.capture.keys.clear()
        statement = self._examiner.examine(sql)
        if self._schema is not None:
            self._statements[sql] = statement
        return statement

    def _failed(self, error: Exception, sql: str) -> Error:
        """Translate an error; some errors end the transaction, after which nothing may run in this call any more."""
        translated = translate(error, sql)
        if not self.connection.in_transaction:
            self.ended_by = translated
        return translated

    def _step(self, sql: str, parameters: tuple[Any, ...] = ()) -> None:
        """Run a statement of the platform within a call. Where it fails, the call cannot go on: a part may be open."""
        self._check_transaction()
        try:
            self._run(sql, parameters)
        except apsw.Error as error:
            self._broken = True
            raise self._failed(error, sql) from error

    def _check_transaction(self) -> None:
        """Outside a transaction, each statement would commit by itself."""
        if self._broken or not self.connection.in_transaction:
            raise DatabaseUnavailable("the database gave up the transaction", hint="is its disk full?")


def find(connection: apsw.Connection, identifier: bytes | None, key: str | None) -> Record | None:
    """The record of a call by its id or, failing that, by its idempotency key, which an open workflow may have."""
    for name, value in (("find_call", identifier), ("find_key", key), ("find_open", key)):
        rows = connection.execute(SQL[name], (value,)).fetchall() if value is not None else []
        if rows:
            return row_record(rows[0])
    return None


def record_row(record: Record) -> tuple[Any, ...]:
    """A record as the columns of `apiary_calls`, in their order."""
    return (
        record.id,
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
        record.parent,
        record.key,
        record.step,
    )


def row_record(row: Sequence[Any]) -> Record:
    """The record that a row of `apiary_calls` holds."""
    names = ("id", "function", "kind", "version", "caller", "attempt", "started", "duration", "status")
    fields = dict(
        zip((*names, "input", "output", "error", "lines", "nested", "parent", "key", "step"), row, strict=True)
    )
    fields["input"] = fields["input"].encode()
    fields["output"] = None if fields["output"] is None else fields["output"].encode()
    return Record(**fields)


def _wrong_names(sql: str, names: frozenset[str], given: Mapping[str, Any]) -> DatabaseError:
    missing, extra = sorted(names - given.keys()), sorted(given.keys() - names)
    what = f"no value for :{missing[0]}" if missing else f"the statement has no :{extra[0]}"
    return DatabaseError(f"{what} in: {' '.join(sql.split())[:200]}")
