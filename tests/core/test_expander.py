"""Who has effects taken apart: step by step, with rests while many calls come, and by another process when one ends."""

import asyncio
import sys
import time

import pytest

from apiary.platform import expander
from apiary.platform.expander import Expander

STEP_SECONDS = 0.05
PROCESS = """
import sys, time
steps = 0
for app in sys.stdin:
    time.sleep({seconds})
    steps += 1
    if steps > {lives}:
        sys.exit(1)
    print("more" if steps % {steps} else "", flush=True)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(expander, "REST_SECONDS", 0.0)


def process(steps: int, lives: int = 1000) -> tuple[str, ...]:
    """A process that has so many steps to do, and ends after some."""
    return sys.executable, "-c", PROCESS.format(seconds=STEP_SECONDS, steps=steps, lives=lives)


async def done(made: Expander, app: str, calls_a_second: int) -> float:
    """Seconds until all is taken apart, while so many calls come."""
    began = time.monotonic()
    made.tell(app)
    while made.lag(app):
        assert time.monotonic() - began < 30
        await asyncio.sleep(0.01)
        made._calls += calls_a_second // 100
    return time.monotonic() - began


def test_it_rests_while_many_calls_come():
    async def both() -> tuple[float, float]:
        made = Expander(process(steps=4))
        try:
            return await done(made, "quiet", 0), await done(made, "busy", 10_000)
        finally:
            await made.close()

    quiet, busy = asyncio.run(both())
    assert busy > 3 * STEP_SECONDS * (1 + expander.REST_FOR_WORK)
    assert quiet < busy


def test_another_process_goes_on_where_one_ends(caplog):
    async def ends() -> None:
        made = Expander(process(steps=1, lives=1))
        try:
            for _ in range(2):
                await done(made, "app", 0)
        finally:
            await made.close()

    asyncio.run(ends())
    assert caplog.text.count("has ended (1)") == 1


def test_a_process_that_cannot_be_started_is_told_of_and_tried_again(caplog):
    async def missing() -> None:
        made = Expander(("/nowhere/python",))
        try:
            for _ in range(2):
                await done(made, "app", 0)
        finally:
            await made.close()

    asyncio.run(missing())
    assert caplog.text.count("cannot be started") == 2


def test_nothing_is_done_where_there_is_no_process():
    made = Expander(None)
    made.tell("app")
    assert made.lag("app") == 0.0
    asyncio.run(made.close())
