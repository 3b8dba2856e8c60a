"""Has a process beside the server take effects apart as calls come, so that questions about them need not wait.

It runs only when there is something new, at the lowest priority, and ends with the server. What it has not come to is
taken apart when somebody asks (`engine/sqlite/expanded.py`).
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
END_SECONDS = 5.0
ATTEMPTS = 2


class Expander:
    """The process, started when it is first needed. Without a `command` there is nothing to take apart."""

    def __init__(self, command: Sequence[str] | None) -> None:
        self._command = command
        self._told: dict[str, float] = {}
        self._working: dict[str, float] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None

    def tell(self, app: str) -> None:
        """There is something new of an app."""
        if self._command is None or app in self._told:
            return
        self._told[app] = time.monotonic()
        self._news.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(self._command))

    def lag(self, app: str) -> float:
        """For how many seconds the oldest effects of an app have waited."""
        since = self._working.get(app) or self._told.get(app)
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
            self._news.clear()
            self._working, self._told = self._told, {}
            for app in list(self._working):
                await self._catch_up(command, app)
                del self._working[app]

    async def _catch_up(self, command: Sequence[str], app: str) -> None:
        """Have it done; by another process, where this one ends over it."""
        for _ in range(ATTEMPTS):
            process = self._process
            if process is None:
                process = self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(ConnectionError, RuntimeError):  # uvloop raises the latter where a pipe is closed
                process.stdin.write(app.encode() + b"\n")
                if await process.stdout.readline():
                    return
            self._process = None
            log.warning("the process that takes effects of calls apart has ended (%s)", await process.wait())
