"""What is done later, by the clock that nobody sets: calls whose time comes, and another look into the table."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from apiary.runtime.session import Call


class Later:
    """Calls `due`, from another thread, when the time of a call has come. Not safe for several threads at once."""

    def __init__(self, due: Callable[[], None]) -> None:
        self._ring = due
        self._heap: list[tuple[float, bytes, Call]] = []
        self._timer: threading.Timer | None = None

    def add(self, call: Call, wait: float) -> None:
        """A call is due in so many seconds."""
        heapq.heappush(self._heap, (time.monotonic() + wait, call.id, call))
        if self._heap[0][1] == call.id:
            self._set_timer()

    def take(self) -> list[Call]:
        """The calls whose time has come."""
        found = []
        while self._heap and self._heap[0][0] <= time.monotonic():
            found.append(heapq.heappop(self._heap)[2])
        if self._heap:
            self._set_timer()
        return found

    def clear(self) -> list[Call]:
        """Forget them; returns which."""
        left, self._heap = self._heap, []
        return [call for _, _, call in left]

    def __len__(self) -> int:
        return len(self._heap)

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self.close()
        self._timer = threading.Timer(max(0.0, self._heap[0][0] - time.monotonic()), self._ring)
        self._timer.daemon = True
        self._timer.start()


class Again:
    """Does some `work` after a number of seconds, once for all who ask for the same number meanwhile."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._timers: dict[float, threading.Timer] = {}
        self._lock = threading.Lock()

    def after(self, seconds: float) -> None:
        """Do it after so many seconds."""

        def work() -> None:
            with self._lock:
                del self._timers[seconds]
            self._work()

        with self._lock:
            if seconds not in self._timers:
                timer = self._timers[seconds] = threading.Timer(seconds, work)
                timer.daemon = True
                timer.start()

    def close(self) -> None:
        """Do it no more."""
        with self._lock:
            timers = list(self._timers.values())
        for timer in timers:
            timer.cancel()
