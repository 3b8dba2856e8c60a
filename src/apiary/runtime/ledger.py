"""The ledger of one run of a workflow: what is recorded, what is held to be recorded, and why the body was left.

Below the operations (`driver.py`), above the machine, which numbers them. A body is left by an exception that it does
not catch: where it has to wait, where others have their turn, and where the database does not let it go on, which is
no matter of the body.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from apiary.runtime.errors import Duplicate, Nondeterministic, TooManySteps, Unavailable
from apiary.runtime.machine import History, Machine, Op, Operation, Step, step_id
from apiary.runtime.session import NEVER, Call, Instance, Record, WorkflowSession
from apiary.runtime.transaction import now_microseconds
from apiary.runtime.undoing import CANCELLING

MAX_SECONDS = 0.05
"""So long a workflow runs in one transaction, if no function of it takes longer; then others have their turn.

One that took longer to come where it was before may take as long again, and do half as much again as it had done: else
each step of a long workflow would cost another run of all.
"""
MAX_STEPS = 200_000


@dataclass(frozen=True, slots=True)
class Wait:
    """The body is left until it is `due`, or what it `waits` for has come: a step, or a message on a `topic`."""

    due: int = NEVER
    waits: int | None = None
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The body is left, and begins again with these arguments."""

    input: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The body is left because the workflow was cancelled, or its time is over. `late`: its code took too long."""

    late: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """The body is left because it, or the transaction, cannot go on."""

    error: BaseException


class Leave(BaseException):
    """Control flow: the body is left. Not an `Exception`, so that the body does not swallow it."""


class Ledger:
    """The operations of one run, by number. `most` functions run in it; where that is one, any operation is a run."""

    def __init__(
        self, version: str, call: Call, session: WorkflowSession, instance: Instance, *, stored: bool, most: int
    ) -> None:
        self.id = call.id
        self.careful = most == 1
        self.why: Wait | Again | Ended | Broken | None = None
        self.wrote = False
        self.held: list[Record] = []
        self.undoing = False
        self.undoes: int | None = None
        self.done = 0
        self._version = version
        self._session = session
        self._instance = instance
        self._most = most
        self._known = 0
        self._began = time.monotonic()
        self._until: float | None = None
        history = History(partial(session.steps, call.id), fresh=not stored and call.attempt == 1)
        self._machine = Machine(call.id, history, instance.first)

    @property
    def next(self) -> int:
        """The number of the next operation of the body."""
        return self._machine.next

    @property
    def ending(self) -> bool:
        """Whether the workflow is to end before its time."""
        return self._instance.state == CANCELLING or now_microseconds() >= self._instance.deadline

    @property
    def alone(self) -> bool:
        """Whether nothing was done in this run before the operation that is done now."""
        return self.done == 1 and not self.wrote and not self.held

    def begin(self, operation: Operation) -> tuple[int, Step | None]:
        """The number of the next operation, and its record. Without one, it is done now: else the body is left."""
        self.check_open()
        if self.next - self._instance.first >= MAX_STEPS and not self.undoing:
            raise TooManySteps(f"a workflow has at most {MAX_STEPS} steps", hint="begin again with wf.continue_as")
        try:
            number, step = self._machine.begin(operation, undoes=self.undoes)
        except (Nondeterministic, Unavailable, Duplicate) as error:
            self.leave(Broken(error))
        if step is None and number < self._instance.issued and operation.op not in (Op.ACTION, Op.WORKFLOW):
            self.leave(Broken(_other(number, operation)))
        if step is not None:
            self._known += 1
        elif number < self._instance.issued:
            pass  # an action or a child that was begun in an earlier run, and has not ended
        elif self.ending and not self.undoing:
            self.leave(Ended())
        elif self._is_over():
            self.postpone(Wait(due=now_microseconds()))
        elif self.careful or operation.op in (Op.QUERY, Op.TRANSACTION):
            self.done += 1
        return number, step

    def look(self, number: int) -> Step | None:
        """What is recorded under a number that was begun. Not for the body: what the database raises is raised."""
        return self._machine.look(number)

    def wait(self, number: int) -> Step:
        """What is recorded under a number that was begun. Where that is nothing yet, the body is left."""
        with self.database():
            step = self._machine.look(number)
        if step is None:
            self.stay(Wait(waits=number))
        return step

    def hold(self, number: int, record: Record) -> Step:
        """An operation was done that can be asked again without harm: its record is written with the next one."""
        self.held.append(record)
        return self._recorded(number, record, in_table=False)

    def keep(self, number: int, operation: Operation, output: bytes) -> Step:
        """The same, of something of the platform's own."""
        record = Record(
            id=step_id(self.id, number),
            function=operation.name,
            kind=operation.op.value,
            version=self._version,
            caller=self._instance.caller,
            attempt=1,
            started=now_microseconds(),
            duration=0,
            status="ok",
            input=operation.input,
            output=output,
            parent=self.id,
            step=number,
        )
        return self.hold(number, record)

    def written(self, number: int, record: Record) -> Step:
        """An operation was done, and its record written."""
        return self._recorded(number, record, in_table=self._session.recording)

    def _recorded(self, number: int, record: Record, *, in_table: bool) -> Step:
        step = Step(number, record.id, record.kind, record.function, record.input, record.output, record.error)
        self._machine.record(step, in_table=in_table)
        return step

    def flush(self) -> None:
        """Write the records that were held."""
        self.wrote |= bool(self.held)
        for record in self.held:
            self._session.record(record)
            self._recorded(record.step or 0, record, in_table=self._session.recording)
        self.held.clear()

    def stay(self, wait: Wait) -> NoReturn:
        """Leave the body until something has come, or for good."""
        self.leave(Ended() if self.ending and not self.undoing else wait)

    def postpone(self, wait: Wait) -> NoReturn:
        """Leave the body until the operation that was begun last can be done: it is asked for again then."""
        if self.undoes is None:
            self._machine.take_back()
        self.stay(wait)

    def leave(self, why: Wait | Again | Ended | Broken) -> NoReturn:
        """Leave the body."""
        self.why = why
        raise Leave

    def check_open(self) -> None:
        """A body that swallowed being left is left again."""
        if self.why is not None:
            raise Leave

    @contextmanager
    def database(self) -> Iterator[None]:
        """Leave the body where the database gives up in this block. It must not catch that, and go on otherwise."""
        try:
            yield
        except (Unavailable, Duplicate) as error:
            self.leave(Broken(error))

    def _is_over(self) -> bool:
        """Whether others have their turn, before something new is done."""
        if self.careful:
            return self.done > 0
        now = time.monotonic()
        if self._until is None:
            self._until = now + max(MAX_SECONDS, now - self._began)
        return now > self._until or self.done >= max(self._most, self._known // 2)


def _other(number: int, operation: Operation) -> Nondeterministic:
    now = f"{operation.op} {operation.name}"
    return Nondeterministic(f"step {number} was begun as an action or a workflow, and is now {now}", step=number)


class Lost(Exception):
    """A step was stopped in a way that ended the transaction with all that was in it; `record` tells of that step.

    Where there is none, other things had been done in the transaction before, and are to be done in one of their own.
    """

    def __init__(self, record: Record | None) -> None:
        super().__init__("the transaction was lost")
        self.record = record
