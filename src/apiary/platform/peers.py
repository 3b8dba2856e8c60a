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

from apiary.engine.members import Awaited, Beat, Changed, Left, Members
from apiary.events import Adopted, Event
from apiary.platform.hosts import AppHosts
from apiary.platform.process import HostProcess
from apiary.platform.turns import Turns
from apiary.runtime.errors import DatabaseUnavailable, Error

log = logging.getLogger("apiary")

REGISTRY = "registry"
JOIN_SECONDS = 10.0
AGAIN_SECONDS = 0.1


class Peers:
    """This server among the others; `server` is its identity.

    `news` is set, and made anew, when there may be something to know, and about once a second. `look` is called when
    the registry may be different now, and returns when what is to be done about that has begun; `serves` says whether
    an app is among those that any server serves.
    """

    def __init__(
        self,
        members: Members,
        apps: Mapping[str, AppHosts],
        emit: Callable[[Event], None],
        turns: Turns,
        look: Callable[[], Awaitable[None]],
        serves: Callable[[str], Awaitable[bool]],
    ) -> None:
        self.server = ""
        self.alone = members.alone
        self.news = asyncio.Event()
        self._members = members
        self._apps = apps
        self._emit = emit
        self._turns = turns
        self._look = look
        self._serves = serves
        self._beat = Beat("", False, frozenset(), frozenset(), frozenset(), ())
        self._joined = asyncio.Event()
        self._started = False
        self._own: set[UUID] = set()
        self._adopting = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Future[None]] = set()
        self._closed = False

    async def join(self, description: str) -> None:
        """Become one of the servers."""
        await asyncio.to_thread(self._members.join, description, self._tell)
        if self.alone:
            self._joined.set()
        await self._joined.wait()

    async def leave(self) -> None:
        """Be none of them any more, after all hosts have ended."""
        self._closed = True
        self._turns.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._members.leave)

    async def listed(self) -> list[dict[str, Any]]:
        """The servers with their hosts."""
        return await asyncio.to_thread(self._members.listed)

    def pulse(self) -> None:
        """There may be something to know: let those look who wait for it."""
        news, self.news = self.news, asyncio.Event()
        news.set()

    async def gone(self, server: str) -> bool:
        """Whether a server can do nothing any more: it is lost, and its hosts have ended.

        One that is not known here may have joined since the last sign of life, so the database is asked.
        """
        if server == self.server != "" or server in self._beat.others or server in self._beat.leaving:
            return False
        return not await asyncio.to_thread(self._members.acts, server)

    async def add(self, host: HostProcess, app: str) -> None:
        """Make a host known that is about to open the database of its app."""
        end = self._loop.time() + JOIN_SECONDS
        identity = UUID(host.identity)
        while not (self._joined.is_set() and await self._added(identity, app, host.version)):
            if self._loop.time() > end:
                raise DatabaseUnavailable("this server was declared lost, and cannot join the others again")
            self._members.hurry()
            await asyncio.sleep(AGAIN_SECONDS)
        self._own.add(identity)
        self._background(self._follow(host, identity))

    async def acknowledge(self, deployment: str, state: str, problem: str | None = None) -> None:
        """This server has followed the deployment of another one to this state, or cannot."""
        await asyncio.to_thread(self._members.acknowledge, self.server, deployment, state, problem)

    async def awaited(self, deployment: str, state: str) -> list[Awaited]:
        """The others that have not come to this state of a deployment yet, or cannot."""
        return await asyncio.to_thread(self._members.awaited, self.server, deployment, state)

    async def conclude(self, deployment: str) -> None:
        """A deployment of this server is over."""
        await asyncio.to_thread(self._members.conclude, deployment)

    async def _added(self, identity: UUID, app: str, version: str) -> bool:
        return await asyncio.to_thread(self._members.add_host, self.server, identity, app, version)

    async def _follow(self, host: HostProcess, identity: UUID) -> None:
        """Make it known when this host has ended. Where that cannot be, others find it out when this server ends."""
        await host.wait_for_end()
        while True:
            try:
                await asyncio.to_thread(self._members.end_host, identity, served=host.served)
                return
            except Error:
                await asyncio.sleep(AGAIN_SECONDS * 10)

    def _tell(self, told: Beat | Changed) -> None:
        """From the thread that gives the signs of life."""
        if not self._closed:
            self._loop.call_soon_threadsafe(self._told, told)

    def _told(self, told: Beat | Changed) -> None:
        if self._closed:
            return
        if isinstance(told, Beat):
            self._beat, self.server, self._turns.server = told, told.server, told.server
            if told.expelled:
                self._joined.clear()
                self._background(self._join_again())
            elif not self._started:
                self._started = True
                self._joined.set()
            elif self._joined.is_set():
                self._turns.tend(told)
            if told.left and not self._adopting.locked():
                self._background(self._adopt())
        elif told.what == REGISTRY:
            self._background(self._look())
        self.pulse()

    async def _join_again(self) -> None:
        """All hosts get new identities. Before they write, this server must know what it has missed."""
        await self._look()
        for hosts in self._apps.values():
            hosts.expel()
        self._joined.set()

    async def _adopt(self) -> None:
        """Let the host of each app take over what others left; again and again, until all of it has come to its end."""
        async with self._adopting:
            left: defaultdict[str, list[Left]] = defaultdict(list)
            for each in self._beat.left:
                left[each.app].append(each)
            for app, gone in left.items():
                try:
                    if await self._taken_over(app, [each.host for each in gone]):
                        await self._forget(app, [each.host for each in gone if each.ended])
                except Error as error:
                    log.warning("what other hosts of %s left cannot be taken over yet: %s", app, error.message)

    async def _taken_over(self, app: str, dead: list[UUID]) -> bool:
        """Whether it is taken over; where a host of another server runs the queue of the app, that one does it."""
        if app not in self._apps:
            return not await self._serves(app)
        return await self._turns.of(app).adopt([str(host) for host in dead])

    async def _forget(self, app: str, dead: list[UUID]) -> None:
        if dead:
            await asyncio.to_thread(self._members.forget, dead)
            for lost in (True, False):
                hosts = tuple(str(host) for host in dead if (host not in self._own) is lost)
                if hosts:
                    self._emit(Adopted(app, hosts, lost))
            self._own.difference_update(dead)

    def _background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
