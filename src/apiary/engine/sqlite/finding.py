"""Keeps an index of calls in the file beside the app's, so that few of many are found without reading all of them.

It follows the app's file as `expansion.py` does: what is durable, in the order of commits, and anew when the file is
another one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from apiary.engine.sqlite.expansion import file_beside
from apiary.engine.sqlite.session import BESIDE_CACHE_KIB, connect
from apiary.engine.sqlite.workflows import SQL as ENGINE
from apiary.engine.statements import load_statements

SQL = load_statements("apiary.engine.sqlite", "finding.sql")
TABLES = ("create_found", "create_called", "create_said")
CALLS_AT_ONCE = 2000
MAX_TEXT = 16_384
"""Of what went in, came out, and was said, so many characters each can be found."""


class Finding:
    """The index of one app's calls, to be brought up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = connect(str(path), read_only=True)
        self._target = connect(str(file_beside(path)), waiting=False, cache_kib=BESIDE_CACHE_KIB)
        for name in TABLES:
            self._target.execute(SQL[name]).fetchall()

    def catch_up(self) -> None:
        """Take in what is new, and durable."""
        while self.step():
            pass

    def close(self) -> None:
        """Close both files."""
        self._source.close()
        self._target.close()

    def step(self) -> bool:
        """Take some calls in; returns whether there may be more."""
        run, source = self._target.execute, self._source.execute
        run(ENGINE["begin_write"])
        try:
            kept: Any = run(SQL["found"]).fetchall()
            if kept and source(SQL["id_of"], (kept[0][0],)).get != kept[0][1]:
                run(SQL["empty"]).fetchall()
                for name in TABLES:
                    run(SQL[name]).fetchall()
                kept = []
            asked = {"seq": kept[0][0] if kept else -1, "most": MAX_TEXT, "limit": CALLS_AT_ONCE}
            rows: Any = source(SQL["calls_after"], asked).fetchall()
            if rows:
                with open(f"{self._path}-wal", "rb") as log:
                    os.fdatasync(log.fileno())
                self._target.executemany(SQL["insert_called"], [(row[0], *row[2:6]) for row in rows])
                self._target.executemany(SQL["insert_said"], [(row[0], row[6]) for row in rows])
                run(SQL["set_found"], rows[-1][:2])
        except BaseException:
            run(ENGINE["rollback"])
            raise
        run(ENGINE["commit"])
        return len(rows) == CALLS_AT_ONCE
