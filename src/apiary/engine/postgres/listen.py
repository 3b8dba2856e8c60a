"""Waits for word of calls that were put into an app's queue from elsewhere: by its functions for SQL."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import psycopg
from psycopg import sql

from apiary.engine.postgres.connection import Access
from apiary.engine.postgres.session import own_statements
from apiary.runtime.errors import Error

AGAIN_SECONDS = (0.05, 5.0)


class Listener:
    """A thread with a connection of its own. `changed` is called for word that came, and after a time without it."""

    def __init__(self, access: Access, log: str, changed: Callable[[], None]) -> None:
        self._access = access
        self._log = log
        self._changed = changed
        self._closing = threading.Event()
        self._woken, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="apiary-listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._wake.close()
        self._thread.join()
        self._woken.close()

    def _run(self) -> None:
        failed = 0
        while not self._closing.is_set():
            with suppress(Error, psycopg.Error), closing(self._access.open()) as link:
                statement = sql.SQL(own_statements(self._log)["listen"].sql)
                link.connection.execute(statement.format(channel=sql.Identifier(self._log)))
                failed = 0
                self._changed()
                self._listen(link.connection)
            failed += 1
            least, most = AGAIN_SECONDS
            self._closing.wait(random.uniform(0.0, min(most, least * 2 ** min(failed, 20))))

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        """Pass on what comes, until the listener is closed or the connection lost."""
        pgconn = connection.pgconn
        wait = select.poll()
        for descriptor in (pgconn.socket, self._woken.fileno()):
            wait.register(descriptor, select.POLLIN)
        while True:
            wait.poll()
            if self._closing.is_set():
                return
            pgconn.consume_input()
            told = False
            while pgconn.notifies() is not None:
                told = True
            if told:
                self._changed()
