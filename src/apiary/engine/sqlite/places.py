"""The apps of a platform as files of SQLite in one folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from apiary.config import Capturing, database_folder, database_path
from apiary.engine.members import Alone
from apiary.engine.places import Source
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.engine.sqlite.log import SqliteLog, backup
from apiary.runtime.result import Convert

REGISTRY_FILE = "_platform.db"


class SqlitePlaces:
    """A folder with one file for each app, and one for the registry."""

    one_writer = True

    def __init__(self, folder: Path) -> None:
        self.description = f"data in {folder}/"
        self._folder = folder.resolve()
        self.expander: Sequence[str] | None = (sys.executable, "-m", "apiary.engine.sqlite.expander", str(self._folder))
        self._logs: dict[str, SqliteLog] = {}

    def registry(self, convert_rows: Convert) -> SqliteEngine:
        return SqliteEngine(self._folder / REGISTRY_FILE, convert_rows, capturing=Capturing.OFF)

    def make(self, app: str, source: Source, host: UUID | None = None) -> dict[str, Any]:
        return {"kind": "sqlite", "path": str(self._file(app))}

    def publish(self, place: Mapping[str, Any], manifest: Mapping[str, Any], *, recording: bool) -> list[str]:
        return []

    def members(self, lease_seconds: float) -> Alone:
        return Alone()

    def log(self, app: str) -> SqliteLog:
        if app not in self._logs:
            self._logs[app] = SqliteLog(self._file(app))
        return self._logs[app]

    def backup(self, app: str | None, target: Path) -> None:
        backup(self._folder / REGISTRY_FILE if app is None else self._file(app), target)

    def close(self) -> None:
        for log in self._logs.values():
            log.close()

    def _file(self, app: str) -> Path:
        return self._folder / f"{app}.db"


def open_places(url: str | None, folder: Path) -> SqlitePlaces:
    """The folder that the URL names, which is also the server's own."""
    return SqlitePlaces(folder)


def open_engine(
    place: Mapping[str, Any],
    convert_rows: Convert,
    *,
    recording: bool,
    capturing: Capturing = Capturing.BOTH,
    host: UUID | None = None,
    expelled: Callable[[], None] = lambda: None,
) -> SqliteEngine:
    """The engine of one file, of which one server is the owner: its hosts count until it ends."""
    return SqliteEngine(Path(place["path"]), convert_rows, recording=recording, capturing=capturing)


def open_here(url: str | None, app: str, convert_rows: Convert, capturing: Capturing) -> tuple[SqliteEngine, SqliteLog]:
    """The engine and the log of the file that the URL names; by default one below the current folder."""
    path = database_path(url, app) if url else database_folder(None) / f"{app}.db"
    return SqliteEngine(path, convert_rows, capturing=capturing), SqliteLog(path)
