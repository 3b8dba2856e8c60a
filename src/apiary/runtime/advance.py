"""Lets a workflow go on in an open transaction: runs its body from the start, and writes where it has come.

The body is answered from what is recorded, and what is not is done (`driver.py`). Where it returns or raises, the
workflow ends with a record of its own. Where something has to happen elsewhere (an action, a child, time that passes, a
message that comes), where it is goes to its row in the queue, and it is run again when that has happened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from apiary.runtime.call import (
    Bound,
    Guard,
    Program,
    failure,
    let_go,
    out_of_time,
    problem_of,
    record_of,
)
from apiary.runtime.declaration import Kind
from apiary.runtime.driver import Again, Broken, Ended, Leave, Steps, Wait
from apiary.runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    Duplicate,
    Forbidden,
    KeyReused,
    Nondeterministic,
    Stopped,
    Unavailable,
    UnknownFunction,
    WrongArguments,
    known_errors,
)
from apiary.runtime.ids import id_text
from apiary.runtime.plain import plain
from apiary.runtime.repeated import check_first_caller, same_json
from apiary.runtime.session import NEVER, Call, Instance, Outcome, Pause, WorkflowSession
from apiary.runtime.transaction import Notes, check_roles, now_microseconds
from apiary.runtime.workflow import Workflow, _running

KEPT = "what its steps did before is kept, but for what was undone"
REFUSALS = (WrongArguments, Forbidden, KeyReused, Unavailable, UnknownFunction)
MOST_STEPS = 100
"""So many functions of a workflow run in one transaction; then others have their turn."""


def advance(
    program: Program, call: Call, session: WorkflowSession, guard: Guard, most_steps: int = MOST_STEPS
) -> Outcome:
    """Begin a workflow, or let it go on; its outcome, or a `pause` where it has not ended.

    A call that repeats one which has begun is answered with a pause, too. Raises `Duplicate` where it has ended, or
    somebody else has begun it at the same time, `Unavailable` where the transaction cannot go on.
    """
    bound = program.find(call.function)
    found = session.instance(call.id, call.key) if call.queued or call.attempt > 1 or call.key else None
    if found is not None and not call.queued:
        return _joined(bound, call, found)
    if call.queued:
        if found is None:
            raise Duplicate
        if found.epoch != call.epoch or found.version != program.version:
            return Outcome(pause=Pause(NEVER, found.epoch))
        found.deadline = min(found.deadline, _deadline(bound, found.started))
        if not call.arrived and not found.state and now_microseconds() < min(found.due, found.deadline):
            return Outcome(pause=Pause(min(found.due, found.deadline), found.epoch))
    instance = found or _begun(program, bound, call)
    return _Run(program, bound, call, session, guard, instance, found is not None, most_steps).go()


def _begun(program: Program, bound: Bound, call: Call) -> Instance:
    started = now_microseconds()
    return Instance(
        id=call.id,
        function=call.function,
        version=program.version,
        input=call.input,
        caller=call.caller,
        roles=tuple(call.roles),
        key=call.key,
        parent=call.parent,
        step=call.step,
        started=started,
        deadline=_deadline(bound, started),
    )


def _deadline(bound: Bound, started: int) -> int:
    lifetime = bound.function.options.lifetime
    return NEVER if lifetime is None else started + int(lifetime * 1e6)


def blocked(function: str, workflow: bytes) -> Nondeterministic:
    """What those are told who wait for a workflow that cannot go on. What it did is for administrators."""
    error = Nondeterministic(
        f"{function} does something else than is recorded, and cannot go on before that is mended",
        hint=f"what it did, and what it does now: apiary workflow show {id_text(workflow)}",
    )
    error.call_id = id_text(workflow)
    return error


def is_refused(outcome: Outcome) -> bool:
    """Whether a workflow that was to be begun has not begun. A backend tells of errors by their codes only."""
    error = outcome.error
    if error is None or outcome.replayed is not None:
        return False
    kind = known_errors().get(str(error["code"]))
    return kind is not None and issubclass(kind, REFUSALS) and error["status"] == kind.status


def _joined(bound: Bound, call: Call, found: Instance) -> Outcome:
    """The answer to a call that repeats one which has begun: the same end, when it comes."""
    check_roles(bound.function, call.roles)
    check_first_caller(found.caller, call)
    try:
        same = same_json(json.loads(found.input), json.loads(call.input or b"{}"))
    except (ValueError, RecursionError):
        bound.codec.decode(call)
        same = False
    if found.function != call.function or not same:
        raise KeyReused(
            f"the idempotency key was used for another call of {found.function}", first_call_id=id_text(found.id)
        )
    return Outcome(pause=Pause(NEVER, found.epoch, of=found.id))


@dataclass(slots=True)
class _Run:
    """One run of the body of a workflow, and what becomes of it. `stored`: it has a row in the queue."""

    program: Program
    bound: Bound
    call: Call
    session: WorkflowSession
    guard: Guard
    instance: Instance
    stored: bool
    most_steps: int

    def go(self) -> Outcome:
        """Run it."""
        began = time.monotonic_ns()
        if self._has_arrived_only() or self.instance.state == "blocked":
            return Outcome(pause=Pause(self.instance.due, self.instance.epoch))
        instance = self.instance
        notes = Notes(instance.started, began - 1000 * (now_microseconds() - instance.started))
        steps = Steps(
            self.program,
            self.call,
            self.session,
            self.guard,
            instance,
            notes,
            stored=self.stored,
            most=self.most_steps,
        )
        output, failed = self._run(lambda: self._body(steps, notes))
        if failed is None and steps.why is None and steps.actions:
            _, failed = self._run(steps.finish)
        if steps.why is None and failed is None and steps.machine.next < instance.issued:
            done = f"it has ended, after {instance.issued - instance.first} steps before"
            steps.why = Broken(Nondeterministic(f"step {steps.machine.next} is not asked for any more: {done}"))
        if isinstance(steps.why, Ended) or self._gives_up(steps.why):
            failed, steps.why = self._ended_early(), None
        if failed is not None and steps.why is None:
            failed = self._undone(steps, failed)
        return self._settle(steps, notes, output, failed, began)

    def _has_arrived_only(self) -> bool:
        """Write the records that arrived; returns whether the workflow waits for something else."""
        for record in self.call.arrived:
            known = self.call.attempt > 1 and self.session.steps(self.call.id, record.step or 0, (record.step or 0) + 1)
            if not known:
                with suppress(Duplicate):
                    self.session.record(record)
        instance = self.instance
        if not self.call.arrived or instance.state or now_microseconds() >= min(instance.due, instance.deadline):
            return False
        return instance.waits not in {record.step for record in self.call.arrived}

    def _body(self, steps: Steps, notes: Notes) -> bytes:
        function, codec = self.bound.function, self.bound.codec
        check_roles(function, frozenset(self.instance.roles))
        call = self.call if self.call.input is self.instance.input else replace(self.call, input=self.instance.input)
        arguments = codec.decode(call)
        notes.entered = True
        return codec.encode(function.body(Workflow(steps), **arguments))

    def _run(self, body: Callable[[], bytes | None]) -> tuple[bytes, BaseException | None]:
        """Run code of the user; what it returns, or raises. Where it was left, neither."""
        output: bytes | None = None
        failed: BaseException | None = None
        token = _running.set(True)
        try:
            try:
                self.guard.begin(self.call, self.bound.function.options.timeout)
                output = body()
            finally:
                late = self.guard.end()
        except Leave:
            late = False
        except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a workflow ends that workflow, not its host
            failed = error
            let_go(error)
        finally:
            _running.reset(token)
        if late or isinstance(failed, Stopped):
            failed = out_of_time(self.bound)
        return output or b"null", failed

    def _gives_up(self, why: object) -> bool:
        """Whether a workflow that cannot go on is to end all the same: it was cancelled."""
        nondeterministic = isinstance(why, Broken) and isinstance(why.error, Nondeterministic)
        return nondeterministic and self.instance.state == "cancelling"

    def _ended_early(self) -> BaseException:
        if self.instance.state == "cancelling":
            return Cancelled(f"{self.call.function} was cancelled")
        return DeadlineExceeded(f"{self.call.function} did not end within {self.bound.function.options.lifetime:g} s")

    def _undone(self, steps: Steps, failed: BaseException) -> BaseException:
        """Undo what was done, the last first. What cannot be undone is told of."""
        steps.undoing = True
        left: list[str] = []
        for number, function, args in reversed(steps.undos):
            _, error = self._run(partial(steps.undo, number, function, args))
            if isinstance(steps.why, Broken) and self._gives_up(steps.why):
                error, steps.why = steps.why.error, None
            if steps.why is not None:
                return failed
            if error is not None:
                left.append(f"{function.name}: {error}")
                steps.log("could not be undone", {"step": number, "by": function.name, "error": str(error)})
        if left:
            failed.add_note(f"and this could not be undone: {'; '.join(left)}")
        return failed

    def _settle(self, steps: Steps, notes: Notes, output: bytes, failed: BaseException | None, began: int) -> Outcome:
        """Write what has become of it. `began`: when this run did (monotonic clock, nanoseconds)."""
        why = steps.why
        if isinstance(why, Broken):
            if not isinstance(why.error, Nondeterministic):
                raise why.error
            return self._blocked(steps, why.error)
        if isinstance(why, Wait):
            return self._paused(steps, why)
        if isinstance(why, Again):
            self.instance.first = self.instance.issued = steps.machine.next
            self.instance.input = why.input
            return self._paused(steps, Wait(now_microseconds()), issued=self.instance.first)
        problem = self._ended(steps, notes, output, failed)
        return Outcome(output, problem, cause=failed, duration=(time.monotonic_ns() - began) // 1000)

    def _paused(self, steps: Steps, wait: Wait, *, issued: int = 0) -> Outcome:
        instance = self.instance
        actions = tuple(call for number, call in steps.actions.items() if steps.machine.look(number) is None)
        instance.issued = issued or max(instance.issued, steps.machine.next)
        instance.waits, instance.topic, instance.acting = wait.waits, wait.topic, bool(actions)
        instance.due = min(wait.due, instance.deadline)
        steps.flush()
        self.session.keep_instance(instance, fresh=not self.stored)
        return Outcome(pause=Pause(instance.due, instance.epoch, actions))

    def _blocked(self, steps: Steps, error: Nondeterministic) -> Outcome:
        """Nothing of this is an outcome: it waits for somebody who mends it."""
        instance = self.instance
        problem = plain({**error.problem(), "call_id": id_text(self.call.id)})
        instance.state, instance.problem = "blocked", json.dumps(problem)
        instance.due, instance.waits, instance.topic, instance.acting = NEVER, None, None, False
        self.session.keep_instance(instance, fresh=not self.stored)
        return Outcome(error=problem, cause=error, pause=Pause(NEVER, instance.epoch))

    def _ended(self, steps: Steps, notes: Notes, output: bytes, failed: BaseException | None) -> dict[str, Any] | None:
        """Write the record, and let who waits for it go on; returns the problem document of a failure."""
        instance, session = self.instance, self.session
        if isinstance(failed, Unavailable):
            raise failed
        call = Call(
            id=instance.id,
            function=instance.function,
            input=instance.input,
            caller=instance.caller,
            key=instance.key,
            parent=instance.parent,
            attempt=self.call.attempt,
            step=instance.step,
        )
        problem = None
        if failed is not None:
            problem = problem_of(call, failed, KEPT)
            if not notes.entered and not self.stored:
                return problem
            bound = self.bound if notes.entered else None
            record = failure(self.program, bound, call, notes, problem, failed)
            record.kind = Kind.WORKFLOW.value
        else:
            record = record_of(self.program, self.bound, call, notes, "ok", output)
        if not (self.stored or steps.wrote or call.key is not None or call.detached or failed is not None):
            session.records += [*steps.held, record]
        else:
            steps.flush()
            session.record(record)
        if self.stored:
            session.drop_instance(self.call.id)
        if instance.parent is not None and instance.step is not None:
            session.wake(instance.parent, instance.step)
        return problem
