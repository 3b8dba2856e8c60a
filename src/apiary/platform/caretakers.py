"""Hosts of versions that serve no more, for the workflows that began on them and have not ended.

One is started when such a workflow is due, and ends when there is nothing left to do for a while: a workflow that waits
is a row in a table, and no process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

from apiary.platform.messages import Idle, News
from apiary.platform.process import HostProcess
from apiary.runtime.errors import Error

log = logging.getLogger("apiary")

AGAIN_SECONDS = (1.0, 30.0)


class Caretakers:
    """The caretakers of one app, by version; `load` starts a host, `blocked` names versions that need none.

    `heard` is told what they say of others; `left` is awaited when one has ended that had nothing to do.
    """

    def __init__(
        self,
        app: str,
        load: Callable[[str], Awaitable[HostProcess]],
        heard: Callable[[HostProcess, News], None],
        blocked: Callable[[], Collection[str]],
        left: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._load = load
        self._told = heard
        self._blocked = blocked
        self._left = left
        self._hosts: dict[str, HostProcess] = {}
        self._starting: set[str] = set()
        self._leaving: set[str] = set()
        self._failed: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def hosts(self) -> list[HostProcess]:
        """Those that run now."""
        return list(self._hosts.values())

    @property
    def versions(self) -> set[str]:
        """The versions whose workflows are looked after here; also by those that are starting, or ending."""
        return {*self._hosts, *self._starting, *self._leaving}

    def want(self, versions: Collection[str]) -> None:
        """Workflows of these versions are due."""
        for version in versions:
            host = self._hosts.get(version)
            self._background(self._start(version) if host is None else self._look(host))

    async def end(self, version: str) -> None:
        """End the caretaker of a version, which serves again or is not wanted any more."""
        async with self._changing:
            host = self._hosts.pop(version, None)
            if host is not None:
                self._leaving.add(version)
        if host is not None:
            await host.stop()
            self._leaving.discard(version)

    async def close(self) -> None:
        """End all of them; no other is started."""
        self._closed = True
        await self.end_all()

    async def end_all(self) -> None:
        """End those that run."""
        await asyncio.gather(*(self.end(version) for version in list(self._hosts)))

    async def _look(self, host: HostProcess) -> None:
        with suppress(Error):  # it is gone, and another one will find them
            await host.ask("look")

    async def _start(self, version: str) -> None:
        async with self._changing:
            if self._closed or version in self.versions or version in self._blocked():
                return
            self._starting.add(version)
            try:
                host = await self._load(version)
                if host.pending:
                    log.warning("workflows of %s on version %s wait for migrations", self._app, version)
                host.on_news = partial(self._heard, host)
                self._hosts[version] = host
                host.watch_end(self._ended)
                await host.ask("run_queue", except_for=[], deaths={}, others=None)
                self._failed.pop(version, None)
            except Error as error:
                log.error("workflows of %s wait, because version %s does not start: %s", self._app, version, error)
                self._hosts.pop(version, None)
                self._background(self._again(version))
            finally:
                self._starting.discard(version)

    def _heard(self, host: HostProcess, news: News) -> None:
        if isinstance(news, Idle):
            self._background(self._idle(host.version))
        else:
            self._told(host, news)

    async def _idle(self, version: str) -> None:
        await self.end(version)
        await self._left()  # something may have come between

    def _ended(self, host: HostProcess) -> None:
        """A caretaker is gone. One that was not told to end is started again."""
        if self._hosts.get(host.version) is host:
            del self._hosts[host.version]
            self._background(self._again(host.version))

    async def _again(self, version: str) -> None:
        failed = self._failed[version] = self._failed.get(version, 0) + 1
        least, most = AGAIN_SECONDS
        await asyncio.sleep(min(most, least * 2 ** (failed - 1)))
        await self._start(version)

    def _background(self, work: Awaitable[None]) -> None:
        if self._closed:
            with suppress(AttributeError):
                work.close()  # type: ignore[attr-defined]
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
