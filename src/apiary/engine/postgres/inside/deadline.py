"""Ends a function that runs too long inside a backend: `Stopped` in its Python code, a cancel in its SQL.

Two timers of the kernel measure wall-clock time. The first sends SIGVTALRM, which PostgreSQL leaves alone and whose
handler raises between two instructions of Python, or out of a wait. A statement goes on through that; a moment later
the second sends SIGINT, which is how PostgreSQL cancels a statement. Both insist until the function is over.
"""

from __future__ import annotations

import ctypes
import signal
import time
from typing import Any

import plpy  # type: ignore[import-not-found]  # only a backend has it

from apiary.runtime.errors import Stopped
from apiary.runtime.session import Call

CLOCK_MONOTONIC = 1
SIGEV_SIGNAL = 0
INSIST_SECONDS = 0.5
CANCEL_AFTER_SECONDS = 0.03
MAX_SETTINGS = 100

_c = ctypes.CDLL(None, use_errno=True)


class _Event(ctypes.Structure):
    """`struct sigevent` of Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Setting(ctypes.Structure):
    """`struct itimerspec`: the interval, then the time to the first signal, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """A timer that sends this process a signal, again and again."""

    def __init__(self, number: int) -> None:
        self._timer = ctypes.c_void_p()
        event = _Event(signal=number, notify=SIGEV_SIGNAL)
        if _c.timer_create(CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create failed")
        self._off = ctypes.byref(_Setting())
        self._on: dict[float, Any] = {}

    def start(self, seconds: float) -> None:
        """Send the signal after so many seconds, and then every half second."""
        setting = self._on.get(seconds)
        if setting is None:
            if len(self._on) >= MAX_SETTINGS:
                self._on.clear()
            whole, part = divmod(seconds, 1)
            insist = int(INSIST_SECONDS * 1e9)
            setting = self._on[seconds] = ctypes.byref(_Setting(0, insist, int(whole), int(part * 1e9) + 1))
        _c.timer_settime(self._timer, 0, setting, None)

    def stop(self) -> None:
        """Send nothing."""
        _c.timer_settime(self._timer, 0, self._off, None)


class Alarm:
    """The timers of a backend, set for the earliest deadline of the calls that run, each inside the one before."""

    def __init__(self) -> None:
        self._running: list[BackendGuard] = []
        self._python = Timer(signal.SIGVTALRM)
        self._sql = Timer(signal.SIGINT)

    def resume(self) -> None:
        """Have the signal handled here; another copy of this module may have had it."""
        signal.signal(signal.SIGVTALRM, self._stop)

    def busy(self) -> bool:
        """Whether a call runs."""
        return bool(self._running)

    def add(self, guard: BackendGuard, seconds: float) -> None:
        """A call begins. It ends with those around it at the latest."""
        guard.deadline = time.monotonic() + seconds
        if self._running:
            guard.deadline = min(guard.deadline, self._running[-1].deadline)
            seconds = max(guard.deadline - time.monotonic(), 0.0)
        self._running.append(guard)
        self._start(seconds)

    def remove(self, guard: BackendGuard) -> None:
        """A call is over."""
        if guard in self._running:
            del self._running[self._running.index(guard) :]
        if self._running:
            self._start(max(self._running[-1].deadline - time.monotonic(), 0.0))
        else:
            self._python.stop()
            self._sql.stop()

    def _start(self, seconds: float) -> None:
        self._python.start(seconds)
        self._sql.start(seconds + CANCEL_AFTER_SECONDS)

    def _stop(self, number: int, frame: object) -> None:
        now = time.monotonic()
        late = [guard for guard in self._running if guard.deadline <= now]
        for guard in late:
            guard.fired = True
        if late:
            raise Stopped


alarm = Alarm()


class BackendGuard:
    """The runtime's guard inside a backend, for one call at a time. Calls inside that call have guards of their own."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.fired = False
        self._running = False

    def begin(self, call: Call, seconds: float) -> None:
        self.fired = False
        self._running = True
        alarm.add(self, seconds)

    def end(self) -> bool:
        if not self._running:
            return False
        self._running = False
        alarm.remove(self)
        if self.fired:
            _swallow_cancel()
        return self.fired


def _swallow_cancel() -> None:
    """A cancel that came while no statement ran would hit the next one, which is not to blame."""
    try:
        plpy.execute("select 1")
    except plpy.SPIError:
        pass
