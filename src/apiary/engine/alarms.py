"""What is to be done after some time, by one thread, however much there is of it."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count


class Alarms:
    """Does work when its time has come. It must not block: what comes after it waits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, work: Callable[[], object]) -> None:
        """Do it after so many seconds. `RuntimeError` where the system has no thread for that."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), work))
            self._changed.notify()

    def _watch(self) -> None:
        """Until nothing is left to be done."""
        while True:
            with self._changed:
                if not self._heap:
                    self._thread = None
                    return
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                work = heapq.heappop(self._heap)[2]
            work()
