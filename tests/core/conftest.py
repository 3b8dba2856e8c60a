"""What the tests of the core share: apps with tables of their own, on each engine that there is."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import apiary
from apiary import App, OpenApp
from apiary.engine.dispatch import Dispatcher
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome

ENGINES = ["sqlite"]
WAIT_SECONDS = 20.0

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


class Platform:
    """What the platform does with an open app, below `call`: ids, keys, roles and query strings of its choice."""

    def __init__(self, opened: OpenApp) -> None:
        self.dispatcher: Dispatcher = opened._dispatcher

    def submit(self, function: str, arguments: str | bytes = b"{}", **options: Any) -> "Pending":
        body = arguments.encode() if isinstance(arguments, str) else arguments
        roles = frozenset(options.pop("roles", {"admin"}))
        call = Call(options.pop("id", None) or new_id(), function, body, "tester", roles, **options)
        pending = Pending(call)
        self.dispatcher.submit(call, pending.reply)
        return pending

    def run(self, function: str, arguments: str | bytes = b"{}", **options: Any) -> Outcome:
        return self.submit(function, arguments, **options).outcome()


class Pending:
    """A call that was submitted."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._arrived = threading.Event()
        self._outcome: Outcome | None = None

    def reply(self, call: Call, outcome: Outcome) -> None:
        assert self._outcome is None, "answered twice"
        self._outcome = outcome
        self._arrived.set()

    def outcome(self) -> Outcome:
        assert self._arrived.wait(WAIT_SECONDS), f"{self.call.function} was not answered"
        assert self._outcome is not None
        return self._outcome


@pytest.fixture
def platform() -> Callable[[OpenApp], Platform]:
    """A function that gives the platform's way into an open app."""
    return Platform


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """Run a function once for each item, all in threads of their own at the same time; results in order."""

    def run(function: Callable[[Any], Any], items: Any) -> list[Any]:
        given = list(items)
        barrier = threading.Barrier(len(given))

        def one(item: Any) -> Any:
            barrier.wait(WAIT_SECONDS)
            try:
                return function(item)
            except apiary.Error as error:
                return error

        with ThreadPoolExecutor(len(given)) as pool:
            return list(pool.map(one, given, timeout=WAIT_SECONDS))

    return run


@pytest.fixture
def promptly() -> Callable[[Callable[[], Any]], Any]:
    """Run something that must not hang, in a thread; raises what it raises."""

    def run(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(WAIT_SECONDS)

    return run
