"""The log of one file, read beside the engine that writes it; and copies of the file while it is in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.session import SQL, connect

BACKUP_PAGES_A_STEP = 512


class SqliteLog:
    """Reads what is durable: it has the disk take what it read before it tells."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = connect(str(path), read_only=True)
        except apsw.Error as error:
            raise translate(error) from error
        self._file = os.open(f"{path}-wal", os.O_RDONLY)

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            with self._lock:
                cursor = self._connection.cursor()
                cursor.row_trace = _as_dict
                rows: Any = cursor.execute(SQL[name], parameters).fetchall()
            os.fdatasync(self._file)
        except (apsw.Error, OSError) as error:
            raise translate(error) from error
        return list(rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        os.close(self._file)


def backup(source: Path, target: Path) -> None:
    """Copy a database, consistent, while it is in use: one snapshot is held until all of it is copied."""
    try:
        read, write = connect(str(source), read_only=True), apsw.Connection(str(target))
    except apsw.Error as error:
        raise translate(error) from error
    try:
        read.execute(SQL["begin_read"])
        read.execute(SQL["load_schema"]).fetchall()
        with write.backup("main", read, "main") as copying:
            while not copying.done:
                copying.step(BACKUP_PAGES_A_STEP)
    except apsw.Error as error:
        raise translate(error) from error
    finally:
        read.close()
        write.close()


def _as_dict(cursor: apsw.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.get_description(), row, strict=True)}
