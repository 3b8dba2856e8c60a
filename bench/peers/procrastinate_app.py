"""The program and the worker's app of `peers/procrastinate.py`: a job that does the step of bench/apps/flow.

As its documentation has it: tasks are coroutines, run by `procrastinate worker`; the program opens the app for
synchronous use and defers jobs. Jobs have no results there: who wants to know asks for the job's status, here every
2 ms, and reads what the job has written. Runs in Procrastinate's environment.
"""

import asyncio
import os
import random
import re
import time
from functools import cache
from typing import Any

import procrastinate
import psycopg
from procrastinate.jobs import Status
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from bench.data_set import statements
from bench.library import serve

DSN = os.environ["BENCH_DSN"]
SIZE = int(os.environ["BENCH_POOL_SIZE"])
DEADLINE_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.001
BACKOFF_LAST_SECONDS = 0.05
POLL_SECONDS = 0.002

sql = statements("flow")
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DSN))
pools: list[AsyncConnectionPool] = []


@cache
def spelled(text: str) -> str:
    """The text with `%(name)s` for `:name`."""
    return re.sub(r"(?<!:):(\w+)", r"%(\1)s", text)


async def serializable(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)


async def pool() -> AsyncConnectionPool:
    if not pools:
        opened = AsyncConnectionPool(DSN, min_size=SIZE, max_size=SIZE, configure=serializable, open=False)
        pools.append(opened)
        await opened.open()
    return pools[0]


@app.task(name="step")
async def step(item: int, account: int, number: int, steps: int) -> int:
    """One transaction, again with jittered backoff when it conflicts with another."""
    deadline, backoff = time.monotonic() + DEADLINE_SECONDS, BACKOFF_FIRST_SECONDS
    while True:
        try:
            async with (await pool()).connection() as connection:
                cursor = await connection.execute(spelled(sql.COST), {"item": item})
                (cost,) = await cursor.fetchone() or (0,)
                await connection.execute(spelled(sql.SPEND), {"account": account, "cost": cost})
                entry = {"account": account, "item": item, "cost": cost, "number": number, "steps": steps}
                await connection.execute(spelled(sql.ADD_ENTRY), entry)
                return int(cost)
        except (SerializationFailure, DeadlockDetected):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(random.uniform(0, backoff))
        backoff = min(2 * backoff, BACKOFF_LAST_SECONDS)


def main() -> None:
    """Serve the harness."""
    with app.open(), ConnectionPool(DSN, min_size=SIZE, max_size=SIZE, open=True) as connections:

        def ask(text: str, /, **parameters: Any) -> Any:
            with connections.connection() as connection:
                row = connection.execute(spelled(text), parameters).fetchone()
            return None if row is None else row[0]

        def enqueue(function: str, arguments: dict[str, Any]) -> Any:
            if function != "one":
                return call(function, arguments)
            job = step.defer(**arguments, number=1, steps=1)
            while (status := app.job_manager.get_job_status(job)) != Status.SUCCEEDED:
                if status in (Status.FAILED, Status.ABORTED):
                    raise RuntimeError(f"job {job} {status.value}")
                time.sleep(POLL_SECONDS)
            return ask(sql.COST, item=arguments["item"])

        def call(function: str, arguments: dict[str, Any]) -> Any:
            return int(ask({"effects": sql.EFFECTS, "violations": sql.VIOLATIONS}[function]))

        serve(call, enqueue)


if __name__ == "__main__":
    main()
