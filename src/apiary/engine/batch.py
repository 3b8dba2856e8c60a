"""Runs a batch of transactions in one open transaction, each in its savepoint: what is the same on every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from apiary.engine.protocol import LAST_ATTEMPT, Committed
from apiary.runtime.advance import MOST_STEPS, advance
from apiary.runtime.beginning import first_input
from apiary.runtime.call import Bound, Guard, Program, failure, perform, problem_of, stopped
from apiary.runtime.control import PREFIX, control
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import (
    DatabaseUnavailable,
    Duplicate,
    Error,
    Forbidden,
    NotFound,
    Stopped,
    Unavailable,
    UnknownFunction,
    Unseen,
    WrongArguments,
)
from apiary.runtime.ledger import Lost
from apiary.runtime.repeated import recorded_outcome, replayed
from apiary.runtime.session import OPEN, Call, Instance, Outcome, Pause, Queued, Record, WorkflowSession
from apiary.runtime.transaction import Notes, now_microseconds
from apiary.runtime.undoing import CANCELLING, UNDOING, end_early, read_failure

MAX_KEY_BYTES = 2000


class BatchSession(WorkflowSession, Protocol):
    """A session in which many calls run, one after another."""

    def claim(self, identifier: bytes) -> Queued | None:
        """A call of the queue as it is now; where it is due, it begins: from now on another one may wait."""

    def dequeue(self, identifier: bytes) -> None:
        """Take a call out of the queue."""

    def count_attempt(self, identifier: bytes, attempt: int) -> None:
        """Write down that a call of the queue was tried so many times."""


class BatchLost(Exception):
    """A call was stopped in a way that ended the whole transaction (SQLite does so for an interrupted write).

    `record` tells of that. A workflow in which a step was stopped has no `outcome` yet: it goes on, and sees it.
    Without a record it is tried again with care, because other steps were lost with that one.
    """

    def __init__(self, call: Call, outcome: Outcome | None, record: Record | None) -> None:
        super().__init__(call.function)
        self.call = call
        self.outcome = outcome
        self.record = record

    @property
    def records(self) -> list[Record]:
        """What is to be written first."""
        return [] if self.record is None else [self.record]

    def rest(self, calls: Sequence[Call]) -> list[Call]:
        """What is to be run again then."""
        if self.outcome is not None:
            return [call for call in calls if call is not self.call]
        again = replace(self.call, attempt=self.call.attempt + 1, careful=True)
        return [again if call is self.call else call for call in calls]

    def outcomes(self, calls: Sequence[Call], rest: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes of all calls, from those of the rest."""
        found = list(rest)
        if self.outcome is not None:
            found.insert([call is self.call for call in calls].index(True), self.outcome)
        return found


