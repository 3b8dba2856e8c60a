"""The lanes of the embedded engine: batches of transactions share a commit, batches of queries a snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import apsw

from apiary.engine.batch import Batch, BatchLost, gave_up, uncommitted
from apiary.engine.protocol import Committed
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.session import SqliteSession
from apiary.runtime.call import Guard, Program, perform, stopped
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import ConstraintViolated, DatabaseUnavailable, Error, Stopped, Unseen
from apiary.runtime.session import Call, Outcome, Part, Record
from apiary.runtime.transaction import Notes

TURN_SECONDS = 0.003
LOOK_SECONDS = 0.0005
BUSY_SECONDS = 1.0
MAX_BUSY = 60
"""So many times a batch tries to begin again that had begun, and was undone because of one of its calls."""
MAX_UNSEEN = 10
"""So often calls are run again that met a record of which they did not know."""


class Turn:
    """Lets the threads of a process take turns, a batch at a time.

    SQLite gives up Python's global lock in each statement; threads that both want it then pay for a switch at each
    statement. A turn is asked for, not insisted on: who waits too long, behind a long query, runs beside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    def __enter__(self) -> None:
        self._mine.held = self._lock.acquire(timeout=TURN_SECONDS)

    def __exit__(self, *error: object) -> None:
        if self._mine.held:
            self._lock.release()


class Locked:
    """How a connection waits while another process writes (SQLite's busy handler).

    It looks often: of a process that writes all the time only the moments between two transactions are free, and
    SQLite's own handler, which looks ten times a second in the end, would miss them.
    """

    def __init__(self) -> None:
        self._until = 0.0

    def __call__(self, looks: int) -> bool:
        now = time.monotonic()
        if looks == 0:
            self._until = now + BUSY_SECONDS
        time.sleep(LOOK_SECONDS)
        return now < self._until


