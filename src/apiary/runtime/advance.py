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
from dataclasses import dataclass, field, replace
from functools import partial

from apiary.runtime.beginning import begun, deadline_of, first_input, joined, left_to_queue
from apiary.runtime.call import (
    Bound,
    Guard,
    Program,
    failure,
    input_of,
    let_go,
    out_of_time,
    problem_of,
    record_of,
)
from apiary.runtime.declaration import Kind
from apiary.runtime.driver import Steps
from apiary.runtime.errors import (
    Cancelled,
    DatabaseUnavailable,
    DeadlineExceeded,
    Duplicate,
    Error,
    Nondeterministic,
    Stopped,
    Unavailable,
    Unseen,
    from_problem,
)
from apiary.runtime.failures import told
from apiary.runtime.ids import id_text
from apiary.runtime.ledger import Again, Broken, Ended, Leave, Ledger, Wait
from apiary.runtime.machine import CONTINUED, Op, Operation
from apiary.runtime.plain import plain
from apiary.runtime.session import NEVER, Call, Instance, Outcome, Pause, WorkflowSession
from apiary.runtime.transaction import Notes, check_roles, now_microseconds
from apiary.runtime.undoing import CANCELLING, UNDOING, Failure, Undo, read_failure
from apiary.runtime.workflow import Workflow, _running

KEPT = "what its steps did before is kept, but for what was undone"
MOST_STEPS = 100
"""So many functions of a workflow run in one transaction; then others have their turn."""


def advance(
    program: Program, call: Call, session: WorkflowSession, guard: Guard, most_steps: int = MOST_STEPS
) -> Outcome:
    """Begin a workflow, or let it go on; its outcome, or a `pause` where it has not ended.

    A call that repeats one which has begun is answered with a pause, too. Raises `Duplicate`, with nothing done, where
    it is not there any more, and `Unavailable` or `Lost` where the transaction cannot go on: all of it is to be undone.
    """
    bound = program.find(call.function)
    found = session.instance(call.id, call.key) if call.queued or call.attempt > 1 or call.key else None
    unsure = found is not None and call.attempt > 1 and found.acting and found.version == program.version
    if found is not None and not call.queued and not (unsure and found.id == call.id):
        return joined(bound, call, found, first_input(session, found))
    if found is None and not call.queued and bound.function.options.queue is not None:
        return left_to_queue(program, bound, call, session)
    if call.queued:
        if found is None:
            raise Duplicate
        pause = _not_now(program, bound, call, found, unsure)
        if pause is not None:
            return Outcome(pause=pause)
    instance = found or begun(program, bound, call)
    most = 1 if call.careful else most_steps
    ledger = Ledger(program.version, call, session, instance, stored=found is not None, most=most)
    run = _Run(program, bound, call, session, guard, instance, found is not None, ledger)
    try:
        return run.go()
    except Duplicate:
        raise Unseen("something of the workflow was recorded by another process; send it again") from None
    except Unavailable:
        raise
    except Error as error:
        raise DatabaseUnavailable(f"where the workflow is could not be written: {error.message}") from error


def _not_now(program: Program, bound: Bound, call: Call, found: Instance, unsure: bool) -> Pause | None:
    """Why a workflow does not go on, if so. One whose turn in its queue has come begins.

    `unsure`: the run in which it began its actions may be this one, whose commit was kept and not told of.
    """
    now = now_microseconds()
    if not found.version:
        if now < found.due:
            return Pause(found.due, found.epoch, waiting=True)
        found.version, found.started = program.version, now
    if found.epoch != call.epoch or found.version != program.version:
        return Pause(NEVER, found.epoch)
    found.deadline = min(found.deadline, deadline_of(bound, found.started))
    if not call.arrived and not unsure and found.state in ("", UNDOING) and now < _due(found):
        return Pause(_due(found), found.epoch)
    return None


def _due(instance: Instance) -> int:
    return instance.due if instance.state == UNDOING else min(instance.due, instance.deadline)


