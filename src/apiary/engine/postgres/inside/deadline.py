"""Ends a function that runs too long inside a backend: `Stopped` in its Python code, a cancel in its SQL.

Timers of the kernel measure wall-clock time. The first sends SIGVTALRM, which PostgreSQL leaves alone and whose
handler raises between two instructions of Python, or out of a wait. A statement goes on through that; a moment later
the second sends SIGINT, which is how PostgreSQL cancels a statement. Both insist until the function is over.

Code in C that comes back to neither, and a function that catches whatever is raised, is ended by SIGFPE: PostgreSQL's
handler of that ends the statement at once, wherever it is. The transaction is rolled back and its locks are gone; the
interpreter, which was left in the middle, is of no use any more, so the lane closes the connection. The signal is
not to meet PostgreSQL's own code: where a handler of Python can run, it is sent from there.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

import plpy  # type: ignore[import-not-found]  # only a backend has it

from apiary.runtime.errors import Stopped
from apiary.runtime.session import Call

CLOCK_MONOTONIC = 1
SIGEV_SIGNAL = 0
INSIST_SECONDS = 0.5
CANCEL_AFTER_SECONDS = 0.03
GRACE_SECONDS = 1.0
MAX_STOPS = 3
"""A function that is stopped so many times, and goes on, is ended."""

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
    """A timer that sends this process a signal, and then again every `insist` seconds, if that is not 0."""

    def __init__(self, number: int, insist: float) -> None:
        self._timer = ctypes.c_void_p()
        event = _Event(signal=number, notify=SIGEV_SIGNAL)
        if _c.timer_create(CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create failed")
        self._insist = int(insist * 1e9)
        self._off = ctypes.byref(_Setting())
        self._on: dict[float, Any] = {}

    def start(self, seconds: float) -> None:
        """Send the signal after so many seconds."""
        setting = self._on.get(seconds)
        if setting is None:
            whole, part = divmod(seconds, 1)
            setting = self._on[seconds] = ctypes.byref(_Setting(0, self._insist, int(whole), int(part * 1e9) + 1))
        _c.timer_settime(self._timer, 0, setting, None)

    def stop(self) -> None:
        """Send nothing."""
        _c.timer_settime(self._timer, 0, self._off, None)


class BackendGuard:
    """The runtime's guard inside a backend."""

    def __init__(self) -> None:
        self._running = False
        self._stops = 0
        self._python = Timer(signal.SIGVTALRM, INSIST_SECONDS)
        self._sql = Timer(signal.SIGINT, INSIST_SECONDS)
        self._last = Timer(signal.SIGFPE, 0)
        signal.signal(signal.SIGVTALRM, self._stop)

    def begin(self, call: Call, seconds: float) -> None:
        self._stops = 0
        self._running = True
        self._python.start(seconds)
        self._sql.start(seconds + CANCEL_AFTER_SECONDS)
        self._last.start(seconds + GRACE_SECONDS)

    def end(self) -> bool:
        if not self._running:
            return False
        self._running = False
        self._last.stop()
        self._python.stop()
        self._sql.stop()
        if self._stops:
            _swallow_cancel()
        return self._stops > 0

    def _stop(self, number: int, frame: object) -> None:
        if not self._running:
            return
        self._stops += 1
        if self._stops > MAX_STOPS:
            os.kill(os.getpid(), signal.SIGFPE)
        self._last.start(GRACE_SECONDS)
        raise Stopped


def _swallow_cancel() -> None:
    """A cancel that came while no statement ran would hit the next one, which is not to blame."""
    try:
        plpy.execute("select 1")
    except plpy.SPIError:
        pass
