"""One host process as the server sees it: starting it, talking to it, noticing that it died or hangs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from typing import Any

from apiary.engine.watchdog import RECORDER_BYTES, Running, read_pulse, read_slots
from apiary.platform.messages import Answer, Ask, Frames, Invoke, Ran, Ready, Refused, Start, Stop, frame, from_host
from apiary.runtime.errors import BundleRefused, Unavailable, from_problem
from apiary.runtime.ids import new_id

START_SECONDS = 60.0
STOP_SECONDS = 75.0
CHECK_SECONDS = 0.25
GRACE_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
SILENT_SECONDS = 10.0
ASK_SECONDS = 600.0
MEMORY_TOLERANCE = 1.25
PAGE_BYTES = resource.getpagesize()


@dataclass(slots=True, eq=False)
class InFlight:
    """A call that was sent and has no answer yet. `crashes` counts the hosts that died while they ran it."""

    message: Invoke | Ask
    answer: asyncio.Future[Answer]
    crashes: int = 0
    sent: float = field(default_factory=time.monotonic)


class HostProcess(asyncio.Protocol):
    """A running host. Answers complete the futures of `in_flight`.

    `on_ran` is called for each call that its queue ran.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.on_ran: Callable[[Ran], None] = lambda message: None
        self.in_flight: dict[bytes, InFlight] = {}
        self.manifest: dict[str, Any] = {}
        self.migrated: tuple[str, ...] = ()
        self.stopping = False
        self.reason = "it ended"
        self._frames = Frames()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[Ready | Refused] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._on_end: Callable[[HostProcess], None] = lambda host: None
        self._transport: asyncio.Transport
        self._process: subprocess.Popen[bytes]
        self._recorder: mmap
        self._memory_bytes = 0

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def start(self, message: Start) -> None:
        """Start the process and let it load its app; raises what it refuses with."""
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as recorder, theirs:
            recorder.truncate(RECORDER_BYTES)
            self._recorder = mmap(recorder.fileno(), RECORDER_BYTES)
            self._memory_bytes = message.memory_bytes
            descriptors = (theirs.fileno(), recorder.fileno())
            command = [sys.executable, "-P", "-m", "apiary.platform.host", *map(str, descriptors)]
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
            for secret in ("APIARY_ADMIN_KEY", "APIARY_KEY"):
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
        self.migrated = answer.migrated
        self._loop.create_task(self._check())

    def send(self, flight: InFlight) -> None:
        """Send a call; what is sent in one turn of the event loop leaves together."""
        flight.sent = time.monotonic()
        self.in_flight[flight.message.id] = flight
        if not self._out:
            self._loop.call_soon(self._write_out)
        self._out.append(frame(flight.message))

    async def ask(self, question: str, **arguments: Any) -> Any:
        """Ask the host something about its app; raises the problem that it answers with."""
        flight = InFlight(Ask(new_id(), question, arguments), self._loop.create_future())
        self.send(flight)
        answer = await flight.answer
        if answer.error is not None:
            raise from_problem(json.loads(answer.error))
        return json.loads(answer.output)

    async def stop(self) -> None:
        """Let it answer what is in flight, then let it finish its queue jobs and exit."""
        self.stopping = True
        end = self._loop.time() + STOP_SECONDS
        while self.in_flight and not self._ended.is_set() and self._loop.time() < end:
            await asyncio.wait([flight.answer for flight in self.in_flight.values()], timeout=0.5)
        if not self._ended.is_set():
            self._transport.write(frame(Stop()))
            try:
                await asyncio.wait_for(self._ended.wait(), max(1.0, end - self._loop.time()))
            except TimeoutError:
                self.kill("it did not stop in time")
                await self._ended.wait()

    def kill(self, reason: str) -> None:
        """End the process at once."""
        self.reason = reason
        self._process.send_signal(signal.SIGKILL)

    def watch_end(self, on_end: Callable[[HostProcess], None]) -> None:
        """Call `on_end` once, when the process is gone (now, if it is)."""
        self._on_end = on_end
        if self._ended.is_set():
            on_end(self)

    def running(self) -> list[Running]:
        """What its threads run or, where it is dead, were running; none of that can have committed."""
        return read_slots(self._recorder)

    def late(self) -> set[bytes]:
        """The calls that should have ended before, or been answered."""
        now = time.monotonic()
        late = {running.call for running in self.running() if now > running.deadline}
        return late | {call for call, flight in self.in_flight.items() if now > flight.sent + self._patience(flight)}

    def suspects(self) -> set[bytes]:
        """The calls that can have ended it: those that are late, if any are, else those that its threads ran.

        Actions, which often only wait, are suspected where nothing else ran.
        """
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
            elif isinstance(message, Ran):
                self.on_ran(message)
            elif not self._started.done():
                self._started.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of `asyncio.Protocol`: the process is gone, or will be."""
        self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        if self._process.poll() is None and not self.stopping:
            self._process.send_signal(signal.SIGKILL)
        code = await asyncio.to_thread(self._process.wait)
        if code < 0 and self.reason == "it ended":
            self.reason = f"it was ended by {signal.Signals(-code).name}"
        elif self.reason == "it ended":
            self.reason = f"it exited with status {code}"
        if not self._started.done():
            problem = BundleRefused(f"the host ended while it loaded the app: {self.reason}").problem()
            self._started.set_result(Refused(json.dumps(problem).encode()))
        self._ended.set()
        self._on_end(self)

    def _write_out(self) -> None:
        out, self._out = self._out, []
        if self._transport.is_closing():
            return
        self._transport.write(b"".join(out))

    async def _check(self) -> None:
        """Kill a host that runs a call beyond its deadline (code that blocks in C), is too large, or stands still.

        Silence is measured in turns that this loop had while the host had none: where the whole machine stands still,
        nobody is to blame.
        """
        pulse, silent = 0.0, 0.0
        while not self._ended.is_set():
            await asyncio.sleep(CHECK_SECONDS)
            now = time.monotonic()
            if self._process.poll() is not None:
                self._transport.abort()  # a child of the process may hold the other end of the socket
                return
            if resident_bytes(self.pid) > MEMORY_TOLERANCE * self._memory_bytes > 0:
                self.kill(f"it used more than {self._memory_bytes // 2**20} MiB")
                return
            if any(now > running.deadline + GRACE_SECONDS for running in self.running()):
                self.kill("a function ran beyond its timeout and could not be stopped")
                return
            if any(now > flight.sent + self._patience(flight) for flight in self.in_flight.values()):
                self.kill("it did not answer a call in time")
                return
            last, pulse = pulse, read_pulse(self._recorder)
            silent = silent + CHECK_SECONDS if pulse == last > 0 else 0.0
            if silent > SILENT_SECONDS and not self.running() and not self.stopping:
                self.kill("it stood still")
                return

    def _patience(self, flight: InFlight) -> float:
        """How long an answer may take: a call waits for at most its timeout, then runs for at most as long."""
        if isinstance(flight.message, Ask):
            return ASK_SECONDS
        declared = self._declared(flight)
        return PATIENCE_SECONDS + 2 * float(declared["timeout"] if declared else 0.0)

    def _declared(self, flight: InFlight) -> dict[str, Any] | None:
        message = flight.message
        return self.manifest["functions"].get(message.function) if isinstance(message, Invoke) else None


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def gone(message: str) -> Unavailable:
    """The error of a call whose host went away and cannot be replaced."""
    return Unavailable(message, hint="send the call again; with an idempotency key it takes effect once")
