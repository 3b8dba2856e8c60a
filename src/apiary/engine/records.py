"""Records of queries on their way to the lane that writes them: as many as may wait, and what they read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from apiary.engine.effects import DROPPED
from apiary.runtime.session import Record

MAX_RECORDS_WAITING = 10_000
MAX_EFFECTS_WAITING_BYTES = 64 * 1024 * 1024
"""Of what all of them read. Beyond it, records are written without."""

Dropped = Callable[[int, int], None]
"""Is told how many records were dropped, and of how many others what they read."""


class Records:
    """Takes them from threads that read, gives them to the one that writes. What is too much is told of."""

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self._lock = threading.Lock()
        self._waiting: list[Record] = []
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether any wait."""
        return bool(self._waiting)

    def put(self, records: Iterable[Record]) -> None:
        """Let these wait."""
        lost = stripped = 0
        with self._lock:
            for record in records:
                if len(self._waiting) >= MAX_RECORDS_WAITING:
                    lost += 1
                    continue
                size = len(record.effects or b"")
                if self._bytes + size > MAX_EFFECTS_WAITING_BYTES:
                    record.effects = DROPPED
                    stripped += 1
                else:
                    self._bytes += size
                self._waiting.append(record)
        if lost or stripped:
            self._dropped(lost, stripped)

    def take(self) -> list[Record]:
        """All that wait, in their order."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            self._bytes = 0
        return taken
