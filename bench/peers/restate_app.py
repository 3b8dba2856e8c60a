"""The service of `peers/restate.py`: bench/apps/flow as handlers of Restate that write to PostgreSQL.

Each transaction is a step that the server journals (`ctx.run_typed`), as its documentation has databases used. Runs in
the environment of Restate's SDK.
"""

import asyncio
import os
import random
import re
import time
from typing import Any, TypedDict

import asyncpg
import restate

from bench.data_set import statements
from bench.workloads.flow import STEPS, nth

CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
DEADLINE_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.001
BACKOFF_LAST_SECONDS = 0.05

flow = restate.Service("flow")
pools: list[asyncpg.Pool] = []
opening = asyncio.Lock()


class Request(TypedDict):
    """What a workflow is called with."""

    item: int
    account: int


def spelled(text: str) -> tuple[str, list[str]]:
    """The text with `$1` … for `:name` …, and the names in their order."""
    names = list(dict.fromkeys(re.findall(r"(?<!:):(\w+)", text)))
    return re.sub(r"(?<!:):(\w+)", lambda found: f"${names.index(found[1]) + 1}", text), names


sql = statements("flow")
COST, SPEND, ADD_ENTRY = spelled(sql.COST), spelled(sql.SPEND), spelled(sql.ADD_ENTRY)


def given(statement: tuple[str, list[str]], **values: int) -> list[Any]:
    """The arguments of asyncpg for a statement."""
    text, names = statement
    return [text, *(values[name] for name in names)]


async def pool() -> asyncpg.Pool:
    async with opening:
        if not pools:
            size = int(os.environ["BENCH_POOL_SIZE"])
            settings = {"default_transaction_isolation": "serializable"}
            pools.append(
                await asyncpg.create_pool(
                    os.environ["BENCH_DSN"], min_size=size, max_size=size, server_settings=settings
                )
            )
    return pools[0]


async def step(item: int, account: int, number: int, steps: int) -> int:
    """One transaction, again with jittered backoff when it conflicts with another."""
    deadline, backoff = time.monotonic() + DEADLINE_SECONDS, BACKOFF_FIRST_SECONDS
    while True:
        try:
            async with (await pool()).acquire() as connection, connection.transaction(isolation="serializable"):
                cost: int = await connection.fetchval(*given(COST, item=item))
                await connection.execute(*given(SPEND, account=account, cost=cost))
                entry = {"account": account, "item": item, "cost": cost, "number": number, "steps": steps}
                await connection.execute(*given(ADD_ENTRY, **entry))
                return cost
        except CONFLICTS:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(random.uniform(0, backoff))
        backoff = min(2 * backoff, BACKOFF_LAST_SECONDS)


@flow.handler()
async def one(ctx: restate.Context, request: Request) -> int:
    return await ctx.run_typed("step", step, item=request["item"], account=request["account"], number=1, steps=1)


@flow.handler()
async def five(ctx: restate.Context, request: Request) -> int:
    total = 0
    for number in range(1, STEPS + 1):
        keys = {"item": nth(request["item"], number), "account": nth(request["account"], number)}
        total += await ctx.run_typed(f"step {number}", step, **keys, number=number, steps=STEPS)
    return total


@flow.handler()
async def effects(ctx: restate.Context, request: dict[str, Any]) -> int:
    return int(await (await pool()).fetchval(sql.EFFECTS))


@flow.handler()
async def violations(ctx: restate.Context, request: dict[str, Any]) -> int:
    return int(await (await pool()).fetchval(sql.VIOLATIONS))


app = restate.app(services=[flow])
