"""One host process as the server sees it: starting it, talking to it, noticing that it died or hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from mmap import mmap
from typing import Any, Literal

from apiary.config import MIGRATE_SECONDS
from apiary.engine.watchdog import RECORDER_BYTES, Running, read_pulse, read_slots
from apiary.platform.flights import InFlight, gone
from apiary.platform.memory import resident_bytes
from apiary.platform.messages import (
    EXPELLED_STATUS,
    Answer,
    Ask,
    Frames,
    Invoke,
    Loaded,
    News,
    Refused,
    Returned,
    Start,
    Stop,
    frame,
    from_host,
)
from apiary.runtime.errors import BundleRefused, Error, from_problem
from apiary.runtime.ids import new_id

Make = Callable[[str, Start], Awaitable[dict[str, Any]]]
"""Makes a place for an app, of the version that a message starts; returns what its host needs to open it."""

START_SECONDS = 60.0
HOLD_SECONDS = 60.0
"""Beyond the longest timeout of the functions that write: what runs when a hold begins may end."""
STOP_SECONDS = 75.0
LAST_SECONDS = 15.0
"""Beyond the longest timeout of its functions, actions included: what a host began before a deploy may end."""
CHECK_SECONDS = 0.25
GRACE_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
SILENT_SECONDS = 10.0
ASK_SECONDS = 600.0
MEMORY_TOLERANCE = 1.25
SECRETS = ("APIARY_ADMIN_KEY", "APIARY_KEY", "APIARY_DATABASE", "PGPASSWORD")
"""Variables of the server's environment that are not for the code of apps."""
NEVER = float("inf")