def blocked(function: str, workflow: bytes) -> Nondeterministic:
    """What those are told who wait for a workflow that cannot go on. What it did is for administrators."""
    error = Nondeterministic(
        f"{function} does something else than is recorded, and cannot go on before that is mended",
        hint=f"what it did, and what it does now: apiary workflow show {id_text(workflow)}",
    )
    error.call_id = id_text(workflow)
    return error


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
    ledger: Ledger
    notes: Notes = field(init=False)
    steps: Steps = field(init=False)

    def go(self) -> Outcome:
        """Run it."""
        instance, began = self.instance, time.monotonic_ns()
        if self._has_arrived_only() or instance.state == "blocked":
            return Outcome(pause=Pause(instance.due, instance.epoch))
        self.notes = Notes(instance.started, began - 1000 * (now_microseconds() - instance.started))
        self.steps = Steps(self.program, self.call, self.session, self.guard, instance, self.notes, self.ledger)
        outcome = self._fail(self._failure_written()) if instance.state == UNDOING else self._run_body()
        if outcome.pause is not None:
            return outcome
        return replace(outcome, duration=(time.monotonic_ns() - began) // 1000)

    def _has_arrived_only(self) -> bool:
        """Write the records that arrived; returns whether the workflow waits for something else."""
        for record in self.call.arrived:
            known = self.call.attempt > 1 and self.session.steps(self.call.id, record.step or 0, (record.step or 0) + 1)
            if not known:
                with suppress(Duplicate):
                    self.session.record(record)
        instance = self.instance
        if not self.call.arrived or instance.state not in ("", UNDOING) or now_microseconds() >= _due(instance):
            return False
        return instance.waits not in {record.step for record in self.call.arrived}

    def _run_body(self) -> Outcome:
        ledger, steps = self.ledger, self.steps
        output, failed = self._guarded(self._body)
        if failed is None and ledger.why is None and steps.actions:
            _, failed = self._guarded(steps.finish)
        if ledger.why is None and ledger.next < self.instance.issued:
            ledger.why = Broken(self._ended_too_soon(failed))
        why = ledger.why
        if isinstance(why, Broken):
            if not isinstance(why.error, Nondeterministic):
                raise why.error
            if not ledger.ending:
                return self._blocked(why.error)
            ended = self._ended_early()
            ended.add_note(f"it was not where it had been: {why.error.message}")
            return self._failed(ended, early=True)
        if isinstance(why, Wait):
            return self._paused(why)
        if isinstance(why, Again):
            return self._again(why)
        if isinstance(why, Ended):
            ended = out_of_time(self.bound) if why.late else self._ended_early()
            return self._failed(ended, early=not why.late)
        return self._ended(output) if failed is None else self._failed(failed)

    def _body(self) -> bytes:
        function, codec = self.bound.function, self.bound.codec
        check_roles(function, frozenset(self.instance.roles))
        call = self.call if self.call.input is self.instance.input else replace(self.call, input=self.instance.input)
        arguments = codec.decode(call)
        self.notes.entered = True
        return codec.encode(function.body(Workflow(self.steps), **arguments))

    def _guarded(self, body: Callable[[], bytes | None]) -> tuple[bytes, BaseException | None]:
        """Run code of the user; what it returns, or raises. Where it was left, neither."""
        output: bytes | None = None
        failed: BaseException | None = None
        late = False
        token = _running.set(True)
        try:
            try:
                self.guard.begin(self.call, self.bound.function.options.timeout)
                output = body()
            finally:
                late = self.guard.end()
        except Leave:
            pass
        except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a workflow ends that workflow, not its host
            failed = error
            let_go(error)
        finally:
            _running.reset(token)
        if self.ledger.why is not None:  # a body that swallowed that it was left may have made anything of it
            failed = None
        elif late or isinstance(failed, Stopped):
            failed = out_of_time(self.bound)
        return output or b"null", failed

    def _ended_too_soon(self, failed: BaseException | None) -> Nondeterministic:
        number, steps = self.ledger.next, self.instance.issued - self.instance.first
        how = "returned" if failed is None else f"raised {type(failed).__name__}: {failed}"
        return Nondeterministic(
            f"step {number} is not asked for any more: {self.call.function} {how}, after {steps} steps before",
            step=number,
        )

    def _ended_early(self) -> Error:
        if self.instance.problem is not None:
            return from_problem(json.loads(self.instance.problem))
        if self.instance.state == CANCELLING:
            return Cancelled(f"{self.call.function} was cancelled")
        return DeadlineExceeded(f"{self.call.function} did not end within {self.bound.function.options.lifetime:g} s")

    def _failed(self, failed: BaseException, *, early: bool = False) -> Outcome:
        """The body came to nothing. What it had begun is undone; an action that was not begun is not.

        `early`: it did not come so far by itself, so the workflows that it started are to end early, too.
        """
        call, notes = self._ending_call(), self.notes
        problem = problem_of(call, failed, KEPT)
        if not notes.entered and not self.stored:
            return Outcome(error=problem, cause=failed)
        record = failure(self.program, self.bound if notes.entered else None, call, notes, problem, failed)
        fresh = {number for number in self.steps.actions if number >= self.instance.issued}
        undos = [undo for undo in self.steps.undos if undo.number not in fresh]
        found = Failure(record.status, json.loads(record.error or "{}"), failed, notes.lines, undos)
        self.ledger.why = None
        self.ledger.undoing = True
        found.children = self.steps.cancel_children(every=early)
        if early and self.instance.problem is not None and isinstance(failed, Error):
            self.steps.give_up_actions(failed)
        if undos or found.children:
            actions = {number: call for number, call in self.steps.open_actions().items() if number not in fresh}
            found.actions = [(number, call.function, call.input) for number, call in actions.items()]
            self.steps.actions = actions
        return self._fail(found)

    def _fail(self, failure: Failure) -> Outcome:
        """Undo, the last first, and end. What cannot be undone is told of."""
        ledger, steps = self.ledger, self.steps
        written = replace(failure, error={**failure.error})
        tasks: list[tuple[Undo | None, Callable[[], None]]]
        tasks = [(None, partial(steps.outlast, child)) for child in failure.children]
        tasks += [(undo, partial(steps.undo, undo)) for undo in reversed(failure.undos)]
        for undo, do in tasks:
            _, error = self._guarded(do)
            why, ledger.why = ledger.why, None
            if isinstance(why, Wait):
                return self._undoing(written, why)
            if isinstance(why, Broken):
                raise why.error
            if isinstance(why, Ended):
                error = out_of_time(self.bound)
            if error is not None and undo is not None:
                failure.remained(undo, error)
        return self._ended(b"null", failure)

    def _undoing(self, failure: Failure, wait: Wait) -> Outcome:
        """Undoing goes on later: that it has begun is written down, and what with."""
        if self.instance.state != UNDOING:
            self.instance.state, self.instance.problem = UNDOING, failure.written()
        return self._paused(wait)

    def _failure_written(self) -> Failure:
        """Undoing goes on."""
        self.ledger.undoing = True
        failure = read_failure(self.instance.problem or "")
        self.notes.entered, self.notes.lines = True, failure.lines
        self.steps.begun(failure.actions)
        self.steps.counted = self.instance.first if failure.counted else None
        return failure

    def _again(self, again: Again) -> Outcome:
        if self.ledger.look(CONTINUED) is None:
            shown = input_of(self.bound, replace(self.call, input=self.instance.input))
            self.ledger.keep(CONTINUED, Operation(Op.CONTINUE, "wf.continue_as", shown), b"null")
        self.instance.first = self.instance.issued = self.ledger.next
        self.instance.input = again.input
        return self._paused(Wait(now_microseconds()))

    def _paused(self, wait: Wait) -> Outcome:
        instance = self.instance
        actions = tuple(self.steps.open_actions().values())
        instance.issued = max(instance.issued, self.ledger.next)
        instance.waits, instance.topic, instance.acting = wait.waits, wait.topic, bool(actions)
        instance.due = wait.due
        instance.due = _due(instance)
        self.ledger.flush()
        self.session.keep_instance(instance, fresh=not self.stored)
        return Outcome(pause=Pause(instance.due, instance.epoch, actions, careful=self.call.careful))

    def _blocked(self, error: Nondeterministic) -> Outcome:
        """Nothing of this is an outcome: it waits for somebody who mends it."""
        instance = self.instance
        problem = plain({**error.problem(), "call_id": id_text(self.call.id)})
        instance.state, instance.problem = "blocked", json.dumps(problem)
        instance.due, instance.waits, instance.topic, instance.acting = NEVER, None, None, False
        self.session.keep_instance(instance, fresh=not self.stored)
        return Outcome(error=problem, cause=error, pause=Pause(NEVER, instance.epoch))

    def _ending_call(self) -> Call:
        """The call that the record of its end is of."""
        instance = self.instance
        return Call(
            id=instance.id,
            function=instance.function,
            input=instance.input,
            caller=instance.caller,
            key=instance.key,
            parent=instance.parent,
            attempt=self.call.attempt,
            digest=self.call.digest,
            step=instance.step,
        )

    def _ended(self, output: bytes, failure: Failure | None = None) -> Outcome:
        instance, session, ledger = self.instance, self.session, self.ledger
        call, bound = self._ending_call(), self.bound if self.notes.entered else None
        if failure is None:
            record = record_of(self.program, bound, call, self.notes, "ok", output)
        else:
            error = json.dumps(failure.error)
            record = record_of(self.program, bound, call, self.notes, failure.status, error=error)
            record.kind = Kind.WORKFLOW.value
        if instance.first:
            record.input = first_input(session, instance, record.input)
        kept = self.stored or ledger.wrote or call.key is not None or self.call.detached or failure is not None
        if not kept:
            session.records += [*ledger.held, record]
        else:
            ledger.flush()
            session.record(record)
        if self.stored:
            session.drop_instance(self.call.id)
        if instance.parent is not None and instance.step is not None:
            session.wake(instance.parent, instance.step)
        if failure is None:
            return Outcome(output)
        cause = None if isinstance(failure.cause, Unavailable) else failure.cause  # what is recorded is not tried again
        return Outcome(error=told(failure.error), cause=cause)
