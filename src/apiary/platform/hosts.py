"""Supervision of one app: which host serves it, what happens when that dies, and how a new version takes over."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from apiary.engine.protocol import MAX_DEATHS
from apiary.events import Activated, CallEnded, Event, HostDied
from apiary.platform.messages import Answer, Ask, Invoke, Ran, Start
from apiary.platform.process import HostProcess, InFlight, gone
from apiary.runtime.errors import DeadlineExceeded, Error, HostCrashed, Overloaded, from_problem
from apiary.runtime.ids import id_text

log = logging.getLogger("apiary")

MAX_SHARED_DEATHS = 6
"""Where other calls ran beside it each time, any of which can have been the reason."""
MAX_ATTEMPTS = 10
RESTART_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
STABLE_SECONDS = 1.0


class AppHosts:
    """The hosts of one app: one that serves, and those of older versions that finish what they began."""

    def __init__(
        self,
        app: str,
        prepare: Callable[[str], Awaitable[Start]],
        emit: Callable[[Event], None],
        max_waiting: int,
    ) -> None:
        self.app = app
        self.version: str | None = None
        self.active: HostProcess | None = None
        self.draining: set[HostProcess] = set()
        self._prepare = prepare
        self._emit = emit
        self._max_waiting = max_waiting
        self._waiting: list[InFlight] = []
        self._suspects: list[InFlight] = []
        self._deaths: dict[str, tuple[str, bool]] = {}
        self._changing = asyncio.Lock()
        self._failures = 0
        self._last_start = 0.0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the version that serves."""
        return self.active.manifest if self.active else {}

    def call(self, message: Invoke) -> asyncio.Future[Answer]:
        """Send a call to the host that serves; the future has its answer. `Overloaded` when too many wait."""
        active = self.active
        if len(self._waiting) + (len(active.in_flight) if active else 0) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} calls of {self.app} are waiting already; send it again later")
        flight = InFlight(message, asyncio.get_running_loop().create_future())
        self._send(flight)
        return flight.answer

    async def ask(self, question: str, **arguments: Any) -> Any:
        """Ask the host that serves."""
        if self.active is None:
            raise gone(f"the app {self.app} has no running host at the moment")
        return await self.active.ask(question, **arguments)

    async def start(self, version: str) -> HostProcess:
        """Start a host for a version, beside the one that serves; raises what it refuses with."""
        host = HostProcess(version)
        await host.start(await self._prepare(version))
        return host

    async def switch(self, host: HostProcess) -> None:
        """Let `host` serve from now on. The host before it finishes what is in flight, then ends."""
        async with self._changing:
            host.on_ran = self._ran
            old, self.active, self.version = self.active, host, host.version
            self._last_start = time.monotonic()
            host.watch_end(self._ended)
            self._release()
            if old is None:
                await self._run_queue(host)
            else:
                self.draining.add(old)
                await self._hand_over(old, host)
                self._background(self._drain(old))
        self._emit(Activated(self.app, host.version, host.migrated))

    def keep_trying(self, version: str) -> None:
        """Start a version in the background, again and again until it works."""
        self._background(self._restart(version))

    async def close(self) -> None:
        """Let all hosts finish, and end them."""
        self._closed = True
        hosts = [*self.draining, *([self.active] if self.active else [])]
        await asyncio.gather(*(host.stop() for host in hosts))
        for flight in [*self._waiting, *self._suspects]:
            _fail(flight, gone("the server is stopping"))

    def kill(self) -> None:
        """End all hosts at once."""
        self._closed = True
        for host in [*self.draining, *([self.active] if self.active else [])]:
            host.kill("the server was told to end at once")

    def _send(self, flight: InFlight) -> None:
        if self.active is None:
            self._waiting.append(flight)
        else:
            self.active.send(flight)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for flight in waiting:
            if not flight.answer.cancelled():
                self._send(flight)

    async def _hand_over(self, old: HostProcess, new: HostProcess) -> None:
        """The old host runs no more of the queue; the new one runs all but what the old one is still busy with."""
        try:
            busy = await old.ask("leave_queue")
        except Error:
            busy = []
        await self._run_queue(new, busy)

    async def _run_queue(self, host: HostProcess, except_for: Sequence[str] = ()) -> None:
        """Let a host run the queue; it records, too, which calls of the queue were lost with a host before."""
        deaths, self._deaths = self._deaths, {}
        await host.ask("run_queue", except_for=except_for, deaths=deaths)

    async def _drain(self, old: HostProcess) -> None:
        await old.stop()
        self.draining.discard(old)
        if self.active is not None and not self._closed:
            with suppress(Error):
                await self._run_queue(self.active)

    def _ran(self, message: Ran) -> None:
        problem = json.loads(message.error) if message.error else None
        if problem is not None and isinstance(from_problem(problem), HostCrashed):
            log.error("the queued call %s of %s is given up: %s", id_text(message.id), self.app, problem["detail"])
        self._emit(CallEnded(self.app, message.function, message.id, message.duration, problem, queued=True))

    def _ended(self, host: HostProcess) -> None:
        """A process is gone: settle the calls that were in flight there, and replace it if it served."""
        late, suspects = host.late(), host.suspects()
        flights, host.in_flight = list(host.in_flight.values()), {}
        lost = {running.call for running in host.running()} - {flight.message.id for flight in flights}
        for call in lost & late if late else lost:
            self._deaths[id_text(call)] = (host.reason, suspects == {call})
        if suspects:
            self._failures = 0  # whatever it was, it is counted by the call
        if host is self.active and not self._closed:
            self.active = None
            self._emit(HostDied(self.app, host.version, host.pid, host.reason, len(flights)))
            self._background(self._restart(host.version))
        for flight in flights:
            self._settle(flight, suspects, host)

    def _settle(self, flight: InFlight, suspects: set[bytes], host: HostProcess) -> None:
        """A call without an answer is sent again, under its id: if it had committed, its record answers.

        Only a call that the dead host was just running, or owed an answer for too long, counts the death. One whose
        function was running beyond its deadline was the reason, and has not committed.
        """
        message = flight.message
        if flight.answer.done():
            return
        if isinstance(message, Ask) or self._closed:
            _fail(flight, gone("the host of the app went away"))
            return
        if any(running.call == message.id and time.monotonic() > running.deadline for running in host.running()):
            problem = DeadlineExceeded(f"{message.function} did not end in time; its process was ended")
            _fail(flight, problem)
            return
        flight.crashes += message.id in suspects
        most = MAX_DEATHS if suspects == {message.id} else MAX_SHARED_DEATHS
        if flight.crashes >= most or message.attempt >= MAX_ATTEMPTS:
            crashed = HostCrashed(
                f"the host died {message.attempt} times with {message.function}; the last time {host.reason}",
                hint="look at the log for whether it took effect; with an idempotency key it can be sent again",
            )
            _fail(flight, crashed)
            return
        message.attempt += 1
        if flight.crashes >= MAX_DEATHS - 1 and flight not in self._suspects:
            self._suspects.append(flight)
            flight.answer.add_done_callback(lambda _: self._cleared(flight))
        if flight not in self._suspects or flight is self._suspects[0]:
            self._send(flight)

    def _cleared(self, flight: InFlight) -> None:
        """A call on its last attempt is done. One at a time has it, so that none is blamed for what another does."""
        self._suspects.remove(flight)
        if self._suspects and not self._closed:
            self._send(self._suspects[0])

    async def _restart(self, version: str) -> None:
        """Start the version again until it works, at once at first, then less and less often.

        A host that could be started is replaced within a second, however often that happens.
        """
        stable = time.monotonic() - self._last_start > STABLE_SECONDS
        self._failures = 0 if stable else min(self._failures, RESTART_SECONDS.index(0.5))
        while not self._closed and self.active is None:
            await asyncio.sleep(RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)])
            self._failures += 1
            try:
                host = await self.start(version)
            except Exception as error:  # noqa: BLE001 - whatever it was (no memory, no processes), it may pass
                for flight in self._waiting:
                    _fail(flight, gone(f"the app {self.app} cannot be started: {error}"))
                self._waiting.clear()
                continue
            with suppress(Error):
                await self._take_place(host)

    async def _take_place(self, host: HostProcess) -> None:
        """Serve with a host that was started again, unless a deploy was faster."""
        if self.active is None:
            await self.switch(host)
        else:
            await host.stop()

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _fail(flight: InFlight, error: Error) -> None:
    if not flight.answer.done():
        problem = {**error.problem(), "call_id": id_text(flight.message.id)}
        flight.answer.set_result(Answer(flight.message.id, b"", json.dumps(problem).encode()))
