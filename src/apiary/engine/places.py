"""Where the apps of a platform live, by the URL of its database: files of SQLite, or schemas of one PostgreSQL.

The server prepares a place for each app and asks its log; what `Places.make` returns goes to the host, which opens
the engine there. An engine is imported when a URL names it, because its driver is heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from apiary.config import POSTGRESQL, Capturing, always_replay
from apiary.engine.members import Members
from apiary.engine.protocol import Engine
from apiary.runtime.result import Convert

MODULES = {"sqlite": "apiary.engine.sqlite.places", "postgresql": "apiary.engine.postgres.places"}


@dataclass(frozen=True, slots=True)
class Source:
    """A version of an app, for engines that run it themselves: `folders` are its import path."""

    module: str
    version: str
    folders: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What a statement found. `more`: there were more rows than were asked for."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    more: bool


Change = tuple[str, Mapping[str, Any]]
"""One of the platform's own statements, by its name, and its parameters."""


class Log(Protocol):
    """The log of one app, to be read. `knows_effects`: also what calls read and wrote."""

    knows_effects: bool

    def close(self) -> None:
        """Give back what it holds."""

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of the platform's own questions, by the name of its statement."""

    def change(self, changes: Sequence[Change]) -> list[int]:
        """Run the platform's own statements in one transaction; how many rows each has changed."""

    def sql(self, statement: str, most: int, seconds: float, parameters: Mapping[str, Any] | None = None) -> Table:
        """The rows of any statement that reads, over the views `calls`, `reads` and `writes`; `most` of them.

        `DeadlineExceeded` where it takes longer, `RuleBroken` where it does anything else.
        """


class Places(Protocol):
    """Where the apps of one platform live. `description` says it to people.

    `one_writer`: of the processes that have the database of an app open, one can write at a time.
    `expander`: the command of a process that takes effects of calls apart; none, where there is nothing to do so with.
    It reads names of apps, a line each, and answers each with a line: `more`, where there is more. It ends with its
    input.
    """

    description: str
    one_writer: bool
    expander: Sequence[str] | None

    def registry(self, convert_rows: Convert) -> Engine:
        """The database of the platform's own records."""

    def make(self, app: str, source: Source, host: UUID | None = None) -> dict[str, Any]:
        """Make room for an app and this version of it; returns, in JSON's types, what `open_engine` needs.

        `host`: the identity of the process that is about to open it, known to the members already.
        """

    def publish(self, place: Mapping[str, Any], manifest: Mapping[str, Any], *, recording: bool) -> list[str]:
        """The version that was given this place serves from now on: let other clients of the database call it.

        Returns what people should know of it.
        """

    def members(self, lease_seconds: float) -> Members:
        """The servers that share these places. A lease lasts for so long after the last sign of life."""

    def log(self, app: str) -> Log:
        """The log of an app that has a place."""

    def backup(self, app: str | None, target: Path) -> None:
        """Copy the database of an app (or the registry's), consistent, while it is in use."""

    def close(self) -> None:
        """Close all connections."""


def open_places(url: str | None, folder: Path) -> Places:
    """The places that a server's `--database` names. `folder` is for files of this machine."""
    places: Places = _of(url).open_places(url, folder)
    return places


def open_engine(
    place: Mapping[str, Any],
    convert_rows: Convert,
    *,
    recording: bool,
    capturing: Capturing = Capturing.BOTH,
    host: UUID | None = None,
    expelled: Callable[[], None] = lambda: None,
) -> Engine:
    """The engine of an app at a place that was made for it.

    `host`: the identity of this process; `expelled` is called, from any thread, when it was declared lost.
    """
    module = _module(place["kind"])
    engine: Engine = module.open_engine(
        place, convert_rows, recording=recording, capturing=capturing, host=host, expelled=expelled
    )
    return replaying(engine) if always_replay() else engine


def open_here(
    url: str | None, app: str, convert_rows: Convert, capturing: Capturing = Capturing.BOTH
) -> tuple[Engine, Log]:
    """The engine and the log of an app that runs in this process alone."""
    opened: tuple[Engine, Log] = _of(url).open_here(url, app, convert_rows, capturing)
    if always_replay():
        replaying(opened[0])
    return opened


def replaying(engine: Engine) -> Engine:
    """An engine, not used yet, on which each step of a workflow is a run of its own."""
    engine.most_steps = 1
    return engine


def _of(url: str | None) -> Any:
    return _module("postgresql" if url is not None and url.startswith(POSTGRESQL) else "sqlite")


def _module(kind: str) -> Any:
    return import_module(MODULES[kind])
