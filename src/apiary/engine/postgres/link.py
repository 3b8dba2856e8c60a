"""A connection to the server that another thread can cut, and the thread that cuts those on which it is silent.

A network can swallow what is sent without ever saying so, and a wait for an answer would then not end. Who waits for
the server says since when (`Link.waiting_since`); after a while `Patience` asks the server, over a new connection,
whether it still works on that.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.errors import ConnectionTimeout, Diagnostic

from apiary.engine.postgres.errors import ConnectionLost

TICK_SECONDS = 0.25
DOUBT_SECONDS = 2.0
"""So long may the server be silent before it is asked; the pauses between questions double."""
ASK_SECONDS = 2
IDLE = frozenset({None, "idle", "idle in transaction", "idle in transaction (aborted)"})
FOR_EVER = float("inf")


class Link:
    """One connection. `until`: when (monotonic clock) the present wait has to end, whatever the server does.

    `state`: what of its session has to stay as it was in the beginning.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.state = ""
        self.pid = connection.info.backend_pid
        self.waiting_since: float | None = None
        self.until = FOR_EVER
        self.was_cut = False
        self._farewell = ""
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        connection.add_notice_handler(self._noticed)

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return bool(self.connection.closed)

    @contextmanager
    def waiting(self, seconds: float = FOR_EVER) -> Iterator[psycopg.Connection[Any]]:
        """In this block the server owes an answer, in so many seconds."""
        self.waiting_since = now = time.monotonic()
        self.until = now + seconds
        try:
            yield self.connection
        finally:
            self.waiting_since = None

    def lost(self, error: object) -> ConnectionLost:
        """Close what cannot be used any more; returns the error that says so."""
        self.close()
        said = str(error).strip().partition("\n")[0]
        found = ConnectionLost(f"the connection to the database was lost: {said}")
        found.explained = bool(self._farewell) or self.was_cut
        return found

    def cut(self) -> None:
        """End it from another thread: whoever waits for an answer gets an error."""
        self.was_cut = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _noticed(self, notice: Diagnostic) -> None:
        """The server says why it ends a connection, when another of its processes has crashed."""
        if notice.sqlstate is not None and notice.sqlstate.startswith("57P"):
            self._farewell = notice.sqlstate


class Patience:
    """Watches the links of one engine. `conninfo` leads to the same server.

    `unreachable` is told why, and in how many seconds it was found out, where the server does not answer.
    """

    def __init__(self, conninfo: str, unreachable: Callable[[str, float], None] = lambda why, seconds: None) -> None:
        self._conninfo = conninfo
        self._unreachable = unreachable
        self._links: set[Link] = set()
        self._asked: dict[Link, tuple[float, float]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def watch(self, link: Link) -> None:
        """Look after this link until it is closed."""
        with self._lock:
            self._links = {other for other in self._links if not other.closed} | {link}
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="apiary-patience", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            now = time.monotonic()
            self._asked = {link: asked for link, asked in self._asked.items() if link.waiting_since == asked[0]}
            for link in self._links:
                since = link.waiting_since
                if since is None or link.closed:
                    continue
                last = now > link.until
                if last or now >= self._asked.get(link, (since, since + DOUBT_SECONDS))[1]:
                    self._asked[link] = (since, now + max(ASK_SECONDS, now - since))
                    work = self._end if last else self._ask
                    threading.Thread(target=work, args=(link, since), name="apiary-doubt", daemon=True).start()

    def _ask(self, link: Link, since: float) -> None:
        """Cut the link where the server cannot be reached, or does nothing for it. To be refused is no reason."""
        try:
            found = self._server("select state from pg_stat_activity where pid = %s", link.pid)
            lost = found in IDLE
        except (ConnectionTimeout, TimeoutError):
            lost = True
            self._unreachable("it is silent", ASK_SECONDS)
        except psycopg.Error:
            lost = False
        if lost and link.waiting_since == since:
            link.cut()

    def _end(self, link: Link, since: float) -> None:
        """What took too long ends, on the server too."""
        with suppress(psycopg.Error, TimeoutError):
            self._server("select pg_terminate_backend(%s)", link.pid)
        if link.waiting_since == since:
            link.cut()

    def _server(self, question: str, pid: int) -> Any:
        """The answer to a question; an error after a few seconds, whatever happens."""
        with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=ASK_SECONDS) as connection:
            link = Link(connection)
            cutting = threading.Timer(ASK_SECONDS, link.cut)
            cutting.start()
            try:
                row = connection.execute(question.encode(), (pid,)).fetchone()
            except psycopg.Error:
                if link.was_cut:
                    raise TimeoutError from None
                raise
            finally:
                cutting.cancel()
                link.close()
        return None if row is None else row[0]
