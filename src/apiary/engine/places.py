"""Where the apps of a platform live, by the URL of its database: files of SQLite, or schemas of one PostgreSQL.

The server prepares a place for each app and asks its log; what `Places.make` returns goes to the host, which opens
the engine there. An engine is imported when a URL names it, because its driver is heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from apiary.config import POSTGRESQL, always_replay
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


class Log(Protocol):
    """The log of one app, to be read."""

    def close(self) -> None:
        """Give back what it holds."""

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of the platform's own questions, by the name of its statement."""


class Places(Protocol):
    """Where the apps of one platform live. `description` says it to people."""

    description: str

    def registry(self, convert_rows: Convert) -> Engine:
        """The database of the platform's own records."""

    def make(self, app: str, source: Source) -> dict[str, Any]:
        """Make room for an app and this version of it; returns, in JSON's types, what `open_engine` needs."""

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
    host: UUID | None = None,
    expelled: Callable[[], None] = lambda: None,
) -> Engine:
    """The engine of an app at a place that was made for it.

    `host`: the identity of this process; `expelled` is called, from any thread, when it was declared lost.
    """
    module = _module(place["kind"])
    engine: Engine = module.open_engine(place, convert_rows, recording=recording, host=host, expelled=expelled)
    return replaying(engine) if always_replay() else engine


def open_here(url: str | None, app: str, convert_rows: Convert) -> tuple[Engine, Log]:
    """The engine and the log of an app that runs in this process alone."""
    opened: tuple[Engine, Log] = _of(url).open_here(url, app, convert_rows)
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
