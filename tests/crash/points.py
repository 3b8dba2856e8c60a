"""Points at which a process can be ended: each statement, commit, wait for the disk, action and answer.

They are put into the product's own functions from outside, in a process that runs for a test. `Points` counts them.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import psycopg

from apiary.engine.attempts import Attempt, Attempts
from apiary.engine.postgres.beside.pipeline import Pipeline
from apiary.engine.postgres.runner import InsideRunner
from apiary.engine.sqlite import engine


class Points:
    """Counts what happens, and ends the process with SIGKILL at the n-th point of a kind (without one: of any)."""

    def __init__(self, kind: str | None, number: int, before_the_end: Callable[[], None]) -> None:
        self.names: list[str] = []
        self._kind = kind
        self._left = number
        self._before_the_end = before_the_end
        self._lock = threading.RLock()

    def hit(self, name: str) -> None:
        """Something is about to happen, or has just happened. Nothing else happens any more where this is the end."""
        with self._lock:
            self.names.append(name)
            if self._kind in (None, name):
                self._left -= 1
                if self._left == 0:
                    self._before_the_end()
                    os.kill(os.getpid(), signal.SIGKILL)
                    signal.pause()

    def around(self, owner: Any, name: str, before: str, after: str) -> None:
        """Make a point before a function of the product runs, and one after."""
        original = getattr(owner, name)

        def run(*given: Any, **named: Any) -> Any:
            self.hit(before)
            result = original(*given, **named)
            self.hit(after)
            return result

        setattr(owner, name, run)


def watch_actions(points: Points) -> None:
    """Before and after what an action does outside."""
    original = Attempts._run

    def run(attempts: Attempts, attempt: Attempt) -> Any:
        points.hit("act")
        try:
            return original(attempts, attempt)
        finally:
            points.hit("acted")

    Attempts._run = run


def watch_postgres(points: Points) -> None:
    """Before and after each exchange with the server."""
    points.around(Pipeline, "sync", "send", "received")
    points.around(InsideRunner, "_execute", "send", "received")
    points.around(psycopg.RawCursor, "execute", "ask", "told")


class Disk:
    """What a disk has of a write-ahead log, if power is lost: what was there when it was last waited for.

    SQLite waits by itself at the commits of some connections; those of the others wait by `os.fdatasync`.
    """

    def __init__(self, log: Path, points: Points) -> None:
        self._log = log
        self._points = points
        self._lock = threading.Lock()
        self._turn = 0
        self._kept = self._look()
        self._sync = os.fdatasync
        self._connect = engine.connect
        os.fdatasync = self.fdatasync
        engine.connect = self.connect

    def lose_power(self) -> None:
        """Write down what the disk has."""
        self._log.with_name("disk").write_bytes(self._kept[1])

    def fdatasync(self, descriptor: int) -> None:
        self._points.hit("sync")
        seen = self._look()
        self._sync(descriptor)
        self._keep(seen)
        self._points.hit("synced")

    def connect(self, *given: Any, **named: Any) -> apsw.Connection:
        """A connection whose statements are points."""
        connection = self._connect(*given, **named)
        if not named.get("read_only"):
            connection.exec_trace = self._statement
            waiting = named.get("waiting", True)
            connection.set_wal_hook(lambda *_: self._committed(waiting))
        return connection

    def _statement(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        self._points.hit("commit" if sql.strip().startswith("commit") else "statement")
        return True

    def _committed(self, waiting: bool) -> int:
        if waiting:
            self._keep(self._look())
        self._points.hit("committed")
        return int(apsw.SQLITE_OK)

    def _look(self) -> tuple[int, bytes]:
        with self._lock:
            self._turn += 1
            return self._turn, self._log.read_bytes() if self._log.exists() else b""

    def _keep(self, seen: tuple[int, bytes]) -> None:
        with self._lock:
            self._kept = max(self._kept, seen, key=lambda one: one[0])
