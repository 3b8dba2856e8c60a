"""A look at a database file from outside, for `apiary doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from apiary.engine.sqlite.workflows import SQL


def sqlite_version() -> tuple[int, ...]:
    """The version of SQLite that is used here."""
    return tuple(map(int, apsw.sqlite_lib_version().split(".")))


def examine(file: Path) -> tuple[bool, str]:
    """Whether a database is sound, and what was found in it. Takes as long as reading the file."""
    try:
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        rows: Any = connection.execute(SQL["check"]).fetchall()
        (calls, queued), found = connection.execute(SQL["counts"]).fetchall()[0], rows[0][0]
        connection.close()
    except apsw.Error as error:
        return False, str(error)
    return found == "ok", f"{found}; {calls} calls recorded, {queued} waiting in the queue"
