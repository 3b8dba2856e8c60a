"""The apps of a platform as schemas of one database of PostgreSQL, each with a role of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from apiary.config import Capturing
from apiary.engine.places import Source
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.engine.postgres.log import PostgresLog
from apiary.engine.postgres.members import PostgresMembers
from apiary.engine.postgres.publish import functions_of
from apiary.runtime.errors import WrongArguments
from apiary.runtime.result import Convert


class PostgresPlaces:
    """One database."""

    one_writer = False
    expander: Sequence[str] | None = None

    def __init__(self, url: str) -> None:
        self._url = url
        self._installer = Installer(url)
        where = "inside the database" if self._installer.placement.inside else "beside the database"
        self.description = f"data in {self._installer.description}; functions run {where}"

    def registry(self, convert_rows: Convert) -> PostgresEngine:
        return PostgresEngine(self._installer.registry(), convert_rows, writers=1, readers=1)

    def make(self, app: str, source: Source, host: UUID | None = None) -> dict[str, Any]:
        target = self._installer.app(app)
        program = None
        if self._installer.placement.inside:
            program = self._installer.program(app, target.log, source, host)
        return {
            "kind": "postgresql",
            "conninfo": target.conninfo,
            "schema": target.schema,
            "log": target.log,
            "program": program,
            "why_beside": None if program else self._installer.placement.reason,
        }

    def publish(self, place: Mapping[str, Any], manifest: Mapping[str, Any], *, recording: bool) -> list[str]:
        program = place["program"]
        functions = functions_of(manifest, program, recording=recording) if program is not None else []
        return self._installer.publish(manifest["app"], functions)

    def members(self, lease_seconds: float) -> PostgresMembers:
        return PostgresMembers(self._installer, self._url, lease_seconds)

    def log(self, app: str) -> PostgresLog:
        return PostgresLog(self._installer, self._installer.log_of(app))

    def backup(self, app: str | None, target: Path) -> None:
        raise WrongArguments(
            "a platform on PostgreSQL is backed up with the tools of PostgreSQL",
            hint="pg_dump, pg_basebackup or a continuous archive; see docs/production.md",
        )

    def close(self) -> None:
        self._installer.close()


def open_places(url: str, folder: Path) -> PostgresPlaces:
    """The database that the URL names."""
    return PostgresPlaces(url)


def open_engine(
    place: Mapping[str, Any],
    convert_rows: Convert,
    *,
    recording: bool,
    capturing: Capturing = Capturing.BOTH,
    host: UUID | None = None,
    expelled: Callable[[], None] = lambda: None,
) -> PostgresEngine:
    """The engine of one app, reached as its role. It captures no effects."""
    target = Target(**{name: place[name] for name in place if name != "kind"})
    return PostgresEngine(target, convert_rows, recording=recording, host=host, expelled=expelled)


def open_here(url: str, app: str, convert_rows: Convert, capturing: Capturing) -> tuple[PostgresEngine, PostgresLog]:
    """The engine and the log of an app whose functions run in this process."""
    installer = Installer(url)
    return PostgresEngine(installer.app(app), convert_rows), PostgresLog(installer, installer.log_of(app))
