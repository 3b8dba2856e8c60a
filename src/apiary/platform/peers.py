"""The other servers on the same database, for the event loop of this one: who is lost, what is to be taken over.

Its own hosts are made known here before they open the database, and reported when they end. On a database that has one
owner there is nobody else, and nothing happens here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from apiary.engine.members import Beat, Changed, Left, Members
from apiary.events import Adopted, Event
from apiary.platform.hosts import AppHosts
from apiary.platform.process import HostProcess
from apiary.runtime.errors import DatabaseUnavailable, Error

log = logging.getLogger("apiary")

JOIN_SECONDS = 10.0
AGAIN_SECONDS = 0.1


class Peers:
    """This server among the others.

    `ask` calls a function of the registry; `changed` is called when what all share may be different now.
    """

    def __init__(
        self,
        members: Members,
        apps: Mapping[str, AppHosts],
        emit: Callable[[Event], None],
        ask: Callable[..., Awaitable[Any]],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self.others = 0
        self._members = members
        self._apps = apps
        self._emit = emit
        self._ask = ask
        self._changed = changed
        self._left: dict[UUID, Left] = {}
        self._adopting = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def join(self, description: str) -> None:
        """Become one of the servers."""
        await asyncio.to_thread(self._members.join, description, self._tell)

    async def leave(self) -> None:
        """Be none of them any more, after all hosts have ended."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._members.leave)

    async def listed(self) -> list[dict[str, Any]]:
        """The servers with their hosts."""
        return await asyncio.to_thread(self._members.listed)

    async def add(self, host: HostProcess, app: str) -> None:
        """Make a host known that is about to open the database of its app."""
        end = self._loop.time() + JOIN_SECONDS
        identity = UUID(host.identity)
        while not await asyncio.to_thread(self._members.add_host, identity, app, host.version):
            if self._loop.time() > end:
                raise DatabaseUnavailable("this server was declared lost, and cannot join the others again")
            self._members.hurry()
            await asyncio.sleep(AGAIN_SECONDS)
        self._background(self._follow(host, identity))

    async def _follow(self, host: HostProcess, identity: UUID) -> None:
        """Make it known when this host has ended. Where that cannot be, others find it out when this server ends."""
        await host.wait_for_end()
        while True:
            try:
                await asyncio.to_thread(self._members.end_host, identity, served=host.served)
                return
            except Error:
                await asyncio.sleep(AGAIN_SECONDS * 10)

    def _tell(self, news: Beat | Changed) -> None:
        """From the thread that gives the signs of life."""
        if not self._closed:
            self._loop.call_soon_threadsafe(self._told, news)

    def _told(self, news: Beat | Changed) -> None:
        if self._closed:
            return
        if isinstance(news, Changed):
            self._background(self._changed())
            return
        self.others = news.others
        self._left = {left.host: left for left in news.left}
        if news.expelled:
            for hosts in self._apps.values():
                hosts.expel()
        if self._left and not self._adopting.locked():
            self._background(self._adopt())

    async def _adopt(self) -> None:
        """Let the host of each app take over what others left; again and again, until all of it has come to its end."""
        async with self._adopting:
            left: defaultdict[str, list[Left]] = defaultdict(list)
            for each in self._left.values():
                left[each.app].append(each)
            for app, hosts in left.items():
                dead = [each.host for each in hosts]
                try:
                    if not await self._taken_over(app, dead):
                        continue
                    over = [each.host for each in hosts if each.ended]
                    if over:
                        await asyncio.to_thread(self._members.forget, over)
                        self._emit(Adopted(app, tuple(map(str, over))))
                except Error as error:
                    log.warning("what the hosts %s of %s left is not taken over yet: %s", dead, app, error.message)

    async def _taken_over(self, app: str, dead: list[UUID]) -> bool:
        """Whether somebody has taken it over: nobody can, as long as no host serves the app here."""
        hosts = self._apps.get(app)
        if hosts is None:
            return app not in await self._ask("active_versions")  # it never served
        if hosts.active is None:
            return False
        await hosts.active.ask("adopt", dead=[str(host) for host in dead])
        return True

    def _background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
