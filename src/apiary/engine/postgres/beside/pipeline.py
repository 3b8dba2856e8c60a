"""Statements that travel together: libpq's pipeline mode, each statement prepared when it is first sent.

psycopg's own pipeline asks far more of Python for each statement than the server does (a checkout of 17 statements took
2.5 ms with it); its connection, its wrapper of libpq and its conversion of rows are used here.
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from apiary.engine.postgres.errors import ConnectionLost
from apiary.engine.postgres.link import Link
from apiary.runtime.errors import ValueOutOfRange

MAX_PREPARED = 1000
NO_VALUES: Sequence[bytes | None] = ()
FAILED = pq.ExecStatus.FATAL_ERROR
SYNCED = pq.ExecStatus.PIPELINE_SYNC
STACK = 5
"""How many frames of Python lie on another while results are read."""


class Pipeline:
    """The pipeline of one connection. Where an exception leaves it half-way it is `torn`, and of no use any more.

    Exceptions that may come between any two steps: a stop, from another thread. Those of a full stack are raised before
    it matters.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pgconn = link.connection.pgconn
        self._transformer = Transformer(link.connection)
        self._prepared: dict[str, bytes] = {}
        self._names = count()
        self._sent: list[str | None] = []
        self._wait = select.poll()
        self._wait.register(self._pgconn.socket, select.POLLIN)
        self._wait_both = select.poll()
        self._wait_both.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
        self.torn = False
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()

    def send(self, sql: str, values: Sequence[Any] = NO_VALUES) -> int:
        """Have a statement travel with the next `sync`; returns the place of its result there."""
        encoded = [None if value is None else value.encode() for value in values]
        name = self._prepared.get(sql) or self._prepare(sql)
        self.torn = True
        try:
            self._sent.append(None)
            self._pgconn.send_query_prepared(name, encoded)
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        self.torn = False
        return len(self._sent) - 1

    def describe(self, sql: str) -> int:
        """Have the question for the parameters of a statement travel with the next `sync`."""
        name = self._prepared.get(sql) or self._prepare(sql)
        self.torn = True
        try:
            self._sent.append(None)
            self._pgconn.send_describe_prepared(name)
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        self.torn = False
        return len(self._sent) - 1

    def _prepare(self, sql: str) -> bytes:
        if len(self._prepared) >= MAX_PREPARED:
            self._prepared.clear()
            self.send("deallocate all")
        text, name = sql.encode(), b"a%d" % next(self._names)
        self.torn = True
        try:
            self._sent.append(sql)
            self._pgconn.send_prepare(name, text)
            self._prepared[sql] = name
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        self.torn = False
        return name

    def forget(self, sql: str) -> None:
        """Have a statement be prepared again when it is sent next: the tables that it names have changed."""
        self._prepared.pop(sql, None)

    def sync(self) -> list[pq.abc.PGresult]:
        """Send what is waiting, and wait for the results of all of it."""
        _check_stack(STACK)
        self.torn = True
        sent, self._sent = self._sent, []
        results: list[pq.abc.PGresult] = []
        self._link.waiting_since = time.monotonic()
        try:
            self._pgconn.pipeline_sync()
            while self._pgconn.flush():
                self._wait_both.poll()
                self._pgconn.consume_input()
            for _ in sent:
                self._receive(results)
            while self._expected().status != SYNCED:
                pass
        except psycopg.OperationalError as error:
            raise self._lost(error, results) from None
        finally:
            self._link.waiting_since = None
        for sql, result in zip(sent, results, strict=True):
            if sql is not None and result.status != pq.ExecStatus.COMMAND_OK:
                self._prepared.pop(sql, None)
        self.torn = False
        return results

    def rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result, as psycopg reads their types; `ValueOutOfRange` for what Python cannot hold."""
        self._transformer.set_pgresult(result)
        try:
            rows: list[tuple[Any, ...]] = self._transformer.load_rows(0, result.ntuples, tuple)
        except psycopg.DataError as error:
            raise ValueOutOfRange(f"a column has a value that Python cannot hold: {error}") from None
        return rows

    def _receive(self, results: list[pq.abc.PGresult]) -> None:
        results.append(self._expected())
        while self._next() is not None:
            pass

    def _expected(self) -> pq.abc.PGresult:
        result = self._next()
        if result is None:
            raise psycopg.OperationalError("the server ended the session")
        return result

    def _next(self) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            self._wait.poll()
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    def _lost(self, error: Exception, results: Sequence[pq.abc.PGresult] = ()) -> ConnectionLost:
        lost = self._link.lost(error)
        lost.explained |= any(result.status == FAILED for result in results)
        return lost


def _check_stack(frames: int) -> None:
    """`RecursionError` unless so many more fit on the stack."""
    if frames:
        _check_stack(frames - 1)
