"""The lanes of PostgreSQL: what becomes of a batch whose transaction fails, wherever its functions run."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import count

from apiary.engine.batch import BatchLost, gave_up, uncommitted
from apiary.engine.postgres.errors import Cancelled, Conflicted, ConnectionLost, NotConnected, Repeated
from apiary.engine.postgres.runner import Ran, Runner
from apiary.engine.postgres.turns import Turns
from apiary.engine.protocol import MAX_DEATHS, Committed
from apiary.runtime.call import Guard, Program, failure, problem_of, stopped
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import ConstraintViolated, Error, HostCrashed, Unavailable, Unseen
from apiary.runtime.session import Call, Outcome, Record
from apiary.runtime.transaction import Notes

BACKOFF_SECONDS = (0.001, 0.128)
RECONNECT_SECONDS = (0.05, 1.0)
DOUBLINGS = 20
RIDE_OUT_SECONDS = 5.0
"""So long a call waits for a database that cannot be reached, if its timeout is not shorter."""
GRACE_SECONDS = 3.0
"""Beyond the timeouts of its calls, a batch may take so long."""
MAX_UNWRITTEN = 10_000
MAX_TOGETHER = 6
"""So often a batch that collides with others runs as a whole, before its calls are run one by one."""


@dataclass(slots=True)
class Outage:
    """What the calls of one batch find out for each other when a connection was lost.

    `until` is when to give up a database that cannot be reached. `lasts`: a call has given up, and the others whose
    time is over need not try any more.
    """

    until: float
    lasts: bool = False


class StepLost(Unseen):
    """A step of a workflow keeps the others of its transaction from being committed, until it has one of its own."""


class PostgresLane:
    """One thread's way to the database, by a runner of its own or, without a connection, by one of another lane.

    `runners`: all that may do the same. The lane adds its own. `turns` are those of all that write.
    """

    def __init__(
        self, runner: Runner, runners: list[Runner], program: Program, guard: Guard, turns: Turns | None
    ) -> None:
        self._own = runner
        self._using = runner
        self._runners = runners
        runners.append(runner)
        self._program = program
        self._guard = guard
        self._turns = turns
        timeouts = (bound.function.options.timeout for bound in program.functions.values())
        self._longest = 2 * max(timeouts, default=0.0)
        self._records: list[Record] = []
        self._unwritten: list[Record] = []

    def open(self) -> None:
        """Connect, and have the backend load its program: that takes it half a second."""
        with suppress(Error):
            self._attempt((), (), GRACE_SECONDS)

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run and commit. Where the batch fails as a whole, it is run again as it is, then every call by itself."""
        if self._unwritten:
            records, self._unwritten = [*self._unwritten, *records], []
        return self._run(calls, records)

    def _run(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        begun = time.monotonic()
        seconds = [self._seconds(call) for call in calls]
        last = begun + min(seconds, default=GRACE_SECONDS)
        for before in count():
            try:
                return self._attempt(calls, records, max(seconds, default=0.0) + GRACE_SECONDS, before > 0)
            except BatchLost as lost:
                done = self._run(lost.rest(calls), [*records, *lost.records])
                return replace(done, outcomes=lost.outcomes(calls, done.outcomes))
            except Error as error:
                again = isinstance(error, Conflicted) and before + 1 < MAX_TOGETHER and time.monotonic() < last
                if not again:
                    return self._separately(calls, records, error, begun)
        raise AssertionError("the last attempt returns")

    def begin(self) -> bool:
        """Lanes of other processes may write at the same time."""
        return True

    def take_records(self) -> list[Record]:
        records, self._records = self._records, []
        return records

    def confirm(self, done: Committed) -> None:
        """What is read here is durable."""

    def interrupt(self) -> None:
        self._using.interrupt()

    def close(self) -> None:
        if self._unwritten:
            self.run(())
        self._own.close()

    def _attempt(
        self, calls: Sequence[Call], records: Sequence[Record], patience: float, again: bool = False
    ) -> Committed:
        """Run and commit once; after any fault an `Error`: the thread of a lane has calls to answer.

        `again`: they have collided with others already.
        """
        functions = {call.function for call in calls}
        try:
            with self._turns.taken(functions, patience) if self._turns else nullcontext(False) as in_turn:
                done, kept = self._on_a_runner(calls, records, patience)
        except Conflicted as error:
            if self._turns and (again or error.deadlock):
                self._turns.lost(functions if error.during is None else {error.during}, in_turn=in_turn)
            raise
        except (Error, BatchLost):
            raise
        except Exception as error:
            self._using.close()
            raise ConnectionLost(f"the calls could not be run: {type(error).__name__}: {error}") from error
        self._records += kept
        return done

    def _on_a_runner(self, calls: Sequence[Call], records: Sequence[Record], patience: float) -> Ran:
        self._using = self._own
        try:
            with self._own.lock:
                return self._own.run(calls, records, self._guard, patience)
        except NotConnected:
            for other in self._runners:
                if other.connected and other.lock.acquire(timeout=patience):
                    self._using = other
                    try:
                        return other.run(calls, records, self._guard, patience)
                    finally:
                        other.lock.release()
            raise

    def _separately(self, calls: Sequence[Call], records: Sequence[Record], error: Error, begun: float) -> Committed:
        """Each by itself, after the error of all."""
        shared = len(calls) + len(records) > 1
        outage = Outage(time.monotonic() + RIDE_OUT_SECONDS)
        parts = [self._alone(call, error, shared, begun, outage) for call in calls]
        parts += [self._written(record, outage.until) for record in records]
        return Committed(
            [outcome for part in parts for outcome in part.outcomes],
            [queued for part in parts for queued in part.queued],
            [record for part in parts for record in part.lost],
            durable=True,
            doubt=isinstance(error, ConnectionLost) or any(part.doubt for part in parts),
        )

    def _alone(self, call: Call, error: Error, shared: bool, begun: float, outage: Outage) -> Committed:
        """Run a call by itself, again and again where other calls or the connection were to blame.

        `shared`: the error was that of a batch, so perhaps another call's. Attempts are counted where one of them may
        have committed, so that the next looks first.
        """
        deadline = begun + self._seconds(call)
        failed = deaths = 0
        in_doubt = False
        tried = begun
        while True:
            if isinstance(error, ConnectionLost):
                in_doubt = True
                deaths += not (shared or error.explained)
            if isinstance(error, ConstraintViolated | StepLost) and not shared and self._can_care(call):
                call, error = replace(call, careful=True), StepLost(error.message)
            if isinstance(error, ConstraintViolated) and not shared:
                outcome, record = uncommitted(self._program, call, error)
                written = not self._written(record, outage.until).lost
                return Committed([outcome if written else gave_up(call, error)], durable=True)
            if isinstance(error, Cancelled) and not shared and time.monotonic() - tried > self._seconds(call):
                return self._stopped(call, outage.until)
            if deaths >= MAX_DEATHS:
                return self._crashed(call, outage.until)
            wait = _wait(error, failed)
            last = min(deadline, outage.until) if isinstance(error, NotConnected) else deadline
            if (failed or outage.lasts) and (wait is None or time.monotonic() + wait > last):
                outage.lasts |= isinstance(error, ConnectionLost | NotConnected)
                return Committed([gave_up(call, _unknown(call) if in_doubt else error)], durable=True, doubt=in_doubt)
            time.sleep(wait or 0.0)
            failed += 1
            shared = False
            if wait is not None:
                call = replace(call, attempt=call.attempt + 1)
            tried = time.monotonic()
            found = self._once(call, error, outage.until)
            if isinstance(found, Committed):
                return replace(found, doubt=in_doubt)
            error = found

    def _once(self, call: Call, before: Error, until: float) -> Committed | Error:
        """Run a call by itself; what it came to, or why to nothing. A workflow whose step was stopped goes on."""
        try:
            return self._attempt((call,), (), self._seconds(call) + GRACE_SECONDS, isinstance(before, Conflicted))
        except BatchLost as lost:
            kept = all(not self._written(record, until).lost for record in lost.records)
            if lost.outcome is None:
                return StepLost("a step of the workflow ended its transaction")
            return Committed([lost.outcome if kept else gave_up(call, before)], durable=True)
        except Error as error:
            return error

    def _can_care(self, call: Call) -> bool:
        """Whether a call is a workflow that can be run with more care: one of its steps is the reason."""
        bound = self._program.functions.get(call.function)
        return bound is not None and bound.function.kind is Kind.WORKFLOW and not call.careful

    def _stopped(self, call: Call, until: float) -> Committed:
        """The outcome of a call whose statement was ended because its time was over."""
        outcome, record = stopped(self._program, call, Notes())
        self._written(record, until)
        return Committed([outcome], durable=True)

    def _crashed(self, call: Call, until: float) -> Committed:
        """The outcome of a call that ended its backend each time; one of the queue leaves it with that record."""
        error = HostCrashed(
            f"the process of the database that ran {call.function} died {MAX_DEATHS} times",
            hint="look at the log for whether it took effect; mend the function before you send it again",
        )
        problem = problem_of(call, error)
        if call.queued:
            bound = self._program.functions.get(call.function)
            notes = Notes()
            self._written(failure(self._program, bound, call, notes, problem, error), until)
        return Committed([Outcome(error=problem, cause=error)], durable=True)

    def _seconds(self, call: Call) -> float:
        """How long a call may take; a workflow as long as the longest of the functions that it may run here."""
        bound = self._program.functions.get(call.function)
        if bound is not None and bound.function.kind is Kind.WORKFLOW:
            return self._longest
        return bound.function.options.timeout if bound else 1.0

    def _written(self, record: Record, until: float) -> Committed:
        """Write one record by itself; lost where there is one already, or where the database does not let it be.

        One that is no outcome, or that of a query, waits for the next batch then: nobody waits for that.
        """
        spare = record.kind == Kind.QUERY.value or record.status == "stopped"
        for failed in count():
            try:
                return self._attempt((), (record,), GRACE_SECONDS)
            except Repeated:
                break
            except Error as error:
                wait = _wait(error, failed)
                unreachable = isinstance(error, ConnectionLost | NotConnected)
                if wait is None or (spare and unreachable) or time.monotonic() + wait > until:
                    if spare and isinstance(error, Unavailable) and len(self._unwritten) < MAX_UNWRITTEN:
                        self._unwritten.append(record)
                    break
                time.sleep(wait)
        return Committed((), lost=(record,), durable=True)


def _wait(error: Error, failed: int) -> float | None:
    """Seconds until the next attempt, with jitter; `None` where there shall be none."""
    if not isinstance(error, Cancelled | Conflicted | ConnectionLost | NotConnected | Repeated | Unseen):
        return None
    least, most = RECONNECT_SECONDS if isinstance(error, ConnectionLost | NotConnected) else BACKOFF_SECONDS
    return random.uniform(0.0, min(most, least * 2 ** min(failed, DOUBLINGS))) if failed else 0.0


def _unknown(call: Call) -> ConnectionLost:
    return ConnectionLost(
        f"the connection to the database was lost while {call.function} ran; it may or may not have been kept",
        hint="send it again with the same idempotency key, or look whether it took effect",
    )
