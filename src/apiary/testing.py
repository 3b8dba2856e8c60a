"""The pytest plugin: `apiary_app` opens an app on a fresh database for each test, `apiary_clock` sets its time ahead.

`replay` runs a workflow again from a recorded run.

Each step of a workflow is a run of its own there, so that a body which does not replay is found out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from apiary.embedded import OpenApp
from apiary.embedded import open as open_app
from apiary.replaying import Replayed, replay
from apiary.runtime.declaration import App

__all__ = ["Clock", "Replayed", "apiary_app", "apiary_clock", "apiary_database", "apiary_opened", "replay"]

Opener = Callable[[App | str | Path], OpenApp]
NewDatabase = Callable[[], str]


@pytest.fixture
def apiary_database(tmp_path: Path) -> NewDatabase:
    """A function that gives the URL of a new, empty database. Override it to test on PostgreSQL."""
    numbers = count()
    return lambda: f"sqlite:///{tmp_path / f'apiary-{next(numbers)}.db'}"


@pytest.fixture
def apiary_opened() -> Iterator[list[OpenApp]]:
    """The apps that a test has open. They are closed when it ends."""
    opened: list[OpenApp] = []
    yield opened
    for app in opened:
        app.close()


@pytest.fixture
def apiary_app(apiary_database: NewDatabase, apiary_opened: list[OpenApp]) -> Opener:
    """A function that opens an app (an `App`, a module's name, or a path) on a database of this test's own."""

    def opener(app: App | str | Path) -> OpenApp:
        apiary_opened.append(open_app(app, apiary_database(), always_replay=True))
        return apiary_opened[-1]

    return opener


@pytest.fixture
def apiary_clock(apiary_opened: list[OpenApp], monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the apps of this test, which can be set ahead."""
    return Clock(apiary_opened, monkeypatch)


class Clock:
    """The wall clock of this process. It goes on by itself, and can be set ahead.

    `tx.now`, `wf.now`, `wf.sleep`, `wf.receive(timeout=…)`, the time of workflows and schedules follow it, and
    `time.time()`; `datetime.now()`, the timeouts of functions and the waits between retries do not.
    """

    def __init__(self, opened: list[OpenApp], monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened = opened
        self._ahead = 0
        nanoseconds, seconds = time.time_ns, time.time
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + self._ahead)
        monkeypatch.setattr(time, "time", lambda: seconds() + self._ahead / 1e9)

    @property
    def now(self) -> datetime:
        """The time (UTC)."""
        return datetime.fromtimestamp(time.time(), UTC)

    def advance(self, **by: float) -> None:
        """Let so much time pass, without waiting for it: `advance(days=3)`, or whatever `timedelta` takes.

        What becomes due meanwhile is done at its time, one after another, and what that begins has run in the end.
        Raises `DeadlineExceeded` where something runs for longer than 30 s, like an action that waits.
        """
        until = time.time() + timedelta(**by).total_seconds()
        while (moment := self._catch_up(until)) is not None:
            self._set(moment)
        self._set(until)
        self._catch_up(until)

    def _catch_up(self, until: float) -> float | None:
        moments = [app.catch_up(until) for app in self._opened]
        return min((moment for moment in moments if moment is not None), default=None)

    def _set(self, moment: float) -> None:
        self._ahead += max(0, int((moment - time.time()) * 1e9) + 1000)