class HostProcess(asyncio.Protocol):
    """A running host. Answers complete the futures of `in_flight`.

    `on_returned` is called for each call that it gives back, `on_news` for what it says unasked. While it is `held`, it
    gives back all calls but queries. `served`: it has got calls.
    `blameless`: it ended because its server was declared lost, and not by anything that it ran.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.on_news: Callable[[News], None] = lambda news: None
        self.on_returned: Callable[[InFlight], None] = lambda flight: None
        self.in_flight: dict[bytes, InFlight] = {}
        self.manifest: dict[str, Any] = {}
        self.place: dict[str, Any] = {}
        self.pending: tuple[str, ...] = ()
        self.migrated: tuple[str, ...] = ()
        self.migrating_since: float | None = None
        self.held = False
        self.identity = ""
        self.served = False
        self.blameless = False
        self.stopping = False
        self.reason = "it ended"
        self._frames = Frames()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._excused_until = 0.0
        self._started: asyncio.Future[Loaded | Refused] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._on_end: Callable[[HostProcess], None] = lambda host: None
        self._transport: asyncio.Transport
        self._process: subprocess.Popen[bytes]
        self._recorder: mmap | bytes
        self._memory_bytes = 0

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    async def start(self, message: Start, make: Make) -> None:
        """Start the process, let it load its app, and open the place that `make` makes; raises what it refuses with."""
        ours, theirs = socket.socketpair()
        self.identity = message.host
        with tempfile.TemporaryFile() as recorder, theirs:
            recorder.truncate(RECORDER_BYTES)
            self._recorder = mmap(recorder.fileno(), RECORDER_BYTES)
            self._memory_bytes = message.memory_bytes
            descriptors = (theirs.fileno(), recorder.fileno())
            command = [sys.executable, "-P", "-m", "apiary.platform.host", *map(str, descriptors)]
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
            for secret in SECRETS:
                environment.pop(secret, None)
            self._process = await asyncio.to_thread(
                subprocess.Popen, command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=environment
            )
        ours.setblocking(False)
        transport, _ = await self._loop.create_connection(lambda: self, sock=ours)
        self._transport = transport
        self._transport.write(frame(message))
        try:
            answer = await asyncio.wait_for(self._started, START_SECONDS)
        except TimeoutError:
            self.kill("it did not load its app in time")
            raise BundleRefused(f"the app took more than {START_SECONDS:g} s to load") from None
        if isinstance(answer, Refused):
            await self._ended.wait()
            raise from_problem(json.loads(answer.problem))
        self.manifest = json.loads(answer.manifest)
        functions = self.manifest["functions"].values()
        self._longest = max((function["timeout"] for function in functions if function["kind"] != "action"), default=0)
        self._loop.create_task(self._check())
        try:
            self.place = await make(answer.app, message)
            self.pending = tuple(await self.ask("open", within=START_SECONDS, place=self.place))
        except Error:
            self.kill("it cannot open its database")
            await self._ended.wait()
            raise

    async def migrate(self) -> None:
        """Let it apply the pending migrations, all or none; raises what it refuses with."""
        self.migrating_since = time.monotonic()
        try:
            self.migrated = tuple(await self.ask("migrate", within=MIGRATE_SECONDS))
        finally:
            self.migrating_since = None

    async def hold(self) -> None:
        """Let it end what it writes, and give back from then on all calls but queries."""
        self.held = True
        await self._insist("hold", HOLD_SECONDS + self._longest)

    async def release(self, how: Literal["resume", "retire"]) -> None:
        """End a hold: `resume` runs all calls again, `retire` writes records of what has run, and gives back calls."""
        await self._insist(how, PATIENCE_SECONDS)
        self.held = how == "retire"
        self._excused_until = time.monotonic()

    async def forsake(self) -> None:
        """Let it give back the calls that wait for the end of a workflow."""
        with suppress(Error):
            await self.ask("release")

    async def excuse(self, seconds: float) -> None:
        """For so long, calls are not blamed for waiting, nor the host for not answering: they come in a crowd."""
        self._excused_until = time.monotonic() + seconds
        await self.ask("excuse", within=PATIENCE_SECONDS + seconds, seconds=seconds)

    def send(self, flight: InFlight) -> None:
        """Send a call; what is sent in one turn of the event loop leaves together."""
        flight.sent = time.monotonic()
        self.in_flight[flight.message.id] = flight
        if not self._out:
            self._loop.call_soon(self._write_out)
        self._out.append(frame(flight.message))

    async def ask(self, question: str, *, within: float = ASK_SECONDS, **arguments: Any) -> Any:
        """Ask the host something about its app; raises the problem that it answers with, or that it is gone."""
        if self.ended:
            raise gone("the host of the app went away")
        flight = InFlight(Ask(new_id(), question, arguments), self._loop.create_future(), within=within)
        self.send(flight)
        answer = await flight.answer
        if answer.error is not None:
            raise from_problem(json.loads(answer.error))
        return json.loads(answer.output)

    async def _insist(self, question: str, within: float) -> None:
        """Ask for what must be done: a host that cannot do it is killed."""
        try:
            await self.ask(question, within=within)
        except Error as error:
            if not self.ended:
                self.kill(f"it could not {question}: {error.message}")
            raise

    @property
    def patience(self) -> float:
        """Seconds in which all that it runs has come to an end."""
        timeouts = (function["timeout"] for function in self.manifest["functions"].values())
        return max(STOP_SECONDS, max(timeouts, default=0.0) + LAST_SECONDS)

    async def stop(self, within: float | None = None) -> None:
        """Let it answer what is in flight, then let it finish its queue jobs and exit, within so many seconds."""
        self.stopping = True
        end = self._loop.time() + (STOP_SECONDS if within is None else within)
        while self.in_flight and not self._ended.is_set() and self._loop.time() < end:
            await asyncio.wait([flight.answer for flight in self.in_flight.values()], timeout=0.5)
        if not self._ended.is_set():
            self._transport.write(frame(Stop()))
            try:
                await asyncio.wait_for(self._ended.wait(), max(1.0, end - self._loop.time()))
            except TimeoutError:
                self.kill("it did not stop in time")
                await self._ended.wait()

    def expel(self) -> None:
        """End it at once, because it counts no more among the hosts that share the database."""
        self.blameless = True
        self.kill("it was declared lost")

    def kill(self, reason: str) -> None:
        """End the process at once."""
        self.reason = reason
        self._process.send_signal(signal.SIGKILL)

    def watch_end(self, on_end: Callable[[HostProcess], None]) -> None:
        """Call `on_end` once, when the process is gone (now, if it is)."""
        self._on_end = on_end
        if self._ended.is_set():
            on_end(self)

    async def wait_for_end(self) -> None:
        """Wait until the process is gone."""
        await self._ended.wait()

    def running(self) -> list[Running]:
        """What its threads run or, where it is dead, were running; none of that can have committed."""
        return read_slots(self._recorder)

    def late(self) -> set[bytes]:
        """The calls that should have ended before, or been answered."""
        now = time.monotonic()
        late = {running.call for running in self.running() if now > running.deadline}
        return late | {call for call, flight in self.in_flight.items() if now > self._due(flight)}

    def suspects(self) -> set[bytes]:
        """The calls that can have ended it: those that are late, if any are, else those that its threads ran.

        Actions, which often only wait, are suspected where nothing else ran.
        """
        if self.blameless:
            return set()
        running = self.running()
        others = {call for call, _, action in running if not action}
        return self.late() or others or {call for call, _, _ in running}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`: complete the calls that are answered."""
        try:
            messages = [from_host.decode(body) for body in self._frames.feed(data)]
        except ValueError as error:
            self.kill(f"it sent bytes that are no message ({error})")
            return
        for message in messages:
            if isinstance(message, Answer):
                flight = self.in_flight.pop(message.id, None)
                if flight is not None and not flight.answer.done():
                    flight.answer.set_result(message)
            elif isinstance(message, Returned):
                flight = self.in_flight.pop(message.id, None)
                if flight is not None and isinstance(flight.message, Invoke):
                    flight.message.attempt += message.begun
                    self.on_returned(flight)
            elif isinstance(message, News):
                self.on_news(message)
            elif not self._started.done():
                self._started.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of `asyncio.Protocol`: the process is gone, or will be."""
        self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        if self._process.poll() is None and not self.stopping:
            self._process.send_signal(signal.SIGKILL)
        code = await asyncio.to_thread(self._process.wait)
        if isinstance(self._recorder, mmap):
            recorder, self._recorder = self._recorder, bytes(self._recorder)
            recorder.close()
        self.blameless |= code == EXPELLED_STATUS
        if code < 0 and self.reason == "it ended":
            self.reason = f"it was ended by {signal.Signals(-code).name}"
        elif self.reason == "it ended":
            self.reason = f"it exited with status {code}"
        if not self._started.done():
            problem = BundleRefused(f"the host ended while it loaded the app: {self.reason}").problem()
            self._started.set_result(Refused(json.dumps(problem).encode()))
        self._ended.set()
        for flight in list(self.in_flight.values()):
            if isinstance(flight.message, Ask):
                del self.in_flight[flight.message.id]
                flight.fail(gone("the host of the app went away"))
        self._on_end(self)

    def _write_out(self) -> None:
        out, self._out = self._out, []
        if self._transport.is_closing():
            return
        self._transport.write(b"".join(out))

    async def _check(self) -> None:
        """Kill a host with a fault, as long as it runs.

        Silence is measured in turns that this loop had while the host had none: where the whole machine stands still,
        nobody is to blame.
        """
        before: Set[bytes] = set()
        pulse, silent = 0.0, 0.0
        while not self._ended.is_set():
            await asyncio.sleep(CHECK_SECONDS)
            now = time.monotonic()
            if self._process.poll() is not None:
                self._transport.abort()  # a child of the process may hold the other end of the socket
                return
            running = {call: deadline for call, deadline, _ in self.running()}
            if running.keys() & before:
                self._excused_until = max(self._excused_until, now)
            before = running.keys()
            last, pulse = pulse, read_pulse(self._recorder)
            silent = silent + CHECK_SECONDS if pulse == last > 0 else 0.0
            fault = self._fault(now, running)
            if fault is None and silent > SILENT_SECONDS and not running and not self.stopping:
                fault = "it stood still"
            if fault is not None:
                self.kill(fault)
                return

    def _fault(self, now: float, running: dict[bytes, float]) -> str | None:
        """Why it has to be killed: too much memory, a call beyond its deadline (code that blocks in C), silence."""
        if resident_bytes(self.pid) > MEMORY_TOLERANCE * self._memory_bytes > 0:
            return f"it used more than {self._memory_bytes // 2**20} MiB"
        if any(now > deadline + GRACE_SECONDS for deadline in running.values()):
            return "a function ran beyond its timeout and could not be stopped"
        for flight in self.in_flight.values():
            if now > self._due(flight):
                what = flight.message.question if isinstance(flight.message, Ask) else "a call"
                return f"it did not answer {what} in time"
        return None

    def _due(self, flight: InFlight) -> float:
        """When an answer must be there: a call waits for at most its timeout, then runs for at most as long.

        Waiting for a call that runs for long does not count, and a workflow ends when it ends. A held host owes queries
        only: other calls wait for the end of what it runs, actions for their record.
        """
        if flight.within is not None:
            return flight.sent + flight.within
        declared = self._declared(flight)
        is_workflow = declared is not None and declared["kind"] == "workflow"
        if is_workflow or (self.held and not self._only_reads(flight)):
            return NEVER
        patience = PATIENCE_SECONDS + 2 * float(declared["timeout"] if declared else 0.0)
        return max(flight.sent, self._excused_until) + patience

    def _only_reads(self, flight: InFlight) -> bool:
        message, declared = flight.message, self._declared(flight)
        return isinstance(message, Invoke) and message.key is None and bool(declared and declared["kind"] == "query")

    def _declared(self, flight: InFlight) -> dict[str, Any] | None:
        message = flight.message
        return self.manifest["functions"].get(message.function) if isinstance(message, Invoke) else None
