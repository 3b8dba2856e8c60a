"""The examples run on each database that there is, unchanged. What they did on SQLite is run again from the log."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import new_postgres_database, postgres, private_postgres

from apiary import OpenApp
from apiary.testing import replay

__all__ = ["new_postgres_database", "postgres", "private_postgres"]

SECRET = "*" * 10


@pytest.fixture(params=["sqlite", "postgresql"])
def apiary_database(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    new_postgres_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[Callable[[], str]]:
    """A function that gives the URL of a new, empty database."""
    numbers = count()
    with ExitStack() as databases:
        if request.param == "sqlite":
            yield lambda: f"sqlite:///{tmp_path / f'app-{next(numbers)}.db'}"
        else:
            yield lambda: databases.enter_context(new_postgres_database())


@pytest.fixture(autouse=True)
def run_again(apiary_opened: list[OpenApp]) -> Iterator[None]:
    """After each test, every call that it made, but those with secrets, comes from its record to the same."""
    yield
    for opened in apiary_opened:
        if opened.engine.dialect != "sqlite":
            continue
        for call in opened.log.calls(limit=1000):
            if call["kind"] in ("query", "transaction") and call["status"] != "stopped":
                recording = opened.log.recording(call["id"])
                if SECRET in recording["input"]:
                    continue
                replayed = replay(opened.app, recording)
                assert not replayed.difference, f"{call['function']}: {replayed.difference}"
