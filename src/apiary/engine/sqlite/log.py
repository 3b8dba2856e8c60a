"""The log of one file, read beside the engine that writes it; and copies of the file while it is in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.session import connect
from apiary.engine.sqlite.workflows import SQL
from apiary.engine.statements import load_statements

BACKUP_PAGES_A_STEP = 512
QUESTIONS = load_statements("apiary.engine.sqlite", "log.sql")


class SqliteLog:
    """Reads what is durable: it has the disk take what it read before it tells. Opened when it is first asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = connect(str(self._path), read_only=True)
                cursor = self._connection.cursor()
                cursor.row_trace = _as_dict
                rows: Any = cursor.execute(QUESTIONS[name], parameters).fetchall()
            _wait_for_disk(self._path)
        except (apsw.Error, OSError) as error:
            raise translate(error) from error
        return list(rows)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()


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
