"""The lanes of the embedded engine: batches of transactions share a commit, batches of queries a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from apiary.engine.protocol import LAST_ATTEMPT, Committed
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.session import SQL, SqliteSession, row_record
from apiary.runtime.call import Guard, Program, perform, problem_of, recorded_outcome, stopped
from apiary.runtime.errors import DatabaseUnavailable, Duplicate, Error, KeyReused, Stopped
from apiary.runtime.session import Call, Outcome, Record
from apiary.runtime.transaction import now_microseconds


class _BatchLost(Exception):
    """A call was stopped in a way that ended the whole transaction (SQLite does so for an interrupted write)."""

    def __init__(self, call: Call, outcome: Outcome, record: Record) -> None:
        super().__init__(call.function)
        self.call = call
        self.outcome = outcome
        self.record = record


class WritingLane:
    """Runs transactions one after another, each in its savepoint, and commits them together."""

    def __init__(self, session: SqliteSession, program: Program, guard: Guard) -> None:
        self._session = session
        self._program = program
        self._guard = guard

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run and commit. Where the batch fails as a whole, every call is run again by itself."""
        try:
            return self._together(calls, records)
        except _BatchLost as lost:
            self._abandon()
            others = [call for call in calls if call is not lost.call]
            done = self.run(others, [*records, lost.record])
            outcomes = dict(zip(map(id, others), done.outcomes, strict=True))
            settled = [outcomes.get(id(call), lost.outcome) for call in calls]
            return Committed(settled, done.queued, done.lost)
        except Exception as error:  # noqa: BLE001 - whatever it was, the calls of the batch must be answered
            self._abandon()
            if len(calls) + len(records) <= 1:
                return Committed([_gave_up(call, error) for call in calls], lost=records)
        alone = [self.run((), (record,)) for record in records] + [self.run((call,)) for call in calls]
        return Committed(
            [outcome for done in alone for outcome in done.outcomes],
            [queued for done in alone for queued in done.queued],
            [record for done in alone for record in done.lost],
        )

    def _together(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        session = self._session
        session.begin("begin_write")
        for record in records:
            self._keep(record)
        outcomes = [self._one(call) for call in calls]
        session.platform("commit")
        return Committed(outcomes, session.enqueued)

    def _keep(self, record: Record) -> None:
        """Write the record of something that ran elsewhere: an action, a query, a call that was stopped."""
        try:
            self._session.record(record)
        except Duplicate:
            return
        if record.queued and (record.status != "stopped" or record.attempt >= LAST_ATTEMPT):
            self._session.platform("dequeue", (record.id,))

    def _one(self, call: Call) -> Outcome:
        session = self._session
        started = now_microseconds()
        kept = len(session.enqueued)
        try:
            outcome = perform(self._program, call, session, self._guard)
            if outcome.error is None:
                kept = len(session.enqueued)
        except Duplicate:
            outcome = self._recorded(call)
        except Stopped:
            outcome, record = stopped(self._program, call, started)
            if not session.connection.in_transaction:
                raise _BatchLost(call, outcome, record) from None
            self._keep(record)
            return outcome
        finally:
            del session.enqueued[kept:]
        if call.queued:
            session.platform("dequeue", (call.id,))
        return outcome

    def _recorded(self, call: Call) -> Outcome:
        """The outcome of the earlier run of this call, which may be part of the same batch."""
        record = find(self._session.connection, call.id, call.key)
        if record is None:
            raise DatabaseUnavailable("the record of this call went away while it ran; send it again")
        try:
            return recorded_outcome(record, call, self._program.find(call.function))
        except KeyReused as error:
            return Outcome(error=problem_of(call, error), cause=error)

    def _abandon(self) -> None:
        if self._session.connection.in_transaction:
            self._session.platform("rollback")

    def take_records(self) -> list[Record]:
        return []

    def interrupt(self) -> None:
        self._session.connection.interrupt()

    def close(self) -> None:
        self._session.connection.close()


class ReadingSession(SqliteSession):
    """A session that only reads: it needs no savepoints, and its records wait for somebody who writes."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.records: list[Record] = []

    def savepoint(self) -> None:
        """Nothing to undo."""

    release = undo = savepoint

    def record(self, record: Record) -> None:
        if self._recording:
            self.records.append(record)


class ReadingLane:
    """Runs queries that wait at the same moment on one snapshot, which is taken after all of them had arrived."""

    def __init__(self, session: ReadingSession, program: Program, guard: Guard) -> None:
        self._session = session
        self._program = program
        self._guard = guard

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run the queries. `records` belong to lanes that write."""
        session = self._session
        try:
            session.begin("begin_read")
        except apsw.Error as error:
            return Committed([_gave_up(call, translate(error)) for call in calls])
        outcomes = [self._one(call) for call in calls]
        if session.connection.in_transaction:
            session.platform("commit")
        return Committed(outcomes)

    def _one(self, call: Call) -> Outcome:
        started = now_microseconds()
        try:
            return perform(self._program, call, self._session, self._guard)
        except Stopped:
            outcome, record = stopped(self._program, call, started)
            self._session.record(record)
            return outcome
        except Error as error:
            return _gave_up(call, error)

    def take_records(self) -> list[Record]:
        records, self._session.records = self._session.records, []
        return records

    def interrupt(self) -> None:
        self._session.connection.interrupt()

    def close(self) -> None:
        self._session.connection.close()


def find(connection: apsw.Connection, identifier: bytes | None, key: str | None) -> Record | None:
    """The record of a call by its id or, failing that, by its idempotency key."""
    for name, value in (("find_call", identifier), ("find_key", key)):
        rows = connection.execute(SQL[name], (value,)).fetchall() if value is not None else []
        if rows:
            return row_record(rows[0])
    return None


def _gave_up(call: Call, error: Exception) -> Outcome:
    known = error if isinstance(error, Error) else translate(error)
    if not known.retryable:
        known = DatabaseUnavailable(f"the call could not be committed: {known.message}", hint=known.hint)
    return Outcome(error=problem_of(call, known), cause=error)
