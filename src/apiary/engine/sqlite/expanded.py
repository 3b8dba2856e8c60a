"""The effects of calls as they are asked for: the file beside the app's, brought up to date before each question."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import apsw

from apiary.engine.places import Table
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.expansion import Expansion, file_beside
from apiary.engine.sqlite.finding import Finding
from apiary.engine.sqlite.session import connect
from apiary.engine.sqlite.workflows import SQL as ENGINE
from apiary.engine.statements import load_statements
from apiary.runtime.errors import DatabaseError, DeadlineExceeded, RuleBroken

SQL = load_statements("apiary.engine.sqlite", "views.sql")
VIEWS = ("view_calls", "view_writes", "view_reads", "view_statements", "read_only")
READING = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
OF_INDEX = ("log_calls_found", "log_calls_said", "log_first_call")
"""Questions for whose answers it need not be known what calls read and wrote."""
STEPS_BETWEEN_LOOKS = 10_000


class Expanded:
    """The views over one app's file and the file beside it."""

    def __init__(self, path: Path) -> None:
        self._expansion, self._finding = Expansion(path), Finding(path)
        self._connection = connect(str(file_beside(path)))
        self._connection.execute(SQL["attach"], (str(path),))
        for name in VIEWS:
            self._connection.execute(SQL[name])

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of the platform's own questions."""
        (self._finding if name in OF_INDEX else self._expansion).catch_up()
        cursor = self._connection.execute(SQL[name], parameters)
        return [dict(zip(map(_name, cursor.get_description()), row, strict=True)) for row in cursor]

    def sql(self, statement: str, most: int, seconds: float, parameters: Mapping[str, Any] | None = None) -> Table:
        """The rows of any statement that reads, `most` of them; `DeadlineExceeded` where it takes longer."""
        self._expansion.catch_up()
        self._connection.execute(ENGINE["begin_read"])
        until = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)
        self._connection.authorizer = _authorize
        try:
            return self._table(statement, most, parameters)
        except apsw.AuthError:
            raise RuleBroken("the log is only read, by one statement: select …") from None
        except apsw.InterruptError:
            raise DeadlineExceeded(f"the statement took longer than {seconds:g} s", hint="ask for less") from None
        except apsw.Error as error:
            raise translate(error, statement) from error
        finally:
            self._connection.authorizer = None
            self._connection.set_progress_handler(None)
            self._connection.execute(ENGINE["commit"])

    def _table(self, statement: str, most: int, parameters: Mapping[str, Any] | None) -> Table:
        if "\0" in statement:
            raise DatabaseError("the statement has a NUL character")
        columns: tuple[str, ...] | None = None

        def note(cursor: apsw.Cursor, text: str, bindings: object) -> bool:
            nonlocal columns
            if columns is not None:
                raise DatabaseError("more than one statement at once")
            columns = tuple(map(_name, cursor.get_description())) if cursor.has_vdbe else None
            return True

        cursor = self._connection.cursor()
        cursor.exec_trace = note
        rows: list[tuple[Any, ...]] = []
        for row in cursor.execute(statement, parameters):
            if len(rows) == most:
                return Table(columns or (), rows, more=True)
            rows.append(tuple(map(_shown, row)))
        if columns is None:
            raise DatabaseError("the statement is empty")
        return Table(columns, rows, more=False)

    def close(self) -> None:
        """Close all files."""
        self._connection.close()
        self._expansion.close()
        self._finding.close()


def _name(column: tuple[Any, ...]) -> str:
    return str(column[0])


def _shown(value: Any) -> Any:
    """A value as JSON can hold it: a blob in hexadecimal, an infinite number by name."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _authorize(action: int, *what: str | None) -> int:
    return apsw.SQLITE_OK if action in READING else apsw.SQLITE_DENY