class WritingLane:
    """Runs transactions one after another, each in its savepoint, and commits them together."""

    def __init__(self, session: SqliteSession, program: Program, guard: Guard, turn: Turn, most_steps: int) -> None:
        session.connection.set_busy_handler(Locked())
        self._session = session
        self._program = program
        self._batch = Batch(session, program, guard, most_steps)
        self._turn = turn

    def begin(self) -> bool:
        """Begin; false where another process goes on writing. What else keeps it from that, `run` tells the calls."""
        try:
            self._begin()
        except apsw.BusyError:
            return False
        except Exception:  # noqa: BLE001 - whatever it was, `run` meets it again
            self._abandon()
        return True

    def _begin(self) -> None:
        if not self._session.connection.in_transaction:
            self._session.begin("begin_write")

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run and commit. Where the batch fails as a whole, every call is run again by itself."""
        try:
            for _ in range(MAX_BUSY):
                if self.begin():
                    break
            self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it was, the calls of the batch must be answered
            self._abandon()
            return Committed([_gave_up(call, error) for call in calls], lost=records)
        try:
            return self._together(calls, records)
        except BatchLost as lost:
            self._abandon()
            done = self.run(lost.rest(calls), [*records, *lost.records])
            return Committed(lost.outcomes(calls, done.outcomes), done.queued, done.lost)
        except Unseen as error:
            self._abandon()
            if max(call.attempt for call in calls) >= MAX_UNSEEN:
                return Committed([_gave_up(call, error) for call in calls], lost=records)
            return self.run([replace(call, attempt=call.attempt + 1) for call in calls], records)
        except Exception as error:  # noqa: BLE001 - whatever it was, the calls of the batch must be answered
            self._abandon()
            doubt = not isinstance(error, apsw.ConstraintError)  # a commit may have been kept, in spite of its error
            if len(calls) + len(records) <= 1:
                return replace(self._alone(calls, records, self._session.ended_by or error), doubt=doubt)
        calls = [replace(call, attempt=call.attempt + doubt) for call in calls]
        alone = [self.run((), (record,)) for record in records] + [self.run((call,)) for call in calls]
        return Committed(
            [outcome for done in alone for outcome in done.outcomes],
            [queued for done in alone for queued in done.queued],
            [record for done in alone for record in done.lost],
            doubt=doubt,
        )

    def _together(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        with self._turn:
            done = self._batch.run(calls, records)
        self._session.commit()
        return done

    def _alone(self, calls: Sequence[Call], records: Sequence[Record], error: Exception) -> Committed:
        """What one call comes to that cannot commit. Where its own changes are the reason, that is its outcome."""
        known = error if isinstance(error, Error) else translate(error)
        if not calls or not isinstance(known, ConstraintViolated):
            return Committed([_gave_up(call, error) for call in calls], lost=records)
        bound = self._program.functions.get(calls[0].function)
        if bound is not None and bound.function.kind is Kind.WORKFLOW:
            if calls[0].careful:
                return Committed([_gave_up(calls[0], known)])
            return self.run([replace(calls[0], attempt=calls[0].attempt + 1, careful=True)])
        outcome, record = uncommitted(self._program, calls[0], known)
        if self.run((), (record,)).lost:
            return Committed([_gave_up(calls[0], DatabaseUnavailable("the failure could not be recorded"))])
        return Committed([outcome])

    def _abandon(self) -> None:
        """Roll back. An error of that is no news: SQLite has ended the transaction all the same."""
        self._session.records.clear()
        if self._session.connection.in_transaction:
            with suppress(apsw.Error):
                self._session.platform("rollback")

    def open(self) -> None:
        """The file is open."""

    def take_records(self) -> list[Record]:
        records, self._session.records = self._session.records, []
        return records

    def confirm(self, done: Committed) -> None:
        """Each commit is new."""

    def interrupt(self) -> None:
        self._session.connection.interrupt()

    def close(self) -> None:
        self._session.connection.close()


class ReadingSession(SqliteSession):
    """A session that only reads: it needs no savepoints, and its records wait for somebody who writes."""

    def savepoint(self, part: Part) -> None:
        """Nothing to undo."""
        if part == "call":
            self.capture.begin()

    def release(self, part: Part) -> None:
        """Nothing was held."""

    undo = release

    def record(self, record: Record) -> None:
        if self.recording:
            self.records.append(record)


class ReadingLane:
    """Runs queries that wait at the same moment on one snapshot, which is taken after all of them had arrived."""

    def __init__(self, session: ReadingSession, program: Program, guard: Guard, turn: Turn) -> None:
        self._session = session
        self._program = program
        self._guard = guard
        self._turn = turn
        self._durable: object = None

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run the queries. `records` belong to lanes that write."""
        session = self._session
        version: Any = None
        try:
            session.begin("begin_read")
            version = session.platform("data_version").fetchall()[0][0]
            with self._turn:
                outcomes = [self._one(call) for call in calls]
        except apsw.Error as error:
            outcomes = [_gave_up(call, error) for call in calls]
        finally:
            if session.connection.in_transaction:
                with suppress(apsw.Error):
                    session.platform("rollback")
        return Committed(outcomes, snapshot=version, durable=version == self._durable)

    def open(self) -> None:
        """The file is open."""

    def confirm(self, done: Committed) -> None:
        """What these queries saw is durable by now, and so it is for all that see the same."""
        self._durable = done.snapshot

    def _one(self, call: Call) -> Outcome:
        notes = Notes()
        try:
            return perform(self._program, call, self._session, self._guard, notes)
        except Stopped:
            outcome, record = stopped(self._program, call, notes)
            self._session.record(record)
            return outcome
        except Exception as error:  # noqa: BLE001 - whatever it was, the call must be answered
            return _gave_up(call, error)

    def begin(self) -> bool:
        """A snapshot waits for nobody."""
        return True

    def take_records(self) -> list[Record]:
        records, self._session.records = self._session.records, []
        return records

    def interrupt(self) -> None:
        self._session.connection.interrupt()

    def close(self) -> None:
        self._session.connection.close()


def _gave_up(call: Call, error: Exception) -> Outcome:
    return gave_up(call, error if isinstance(error, Error) else translate(error))
