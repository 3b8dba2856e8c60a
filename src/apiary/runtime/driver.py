"""Does what a workflow asks for, in an open transaction, or leaves its body where that has to happen elsewhere.

Queries and transactions of the app run here, one after another, each in its savepoint and with its record. The records
of what can be asked again without harm (queries, the time) are held in memory, and written with the next that cannot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from apiary.runtime.call import Bound, Guard, Program, failure, perform, problem_of, stopped
from apiary.runtime.declaration import Function, Kind
from apiary.runtime.errors import (
    Duplicate,
    Error,
    NotFound,
    RuleBroken,
    Stopped,
    Unavailable,
    UnknownFunction,
    WrongArguments,
)
from apiary.runtime.failures import revived
from apiary.runtime.ids import id_text
from apiary.runtime.ledger import Again, Broken, Ended, Ledger, Lost, Wait
from apiary.runtime.machine import Op, Operation, Step, step_id
from apiary.runtime.messages import checked_name, checked_value
from apiary.runtime.queueing import AT_ONCE, Terms, queued_call
from apiary.runtime.session import MESSAGE, NEVER, Call, Instance, Record, WorkflowSession
from apiary.runtime.transaction import Notes, check_roles, now_microseconds
from apiary.runtime.undoing import Undo, end_early

OPS = {kind: Op(kind.value) for kind in Kind}
MAX_SLEEP_SECONDS = 100 * 366 * 86400.0
REST = 0.25
"""After this part of the time that the body may take between two operations, one that is recorded begins it anew."""


class Steps:
    """The operations of one run of a workflow, whose records are in its `ledger`."""

    def __init__(
        self,
        program: Program,
        call: Call,
        session: WorkflowSession,
        guard: Guard,
        instance: Instance,
        notes: Notes,
        ledger: Ledger,
    ) -> None:
        self.id = call.id
        self.seed = call.id + (str(instance.first).encode() if instance.first else b"")  # it may have begun again
        self.caller = instance.caller
        self.ledger = ledger
        self.actions: dict[int, Call] = {}
        self.children: list[int] = []
        self.undos: list[Undo] = []
        self.counted: int | None = None
        self._program = program
        self._call = call
        self._session = session
        self._guard = guard
        self._instance = instance
        self._notes = notes
        self._seconds = program.find(instance.function).function.options.timeout
        self._rests = 0.0
        self._roles = frozenset(instance.roles)

    def start(self, function: Function[..., Any], args: Sequence[Any], kwargs: dict[str, Any], undo: Any) -> int:
        if not isinstance(function, Function):
            raise RuleBroken(
                f"{function!r:.80} is no function of the app, which could be a step",
                hint="decorate it; what neither waits nor touches anything outside may be called as it is",
            )
        by = None if undo is None else self._undo(undo)
        terms = function.terms
        if terms != AT_ONCE and (function.kind is not Kind.WORKFLOW or terms.unique is not None):
            raise RuleBroken(
                f"{function.name} is a step of a workflow, which is run in its place",
                hint="with_options is for tx.enqueue; a child workflow may have a delay or a priority",
            )
        number = self.call(function.name, self._encoded(function, args, kwargs), terms)
        if by is not None:
            self.undos.append(Undo(number, *by))
        return number

    def call(self, name: str, encoded: bytes, terms: Terms = AT_ONCE) -> int:
        """Begin an operation that runs the function of this name."""
        bound = self._program.find(name)
        shown = encoded
        if bound.codec.has_secrets:
            shown = bound.codec.canonical(self._step_call(0, name, encoded))
        number, known = self._begin(Operation(OPS[bound.function.kind], name, shown))
        if known is None:
            self._do(number, bound, self._step_call(number, name, encoded), terms)
        return number

    def wait(self, number: int) -> Step:
        self.ledger.check_open()
        return self.ledger.wait(number)

    def settle(self, number: int) -> Any:
        step = self.wait(number)
        if step.error is not None:
            raise revived(step.error)
        return self._result(step)

    def undo(self, undo: Undo) -> None:
        """Call the function that undoes an operation, if that was done."""
        step = self.wait(undo.number)
        if step.error is not None:
            return
        function = self._program.find(undo.function).function
        encoded = undo.input or self._encoded(function, (self._result(step),), {})
        self.ledger.undoes = undo.number
        if self.counted is not None:
            self.ledger.undoes, self.counted = self.counted, self.counted + 1
        self.settle(self.call(undo.function, encoded))

    def finish(self) -> None:
        """Wait for the actions that were started, also where nobody asked for their results."""
        for number in reversed(self.actions):
            self.wait(number)

    def begun(self, actions: Sequence[tuple[int, str, bytes]]) -> None:
        """These actions were begun by another run: each a number, a function and its arguments."""
        self.actions = {number: self._step_call(number, name, given) for number, name, given in actions}

    def give_up_actions(self, error: Error) -> None:
        """The actions that are open failed with this: they are not begun again, whatever they did."""
        for number, call in self.open_actions().items():
            problem = problem_of(call, error)
            bound = self._program.find(call.function)
            self.ledger.hold(number, failure(self._program, bound, call, Notes(), problem, error))

    def cancel_children(self, *, every: bool) -> list[int]:
        """Cancel the workflows that were started and have not ended, or those that are to be undone; their numbers."""
        cancelled = []
        undone = {undo.number for undo in self.undos}
        begun = range(self._instance.first, max(self._instance.issued, self.ledger.next))
        for number in begun if every else filter(undone.__contains__, self.children):
            if self.ledger.look(number) is None:
                child = self._session.instance(step_id(self.id, number), None)
                if child is not None:
                    end_early(self._session, child, self._program.version)
                    self.ledger.wrote = True
                    cancelled.append(number)
        return cancelled

    def outlast(self, number: int) -> None:
        """Wait until a workflow that was cancelled has ended."""
        self.wait(number)

    def open_actions(self) -> dict[int, Call]:
        """The actions that were begun and have no outcome."""
        return {number: call for number, call in self.actions.items() if self.ledger.look(number) is None}

    def now(self) -> int:
        return int(self._note(Operation(Op.NOW, "wf.now", b"{}"), now_microseconds()).output or 0)

    def sleep(self, seconds: float) -> None:
        until = self._later("wf.sleep", seconds)
        if until > now_microseconds():
            self.ledger.stay(Wait(due=until))

    def receive(self, topic: str, timeout: float | None) -> Any:
        self._checked(checked_name, "topic", topic)
        until = NEVER if timeout is None else self._later("wf.deadline", timeout)
        operation = Operation(Op.RECEIVE, "wf.receive", self._json({"topic": topic}))
        number, step = self._begin(operation)
        if step is None:
            with self.ledger.database():
                value = self._session.take_message(self.id, topic)
            self.ledger.wrote |= value is not None
            if value is None and until > now_microseconds():
                self.ledger.postpone(Wait(until, MESSAGE, topic))
            step = self.ledger.keep(number, operation, value or b"null")
        return json.loads(step.output or b"null")

    def send(self, workflow: bytes, topic: str, value: Any) -> None:
        self._checked(checked_name, "topic", topic)
        written = self._checked(checked_value, "message", self._program, value)
        arguments = {"workflow": id_text(workflow), "topic": topic, "value": json.loads(written)}
        operation = Operation(Op.SEND, "wf.send", self._json(arguments))
        number, step = self._begin(operation)
        if step is None:
            with self.ledger.database():
                sent = self._session.send(workflow, topic, written, step_id(self.id, number))
            self.ledger.wrote |= sent
            step = self.ledger.keep(number, operation, b"true" if sent else b"false")
        if step.output != b"true":
            raise NotFound(f"there is no workflow {id_text(workflow)} that could receive a message")

    def publish(self, name: str, value: Any) -> None:
        self._checked(checked_name, "name", name)
        written = self._checked(checked_value, "value", self._program, value)
        operation = Operation(Op.PUBLISH, "wf.publish", self._json({"name": name, "value": json.loads(written)}))
        number, step = self._begin(operation)
        if step is None:
            with self.ledger.database():
                self._session.publish(self.id, name, written)
            self.ledger.wrote = True
            self.ledger.keep(number, operation, b"null")

    def log(self, message: str, fields: dict[str, Any]) -> None:
        line: dict[str, Any] = {"at": self._notes.elapsed(), "message": str(message)}
        self._notes.lines.append({**line, "fields": fields} if fields else line)

    def continue_as(self, args: Sequence[Any], kwargs: dict[str, Any]) -> NoReturn:
        bound = self._program.find(self._instance.function)
        try:
            encoded = self._program.encode(bound.function, args, kwargs)
        except WrongArguments as error:
            raise RuleBroken(f"{bound.function.name} cannot begin again: {error.message}", hint=error.hint) from None
        self.finish()
        self.ledger.check_open()
        self.ledger.leave(Again(encoded))

    def _encoded(self, function: Function[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bytes:
        """The arguments of a function that is to be run, as JSON."""
        check_roles(function, self._roles)
        try:
            return self._program.encode(function, args, kwargs)
        except (WrongArguments, UnknownFunction) as error:
            raise RuleBroken(f"{function!r} cannot be run: {error.message}", hint=error.hint) from None

    def _undo(self, undo: Any) -> tuple[str, bytes | None]:
        """What is to undo an operation, looked at before that is done."""
        function, *args = undo if isinstance(undo, tuple) else (undo,)
        if not isinstance(function, Function) or self._program.functions.get(function.name) is None:
            raise RuleBroken(f"{function!r} is no function of the app that could undo something")
        if isinstance(undo, tuple):
            return function.name, self._encoded(function, args, {})
        check_roles(function, self._roles)
        return function.name, None

    def _result(self, step: Step) -> Any:
        return self._program.find(step.function).codec.decode_result(step.output or b"null")

    def _do(self, number: int, bound: Bound, call: Call, terms: Terms) -> None:
        op = OPS[bound.function.kind]
        if op is Op.ACTION:
            self.actions[number] = call
        elif op is Op.WORKFLOW:
            self.children.append(number)
            with self.ledger.database():
                self._begin_child(number, call, terms)
        else:
            self._inline(number, call, reads=op is Op.QUERY)

    def _begin_child(self, number: int, call: Call, terms: Terms) -> None:
        issued = number < self._instance.issued
        if issued or (self.ledger.undoing and self._session.instance(call.id, None) is not None):
            return
        self.ledger.flush()
        self.ledger.wrote = True
        function = self._program.find(call.function).function
        self._session.enqueue(
            queued_call(
                self._program,
                function,
                call.input,
                terms,
                id=call.id,
                caller=call.caller,
                roles=self._instance.roles,
                parent=self.id,
                now=now_microseconds(),
                step=number,
            )
        )

    def _inline(self, number: int, call: Call, *, reads: bool) -> None:
        """Run a query or a transaction here and now. What it raises is its outcome."""
        alone = self.ledger.alone
        if not reads:
            with self.ledger.database():
                self.ledger.flush()
        kept: list[Record] = []

        def keep(record: Record) -> None:
            if self.ledger.careful and record.status == "ok" and not reads:
                self._session.check_constraints()
            kept.append(record)
            if not reads:
                self._session.record(record)

        self._rest()
        try:
            self._perform(call, keep, alone=alone)
        except (Duplicate, Unavailable, Lost) as error:
            self.ledger.leave(Broken(error))
        finally:
            self._work()
        if reads:
            self.ledger.hold(number, kept[-1])
        else:
            self.ledger.wrote = True
            self.ledger.written(number, kept[-1])

    def _perform(self, call: Call, keep: Any, *, alone: bool) -> None:
        notes = Notes()
        try:
            perform(self._program, call, self._session, self._guard, notes, keep)
        except Stopped:
            _, record = stopped(self._program, call, notes)
            if self._session.lost:
                raise Lost(record if alone else None) from None
            keep(record)

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
        return step or self.ledger.keep(number, operation, str(value).encode())

    def _begin(self, operation: Operation) -> tuple[int, Step | None]:
        number, step = self.ledger.begin(operation)
        if step is not None and time.monotonic() > self._rests:
            self._rest()
            self._work()
        return number, step

    def _rest(self) -> None:
        """The time of the body stands still. Where it was over, the body is left, also one that swallowed that."""
        if self._guard.end():
            self.ledger.leave(Ended(late=True))

    def _work(self) -> None:
        """The time of the body begins."""
        self._rests = time.monotonic() + self._seconds * REST
        self._guard.begin(self._call, self._seconds)

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
