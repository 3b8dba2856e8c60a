"""Notes what the calls of one session read and write; packs it at the end of each (`engine/effects.py`).

SQLite tells of each row before it changes it (https://sqlite.org/c3ref/preupdate_blobwrite.html), whatever the
statement was. It does not tell when it undoes changes: a part that is undone, or a statement that fails, takes its
notes with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
import msgspec

from apiary.config import Capturing
from apiary.engine.effects import DREW, FAILED, KEYS, RAN, SCHEMA, UNREAD, WROTE, Terms, pack, pack_event
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.rules import PLATFORM
from apiary.engine.sqlite.workflows import SQL
from apiary.recorded import STARS

HAPPENED = (RAN, FAILED, DREW)
"""What a function knows, also where what it wrote is undone."""
MAX_WRITES = 100_000
"""Rows written in one call of which the values are kept; of those beyond, only the number is."""


MAX_READ_BYTES = 64 * 1024
"""Of what is read in one call, rows are kept whole up to here; of those beyond, only their keys are."""
MAX_ROWS = 5_000
"""Of more rows of one statement, also only their keys are."""
MAX_KEYS_BYTES = 1024 * 1024
"""Of what is read beyond this, with its parameters, only the number of rows is kept."""
MAX_DRAWN_BYTES = 64 * 1024
"""Of the random bytes that a call draws, so many are kept."""
LONG_SECRET = 6
"""From so many characters on, a secret is looked for inside of texts too."""
STARS_FOR: dict[type, Any] = {str: STARS, bytes: STARS.encode()}
MAX_LOOSE = 64
"""So many statements, or rows of one, are kept as they are until the end of the call; then they are packed."""


@dataclass(slots=True)
class Columns:
    """The columns of a table, as rows are stored, and those of its primary key."""

    table: str
    names: list[str] = field(default_factory=list)
    key: list[str] = field(default_factory=list)


class Capture:
    """The effects of the call that runs, as `events`. `keys`: where they are in the rows of statements, by term."""

    def __init__(
        self, connection: apsw.Connection, capturing: Capturing, terms: Terms, *, read_only: bool = False
    ) -> None:
        self.reads = capturing.reads
        self.writes = capturing.writes and not read_only
        self.terms = terms
        self._connection = connection
        self.events: list[Any] = []
        self._left_out = 0
        self._loose = 0
        self._read_bytes = 0
        self._drawn_bytes = 0
        self.keys: dict[int, Sequence[int]] = {}
        self._secrets: frozenset[Any] = frozenset()
        self._tables: dict[str, Columns] | None = None
        self._schema: int | None = None
        self._first_schema: int | None = None
        if self.writes:
            connection.preupdate_hook(self._changes())

    def _changes(self) -> Callable[[apsw.PreUpdate], None]:
        """What SQLite tells of each row that is about to change. It does little, and raises nothing of its own."""
        events = self.events
        add = events.append

        def note(update: apsw.PreUpdate) -> None:
            table = update.table_name
            if table[:7] == PLATFORM:
                return
            if len(events) >= MAX_WRITES:
                self._left_out += 1
                return
            try:
                add((WROTE, table, update.rowid, update.rowid_new, update.old, update.new))
            except (apsw.Error, UnicodeDecodeError):  # a virtual column, or text that is none
                add((UNREAD, table, update.rowid, update.rowid_new, update.op.lower()))

        return note

    def begin(self) -> None:
        """A call begins. What was noted of one that came to no record is forgotten."""
        self.events.clear()
        self._left_out = 0
        self._loose = 0
        self._read_bytes = 0
        self._drawn_bytes = 0
        self._secrets = frozenset()
        self._first_schema = None

    def conceal(self, secrets: Sequence[Any]) -> None:
        """Show stars in the place of these texts; where they are long, also inside of others."""
        self._secrets = concealable(secrets)

    def forget(self) -> None:
        """The schema may be another one now."""
        self._tables = self._schema = None

    def ran(self, term: int, parameters: Mapping[str, Any] | None, result: list[Any] | int) -> None:
        """A statement ran: the rows that it gave, or the number of those that it changed."""
        self.events.append((RAN, term, parameters, result))
        self._loose += 1
        if self._loose >= MAX_LOOSE or (type(result) is list and len(result) >= MAX_LOOSE):
            self._tighten()

    def refused(self, term: int, parameters: Mapping[str, Any] | None, problem: str) -> None:
        """A statement failed, which the function may have noticed."""
        self.events.append((FAILED, term, parameters, problem))

    def drew(self, drawn: bytes) -> None:
        """The call drew random bytes. They are kept up to where some are too many."""
        self._drawn_bytes += len(drawn)
        if self._drawn_bytes <= MAX_DRAWN_BYTES:
            self.events.append((DREW, drawn))

    def _tighten(self) -> None:
        """Pack the statements that are not packed yet, and no more of their results than is to be kept."""
        self.events[:] = [self._tight(*event[1:]) if type(event) is tuple and event[0] == RAN else event
                          for event in self.events]  # fmt: skip
        self._loose = 0

    def _tight(self, term: int, parameters: Any, result: Any) -> msgspec.Raw:
        if self._secrets:
            parameters, result = concealed(parameters, self._secrets), concealed(result, self._secrets)
        rows = None if isinstance(result, int) else result
        if rows is None or len(rows) <= MAX_ROWS:
            event = pack_event((RAN, term, parameters, result))
            if self._read_bytes + len(event) <= MAX_READ_BYTES:
                self._read_bytes += len(event)
                return event
        at = self.keys.get(term, ())
        kept = result if rows is None else [[row[n] for n in at] for row in rows] if at else len(rows)
        event = pack_event((KEYS, term, parameters, kept))
        if self._read_bytes + len(event) > MAX_KEYS_BYTES:
            event = pack_event((KEYS, term, None, result if rows is None else len(rows)))
        self._read_bytes += len(event)
        return event

    def tables(self) -> Mapping[str, Columns]:
        """The app's tables, by their names in lower case."""
        if self._tables is None:
            tables: dict[str, Columns] = {}
            keys: dict[str, list[tuple[int, str]]] = {}
            try:
                rows: Any = self._connection.execute(SQL["columns"]).fetchall()
            except apsw.Error as error:
                raise translate(error) from error
            for table, column, position in rows:
                tables.setdefault(table.lower(), Columns(table)).names.append(column)
                if position:
                    keys.setdefault(table.lower(), []).append((position, column))
            for name, columns in keys.items():
                tables[name].key = [column for _, column in sorted(columns)]
            self._tables = tables
        return self._tables

    def undo(self, mark: int) -> None:
        """All that was written since is undone; what was read was read."""
        undone = self.events[mark:]
        if any(type(event) is tuple and event[0] == SCHEMA for event in undone):
            self.forget()
        self.events[mark:] = [event for event in undone if type(event) is msgspec.Raw or event[0] in HAPPENED]

    def failed(self, mark: int) -> None:
        """A statement failed. SQLite has undone it, unless that was told to keep what it had done (`or fail`)."""
        if len(self.events) > mark and not self._connection.changes():
            self.undo(mark)

    def before_schema(self) -> None:
        """A statement is about to change the schema."""
        if self.writes:
            present = self._present_schema()
            self._first_schema = self._first_schema or present

    def after_schema(self, mark: int, sql: str) -> None:
        """It has, having begun at this mark. It is noted where columns of tables are other ones now."""
        if self.writes:
            before = self._schema
            self.forget()
            if self._present_schema() != before:
                self.events.insert(mark, (SCHEMA, self._schema, sql))

    def take(self) -> bytes | None:
        """The effects of the call, which has ended; none where it had none."""
        if not self.events:
            return None
        schema = self._first_schema or (self._present_schema() if self.writes else 0)
        if self._secrets:
            self.events[:] = [concealed(event, self._secrets) for event in self.events]
        packed = pack(schema, self._left_out, self.events)
        if self._loose and len(packed) > MAX_READ_BYTES:
            self._tighten()
            packed = pack(schema, self._left_out, self.events)
        self.begin()
        return packed

    def write_terms(self) -> int:
        """Write the terms that are not in the database, in the open transaction; returns how many."""
        unwritten = list(self.terms.unwritten)
        for term in unwritten:
            self._connection.execute(SQL["insert_term"], term)
        return len(unwritten)

    def run_script(self, sql: str) -> None:
        """Run all statements of a script. Those that change the schema are noted as such."""
        cursor = self._connection.cursor()
        last: list[tuple[int, str]] = []

        def note(cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
            if last:
                self.after_schema(*last.pop())
            self.before_schema()
            last.append((len(self.events), statement))
            return True

        cursor.exec_trace = note
        for _ in cursor.execute(sql):
            pass
        if last:
            self.after_schema(*last.pop())

    def _present_schema(self) -> int:
        if self._schema is None:
            tables = {columns.table: [columns.names, columns.key] for columns in self.tables().values()}
            self._schema = self.terms.tell(json.dumps({"tables": tables}, separators=(",", ":")))
        return self._schema


def concealable(secrets: Sequence[Any]) -> frozenset[Any]:
    """The secrets that can be looked for."""
    return frozenset(secret for secret in secrets if secret and isinstance(secret, str | bytes))


def concealed(value: Any, secrets: frozenset[Any]) -> Any:
    """A value as the log may show it."""
    if type(value) in (tuple, list):
        return tuple(concealed(each, secrets) for each in value)
    if type(value) is dict:
        return {name: concealed(each, secrets) for name, each in value.items()}
    stars = STARS_FOR.get(type(value))
    if stars is None:
        return value
    for secret in secrets:
        if secret == value:
            return stars
        if type(secret) is type(value) and len(secret) >= LONG_SECRET:
            value = value.replace(secret, stars)
    return value
