"""The pool of connections of `fastapi_app.py`, and transactions on it that are run again when they conflict.

Writes and reads of several statements run in serializable transactions and are run again after a serialization
failure; a read of one statement needs no explicit transaction (the session's default isolation is serializable), but
may have to be run again, too.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI, HTTPException

RETRY_AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
DEADLINE_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.001
BACKOFF_LAST_SECONDS = 0.05

_pools: list[asyncpg.Pool] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the pool open while the app serves."""
    size = int(os.environ["BENCH_POOL_SIZE"])
    async with asyncpg.create_pool(
        os.environ["BENCH_DSN"],
        min_size=size,
        max_size=size,
        server_settings={"default_transaction_isolation": "serializable"},
    ) as opened:
        _pools.append(opened)
        yield


def pool() -> asyncpg.Pool:
    """The pool of this process."""
    return _pools[-1]


async def transact(work: Callable[[asyncpg.Connection], Awaitable[Any]], readonly: bool = False) -> Any:
    """Run the work in a serializable transaction, again with jittered backoff when it conflicts with another."""

    async def attempt() -> Any:
        async with (
            pool().acquire() as connection,
            connection.transaction(isolation="serializable", readonly=readonly),
        ):
            return await work(connection)

    return await _again(attempt)


async def read(work: Callable[[asyncpg.Pool], Awaitable[Any]]) -> Any:
    """Run one statement that reads, again when it conflicts; by itself it is a serializable transaction."""
    return await _again(lambda: work(pool()))


async def _again(attempt: Callable[[], Awaitable[Any]]) -> Any:
    deadline, backoff = time.monotonic() + DEADLINE_SECONDS, BACKOFF_FIRST_SECONDS
    while True:
        try:
            return await attempt()
        except RETRY_AGAIN:
            if time.monotonic() > deadline:
                raise HTTPException(503, "too many conflicts") from None
        await asyncio.sleep(random.uniform(0, backoff))
        backoff = min(2 * backoff, BACKOFF_LAST_SECONDS)
