"""Connections of an app's role: opened with the settings that its transactions need, opened again when lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.types.string import TextLoader

from apiary.engine.postgres.errors import NotConnected
from apiary.engine.postgres.link import Link, Patience
from apiary.engine.postgres.session import own_statements

log = logging.getLogger("apiary")

CONNECT_SECONDS = 3
AGAIN_SECONDS = (0.05, 1.0)
"""Between two attempts to connect: at first, and at most."""
KEEPALIVE: dict[str, int | str] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "connect_timeout": CONNECT_SECONDS,
    "target_session_attrs": "primary",
}
"""Of every connection, on our side."""
SERVER_KEEPALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "2s",
}
"""On the server's side: a client that is gone holds no locks for long."""
SETTINGS = {
    "default_transaction_isolation": "serializable",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "client_min_messages": "warning",
    **SERVER_KEEPALIVE,
}
UNREACHABLE = "the database cannot be reached"
POOLED = "a pooler is between the platform and the database; name the server itself in its URL"
"""It would hand sessions around, whose settings, locks and identity matter here."""
READ_AS_TEXT = (
    "inet", "cidr", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange", "int4multirange",
    "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange",
)  # fmt: skip
"""Types that only one of the two placements would read as more than text."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one app lives: how to connect as its role, its schema, the schema of its log, and its program.

    `program` is the hash of the program that backends load; none where functions run beside the database, of which
    `why_beside` has the reason where that was not chosen.
    """

    conninfo: str
    schema: str
    log: str
    program: str | None = None
    why_beside: str | None = None


class Access:
    """The way of one engine to its database. When there is no connection to be had, that is known for a moment.

    `why`: the reason of the last failure, which is for those who run the platform.

    Connections of a `host` have its name, and it asks on each whether it still counts: see `schema/platform-002.sql`.
    `expelled` is called when it does not.
    """

    def __init__(self, target: Target, host: UUID | None = None, expelled: Callable[[], None] = lambda: None) -> None:
        self._target = target
        self._host = host
        self._expelled = expelled
        self._patience = Patience(target.conninfo, self._failed)
        self._lock = threading.Lock()
        self._refused_since: float | None = None
        self._failures = 0
        self._again = 0.0
        self._closed = False
        self.why = ""

    def open(self, *, read_only: bool = False, idle_seconds: float = 0.0, lock_seconds: float = 0.0) -> Link:
        """A connection in autocommit; `NotConnected` where there is none to be had, or was none a moment ago.

        `idle_seconds`: the server ends a transaction in which nothing is asked for so long. `lock_seconds`: a statement
        waits so long for a lock. 0: for ever.
        """
        with self._lock:
            if self._closed or (self._refused_since is not None and time.monotonic() < self._again):
                raise NotConnected(UNREACHABLE)
        settings: dict[str, str] = {
            "search_path": f'"{self._target.schema}",public',
            "default_transaction_read_only": "on" if read_only else "off",
            "idle_in_transaction_session_timeout": f"{idle_seconds * 1000:.0f}",
            "lock_timeout": f"{lock_seconds * 1000:.0f}",
        }
        begun = time.monotonic()
        try:
            link = Link(connect(self._target.conninfo, {**SETTINGS, **settings}, self._name))
        except psycopg.Error as error:
            self._failed(" ".join(str(error).split()), time.monotonic() - begun)
            raise NotConnected(UNREACHABLE) from None
        self._patience.watch(link)
        try:
            with link.waiting():
                pid, link.state = self._ask(link, "opened")
                counts = self._host is None or self._ask(link, "counts", self._host)[0]
        except psycopg.Error as error:
            raise NotConnected(link.lost(error).message) from None
        if pid != link.pid:
            link.close()
            raise NotConnected(POOLED)
        if not counts:
            link.close()
            self._expelled()
            raise NotConnected("this process was declared lost, and another one has its place")
        self._succeeded()
        for name in READ_AS_TEXT:
            link.connection.adapters.register_loader(name, TextLoader)
        return link

    @property
    def _name(self) -> str:
        return "apiary" if self._host is None else f"apiary host {self._host}"

    def _ask(self, link: Link, name: str, *values: Any) -> tuple[Any, ...]:
        statement = own_statements(self._target.log)[name].sql
        (row,) = psycopg.RawCursor(link.connection).execute(statement.encode(), values).fetchall()
        return tuple(row)

    def close(self) -> None:
        """Open and watch no connection any more."""
        self._closed = True
        self._patience.close()

    def _failed(self, why: str, seconds: float) -> None:
        """Try again after a pause, which is no shorter than the attempt."""
        with self._lock:
            now = time.monotonic()
            if self._refused_since is None:
                self._refused_since = now
                log.warning("the database cannot be reached: %s", why)
            least, most = AGAIN_SECONDS
            self.why = why
            self._again = now + max(seconds, min(most, least * 2 ** min(self._failures, 20)))
            self._failures += 1

    def _succeeded(self) -> None:
        with self._lock:
            if self._refused_since is not None:
                log.warning("the database can be reached again, after %.1f s", time.monotonic() - self._refused_since)
            self._refused_since = None
            self._failures = 0


def connect(conninfo: str, settings: dict[str, str], name: str = "apiary") -> psycopg.Connection[tuple[object, ...]]:
    """A connection in autocommit, with these settings of the server, and a name in its list of sessions."""
    options = " ".join(f"-c {setting}={value}" for setting, value in settings.items())
    there = make_conninfo(conninfo, options=options, application_name=name, **KEEPALIVE)
    return psycopg.connect(there, autocommit=True, prepare_threshold=2)
