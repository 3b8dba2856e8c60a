"""Runs a batch once, on one connection: in a backend, or here with its statements over the connection.

What becomes of a batch that fails is the lane's business (`lane.py`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg import pq

from apiary.engine.batch import Batch
from apiary.engine.postgres.beside.session import BesideSession
from apiary.engine.postgres.connection import Access, Target
from apiary.engine.postgres.errors import (
    CANCELLED,
    INTERRUPTED,
    REFUSED,
    Cancelled,
    Conflicted,
    ConnectionLost,
    NotConnected,
    translate,
)
from apiary.engine.postgres.inside.memory import RECYCLE_BYTES
from apiary.engine.postgres.link import Link
from apiary.engine.postgres.session import RESTORING, own_statements
from apiary.engine.postgres.wire import pack_batch, unpack_done
from apiary.engine.protocol import Committed
from apiary.runtime.call import Guard, Program
from apiary.runtime.errors import Error, from_problem
from apiary.runtime.result import Convert
from apiary.runtime.session import Call, Record

IDLE_SECONDS = 10.0
"""So long after the longest timeout of its functions, a transaction in which nothing happens is taken for abandoned."""

Ran = tuple[Committed, Sequence[Record]]
"""What a batch came to, and the records of its queries."""


class Runner:
    """One connection, opened when it is needed. Whoever uses it holds its `lock`."""

    def __init__(self, access: Access, target: Target, *, recording: bool, read_only: bool, most_steps: int) -> None:
        self.lock = threading.Lock()
        self.link: Link | None = None
        self._access = access
        self._target = target
        self._recording = recording
        self._read_only = read_only
        self._most_steps = most_steps
        self._own = own_statements(target.log)

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as this is known."""
        return self.link is not None and not self.link.closed

    def run(self, calls: Sequence[Call], records: Sequence[Record], guard: Guard, patience: float) -> Ran:
        """Run and commit once, in `patience` seconds; an `Error` says that nothing was kept, or that this is not known.

        `NotConnected`: nothing was sent. `ConnectionLost`: it is not known.
        """
        raise NotImplementedError

    def interrupt(self) -> None:
        """Have the server end the statement that runs now; called from another thread."""
        link = self.link
        if link is not None:
            with suppress(psycopg.Error):
                link.connection.cancel_safe(timeout=1.0)

    def close(self) -> None:
        """Close the connection."""
        if self.link is not None:
            self.link.close()


class InsideRunner(Runner):
    """Sends a batch to a backend, which runs it in one statement and commits."""

    def run(self, calls: Sequence[Call], records: Sequence[Record], guard: Guard, patience: float) -> Ran:
        state = self._open().state
        options = {"recording": self._recording, "read_only": self._read_only, "most_steps": self._most_steps}
        batch = pack_batch(calls, records, {**options, "state": state})
        done, kept, memory = unpack_done(self._execute(batch, patience), records)
        if memory > RECYCLE_BYTES:
            self.close()
        return done, kept

    def _execute(self, batch: bytes, patience: float) -> bytes:
        program = self._target.program
        assert program is not None
        link = self._open()
        values = [program.encode(), batch, link.state.encode()]
        try:
            with link.waiting(patience):
                result = link.connection.pgconn.exec_prepared(b"run", values, [0, 1, 0], 1)
        except psycopg.Error as error:
            raise link.lost(error) from None
        if result.status == pq.ExecStatus.TUPLES_OK:
            value = result.get_value(0, 1)
            if value is None:  # what ran before has changed the session, and nothing was run
                self._restore(link)
                return self._execute(batch, patience)
            return value
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode()
        if link.connection.pgconn.status != pq.ConnStatus.OK:
            lost = link.lost(message)
            lost.explained |= bool(state)
            raise lost
        if state in (CANCELLED, INTERRUPTED):
            link.close()
            raise Cancelled("the calls were ended from outside")
        detail = result.error_field(pq.DiagnosticField.MESSAGE_DETAIL) or b"{}"
        if state == REFUSED:
            raise from_problem(json.loads(detail))
        found = translate(state, message)
        if isinstance(found, Conflicted):
            with suppress(ValueError):  # at the commit, the detail is the server's own
                found.during = json.loads(detail).get("during")
        raise found

    def _restore(self, link: Link) -> None:
        """Make a session what it was in the beginning, or close its connection."""
        try:
            with link.waiting():
                for name in RESTORING:
                    link.connection.execute(self._own[name].sql.encode())
                row = link.connection.execute(self._own["state"].sql.encode()).fetchone()
        except psycopg.Error as error:
            raise link.lost(error) from None
        if row != (link.state,):
            link.close()

    def _open(self) -> Link:
        if self.link is None or self.link.closed:
            self.close()
            self.link = self._access.open(read_only=self._read_only)
            try:
                with self.link.waiting():
                    self.link.connection.pgconn.prepare(b"run", self._own["run"].sql.encode())
            except psycopg.Error as error:
                raise NotConnected(self.link.lost(error).message) from None
        return self.link


class BesideRunner(Runner):
    """Runs functions in this process, their statements over the connection."""

    def __init__(
        self,
        access: Access,
        target: Target,
        program: Program,
        convert_rows: Convert,
        *,
        recording: bool,
        read_only: bool,
        most_steps: int,
    ) -> None:
        super().__init__(access, target, recording=recording, read_only=read_only, most_steps=most_steps)
        self._program = program
        timeouts = (bound.function.options.timeout for bound in program.functions.values())
        self._idle_seconds = max(timeouts, default=0.0) + IDLE_SECONDS
        self._convert_rows = convert_rows
        self._session: BesideSession | None = None

    def run(self, calls: Sequence[Call], records: Sequence[Record], guard: Guard, patience: float) -> Ran:
        session, link = self._open()
        link.until = time.monotonic() + patience
        try:
            session.begin()
            done = Batch(session, self._program, guard, self._most_steps).run(calls, records)
            if not session.commit(several=len(calls) > 1):
                self.close()
        except Exception:
            self._abandon(session)
            raise
        kept, session.records = session.records, []
        return Committed(done.outcomes, done.queued, done.lost, durable=True), kept

    def _open(self) -> tuple[BesideSession, Link]:
        if self._session is None or self.link is None or self.link.closed:
            self.close()
            self.link = self._access.open(read_only=self._read_only, idle_seconds=self._idle_seconds)
            self._session = BesideSession(
                self.link,
                self._target.log,
                self._convert_rows,
                recording=self._recording,
                read_only=self._read_only,
            )
        return self._session, self.link

    def _abandon(self, session: BesideSession) -> None:
        """Leave the transaction; where that cannot be done in order, leave the connection."""
        session.records = []
        with suppress(Error):
            if not session.lost and not isinstance(session.ended_by, ConnectionLost):
                session.rollback()
                return
        self.close()
