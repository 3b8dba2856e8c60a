"""The examples run on each database that there is, unchanged."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import new_postgres_database, postgres, private_postgres

__all__ = ["new_postgres_database", "postgres", "private_postgres"]


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
