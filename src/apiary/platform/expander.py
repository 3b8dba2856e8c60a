"""Has a process beside the server take effects apart as calls come, so that questions about them need not wait.

It runs only when there is something new, at the lowest priority, and ends with the server. While many calls come it
rests most of the time, because they have better use for the processors. What it has not come to is taken apart when
somebody asks (`engine/sqlite/expanded.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

log = logging.getLogger("apiary")

REST_SECONDS = 1.0
"""Between two looks: what comes meanwhile is taken together."""
BUSY = 500.0
"""Calls a second, from which on it rests between two steps."""
REST_FOR_WORK = 9.0
"""So many times as long as it has worked."""
END_SECONDS = 5.0
ATTEMPTS = 2


class Expander:
    """The process, started when it is first needed. Without a `command` there is nothing to take apart."""

    def __init__(self, command: Sequence[str] | None) -> None:
        self._command = command
        self._waiting: dict[str, float] = {}
        self._working: tuple[str, float] | None = None
        self._calls = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None

    def tell(self, app: str) -> None:
        """A call of an app has ended."""
        self._calls += 1
        if self._command is None or app in self._waiting:
            return
        self._waiting[app] = time.monotonic()
        self._news.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(self._command))

    def lag(self, app: str) -> float:
        """For how many seconds the oldest effects of an app have waited."""
        working, since = self._working or (None, None)
        since = since if working == app else self._waiting.get(app)
        return 0.0 if since is None else time.monotonic() - since

    async def close(self) -> None:
        """End the process."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _work(self, command: Sequence[str]) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(REST_SECONDS)
            while self._waiting:
                more = [await self._step(command, app) for app in list(self._waiting)]
                if not any(more):
                    break
            self._news.clear()
            if self._waiting:
                self._news.set()

    async def _step(self, command: Sequence[str], app: str) -> bool:
        """Have some of an app taken apart, and rest if that is called for; returns whether there is more."""
        began, calls = time.monotonic(), self._calls
        self._working = app, self._waiting.pop(app)
        try:
            more = await self._take_apart(command, app)
        except OSError:
            log.exception("the process that takes effects of calls apart cannot be started")
            more = False
        if more:
            self._waiting[app] = self._working[1]
        self._working = None
        worked = time.monotonic() - began
        if more and self._calls - calls > BUSY * worked:
            await asyncio.sleep(worked * REST_FOR_WORK)
        return more

    async def _take_apart(self, command: Sequence[str], app: str) -> bool:
        """Have the process do a step; another process, where this one ends over it. Returns whether there is more."""
        for _ in range(ATTEMPTS):
            process = self._process
            if process is None:
                process = self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(ConnectionError, RuntimeError):  # uvloop raises the latter where a pipe is closed
                process.stdin.write(app.encode() + b"\n")
                if answer := await process.stdout.readline():
                    return answer == b"more\n"
            self._process = None
            log.warning("the process that takes effects of calls apart has ended (%s)", await process.wait())
        return False
