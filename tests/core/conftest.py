"""What the tests of the core share: apps with tables of their own, on each engine that there is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import apiary
from apiary import App, OpenApp

ENGINES = ["sqlite"]

MakeApp = Callable[..., App]
OpenEngine = Callable[..., OpenApp]


@pytest.fixture
def make_app(tmp_path: Path) -> MakeApp:
    """A function that makes an app whose only migration is the SQL that it is given."""
    made = 0

    def make(sql: str = "", name: str = "core") -> App:
        nonlocal made
        made += 1
        folder = tmp_path / f"migrations-{made}"
        folder.mkdir()
        if sql:
            (folder / "001-tables.sql").write_text(sql)
        return App(name, migrations=folder)

    return make


@pytest.fixture(params=ENGINES)
def engine_app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenEngine]:
    """A function that opens an app on one engine; the same `name` is the same database. Closed after the test."""
    opened: list[OpenApp] = []

    def open_on_engine(app: App, name: str = "database") -> OpenApp:
        assert request.param == "sqlite"
        opened.append(apiary.open(app, f"sqlite:///{tmp_path / name}.db"))
        return opened[-1]

    yield open_on_engine
    for app in opened:
        app.close()
