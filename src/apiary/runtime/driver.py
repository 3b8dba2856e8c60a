"""Does what a workflow asks for, in an open transaction, or leaves its body where that has to happen elsewhere.

Queries and transactions of the app run here, one after another, each in its savepoint and with its record. The records
of what can be asked again without harm (queries, the time) are held in memory, and written with the next that cannot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from apiary.runtime.call import Bound, Guard, Program, perform, stopped
from apiary.runtime.declaration import Function, Kind
from apiary.runtime.errors import (
    Duplicate,
    Nondeterministic,
    NotFound,
    RuleBroken,
    Stopped,
    Unavailable,
    UnknownFunction,
    WrongArguments,
)
from apiary.runtime.failures import revived
from apiary.runtime.ids import id_text
from apiary.runtime.machine import History, Machine, Op, Operation, Step, step_id
from apiary.runtime.messages import checked_name, checked_value
from apiary.runtime.session import MESSAGE, NEVER, Call, Instance, Outcome, Queued, Record, WorkflowSession
from apiary.runtime.transaction import Notes, check_roles, now_microseconds

MAX_SECONDS = 0.05
"""So long a workflow runs in one transaction, if no function of it takes longer; then others have their turn."""
OPS = {kind: Op(kind.value) for kind in Kind}
MAX_SLEEP_SECONDS = 100 * 366 * 86400.0


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
    """The body is left because the workflow was cancelled, or its time is over."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The body is left because it, or the transaction, cannot go on."""

    error: BaseException


class Leave(BaseException):
    """Control flow: the body is left. Not an `Exception`, so that the body does not swallow it."""


