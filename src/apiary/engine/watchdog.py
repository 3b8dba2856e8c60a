"""Deadlines: a thread that ends functions which run too long, by raising `Stopped` in their thread.

An asynchronous exception reaches Python code between two of its instructions, and an interrupt reaches a running
statement. Neither reaches code that blocks in C: for that the supervisor reads the flight recorder, a piece of
shared memory in which each thread notes what it runs and until when, and kills the process.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections.abc import Callable
from mmap import mmap

from apiary.runtime.errors import Stopped
from apiary.runtime.session import Call

TICK_SECONDS = 0.02
INSIST_SECONDS = 0.5
PARKED_AFTER_SECONDS = 1.0
NEVER = float("inf")

SLOT = struct.Struct("16sd")
SLOTS = 64
NO_CALL = bytes(16)


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
        self._watchdog.note(self._slot, call.id, deadline)

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
    """The thread that checks all guards. It sleeps for good while nothing runs."""

    def __init__(self, recorder: mmap | None = None) -> None:
        self._recorder = recorder
        self._guards: list[ThreadGuard] = []
        self._parked = True
        self._wake = threading.Event()
        self._closed = False
        threading.Thread(target=self._watch, name="apiary-watchdog", daemon=True).start()

    def guard(self) -> ThreadGuard:
        """A guard for a thread that is about to start."""
        guard = ThreadGuard(self, len(self._guards))
        self._guards.append(guard)
        return guard

    def note(self, slot: int, call: bytes, deadline: float) -> None:
        """Write down what a thread runs, for the supervisor, and wake up if this is the first after a pause."""
        if self._recorder is not None and slot < SLOTS:
            SLOT.pack_into(self._recorder, slot * SLOT.size, call, deadline)
        if self._parked and call is not NO_CALL:
            self._parked = False
            self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()

    def _watch(self) -> None:
        last_busy = time.monotonic()
        while not self._closed:
            now = time.monotonic()
            if sum(guard.check(now) for guard in self._guards):
                last_busy = now
            elif now - last_busy > PARKED_AFTER_SECONDS:
                self._wake.clear()
                self._parked = True
                if not any(guard.check(now) for guard in self._guards):
                    self._wake.wait()
                self._parked = False
                last_busy = time.monotonic()
            time.sleep(TICK_SECONDS)


def read_slots(recorder: mmap) -> list[tuple[bytes, float]]:
    """What the threads of a host run: the ids of the calls, and when (monotonic clock) each is to end."""
    slots = (SLOT.unpack_from(recorder, slot * SLOT.size) for slot in range(SLOTS))
    return [(call, deadline) for call, deadline in slots if call != NO_CALL]


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raised = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
