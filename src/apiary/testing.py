"""The pytest plugin: `apiary_app` opens an app on a fresh database for each test, in milliseconds.

Each step of a workflow is a run of its own there, so that a body which does not replay is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from apiary.embedded import OpenApp
from apiary.embedded import open as open_app
from apiary.runtime.declaration import App

Opener = Callable[[App | str | Path], OpenApp]
NewDatabase = Callable[[], str]


@pytest.fixture
def apiary_database(tmp_path: Path) -> NewDatabase:
    """A function that gives the URL of a new, empty database. Override it to test on PostgreSQL."""
    numbers = count()
    return lambda: f"sqlite:///{tmp_path / f'apiary-{next(numbers)}.db'}"


@pytest.fixture
def apiary_app(apiary_database: NewDatabase) -> Iterator[Opener]:
    """A function that opens an app (an `App`, a module's name, or a path) on a database of this test's own."""
    opened: list[OpenApp] = []

    def opener(app: App | str | Path) -> OpenApp:
        opened.append(open_app(app, apiary_database(), always_replay=True))
        return opened[-1]

    yield opener
    for app in opened:
        app.close()
