"""Asks the database how many calls may begin by the rates of their queues, and asks again when that has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apiary.engine.lines import Line
from apiary.engine.table import Table
from apiary.runtime.errors import Unavailable

AGAIN_SECONDS = 1.0


class Admission:
    """A queue is asked for once at a time, and not before calls of it may begin; then `ready` is called."""

    def __init__(self, table: Table, ready: Callable[[], None]) -> None:
        self._table = table
        self._ready = ready
        self._asking: dict[str, object] = {}
        self._waiting: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def alone(self, line: Line) -> Iterator[bool]:
        """Whether nobody else asks for the line until the end of the block, in which the calls let in have to begin."""
        name, own = line.queue.name, object()
        with self._lock:
            first = self._asking.setdefault(name, own) is own
        try:
            yield first
        finally:
            with self._lock:  # the time of a refusal may be over by now, and somebody else be alone
                if self._asking.get(name) is own and name not in self._waiting:
                    del self._asking[name]

    def ask(self, line: Line, wanted: int) -> int:
        """How many calls of the line may begin now, of so many, if any. Only where one is `alone` with it."""
        name = line.queue.name
        if wanted <= 0:
            return 0
        try:
            admitted, wait = self._table.admit(line.queue, wanted)
        except Unavailable:
            admitted, wait = 0, AGAIN_SECONDS
        if not admitted:
            self._waiting.add(name)
            timer = threading.Timer(wait, self._again, (name,))
            timer.daemon = True
            timer.start()
        return admitted

    def _again(self, name: str) -> None:
        with self._lock:
            self._waiting.discard(name)
            self._asking.pop(name, None)
        self._ready()
