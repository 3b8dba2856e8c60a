"""Looks at a statement of the user before it first runs: may it run, what does it take and give, what does it read?

A select is run with columns added that identify the rows which it is made of, where that leaves its meaning as it is:
SQLite must find its rows in the same way. The function does not see these columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import apsw

from apiary.engine.selection import Selection, Source, selection
from apiary.engine.sqlite.capture import Capture, Columns
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.rules import CHANGES_OF_ROWS, CHANGES_OF_SCHEMA, PRAGMAS_OF_FUNCTIONS, violation
from apiary.engine.sqlite.values import Reader, column_readers
from apiary.runtime.errors import DatabaseError, RuleBroken
from apiary.runtime.result import NO_COLUMNS, Shape

ADDED = "apiary_key"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is known of a statement of the user.

    `sql` is what is run; the log knows it by its `term`. Of each row the function gets the first `width` columns, where
    others were added that tell which rows of tables it was made of.
    """

    sql: str
    read_only: bool
    names: frozenset[str]
    shape: Shape
    changes_schema: bool
    readers: list[tuple[int, Reader]]
    width: int | None = None
    term: int = 0


@dataclass(frozen=True, slots=True)
class Keyed:
    """A table of whose rows a select is made, where its key is in each row, and which of its columns stand where."""

    table: str
    key: Sequence[str]
    at: Sequence[int]
    columns: Mapping[int, str]


