"""Deadlines: a thread that ends functions which run too long, by raising `Stopped` in their thread.

An asynchronous exception reaches Python code between two of its instructions, and an interrupt reaches a running
statement. Neither reaches code that blocks in C: for that the supervisor reads the flight recorder, a piece of
shared memory in which each thread notes what it runs and until when, and kills the process. The watchdog's own pulse is
in it, too, so that a process is known that stands still while nothing runs.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from mmap import mmap
from typing import NamedTuple

from apiary.runtime.errors import Stopped
from apiary.runtime.session import Call, blamed

TICK_SECONDS = 0.02
INSIST_SECONDS = 0.5
PARKED_AFTER_SECONDS = 1.0
PULSE_SECONDS = 1.0
NEVER = float("inf")

SLOT = struct.Struct("16sd?7x")
SLOTS = 128
PULSE = struct.Struct("d")
RECORDER_BYTES = SLOTS * SLOT.size + PULSE.size
NO_CALL = bytes(16)


class Running(NamedTuple):
    """What a thread of a host runs: a call, when (monotonic clock) it is to end, and whether it is an action."""

    call: bytes
    deadline: float
    action: bool


class ThreadGuard:
    """Guards the functions of one thread, one at a time."""

    def __init__(self, watchdog: Watchdog, slot: int) -> None:
        self._watchdog = watchdog
        self._slot = slot
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._deadline = NEVER
        self._fired = False
        self.interrupt: Callable[[], None] | None = None

    def begin(self, call: Call, seconds: float) -> None:
        self._thread = threading.get_ident()
        self._fired = False
        self._deadline = deadline = time.monotonic() + seconds
        self._watchdog.note(self._slot, blamed(call), deadline)

    def end(self) -> bool:
        with self._lock:
            self._deadline = NEVER
            fired, self._fired = self._fired, False
            if fired and self._thread is not None:
                _raise_in(self._thread, None)
        self._watchdog.note(self._slot, NO_CALL, NEVER)
        return fired

    def check(self, now: float) -> bool:
        """Stop the function if it is due; returns whether one is running. Called by the watchdog."""
        if self._deadline == NEVER:
            return False
        with self._lock:
            if now >= self._deadline and self._thread is not None:
                self._fired = True
                self._deadline = now + INSIST_SECONDS
                _raise_in(self._thread, Stopped)
                if self.interrupt is not None:
                    self.interrupt()
        return True


class Watchdog:
    """The thread that checks all guards. While nothing runs it sleeps, but for its pulse where there is a recorder."""

    def __init__(self, recorder: mmap | None = None) -> None:
        self._recorder = recorder
        self._free = deque(range(SLOTS))
        self._guards: list[ThreadGuard] = []
        self._parked = True
        self._wake = threading.Event()
        self._closed = False
        threading.Thread(target=self._watch, name="apiary-watchdog", daemon=True).start()

    def guard(self) -> ThreadGuard:
        """A guard for a thread that is about to start."""
        guard = ThreadGuard(self, self._free.popleft())
        self._guards.append(guard)
        return guard

    @contextmanager
    def noting(self, call: bytes, seconds: float) -> Iterator[Callable[[], None]]:
        """Write down which action runs in this block, and for how long it may; it is not ended from here.

        Gives a function that writes down that its time begins anew.
        """
        slot = self._free.popleft()

        def renew() -> None:
            self.note(slot, call, time.monotonic() + seconds, action=True)

        renew()
        try:
            yield renew
        finally:
            self.note(slot, NO_CALL, NEVER)
            self._free.append(slot)

    def note(self, slot: int, call: bytes, deadline: float, *, action: bool = False) -> None:
        """Write down what a thread runs, for the supervisor, and wake up if this is the first after a pause."""
        if self._recorder is not None:
            SLOT.pack_into(self._recorder, slot * SLOT.size, call, deadline, action)
        if self._parked and call is not NO_CALL and not action:
            self._parked = False
            self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()

    def _beat(self) -> float:
        now = time.monotonic()
        if self._recorder is not None:
            PULSE.pack_into(self._recorder, SLOTS * SLOT.size, now)
        return now

    def _sleep(self) -> None:
        while not self._wake.wait(None if self._recorder is None else PULSE_SECONDS):
            self._beat()

    def _watch(self) -> None:
        last_busy = time.monotonic()
        while not self._closed:
            now = self._beat()
            if sum(guard.check(now) for guard in self._guards):
                last_busy = now
            elif now - last_busy > PARKED_AFTER_SECONDS:
                self._wake.clear()
                self._parked = True
                if not any(guard.check(now) for guard in self._guards):
                    self._sleep()
                self._parked = False
                last_busy = time.monotonic()
            time.sleep(TICK_SECONDS)


def read_slots(recorder: mmap | bytes) -> list[Running]:
    """What the threads of a host run."""
    slots = (Running(*SLOT.unpack_from(recorder, slot * SLOT.size)) for slot in range(SLOTS))
    return [running for running in slots if running.call != NO_CALL]


def read_pulse(recorder: mmap | bytes) -> float:
    """When (monotonic clock) the watchdog of a host ran last; 0 before it begins."""
    (pulse,) = PULSE.unpack_from(recorder, SLOTS * SLOT.size)
    return float(pulse)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raised = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
