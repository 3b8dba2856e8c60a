"""Who runs the queue of an app: one host at a time, of one server at a time.

A server has the turn until it acts no more, or no host of the app starts there; then another one takes it. What hosts
of other servers have put into the queue the one that runs it is told by them (`engine/postgres/listen.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import suppress

from apiary.engine.members import Beat, Members
from apiary.platform.process import HostProcess
from apiary.runtime.errors import Error

Claim = Callable[[str], Awaitable[bool]]
Release = Callable[[str], Awaitable[None]]


class Turn:
    """The queue of one app, and the host of this server that runs it, or will when it is this server's turn.

    `deaths` says which calls of the queue were lost with a host, by what, and whether nothing else ran beside them.
    `ending` are hosts that end what they began and run the queue no more, `others` the versions whose workflows have
    hosts of their own.
    """

    def __init__(self, app: str, claim: Claim, release: Release) -> None:
        self.app = app
        self.deaths: dict[str, tuple[str, bool]] = {}
        self.ending: Callable[[], Collection[HostProcess]] = tuple
        self.others: Callable[[], Collection[str]] = tuple
        self._claim = claim
        self._release = release
        self._wanted: HostProcess | None = None
        self._runs: HostProcess | None = None
        self._busy: dict[HostProcess, list[str]] = {}
        self._changing = asyncio.Lock()

    @property
    def waits(self) -> bool:
        """Whether there is a host that would run the queue."""
        return self._wanted is not None and not self._wanted.ended and self._runs is not self._wanted

    async def run(self, host: HostProcess) -> None:
        """Let a host run the queue, as soon as it is this server's turn, but for what those that end are busy with."""
        async with self._changing:
            self._wanted = host
            await self._begin()

    async def leave(self) -> None:
        """No host runs the queue from now on: the one that did is held."""
        async with self._changing:
            self._wanted = self._runs = None

    async def take(self) -> None:
        """Let the host that waits run the queue, if it is this server's turn by now."""
        async with self._changing:
            if self.waits:
                await self._begin()

    async def give_up(self) -> None:
        """No host starts: another server's may run the queue."""
        with suppress(Error):  # it is tried again when the next attempt has failed
            async with self._changing:
                await self._release(self.app)

    async def adopt(self, dead: Sequence[str]) -> bool:
        """Whether the host that runs the queue has taken over what hosts have left that are gone."""
        return self._runs is not None and bool(await self._runs.ask("adopt", dead=dead))

    async def running(self) -> dict[str, int] | None:
        """How many calls of each queue run, where a host of this server runs the queue and says so."""
        with suppress(Error):
            if self._runs is not None:
                found: dict[str, int] = await self._runs.ask("running")
                return found
        return None

    async def look(self) -> None:
        """Let the host that runs the queue look into it: another one has left something there."""
        with suppress(Error):  # whoever takes its place looks
            if self._runs is not None:
                await self._runs.ask("look")

    async def _begin(self) -> None:
        await self._ask_ending()
        host = self._wanted
        if host is None or not await self._claim(self.app):
            return
        deaths, self.deaths = self.deaths, {}
        busy = [call for calls in self._busy.values() for call in calls]
        await host.ask("run_queue", except_for=busy, deaths=deaths, others=list(self.others()))
        self._runs = host

    async def _ask_ending(self) -> None:
        """Let hosts leave the queue that end, and remember what each is busy with: it is told to stop soon after."""
        ending = list(self.ending())
        self._busy = {host: calls for host, calls in self._busy.items() if host in ending}
        for host in ending:
            if host not in self._busy:
                try:
                    self._busy[host] = await host.ask("leave_queue")
                except Error:
                    self._busy[host] = []  # it is gone


class Turns:
    """The queues of all apps of this server, whose identity is `server`."""

    def __init__(self, members: Members) -> None:
        self.server = ""
        self._members = members
        self._turns: dict[str, Turn] = {}
        self._tending: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, app: str) -> Turn:
        """The queue of an app."""
        return self._turns.setdefault(app, Turn(app, self._claim, self._release))

    def tend(self, beat: Beat) -> None:
        """After a sign of life: take the queues that nobody runs."""
        for app, turn in self._turns.items():
            if turn.waits and app not in beat.taken | self._tending:
                self._begin(app, turn.take())

    def close(self) -> None:
        """Take no queue any more."""
        for task in self._tasks:
            task.cancel()

    async def _claim(self, app: str) -> bool:
        return await asyncio.to_thread(self._members.claim_queue, self.server, app)

    async def _release(self, app: str) -> None:
        await asyncio.to_thread(self._members.release_queue, self.server, app)

    def _begin(self, app: str, work: Coroutine[None, None, None]) -> None:
        async def tend() -> None:
            with suppress(Error):  # at the next sign of life it is tried again
                await work

        self._tending.add(app)
        task = asyncio.get_running_loop().create_task(tend())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._tending.discard(app))
