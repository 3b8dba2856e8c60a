"""The pytest plugin: `apiary_app` opens an app on a fresh database for each test, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apiary.embedded import OpenApp
from apiary.embedded import open as open_app
from apiary.runtime.declaration import App

Opener = Callable[[App | str | Path], OpenApp]


@pytest.fixture
def apiary_app(tmp_path: Path) -> Iterator[Opener]:
    """A function that opens an app (an `App`, a module's name, or a path) on a database of this test's own."""
    opened: list[OpenApp] = []

    def opener(app: App | str | Path) -> OpenApp:
        database = tmp_path / f"apiary-{len(opened)}.db"
        opened.append(open_app(app, f"sqlite:///{database}"))
        return opened[-1]

    yield opener
    for app in opened:
        app.close()
