"""The servers that share one database: the lease of this one, and what it hears of the others.

A thread with a connection of its own gives the signs of life, one statement each, and listens for word of changes. All
clocks are the database's. See `engine/members.py` for what the parts mean to each other.
"""

from __future__ import annotations

import logging
import random
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.pq.abc import PGconn
from psycopg.rows import dict_row

from apiary.engine.members import BEATS, Awaited, Beat, Changed, Left, Tell
from apiary.engine.postgres.connection import SERVER_KEEPALIVE, connect
from apiary.engine.postgres.install import Installer
from apiary.engine.statements import load_statements

log = logging.getLogger("apiary")

Cursor = psycopg.RawCursor[dict[str, Any]]

SQL = load_statements("apiary.engine.postgres", "members.sql")
AGAIN_SECONDS = (0.05, 1.0)
SETTINGS = {
    "default_transaction_isolation": "read\\ committed",
    "statement_timeout": "30s",
    "synchronous_commit": "off",  # no sign of life is worth a wait for the disk
    "client_min_messages": "warning",
    **SERVER_KEEPALIVE,
}


class PostgresMembers:
    """This server among those that use the same database. `server` is its identity at the moment."""

    alone = False

    def __init__(self, installer: Installer, url: str, lease_seconds: float) -> None:
        self.server = str(uuid4())
        self._installer = installer
        self._url = url
        self._lease_seconds = lease_seconds
        self._description = ""
        self._tell: Tell = lambda news: None
        self._closing = threading.Event()
        self._hurried = threading.Event()
        self._woken, self._wake = socket.socketpair()
        self._thread: threading.Thread | None = None

    def join(self, description: str, tell: Tell) -> None:
        self._description = description
        self._tell = tell
        self._ask("join", *self._joining())
        self._thread = threading.Thread(target=self._run, name="apiary-members", daemon=True)
        self._thread.start()

    def add_host(self, server: str, host: UUID, app: str, version: str) -> bool:
        return bool(self._ask("add_host", host, server, app, version))

    def end_host(self, host: UUID, *, served: bool) -> None:
        if served:
            self._ask("end_host", host)
        else:
            self.forget([host])

    def forget(self, hosts: Sequence[UUID]) -> None:
        self._ask("forget", list(hosts))

    def acts(self, server: str) -> bool:
        return bool(server and self._ask("acts", server))

    def acknowledge(self, server: str, deployment: str, state: str, problem: str | None) -> None:
        self._ask("acknowledge", deployment, server, state, problem)

    def awaited(self, server: str, deployment: str, state: str) -> list[Awaited]:
        return [Awaited(**row) for row in self._ask("awaited", deployment, server, state)]

    def conclude(self, deployment: str) -> None:
        self._ask("forget_acknowledgements", deployment)

    def claim_queue(self, server: str, app: str) -> bool:
        return bool(self._ask("claim_queue", app, server))

    def release_queue(self, server: str, app: str) -> None:
        self._ask("release_queue", app, server)

    def hurry(self) -> None:
        self._hurried.set()
        self._wake.send(b"\0")

    def listed(self) -> list[dict[str, Any]]:
        return self._ask("listed")

    def leave(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.send(b"\0")
        if self._thread is not None:
            self._thread.join()
            self._ask("leave", self.server)
            self._ask("forget_servers")
        self._wake.close()
        self._woken.close()

    def _joining(self) -> tuple[str, str, float]:
        return self.server, self._description, self._lease_seconds

    def _ask(self, name: str, *values: Any) -> list[dict[str, Any]]:
        """What is rare goes over the connection of the installer."""
        return self._installer.ask(SQL[name], values)

    def _run(self) -> None:
        failed = 0
        while not self._closing.is_set():
            try:
                with closing(connect(self._url, SETTINGS, f"apiary server {self.server}")) as connection:
                    connection.add_notify_handler(lambda notice: self._hear(notice.payload))
                    connection.execute(SQL["listen"].encode())
                    if failed > 1:
                        log.warning("this server can renew its lease again")
                    failed = 0
                    self._tell(Changed("registry"))
                    self._beat_on(connection)
            except psycopg.Error as error:
                failed += 1
                if failed == 2:
                    log.warning("this server cannot renew its lease: %s", " ".join(str(error).split()))
                least, most = AGAIN_SECONDS
                self._closing.wait(random.uniform(least, min(most, least * 2 ** min(failed, 20))))

    def _beat_on(self, connection: psycopg.Connection[Any]) -> None:
        """Give signs of life over this connection until it is lost, or nobody wants them any more."""
        cursor = psycopg.RawCursor(connection, row_factory=dict_row)
        while not self._closing.is_set():
            end = time.monotonic() + self._lease_seconds / BEATS
            self._hurried.clear()
            self._tell(self._beat(cursor))
            while not (self._closing.is_set() or self._hurried.is_set()) and time.monotonic() < end:
                self._listen(connection.pgconn, end)

    def _listen(self, pgconn: PGconn, end: float) -> None:
        """Pass on what comes, until somebody wakes this thread or the time is over."""
        wait = select.poll()
        for descriptor in (pgconn.socket, self._woken.fileno()):
            wait.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in wait.poll(max(0.0, end - time.monotonic()) * 1000)}
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        if pgconn.socket in ready:
            pgconn.consume_input()
            while (notice := pgconn.notifies()) is not None:
                self._hear(notice.extra.decode())

    def _hear(self, what: str) -> None:
        if what == "members":
            self._hurried.set()
        else:
            self._tell(Changed(what))

    def _beat(self, cursor: Cursor) -> Beat:
        found = _rows(cursor, "beat", self.server)[0]
        expelled = not found["alive"]
        if expelled:
            self.server = str(uuid4())
            _rows(cursor, "join", *self._joining())
            log.warning("this server was declared lost, because it gave no sign of life; it goes on as %s", self.server)
        lost = _rows(cursor, "declare_lost", found["silent"]) if found["silent"] else []
        for server in lost:
            log.warning("the server %(id)s (%(description)s) gave no sign of life: it is lost", server)
        left = self._left(cursor) if lost or found["lost"] or expelled else []
        return Beat(
            self.server,
            expelled,
            frozenset(found["others"]) - {str(server["id"]) for server in lost},
            frozenset(found["leaving"]) | {str(server["id"]) for server in lost},
            frozenset(found["taken"]),
            left,
        )

    def _left(self, cursor: Cursor) -> list[Left]:
        """What is left of hosts that are gone; their sessions are ended, until none is there any more."""
        found = _rows(cursor, "left")
        over = [row["id"] for row in found if not row["ended"] and not row["sessions"]]
        if over:
            _rows(cursor, "mark_ended", over)
        _rows(cursor, "forget_servers")
        return [Left(row["id"], row["app"], row["ended"] or row["id"] in over) for row in found]


def _rows(cursor: Cursor, name: str, *values: Any) -> list[dict[str, Any]]:
    cursor.execute(SQL[name].encode(), values)
    return cursor.fetchall() if cursor.description else []
