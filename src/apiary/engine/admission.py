"""Asks the database how many calls may begin by the rates of their queues, and asks again when that has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from apiary.engine.lines import Line
from apiary.engine.table import Table
from apiary.runtime.errors import Unavailable

AGAIN_SECONDS = 1.0


class Admission:
    """A queue is asked for once at a time, and not before calls of it may begin; then `ready` is called."""

    def __init__(self, table: Table, ready: Callable[[], None]) -> None:
        self._table = table
        self._ready = ready
        self._asking: set[str] = set()
        self._lock = threading.Lock()

    def ask(self, lines: Iterable[tuple[Line, int]], limit: int) -> list[tuple[Line, int]]:
        """How many calls of each line may begin now, of so many, and of `limit` in all. Who is told so begins them.

        None where somebody else asks already.
        """
        found = []
        for line, wanted in lines:
            if limit > 0 and self._is_first(line):
                found.append((line, self._ask(line, min(wanted, limit))))
                limit -= found[-1][1]
        return found

    def _is_first(self, line: Line) -> bool:
        with self._lock:
            first = line.queue.name not in self._asking
            self._asking.add(line.queue.name)
            return first

    def _ask(self, line: Line, wanted: int) -> int:
        try:
            admitted, wait = self._table.admit(line.queue, wanted)
        except Unavailable:
            admitted, wait = 0, AGAIN_SECONDS
        if admitted:
            self._asking.discard(line.queue.name)
            return admitted

        def again() -> None:
            self._asking.discard(line.queue.name)
            self._ready()

        timer = threading.Timer(wait, again)
        timer.daemon = True
        timer.start()
        return 0