class Batch:
    """The calls of one program in the transactions of one session."""

    def __init__(self, session: BatchSession, program: Program, guard: Guard, most_steps: int = MOST_STEPS) -> None:
        self.most_steps = most_steps
        self._session = session
        self._program = program
        self._guard = guard

    def run(self, calls: Sequence[Call], records: Sequence[Record]) -> Committed:
        """Write `records`, then run the calls. The transaction is still open; an exception says that it must end.

        What is `lost` of the records is what had a record already.
        """
        duplicates = [record for record in records if not self._keep(record)]
        outcomes: list[Outcome] = []
        try:
            for call in calls:
                outcomes.append(self._one(call))
        except Unavailable as error:
            error.during = calls[len(outcomes)].function
            raise
        return Committed(outcomes, self._session.enqueued, duplicates)

    def _keep(self, record: Record) -> bool:
        """Write the record of something that ran elsewhere (an action, a query), unless there is one already.

        Where its idempotency key was taken meanwhile it is written without, and counts as if there were one.
        """
        session = self._session
        again = record.queued and record.status == "stopped" and record.attempt < LAST_ATTEMPT
        instance = None
        if record.kind == Kind.WORKFLOW.value and record.queued and not again:
            instance = session.instance(record.id, None)
        undoes = instance is not None and may_undo(instance)
        if instance is not None:
            first = first_input(session, instance)
            record = replace(record, status="stopped") if undoes else given_up(record, instance, first)
        named = record.key is None or self._is_free(record.key, record.id)
        try:
            session.record(record if named else replace(record, key=None))
        except Duplicate:
            return False
        if record.step is not None and record.parent is not None and record.kind != Kind.QUERY.value:
            session.wake(record.parent, record.step)
        if again or undoes:
            session.count_attempt(record.id, 0 if undoes else record.attempt)
            if undoes and instance is not None:
                end_early(session, instance, self._program.version, record.error)
        elif instance is not None:
            session.drop_instance(record.id)
        elif record.queued:
            session.dequeue(record.id)
        return named

    def _is_free(self, key: str, identifier: bytes) -> bool:
        """Whether no other call took an idempotency key while something ran that was begun with it."""
        holder = self._session.find(None, key)
        return holder is None or holder.id == identifier

    def _one(self, call: Call) -> Outcome:
        bound = self._program.functions.get(call.function)
        if bound is not None and bound.function.kind is Kind.WORKFLOW:
            return self._workflow(call) if call.epoch or not call.queued else self._has_changed(call)
        session = self._session
        notes = Notes()
        try:
            if call.key is not None or call.attempt > 1:
                _check_key(call.key)
                self._look_up(call)
            begins = call if call.claimed else self._begins(bound, call)
            if isinstance(begins, Outcome):
                return begins
            outcome = self._run(begins, notes)
        except (WrongArguments, UnknownFunction, Forbidden) as error:
            return Outcome(error=problem_of(call, error), cause=error)
        except Duplicate:
            outcome = self._recorded(call)
        except Stopped:
            outcome, record = stopped(self._program, call, notes)
            if session.lost:
                raise BatchLost(call, outcome, record) from None
            self._keep(record)
            return outcome
        if call.queued:
            session.dequeue(call.id)
            if call.parent is not None and call.step is not None:
                session.wake(call.parent, call.step)
        return outcome

    def _run(self, call: Call, notes: Notes) -> Outcome:
        if call.function.startswith(PREFIX):
            return control(self._program, call, self._session)
        return perform(self._program, call, self._session, self._guard, notes)

    def _has_changed(self, call: Call) -> Outcome:
        """A call was queued of what has become a workflow since then."""
        error = UnknownFunction(f"{call.function} is a workflow by now, and was queued as something else")
        outcome, record = uncommitted(self._program, call, error)
        self._keep(record)
        return outcome

    def _begins(self, bound: Bound | None, call: Call) -> Call | Outcome:
        """A call of the queue with the arguments that it has by now, if it is still due.

        `Duplicate` where it has left the queue. Of an action, which runs elsewhere, these arguments are the outcome.
        """
        row = self._session.claim(call.id)
        if row is None and self._session.find(call.id, None) is None:
            return _gone(call, "the call is not in the queue any more")
        if row is None:
            raise Duplicate
        if row.delayed and row.due > now_microseconds():
            return Outcome(pause=Pause(row.due, 0, waiting=True))
        if bound is not None and bound.function.kind is Kind.ACTION:
            return Outcome(row.input)
        return replace(call, input=row.input)

    def _workflow(self, call: Call) -> Outcome:
        """Begin a workflow or let it go on. What is refused was not begun."""
        try:
            if call.key is not None or call.attempt > 1:
                _check_key(call.key)
                self._look_up(call, begun=OPEN)
            return advance(self._program, call, self._session, self._guard, self.most_steps)
        except Lost as lost:
            raise BatchLost(call, None, lost.record) from None
        except Unavailable:
            raise
        except Error as error:
            return Outcome(error=problem_of(call, error), cause=error)
        except Duplicate:
            return self._went_on(call) if call.queued else self._recorded(call)

    def _went_on(self, call: Call) -> Outcome:
        """A workflow has ended that is to go on. Actions of it may have outlived it: they are recorded all the same."""
        record = self._session.find(call.id, None)
        if record is None:
            return _gone(call, "the workflow is not there any more")
        for late in call.arrived:
            if self._session.find(late.id, None) is None:
                self._keep(late)
        return replayed(record)

    def _look_up(self, call: Call, begun: str = "") -> None:
        """A call that may be a repetition is not run to find out: what it would do now is not what it did then.

        One that was `begun`, as its status has it, is looked for elsewhere.
        """
        earlier = self._session.find(call.id, call.key)
        if earlier is not None and earlier.status != begun:
            raise Duplicate

    def _recorded(self, call: Call) -> Outcome:
        """The outcome of the earlier run of this call, which may be part of the same batch."""
        record = self._session.find(call.id, call.key)
        if record is None:
            raise Unseen("the call was committed by another attempt while it ran; send it again")
        try:
            return recorded_outcome(record, call, self._program.functions.get(call.function))
        except Error as error:
            return Outcome(error=problem_of(call, error), cause=error)


def may_undo(instance: Instance) -> bool:
    """Whether a workflow that is given up is to undo what it did, which was not tried so far."""
    return instance.state != UNDOING and not (instance.state == CANCELLING and instance.problem is not None)


def given_up(record: Record, instance: Instance, first: bytes) -> Record:
    """The record of a workflow that not even undoes what it did, as that which began says."""
    error = record.error
    if instance.state == UNDOING:
        undos = read_failure(instance.problem or "").undos
        error = json.dumps({**json.loads(error or "{}"), "not_undone": [f"{undo.function}: perhaps" for undo in undos]})
    return replace(
        record,
        error=error,
        input=first,
        caller=instance.caller,
        key=instance.key,
        parent=instance.parent,
        step=instance.step,
        started=instance.started,
        status="failed",
    )


def _gone(call: Call, why: str) -> Outcome:
    """What a call comes to that somebody has removed."""
    error = NotFound(why)
    return Outcome(error=problem_of(call, error), cause=error)


def _check_key(key: str | None) -> None:
    """`WrongArguments` for an idempotency key that not every database could keep."""
    try:
        fits = key is None or ("\0" not in key and len(key.encode()) <= MAX_KEY_BYTES)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise WrongArguments(f"an idempotency key is text without NUL, of at most {MAX_KEY_BYTES} bytes in UTF-8")


def uncommitted(program: Program, call: Call, error: Error) -> tuple[Outcome, Record]:
    """What a call comes to that cannot run, or whose changes cannot be committed (a constraint checked at the end)."""
    problem = problem_of(call, error)
    record = failure(program, program.find(call.function), call, Notes(), problem, error)
    return Outcome(error=problem, cause=error), record


def gave_up(call: Call, error: Error) -> Outcome:
    """The outcome of a call that could not be committed; it may be sent again."""
    if not error.retryable:
        error = DatabaseUnavailable(f"the call could not be committed: {error.message}", hint=error.hint)
    return Outcome(error=problem_of(call, error), cause=error)
