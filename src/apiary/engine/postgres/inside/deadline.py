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
import time

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
        self._off = ctypes.byref(_Setting())
        self._setting = _Setting(0, int(insist * 1e9))
        self._on = ctypes.byref(self._setting)
        self._seconds = -1.0

    def start(self, seconds: float) -> None:
        """Send the signal after so many seconds."""
        if seconds != self._seconds:
            self._seconds = seconds
            self._setting.value_s = int(seconds)
            self._setting.value_ns = int(seconds % 1 * 1e9) + 1
        _c.timer_settime(self._timer, 0, self._on, None)

    def stop(self) -> None:
        """Send nothing."""
        _c.timer_settime(self._timer, 0, self._off, None)


class Alarm:
    """The timers of a backend, set for the earliest deadline of the calls that run, each inside the one before.

    The one for statements is set with the first statement.
    """

    def __init__(self) -> None:
        self.running: list[BackendGuard] = []
        self.python = Timer(signal.SIGVTALRM, INSIST_SECONDS)
        self.sql = Timer(signal.SIGINT, INSIST_SECONDS)
        self.last = Timer(signal.SIGFPE, 0)
        self.watches_sql = False
        self.stops = 0

    def resume(self) -> None:
        """Have the signal handled here; another copy of this module may have had it."""
        signal.signal(signal.SIGVTALRM, self._stop)

    def busy(self) -> bool:
        """Whether a call runs."""
        return bool(self.running)

    def watch_statement(self) -> None:
        """A statement begins."""
        if not self.watches_sql and self.running:
            self.watches_sql = True
            self.sql.start(self._left() + CANCEL_AFTER_SECONDS)

    def start_again(self) -> None:
        """Go on with the innermost call that runs."""
        left = self._left()
        self.python.start(left)
        if self.watches_sql:
            self.sql.start(left + CANCEL_AFTER_SECONDS)

    def _left(self) -> float:
        return max(self.running[-1].deadline - time.monotonic(), 0.0)

    def _stop(self, number: int, frame: object) -> None:
        now = time.monotonic()
        late = [guard for guard in self.running if guard.deadline <= now]
        if not late:
            return
        for guard in late:
            guard.fired = True
        self.stops += 1
        if self.running[0].ends_backend:
            if self.stops > MAX_STOPS:
                os.kill(os.getpid(), signal.SIGFPE)
            self.last.start(GRACE_SECONDS)
        raise Stopped


alarm = Alarm()


class BackendGuard:
    """The runtime's guard inside a backend, for one call at a time. Calls inside that call have guards of their own.

    `ends_backend`: a call that nothing else ends may take its backend with it, because a lane will open another.
    """

    def __init__(self, *, ends_backend: bool = False) -> None:
        self.ends_backend = ends_backend
        self.deadline = 0.0
        self.fired = False

    def begin(self, call: Call, seconds: float) -> None:
        self.fired = False
        self.deadline = time.monotonic() + seconds
        running = alarm.running
        if running:  # it ends with those around it at the latest
            self.deadline = min(self.deadline, running[-1].deadline)
            running.append(self)
            alarm.start_again()
        else:
            running.append(self)
            alarm.stops = 0
            alarm.python.start(seconds)
            if self.ends_backend:
                alarm.last.start(seconds + GRACE_SECONDS)

    def end(self) -> bool:
        running = alarm.running
        if self not in running:
            return False
        del running[running.index(self) :]
        if running:
            alarm.start_again()
        else:
            if self.ends_backend:
                alarm.last.stop()
            alarm.python.stop()
            if alarm.watches_sql:
                alarm.watches_sql = False
                alarm.sql.stop()
        if self.fired:
            _swallow_cancel()
        return self.fired


def _swallow_cancel() -> None:
    """A cancel that came while no statement ran would hit the next one, which is not to blame."""
    try:
        plpy.execute("select 1")
    except plpy.SPIError:
        pass
