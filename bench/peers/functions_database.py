"""The pool of connections of `functions_app.py`, and transactions on it, run again when they conflict.

The statements are those of bench/apps, their parameters spelled as psycopg wants them.
"""

import os
import random
import re
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

DEADLINE_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.001
BACKOFF_LAST_SECONDS = 0.05
PARAMETER = re.compile(r"(?<!:):(\w+)")

Row = dict[str, Any]


def serializable(connection: psycopg.Connection[Row]) -> None:
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE


SIZE = int(os.environ["BENCH_POOL_SIZE"])
POOL = ConnectionPool(
    os.environ["BENCH_DSN"],
    min_size=SIZE,
    max_size=SIZE,
    kwargs={"row_factory": dict_row},
    configure=serializable,
    open=True,
)


class Unavailable(Exception):
    """Conflicts went on for too long."""


class Transaction:
    """What a function sees of its transaction."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection

    def run(self, text: str, /, **parameters: Any) -> psycopg.Cursor[Row]:
        return self.connection.execute(spelled(text), parameters)

    def rows(self, text: str, /, **parameters: Any) -> list[Row]:
        return self.run(text, **parameters).fetchall()

    def row(self, text: str, /, **parameters: Any) -> Row | None:
        return self.run(text, **parameters).fetchone()

    def one(self, text: str, /, **parameters: Any) -> Row:
        row = self.row(text, **parameters)
        assert row is not None
        return row

    def value(self, text: str, /, **parameters: Any) -> Any:
        row = self.row(text, **parameters)
        return None if row is None else next(iter(row.values()))


@cache
def spelled(text: str) -> str:
    """The text with `%(name)s` for `:name`."""
    return PARAMETER.sub(r"%(\1)s", text.replace("%", "%%"))


def transact(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Run the function in a serializable transaction, again with jittered backoff when it conflicts with another."""
    deadline, backoff = time.monotonic() + DEADLINE_SECONDS, BACKOFF_FIRST_SECONDS
    while True:
        try:
            with POOL.connection() as connection:
                return function(Transaction(connection), **arguments)
        except (SerializationFailure, DeadlockDetected):
            if time.monotonic() > deadline:
                raise Unavailable from None
        time.sleep(random.uniform(0, backoff))
        backoff = min(2 * backoff, BACKOFF_LAST_SECONDS)