class Lost(Exception):
    """A step was stopped in a way that ended the transaction with all that was in it; `record` tells of that step."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.function)
        self.record = record


class Steps:
    """The operations of one run of a workflow. `why` says why the body was left, once it was."""

    def __init__(
        self,
        program: Program,
        call: Call,
        session: WorkflowSession,
        guard: Guard,
        instance: Instance,
        notes: Notes,
        *,
        stored: bool,
        most: int,
    ) -> None:
        self.id = call.id
        self.caller = instance.caller
        self.why: Wait | Again | Ended | Broken | None = None
        self.wrote = False
        self.held: list[Record] = []
        self.actions: dict[int, Call] = {}
        self.undos: list[tuple[int, Function[..., Any], Sequence[Any] | None]] = []
        self.undoing = False
        self._program = program
        self._call = call
        self._session = session
        self._guard = guard
        self._instance = instance
        self._notes = notes
        self._stored = stored
        self._most = most
        self._done = 0
        self._until = time.monotonic() + MAX_SECONDS
        self._roles = frozenset(instance.roles)
        load = (lambda first, end: session.steps(call.id, first, end)) if stored or call.attempt > 1 else None
        self.machine = Machine(call.id, History(load), instance.first)

    @property
    def ending(self) -> bool:
        """Whether the workflow is to end before its time."""
        return self._instance.state == "cancelling" or now_microseconds() >= self._instance.deadline

    def start(self, function: Function[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int:
        check_roles(function, self._roles)
        try:
            encoded = self._program.encode(function, args, kwargs)
            bound = self._program.find(function.name)
        except (WrongArguments, UnknownFunction) as error:
            raise RuleBroken(f"{function!r} cannot be run: {error.message}", hint=error.hint) from None
        shown = encoded
        if bound.codec.has_secrets:
            shown = bound.codec.canonical(self._step_call(0, function.name, encoded))
        number, known = self._begin(Operation(OPS[function.kind], function.name, shown))
        if known is None:
            self._do(number, bound, self._step_call(number, function.name, encoded))
        return number

    def wait(self, number: int) -> Step:
        step = self.machine.look(number)
        if step is None:
            self._stay(Wait(waits=number))
        return step

    def settle(self, number: int, function: Function[..., Any]) -> Any:
        self._check_open()
        step = self.wait(number)
        if step.error is not None:
            raise revived(step.error)
        return self._result(step)

    def undo_by(self, number: int, function: Function[..., Any], args: Sequence[Any] | None) -> None:
        self.undos.append((number, function, args))

    def undo(self, number: int, function: Function[..., Any], args: Sequence[Any] | None) -> None:
        """Call the function that undoes an operation, if that was done."""
        step = self.wait(number)
        if step.error is None:
            given = (self._result(step),) if args is None else args
            self.settle(self.start(function, given, {}), function)

    def finish(self) -> None:
        """Wait for the actions that were started, also where nobody asked for their results."""
        for number in reversed(self.actions):
            self.wait(number)

    def now(self) -> int:
        return int(self._note(Operation(Op.NOW, "wf.now", b"{}"), now_microseconds()).output or 0)

    def sleep(self, seconds: float) -> None:
        until = self._later("wf.sleep", seconds)
        if until > now_microseconds():
            self._stay(Wait(due=until))

    def receive(self, topic: str, timeout: float | None) -> Any:
        self._checked(checked_name, "topic", topic)
        until = NEVER if timeout is None else self._later("wf.deadline", timeout)
        operation = Operation(Op.RECEIVE, "wf.receive", self._json({"topic": topic}))
        number, step = self._begin(operation)
        if step is None:
            value = self._session.take_message(self.id, topic)
            self.wrote |= value is not None
            if value is None and until > now_microseconds():
                self._stay(Wait(until, MESSAGE, topic))
            step = self._keep(number, operation, value or b"null")
        return json.loads(step.output or b"null")

    def send(self, workflow: bytes, topic: str, value: Any) -> None:
        self._checked(checked_name, "topic", topic)
        written = self._checked(checked_value, "message", self._program, value)
        arguments = {"workflow": id_text(workflow), "topic": topic, "value": json.loads(written)}
        operation = Operation(Op.SEND, "wf.send", self._json(arguments))
        number, step = self._begin(operation)
        if step is None:
            sent = self._session.send(workflow, topic, written, step_id(self.id, number))
            self.wrote |= sent
            step = self._keep(number, operation, b"true" if sent else b"false")
        if step.output != b"true":
            raise NotFound(f"there is no workflow {id_text(workflow)} that could receive a message")

    def publish(self, name: str, value: Any) -> None:
        self._checked(checked_name, "name", name)
        written = self._checked(checked_value, "value", self._program, value)
        operation = Operation(Op.PUBLISH, "wf.publish", self._json({"name": name, "value": json.loads(written)}))
        number, step = self._begin(operation)
        if step is None:
            self._session.publish(self.id, name, written)
            self.wrote = True
            self._keep(number, operation, b"null")

    def log(self, message: str, fields: dict[str, Any]) -> None:
        line: dict[str, Any] = {"at": self._notes.elapsed(), "message": message}
        self._notes.lines.append({**line, "fields": fields} if fields else line)

    def continue_as(self, args: Sequence[Any], kwargs: dict[str, Any]) -> NoReturn:
        self._check_open()
        self.finish()
        bound = self._program.find(self._instance.function)
        try:
            self._leave(Again(self._program.encode(bound.function, args, kwargs)))
        except WrongArguments as error:
            raise RuleBroken(f"{bound.function.name} cannot begin again: {error.message}", hint=error.hint) from None

    def flush(self) -> None:
        """Write the records that were held."""
        for record in self.held:
            self._session.record(record)
        self.wrote |= bool(self.held)
        self.held.clear()

    def _result(self, step: Step) -> Any:
        return self._program.find(step.function).codec.decode_result(step.output or b"null")

    def _do(self, number: int, bound: Bound, call: Call) -> None:
        op = OPS[bound.function.kind]
        if op is Op.ACTION:
            self.actions[number] = call
        elif op is Op.WORKFLOW:
            self._begin_child(number, call)
        else:
            self._inline(number, call, reads=op is Op.QUERY)

    def _begin_child(self, number: int, call: Call) -> None:
        known = number < self._instance.issued or (self.undoing and self._session.instance(call.id, None) is not None)
        if known:
            return
        self.flush()
        self.wrote = True
        self._session.enqueue(
            Queued(
                id=call.id,
                function=call.function,
                input=call.input,
                caller=call.caller,
                parent=self.id,
                due=now_microseconds(),
                version=self._program.version,
                roles=self._instance.roles,
                step=number,
                epoch=1,
            )
        )

    def _inline(self, number: int, call: Call, *, reads: bool) -> None:
        """Run a query or a transaction here and now. What it raises is its outcome."""
        if self._done >= self._most or (self._done and time.monotonic() > self._until):
            self._leave(Wait(due=now_microseconds()))
        self._done += 1
        if not reads:
            self.flush()
        kept: list[Record] = []

        def keep(record: Record) -> None:
            kept.append(record)
            if not reads:
                self._session.record(record)

        if self._guard.end():
            raise Stopped
        try:
            self._perform(call, kept, keep)
        except (Duplicate, Unavailable, Lost) as error:
            self._leave(Broken(error))
        finally:
            self._guard.begin(self._call, self._seconds())
        record = kept[-1]
        if reads:
            self.held.append(record)
        else:
            self.wrote = True
        self._recorded(number, record)

    def _perform(self, call: Call, kept: list[Record], keep: Any) -> Outcome | None:
        notes = Notes()
        try:
            return perform(self._program, call, self._session, self._guard, keep)
        except Stopped:
            _, record = stopped(self._program, call, notes)
            if self._session.lost:
                raise Lost(record) from None
            keep(record)
            return None

    def _seconds(self) -> float:
        return self._program.find(self._instance.function).function.options.timeout

    def _step_call(self, number: int, function: str, encoded: bytes) -> Call:
        return Call(step_id(self.id, number), function, encoded, self.caller, self._roles, parent=self.id, step=number)

    def _later(self, name: str, seconds: float) -> int:
        """The time in so many seconds, as it was when this was asked first."""
        if not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_SLEEP_SECONDS:
            raise RuleBroken(f"{seconds!r} is no number of seconds to wait")
        operation = Operation(Op.SLEEP, name, self._json({"seconds": seconds}))
        return int(self._note(operation, now_microseconds() + int(seconds * 1e6)).output or 0)

    def _note(self, operation: Operation, value: int) -> Step:
        number, step = self._begin(operation)
        return step or self._keep(number, operation, str(value).encode())

    def _keep(self, number: int, operation: Operation, output: bytes) -> Step:
        """Hold the record of something of the platform's own."""
        record = Record(
            id=step_id(self.id, number),
            function=operation.name,
            kind=operation.op.value,
            version=self._program.version,
            caller=self.caller,
            attempt=1,
            started=now_microseconds(),
            duration=0,
            status="ok",
            input=operation.input,
            output=output,
            parent=self.id,
            step=number,
        )
        self.held.append(record)
        return self._recorded(number, record)

    def _recorded(self, number: int, record: Record) -> Step:
        step = step_of(record)
        self.machine.record(step)
        return step

    def _begin(self, operation: Operation) -> tuple[int, Step | None]:
        self._check_open()
        try:
            number, step = self.machine.begin(operation, undoing=self.undoing)
        except Nondeterministic as error:
            self._leave(Broken(error))
        if step is None and self.ending and not self.undoing:
            self._leave(Ended())
        return number, step

    def _stay(self, wait: Wait) -> NoReturn:
        self._leave(Ended() if self.ending and not self.undoing else wait)

    def _leave(self, why: Wait | Again | Ended | Broken) -> NoReturn:
        self.why = why
        raise Leave

    def _check_open(self) -> None:
        """A body that swallowed being left is left again."""
        if self.why is not None:
            raise Leave

    def _checked(self, check: Callable[..., Any], *given: Any) -> Any:
        try:
            return check(*given)
        except WrongArguments as error:
            raise RuleBroken(error.message, hint=error.hint) from None

    def _json(self, value: Any) -> bytes:
        try:
            return self._program.to_json(value)
        except Exception as error:
            raise RuleBroken(f"{type(value).__name__} cannot be sent as JSON: {error}") from error


def step_of(record: Record) -> Step:
    """A record as the history has it."""
    assert record.step is not None
    return Step(record.step, record.id, record.kind, record.function, record.input, record.output, record.error)
