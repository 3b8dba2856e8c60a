"""Supervision of one app: which host serves it, what happens when that dies, and how a new version takes over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from apiary.events import Activated, Event, HostDied, Migrating
from apiary.platform.admission import Admission
from apiary.platform.caretakers import Caretakers
from apiary.platform.flights import InFlight, acted_for, gone
from apiary.platform.held import Held
from apiary.platform.messages import Answer, Dropped, Invoke, Left, News, Ran, Spent, Wanted
from apiary.platform.migrating import after_death
from apiary.platform.news import event_of
from apiary.platform.process import HostProcess
from apiary.platform.survivors import Survivors
from apiary.platform.turns import Turn
from apiary.runtime.errors import Error
from apiary.runtime.ids import id_text

log = logging.getLogger("apiary")

RESTART_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
STABLE_SECONDS = 1.0


class AppHosts:
    """The hosts of one app: one that serves, and those of older versions that finish what they began.

    While a new one migrates, the one that serves is held: it answers queries, and gives back the calls that write.
    These wait here, and are sent to whichever of the two serves afterwards. `one_writer`: the database lets one process
    write at a time, so each host is held before another one takes its place.
    """

    def __init__(
        self,
        app: str,
        load: Callable[[str, str], Awaitable[HostProcess]],
        turn: Turn,
        publish: Callable[[HostProcess], Awaitable[None]],
        emit: Callable[[Event], None],
        max_waiting: int,
        *,
        one_writer: bool,
    ) -> None:
        self.app = app
        self.version: str | None = None
        self.active: HostProcess | None = None
        self.draining: set[HostProcess] = set()
        self.caretakers = Caretakers(app, self.load, self._heard, self._cared_for, self._take_up)
        self.migrating: HostProcess | None = None
        self._load = load
        self._turn = turn
        turn.ending, turn.others = lambda: self.draining, self._looked_after
        self._publish = publish
        self._emit = emit
        self._admission = Admission(app, max_waiting)
        self._one_writer = one_writer
        self._waiting: list[InFlight] = []
        self.held = Held()
        self._survivors = Survivors(self._send)
        self._changing = asyncio.Lock()
        self._failures = 0
        self._restarting = False
        self._last_start = 0.0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the version that serves."""
        return self.active.manifest if self.active else {}

    @property
    def waiting(self) -> int:
        """How many calls no host has at the moment."""
        return len(self._waiting) + len(self.held)

    def call(self, message: Invoke, within: float | None = None) -> asyncio.Future[Answer]:
        """Send a call to the host that serves; the future has its answer. `Overloaded` when too many wait.

        `within`: as `InFlight` has it.
        """
        flights = self.active.in_flight.values() if self.active else ()
        self._admission.check(message, flights, self.waiting, self.manifest)
        flight = InFlight(message, asyncio.get_running_loop().create_future(), within=within)
        self._send(flight)
        return flight.answer

    async def load(self, version: str) -> HostProcess:
        """Start a host for a version, beside the one that serves; raises what it refuses with."""
        return await self._load(self.app, version)

    async def start(self, version: str) -> HostProcess:
        """Start a host for the version that serves, where there is none; raises what it refuses with."""
        host = await self.load(version)
        try:
            await host.ask("rewrite")
            if host.pending:
                await host.migrate()
        except Error:
            await host.stop()
            raise
        return host

    async def take_over(self, host: HostProcess, activate: Callable[[HostProcess], Awaitable[None]]) -> tuple[str, ...]:
        """Let a host that was loaded migrate and, after `activate`, serve; returns the migrations that it applied.

        Where that fails, the version before serves on. `MigrationUnknown` where the migrations may have been applied.
        """
        try:
            if host.pending:
                await self.hold()
                host = await self._migrated(host)
            await activate(host)
        except BaseException:
            await self.resume()
            await host.stop()
            raise
        await self.switch(host)
        return host.migrated

    async def switch(self, host: HostProcess) -> None:
        """Let `host` serve from now on. The host before it finishes what is in flight, then ends.

        Once begun it is done, whether or not anybody still waits for it: a hold must not stay.
        """
        await asyncio.shield(self._background(self._switch(host)))

    async def _switch(self, host: HostProcess) -> None:
        async with self._changing:
            await self._change(host)

    async def _change(self, host: HostProcess) -> None:
        if self._one_writer and not self.held and self.active is not None:
            await self._hold()
        if self.held:
            await self.held.excuse(host)
        await self.caretakers.end(host.version)
        old = self._serve(host)
        self._send_all(self.held.end())
        if old is not None:
            self.draining.add(old)
            with suppress(Error):
                if old.held:
                    await old.release("retire")
        with suppress(Error):  # it is gone, and whoever takes its place runs the queue
            await self._turn.run(host)
        if old is not None:
            self._background(self._drain(old, old.patience + host.patience))
        await self._publish(host)
        self._emit(Activated(self.app, host.version, host.migrated))

    async def _relieve(self, spent: HostProcess) -> None:
        """Let another host serve in the place of one without memory, as after a deploy of the same version.

        Unless something else is about to replace it.
        """
        if spent is not self.active or self._closed:
            return
        log.warning("functions of %s have used up the memory of their process; another one takes its place", self.app)
        try:
            host = await self.load(spent.version)
        except Error as error:
            log.error("%s stays in a process without memory, because no other starts: %s", self.app, error.message)
            return
        async with self._changing:
            wanted = spent is self.active and not self.held and not self._closed
            if wanted:
                await self._change(host)
        if not wanted:
            await host.stop()

    def keep_trying(self, version: str) -> None:
        """Start a version in the background, again and again until it works."""
        self.version = version
        self._restart()

    async def close(self) -> None:
        """Let all hosts finish, and end them."""
        self._closed = True
        self._survivors.close()
        if self.migrating is not None:
            self.migrating.kill("the server is stopping")
        hosts = [*self.draining, *([self.active] if self.active else [])]
        await asyncio.gather(self.caretakers.close(), *(host.forsake() for host in hosts))
        await asyncio.gather(*(host.stop() for host in hosts))
        self._survivors.refuse()
        for flight in [*self._waiting, *self.held.end()]:
            flight.fail(gone("the server is stopping"))

    def kill(self) -> None:
        """End all hosts at once."""
        self._closed = True
        self._survivors.close()
        for host in [*self.caretakers.hosts, *self.draining, *([self.active] if self.active else [])]:
            host.kill("the server was told to end at once")

    def expel(self) -> None:
        """End all hosts, and let new ones take their place: they must not go on under the identity that they have."""
        for host in (self.active, self.migrating, *self.draining, *self.caretakers.hosts):
            if host is not None:
                host.expel()

    def _send(self, flight: InFlight) -> None:
        """Send a call to the host that serves, after one with its key that acts in a host which serves no more."""
        for old in self.draining:
            if first := acted_for(flight, old.in_flight.values(), old.manifest.get("functions", {})):
                first.answer.add_done_callback(lambda _: self._send_all([flight]))
                return
        deliver = self._waiting.append if self.active is None else self.active.send
        deliver(flight)

    def _serve(self, host: HostProcess) -> HostProcess | None:
        """Send calls to this host from now on; returns the one before it."""
        host.served = True
        host.on_news, host.on_returned = partial(self._heard, host), self._returned
        old, self.active, self.version = self.active, host, host.version
        self._last_start = time.monotonic()
        host.watch_end(self._ended)
        self._waiting, waiting = [], self._waiting
        self._send_all(waiting)
        return old

    def _send_all(self, flights: list[InFlight]) -> None:
        for flight in flights:
            if self._closed:
                flight.fail(gone("the server is stopping"))
            elif not flight.answer.done():
                self._send(flight)

    def _cared_for(self) -> set[str]:
        """The versions whose workflows a host looks after that serves, or has served."""
        return {host.version for host in (*self.draining, *([self.active] if self.active else []))}

    def _looked_after(self) -> set[str]:
        """The versions whose workflows hosts look after that do not serve."""
        return {*self.caretakers.versions, *(host.version for host in self.draining)}

    def _heard(self, host: HostProcess, news: News) -> None:
        """What a host says unasked."""
        if isinstance(news, Ran | Dropped):
            self._emit(event_of(self.app, news))
        elif isinstance(news, Wanted):
            self.caretakers.want(news.versions)
        elif isinstance(news, Left):
            self._background(self._turn.look())
        elif isinstance(news, Spent):
            self._background(self._relieve(host))

    def _returned(self, flight: InFlight) -> None:
        """A host may not run this call: another one does, after the hold if there is one."""
        if self.held:
            self.held.keep(flight)
        else:
            self._send_all([flight])

    async def hold(self) -> None:
        """Let nothing be written from now on; returns when that is so, and hosts before the last have ended."""
        await asyncio.gather(*(old.wait_for_end() for old in self.draining))
        async with self._changing:
            await self._turn.leave()
            await self.caretakers.end_all()
            await self._hold()

    async def _hold(self) -> None:
        self.held.begin()
        if self.active is not None:
            with suppress(Error):  # it is gone, and whoever takes its place is held too
                await self.active.hold()

    async def resume(self) -> None:
        """End the hold, if there is one, without a new host."""
        async with self._changing:
            if not self.held:
                return
            if self.active is not None:
                with suppress(Error):  # it is gone, and will be replaced
                    await self.active.release("resume")
                    await self.held.excuse(self.active)
                    await self._turn.run(self.active)
            self._send_all(self.held.end())

    async def _migrated(self, host: HostProcess) -> HostProcess:
        """Let a host migrate; returns it, or another one like it where it died after it had migrated."""
        self.migrating = host
        self._emit(Migrating(self.app, host.version, host.pending))
        try:
            await host.migrate()
        except Error:
            if not host.ended:
                raise
            return await after_death(host, None if self._closed else self.load)
        except BaseException:
            host.kill("the deploy was given up")
            raise
        finally:
            self.migrating = None
        return host

    async def _drain(self, old: HostProcess, within: float) -> None:
        await old.stop(within)
        self.draining.discard(old)
        await self._take_up()

    async def _take_up(self) -> None:
        """Let the host that serves go on with what others have left that are gone."""
        if self.active is not None and not self.held and not self._closed:
            with suppress(Error):
                await self._turn.run(self.active)

    def _ended(self, host: HostProcess) -> None:
        """A process is gone: settle the calls that were in flight there, and replace it if it served."""
        late, suspects = host.late(), host.suspects()
        flights, host.in_flight = list(host.in_flight.values()), {}
        ran = () if host.blameless else host.running()
        lost = {running.call for running in ran} - {flight.message.id for flight in flights}
        for call in lost & late if late else lost:
            self._turn.deaths[id_text(call)] = (host.reason, suspects == {call})
        if suspects:
            self._failures = 0  # whatever it was, it is counted by the call
        if host is self.active and not self._closed:
            self.active = None
            self._emit(HostDied(self.app, host.version, host.pid, host.reason, len(flights)))
            self._restart()
        for flight in flights:
            self._survivors.settle(flight, suspects, host)

    def _restart(self) -> None:
        """Replace the host that served, unless that is being done already."""
        if not self._restarting:
            self._restarting = True
            self._background(self._start_again())

    async def _start_again(self) -> None:
        """Start the version that serves until it works, at once at first, then less and less often.

        A host that could be started is replaced within a second, however often that happens.
        """
        if time.monotonic() - self._last_start > STABLE_SECONDS:
            self._failures = 0
        try:
            while not self._closed and self.active is None:
                await asyncio.sleep(RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)])
                self._failures += 1
                try:
                    host = await self.start(str(self.version))
                except Exception as error:  # noqa: BLE001 - whatever it was (no memory, no processes), it may pass
                    await self._turn.give_up()
                    for flight in () if self.held else self._waiting:
                        flight.fail(gone(f"the app {self.app} cannot be started: {error}"))
                    self._waiting = [flight for flight in self._waiting if not flight.answer.done()]
                    continue
                self._failures = min(self._failures, RESTART_SECONDS.index(0.5))
                with suppress(Error):
                    await self._take_place(host)
        finally:
            self._restarting = False

    async def _take_place(self, host: HostProcess) -> None:
        """Serve with a host that was started again, unless a deploy was faster; held, as the one before it was."""
        async with self._changing:
            if free := self.active is None and not self._closed and host.version == self.version:
                if self.held:
                    await host.hold()
                self._serve(host)
                await self._publish(host)
                if not self.held:
                    await self._turn.run(host)
        if free:
            self._emit(Activated(self.app, host.version, host.migrated))
        else:
            await host.stop()

    def _background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