class Examiner:
    """Looks at the statements of one connection."""

    def __init__(self, connection: apsw.Connection, capture: Capture) -> None:
        self._connection = connection
        self._capture = capture
        self._violation: str | None = None
        self._changes_schema = False
        self._read: set[str] = set()
        self._written: set[str] = set()
        self._declared: list[str | None] = []

    def examine(self, sql: str) -> Statement:
        """What a statement does, which is not run; `RuleBroken` where no function may run it."""
        self._violation, self._changes_schema = None, False
        self._read, self._written = set(), set()
        self._connection.authorizer = self._authorize
        try:
            statement, rest = self._prepare(sql)
            more = rest.strip() and self._prepare(rest)[0]
        except apsw.AuthError as error:
            raise RuleBroken(self._violation or str(error)) from None
        except apsw.BindingsError:
            raise _positional() from None
        except UnicodeEncodeError as error:
            raise DatabaseError(f"the statement is no text: {error}") from None
        except apsw.Error as error:
            raise translate(error, sql) from error
        finally:
            self._connection.authorizer = None
        if statement is None:
            raise DatabaseError("the statement is empty")
        if more:
            raise DatabaseError("more than one statement at once", hint="call execute once for each")
        try:
            return self._traced(statement) if self._capture.reads else statement
        except apsw.Error as error:
            raise translate(error, sql) from error

    def _prepare(self, sql: str) -> tuple[Statement | None, str]:
        """The first statement of `sql`, not run (none, where there is only a comment), and what follows it."""
        found: Statement | None = None
        rest = ""

        def look(cursor: apsw.Cursor, text: str, bindings: object) -> bool:
            nonlocal found, rest
            rest = sql[len(text) :]
            if cursor.has_vdbe:
                columns = cursor.get_description()
                names = frozenset(name for name in cursor.bindings_names if name is not None)
                if len(names) != cursor.bindings_count or not all(map(str.isidentifier, names)):
                    raise _positional()
                shape = Shape([column[0] for column in columns]) if columns else NO_COLUMNS
                self._declared = [column[1] for column in columns]
                readers = column_readers(self._declared)
                found = Statement(sql, cursor.is_readonly, names, shape, self._changes_schema, readers)
            return False

        self._look(sql, look)
        return found, rest

    def _look(self, sql: str, look: Any) -> None:
        """Prepare a statement, and have `look` look at it instead of running it."""
        cursor = self._connection.cursor()
        cursor.exec_trace = look
        with suppress(apsw.ExecTraceAbort):
            cursor.execute(sql, _AnyNames(), can_cache=False)

    def _authorize(self, action: int, first: str | None, second: str | None, *rest: str | None) -> int:
        """Refuse what would break the transaction or the platform's own tables. Asked when a statement is prepared."""
        self._violation = self._violation or violation(action, first, second, PRAGMAS_OF_FUNCTIONS)
        self._changes_schema = self._changes_schema or action in CHANGES_OF_SCHEMA
        if action == apsw.SQLITE_READ and first is not None:
            self._read.add(first)
        elif action in CHANGES_OF_ROWS and first is not None:
            self._written.add(first)
        return apsw.SQLITE_DENY if self._violation else apsw.SQLITE_OK

    def _traced(self, statement: Statement) -> Statement:
        """The statement as it is run to be traced, and known to the log from now on."""
        tables, declared = self._capture.tables(), self._declared
        found = selection(statement.sql) if statement.read_only and statement.shape is not NO_COLUMNS else None
        traced, keyed = self._keyed(statement, found, tables) if found is not None else (statement, [])
        read = (self._read - self._written) & {columns.table for columns in tables.values()}
        if found is not None and all(source.table.lower() in tables for source in found.sources):
            read -= {each.table for each in keyed if each.table.lower() not in found.nested}
        term = {
            "sql": statement.sql,
            "columns": statement.shape.names,
            "types": declared,
            "tables": [[each.table, each.key, each.at, list(each.columns.items())] for each in keyed],
            "reads": sorted(read),
        }
        number = self._capture.terms.tell(json.dumps(term, separators=(",", ":")))
        self._capture.keys[number] = tuple(position for each in keyed for position in each.at)
        return replace(traced, term=number)

    def unknown(self, sql: str) -> int:
        """The term of a statement of which nothing else is known, because it cannot be run."""
        text = sql.encode(errors="replace").decode()
        term = {"sql": text, "columns": [], "types": [], "tables": [], "reads": []}
        return self._capture.terms.tell(json.dumps(term, separators=(",", ":")))

    def _keyed(
        self, statement: Statement, found: Selection, tables: Mapping[str, Columns]
    ) -> tuple[Statement, list[Keyed]]:
        """The statement with what is missing of the keys of its tables, where that can be added without harm."""
        sources = [(source, tables[source.table.lower()]) for source in found.sources if source.table.lower() in tables]
        simple = found.simple and len(sources) == len(found.sources)
        origins = self._origins(statement.sql) if simple else []
        width = len(statement.shape.names)
        keyed: list[Keyed] = []
        added: list[str] = []
        expected: list[str] = []
        for source, columns in sources:
            if not columns.key and "rowid" in map(str.lower, columns.names):
                continue
            alone = sum(other is columns for _, other in sources) == 1
            own = {at: name for at, (table, name) in enumerate(origins) if alone and table == columns.table and name}
            key = columns.key or ["rowid"]
            named = {name: at for at, name in own.items()}
            if not all(column in named for column in key):
                named = {column: width + len(added) + at for at, column in enumerate(key)}
                added += list(_references(source, key, width + len(added)))
                expected += [columns.table] * len(key)
            keyed.append(Keyed(columns.table, key, [named[column] for column in key], own))
        if not added:
            return statement, keyed
        sql = f"{statement.sql[: found.place]}, {', '.join(added)} {statement.sql[found.place :]}"
        if self._is_same(statement, sql, expected):
            return replace(statement, sql=sql, width=width), keyed
        return statement, []

    def _is_same(self, statement: Statement, sql: str, tables: Sequence[str]) -> bool:
        """Whether SQLite finds the same rows in the same way, and the columns that were added are of these tables."""
        try:
            origins = self._origins(sql)
            width = len(statement.shape.names)
            return [table for table, _ in origins[width:]] == tables and self._way(sql) == self._way(statement.sql)
        except apsw.SQLError:
            return False

    def _origins(self, sql: str) -> list[tuple[str | None, str | None]]:
        """The table and the column that each column of a result is of, where it is one as it is."""
        found: list[tuple[str | None, str | None]] = []

        def look(cursor: apsw.Cursor, text: str, bindings: object) -> bool:
            found.extend((column[3], column[4]) for column in cursor.description_full)
            return False

        self._look(sql, look)
        return found

    def _way(self, sql: str) -> list[str]:
        """How SQLite finds the rows. That an index has all that is read changes nothing in their order."""
        rows: Any = self._connection.execute(f"explain query plan {sql}", _AnyNames(), can_cache=False)
        return [detail.replace("COVERING INDEX", "INDEX") for _, _, _, detail in rows]


class _AnyNames(dict[str, None]):
    """Bindings for a statement that is only looked at: null, whatever the name."""

    def __missing__(self, name: str) -> None:
        return None


def _references(source: Source, key: Sequence[str], first: int) -> Iterator[str]:
    for number, column in enumerate(key, start=first):
        name = column.replace('"', '""')
        yield f'{source.alias}."{name}" as {ADDED}_{number}'


def _positional() -> DatabaseError:
    return DatabaseError("parameters are written :name", hint="write `where id = :id`, and pass id=…")
