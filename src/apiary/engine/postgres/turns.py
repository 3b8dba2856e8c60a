"""Which functions collide with each other, and the turns that their batches take.

Whoever loses to another transaction runs again at once. A function that loses a second time in a row collides: for a
while, its calls meet in one lane (`engine/routes.py` asks `collides`), and what of it other lanes still have waits for
its turn. Where a batch loses in its turn, the other one is not of this process, and from then on turns are those of all
processes that use the database. That is courtesy: what is right does not hang on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress

import psycopg

from apiary.engine.postgres.connection import Access
from apiary.engine.postgres.errors import NotConnected
from apiary.engine.postgres.link import Link
from apiary.engine.postgres.session import own_statements

log = logging.getLogger("apiary")

SHORTEST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
"""So long calls of a function that collides meet; twice as long each time when it collides again soon after that."""
COURTESY_SECONDS = 1.0
"""So long a batch waits for those of other processes, then it runs beside them."""


class SharedTurn:
    """The turn of all processes: a lock of the database, on a connection of its own."""

    def __init__(self, access: Access, log: str) -> None:
        self._access = access
        self._log = log
        self._own = own_statements(log)
        self._link: Link | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """In this block nobody else has the turn, unless it is too long in coming, or there is no connection."""
        self._ask("take_turn", self._log)
        try:
            yield
        finally:
            self._ask("end_turn")

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()

    def _ask(self, name: str, *values: str) -> None:
        with suppress(psycopg.Error, NotConnected):
            if self._link is None or self._link.closed:
                self.close()
                self._link = self._access.open(lock_seconds=COURTESY_SECONDS)
            with self._link.waiting(2 * COURTESY_SECONDS) as connection:
                psycopg.RawCursor(connection).execute(self._own[name].sql.encode(), values)


class Turns:
    """The functions of one app that collide. All its lanes that write share it."""

    def __init__(self, shared: SharedTurn) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._until: dict[str, tuple[float, float]] = {}
        self._shared_until = 0.0

    def collides(self, function: str) -> bool:
        """Whether calls of a function had better not run beside each other."""
        found = self._until.get(function)
        return found is not None and time.monotonic() < found[0]

    @contextmanager
    def taken(self, functions: Collection[str], seconds: float) -> Iterator[bool]:
        """In this block a batch with these functions has its turn, if it needs one, and gets it in so many seconds."""
        if not any(map(self.collides, functions)) or not self._lock.acquire(timeout=seconds):
            yield False
            return
        try:
            with self._shared.taken() if time.monotonic() < self._shared_until else nullcontext():
                yield True
        finally:
            self._lock.release()

    def lost(self, functions: Collection[str], *, in_turn: bool) -> None:
        """Calls of these functions collided again; `in_turn`: though their batch had its turn."""
        now = time.monotonic()
        seconds = SHORTEST_SECONDS
        for function in functions:
            until, before = self._until.get(function, (0.0, 0.0))
            if now < until + before:
                seconds = max(seconds, before if now < until else min(2 * before, LONGEST_SECONDS))
        for function in functions:
            if function not in self._until:
                log.warning(
                    "calls of %s change the same rows at the same time: they run one after another then", function
                )
            self._until[function] = (now + seconds, seconds)
        if in_turn:
            self._shared_until = now + seconds

    def close(self) -> None:
        """Give the connection back."""
        self._shared.close()
