"""The lanes of PostgreSQL: what becomes of a batch whose transaction fails is the same wherever its functions run."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import pq

from apiary.engine.batch import Batch, BatchLost, gave_up, uncommitted
from apiary.engine.postgres.beside.session import BesideSession
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.errors import REFUSED, Conflicted, ConnectionLost, Repeated, translate
from apiary.engine.postgres.wire import pack_batch, unpack_done
from apiary.engine.protocol import Committed
from apiary.runtime.call import Guard, Program
from apiary.runtime.errors import ConstraintViolated, DatabaseUnavailable, Error, from_problem
from apiary.runtime.result import Convert
from apiary.runtime.session import Call, Record

BACKOFF_SECONDS = (0.001, 0.128)
RECONNECT_SECONDS = (0.05, 2.0)


class PostgresLane:
    """One connection. A subclass says how a batch is run on it."""

    def __init__(self, target: Target, program: Program, *, recording: bool, read_only: bool) -> None:
        self._target = target
        self._program = program
        self._recording = recording
        self._read_only = read_only
        self._records: list[Record] = []
        self._connection: psycopg.Connection[Any] | None = None

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run and commit. Where the batch fails as a whole, every call is run again by itself."""
        try:
            return self._once(calls, records)
        except BatchLost as lost:
            others = [call for call in calls if call is not lost.call]
            done = self.run(others, [*records, lost.record])
            outcomes = dict(zip(map(id, others), done.outcomes, strict=True))
            settled = [outcomes.get(id(call), lost.outcome) for call in calls]
            return Committed(settled, done.queued, done.lost, durable=True)
        except Error as error:
            first, shared = error, len(calls) + len(records) > 1
        parts = [self._alone(call, first, shared) for call in calls] + [self._written(record) for record in records]
        return Committed(
            [outcome for part in parts for outcome in part.outcomes],
            [queued for part in parts for queued in part.queued],
            [record for part in parts for record in part.lost],
            durable=True,
        )

    def open(self) -> None:
        """Connect, and have the backend load its program: that takes it half a second."""
        with suppress(Error):
            self._once((), ())

    def take_records(self) -> list[Record]:
        records, self._records = self._records, []
        return records

    def confirm(self, done: Committed) -> None:
        """What is read here is durable."""

    def interrupt(self) -> None:
        connection = self._connection
        if connection is not None:
            with suppress(psycopg.Error):  # the server that does not hear this does not run the statement either
                connection.cancel_safe(timeout=1.0)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _attempt(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        """Run and commit once; an `Error` says that nothing of it was kept, or that this is not known."""
        raise NotImplementedError

    def _once(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        """`_attempt`, after which any fault is an `Error`: the thread of a lane has calls to answer."""
        try:
            return self._attempt(calls, records)
        except (Error, BatchLost):
            raise
        except Exception as error:
            if self._connection is not None:
                self._connection.close()
            raise DatabaseUnavailable(f"the calls could not be run: {type(error).__name__}: {error}") from error

    def _alone(self, call: Call, error: Error, shared: bool) -> Committed:
        """Run a call by itself, again and again where other calls or the connection were to blame.

        `shared`: the error was that of a batch, so perhaps another call's. Attempts are counted where one of them may
        have committed, so that the next looks first.
        """
        seconds = self._program.find(call.function).function.options.timeout if self._known(call) else 1.0
        deadline = time.monotonic() + seconds
        failed = 0
        while True:
            if isinstance(error, ConstraintViolated) and not shared:
                outcome, record = uncommitted(self._program, call, error)
                written = not self._written(record).lost
                return Committed([outcome if written else gave_up(call, error)], durable=True)
            wait = _wait(error, failed)
            if failed and (wait is None or time.monotonic() + wait > deadline):
                return Committed([gave_up(call, error)], durable=True)
            time.sleep(wait or 0.0)
            failed += 1
            shared = False
            if wait is not None:
                call = replace(call, attempt=call.attempt + 1)
            try:
                return self._once((call,), ())
            except BatchLost as lost:
                kept = not self._written(lost.record).lost
                return Committed([lost.outcome if kept else gave_up(call, error)], durable=True)
            except Error as again:
                error = again

    def _known(self, call: Call) -> bool:
        return call.function in self._program.functions

    def _written(self, record: Record) -> Committed:
        """Write one record by itself; lost where there is one already, or where the database does not let it be."""
        for _ in range(3):
            try:
                return self._once((), (record,))
            except (Conflicted, ConnectionLost):
                time.sleep(random.uniform(*RECONNECT_SECONDS) / 10)
            except Error:
                break
        return Committed((), lost=(record,), durable=True)


def _wait(error: Error, failed: int) -> float | None:
    """Seconds until the next attempt, with jitter; `None` where there shall be none."""
    least, most = RECONNECT_SECONDS if isinstance(error, ConnectionLost) else BACKOFF_SECONDS
    if not isinstance(error, Conflicted | ConnectionLost | Repeated):
        return None
    return random.uniform(0.0, min(most, least * 2**failed)) if failed else 0.0


class InsideLane(PostgresLane):
    """Sends a batch to a backend, which runs it in one statement and commits."""

    def _attempt(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        batch = pack_batch(calls, records, recording=self._recording, read_only=self._read_only)
        result = self._execute(batch)
        done, kept = unpack_done(result, records)
        self._records += kept
        return done

    def _execute(self, batch: bytes) -> bytes:
        assert self._target.program is not None
        if self._connection is None or self._connection.closed:
            self._connection = self._target.connect(read_only=self._read_only)
            self._connection.pgconn.prepare(b"run", b"select apiary.run($1::text, $2::bytea)")
        pgconn = self._connection.pgconn
        try:
            result = pgconn.exec_prepared(b"run", [self._target.program.encode(), batch], [0, 1], 1)
        except psycopg.OperationalError as error:
            raise ConnectionLost(f"the connection to the database was lost: {error}") from None
        if result.status == pq.ExecStatus.TUPLES_OK:
            value = result.get_value(0, 0)
            assert value is not None
            return value
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode()
        if pgconn.status != pq.ConnStatus.OK:
            self._connection.close()
            raise ConnectionLost(f"the connection to the database was lost: {message}")
        if state == REFUSED:
            raise from_problem(json.loads(result.error_field(pq.DiagnosticField.MESSAGE_DETAIL) or b"{}"))
        raise translate(state, message)


class BesideLane(PostgresLane):
    """Runs functions in this process, their statements over the connection."""

    def __init__(
        self,
        target: Target,
        program: Program,
        guard: Guard,
        convert_rows: Convert,
        *,
        recording: bool,
        read_only: bool,
    ) -> None:
        super().__init__(target, program, recording=recording, read_only=read_only)
        self._guard = guard
        self._convert_rows = convert_rows
        self._session: BesideSession | None = None

    def _attempt(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        session = self._open()
        try:
            session.begin()
            done = Batch(session, self._program, self._guard).run(calls, records)
            session.commit()
        except Exception:
            self._abandon(session)
            raise
        self._records += session.records
        session.records = []
        return Committed(done.outcomes, done.queued, done.lost, durable=True)

    def _open(self) -> BesideSession:
        if self._session is None or self._connection is None or self._connection.closed:
            self._connection = self._target.connect(read_only=self._read_only)
            self._session = BesideSession(
                self._connection,
                self._target.log,
                self._convert_rows,
                recording=self._recording,
                read_only=self._read_only,
            )
        return self._session

    def _abandon(self, session: BesideSession) -> None:
        """Leave the transaction; where that cannot be done in order, leave the connection."""
        session.records = []
        with suppress(Error):
            if not session.lost and not isinstance(session.ended_by, ConnectionLost):
                session.rollback()
                return
        if self._connection is not None:
            self._connection.close()
