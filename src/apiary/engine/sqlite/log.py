"""The log of one file, read beside the engine that writes it; and copies of the file while it is in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw

from apiary.engine.places import Change, Table
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.expanded import SQL as OF_EFFECTS
from apiary.engine.sqlite.expanded import Expanded
from apiary.engine.sqlite.session import connect
from apiary.engine.sqlite.workflows import SQL
from apiary.engine.statements import load_statements

BACKUP_PAGES_A_STEP = 512
FILTERS = ("function", "status", "caller", "since", "until")
QUESTIONS = load_statements("apiary.engine.sqlite", "log.sql")


class SqliteLog:
    """Reads what is durable: it has the disk take what it read before it tells. Opened when it is first asked."""

    knows_effects = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._changing: apsw.Connection | None = None
        self._expanded: Expanded | None = None

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            with self._lock:
                if name == "log_calls":
                    rows = self._calls(parameters)
                else:
                    rows = (
                        self._effects().ask(name, parameters) if name in OF_EFFECTS else self._plain(name, parameters)
                    )
            _wait_for_disk(self._path)
        except (apsw.Error, OSError) as error:
            raise translate(error) from error
        return rows

    def _calls(self, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Few calls among many are found by an index; where there is no room for that, all of them are looked at."""
        if parameters["words"] is not None:
            return self._effects().ask("log_calls_said", parameters)
        if all(parameters[name] is None for name in FILTERS):
            return self._plain("log_calls", parameters)
        try:
            return self._effects().ask("log_calls_found", parameters)
        except (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError):
            return self._plain("log_calls", parameters)

    def _plain(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._connection is None:
            self._connection = connect(str(self._path), read_only=True)
        cursor = self._connection.cursor()
        cursor.row_trace = _as_dict
        rows: Any = cursor.execute(QUESTIONS[name], parameters).fetchall()
        return list(rows)

    def change(self, changes: Sequence[Change]) -> list[int]:
        try:
            with self._lock:
                if self._changing is None:
                    self._changing = connect(str(self._path))
                run = self._changing.execute
                run(SQL["begin_write"])
                try:
                    counts = []
                    for name, given in changes:
                        run(QUESTIONS[name], given).fetchall()
                        counts.append(self._changing.changes())
                    run(SQL["commit"])
                except BaseException:
                    run(SQL["rollback"])
                    raise
        except apsw.Error as error:
            raise translate(error) from error
        return counts

    def sql(self, statement: str, most: int, seconds: float, parameters: Mapping[str, Any] | None = None) -> Table:
        try:
            with self._lock:
                return self._effects().sql(statement, most, seconds, parameters)
        except (apsw.Error, OSError) as error:
            raise translate(error, statement) from error

    def _effects(self) -> Expanded:
        if self._expanded is None:
            self._expanded = Expanded(self._path)
        return self._expanded

    def close(self) -> None:
        """Close the files."""
        if self._connection is not None:
            self._connection.close()
        if self._changing is not None:
            self._changing.close()
        if self._expanded is not None:
            self._expanded.close()


def backup(source: Path, target: Path) -> None:
    """Copy a database while it is in use: one snapshot is held until all of it is copied, and all of it is durable."""
    try:
        read, write = connect(str(source), read_only=True), apsw.Connection(str(target))
    except apsw.Error as error:
        raise translate(error) from error
    try:
        read.execute(SQL["begin_read"])
        read.execute(SQL["load_schema"]).fetchall()
        _wait_for_disk(source)
        with write.backup("main", read, "main") as copying:
            while not copying.done:
                copying.step(BACKUP_PAGES_A_STEP)
    except (apsw.Error, OSError) as error:
        raise translate(error) from error
    finally:
        read.close()
        write.close()


def _wait_for_disk(file: Path) -> None:
    with open(f"{file}-wal", "rb") as log:
        os.fdatasync(log.fileno())


def _as_dict(cursor: apsw.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.get_description(), row, strict=True)}
