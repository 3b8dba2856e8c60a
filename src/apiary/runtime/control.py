"""What people and programs do to workflows and queues from outside: send, cancel, pause, … Each has a record.

They are small transactions of the platform's own, which run where those of the app do. Who started a workflow may send
to it and cancel it; the rest is for administrators.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from apiary.runtime.call import Program, problem_of
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import Conflict, Error, Forbidden, NotFound, UnknownFunction, WrongArguments
from apiary.runtime.ids import id_bytes, id_text
from apiary.runtime.machine import PAGE, UNDO_FROM, Step, step_id
from apiary.runtime.messages import checked_name, checked_value
from apiary.runtime.queueing import AT_ONCE, queued_call
from apiary.runtime.session import NEVER, Call, Instance, Outcome, Record, WorkflowSession
from apiary.runtime.transaction import check_roles, now_microseconds
from apiary.runtime.undoing import CANCELLING, UNDOING, end_early, read_failure

PREFIX = "apiary."
RESULT = "apiary.result"
"""Waits for the end of a workflow. Not an operation: it writes nothing, and is answered by `engine/flows.py`."""
QUEUE_OPERATIONS = ("apiary.pause", "apiary.unpause")
"""What is done to queues, of which those must hear who run them."""
KIND = "platform"
DROPPED = '[{"at": 0, "message": "what it did is not kept any more"}]'
"""The log lines of a workflow whose steps were dropped, because it ended long ago."""

Operation = Callable[[Program, Call, WorkflowSession, Mapping[str, Any]], Any]


def control(program: Program, call: Call, session: WorkflowSession) -> Outcome:
    """Run one of the operations in the open transaction; raises `Duplicate` where the call has a record already."""
    started = now_microseconds()
    operation = OPERATIONS.get(call.function)
    if operation is None:
        raise UnknownFunction(f"the platform has no operation {call.function}")
    session.savepoint("call")
    try:
        output = program.to_json(operation(program, call, session, _arguments(call)))
        session.record(_record(program, call, started, output))
    except Error as error:
        session.undo("call")
        return Outcome(error=problem_of(call, error), cause=error)
    except BaseException:
        session.undo("call")
        raise
    session.release("call")
    return Outcome(output, duration=now_microseconds() - started)


def check_starter(starter: str, caller: str, roles: Collection[str]) -> None:
    """`Forbidden` for those who have not started a workflow, and are no administrators."""
    if starter != caller and "admin" not in roles:
        raise Forbidden("this workflow was started by somebody else", hint="use the key with which it was started")


def _arguments(call: Call) -> Mapping[str, Any]:
    try:
        found = json.loads(call.input or b"{}")
    except (ValueError, RecursionError) as error:
        raise WrongArguments(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise WrongArguments("the body is no JSON object")
    return found


def _check_admin(call: Call) -> None:
    if "admin" not in call.roles:
        raise Forbidden("this is for administrators", hint="use the admin key of the server")


def _record(program: Program, call: Call, started: int, output: bytes) -> Record:
    return Record(
        id=call.id,
        function=call.function,
        kind=KIND,
        version=program.version,
        caller=call.caller,
        attempt=call.attempt,
        started=started,
        duration=now_microseconds() - started,
        status="ok",
        input=call.input,
        output=output,
        key=call.key,
    )


def _send(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """A message for a workflow, on a topic."""
    workflow = _identifier(given)
    topic = checked_name("topic", given.get("topic"))
    value = checked_value("message", program, given.get("value"))
    if "admin" not in call.roles:
        _running(session, call, given)
    if not session.send(workflow, topic, value, call.id):
        raise _not_running(session, call, workflow)


def _cancel(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """End a workflow at its next step, and those that it started; what was done is undone as far as it says how."""
    end_early(session, _running(session, call, given), program.version)


def _resume(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """Let a workflow that is blocked try again."""
    _check_admin(call)
    instance = _running(session, call, given)
    if instance.state != "blocked":
        raise Conflict(f"the workflow {id_text(instance.id)} is not blocked")
    instance.state, instance.problem, instance.due = "", None, NEVER
    session.keep_instance(instance, fresh=False)
    session.wake(instance.id, None)


def _fork(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a new workflow with what another one has recorded below a step; it goes on from there."""
    _check_admin(call)
    origin = _identifier(given)
    first, before = _begun(session, origin)
    step = given.get("step")
    if step is not None and (not isinstance(step, int) or isinstance(step, bool) or step < 0):
        raise WrongArguments(f"a step is a number from 0 on, not {step!r:.50}")
    end = before if step is None else min(step, before)
    _check_kept(session, first, end)
    fork = _enqueued(program, call, session, first, given.get("version"))
    for number in range(first.first, end, PAGE):
        for found in session.steps(origin, number, min(number + PAGE, end)):
            session.record(_copied(found, fork, fork.started))
            if found.number == fork.issued:  # what has no record is begun again: it belongs to the other workflow
                fork.issued += 1
    session.keep_instance(fork, fresh=False)
    return {"id": id_text(fork.id), "from": id_text(origin), "step": end}


def _enqueued(program: Program, call: Call, session: WorkflowSession, first: Instance, version: Any) -> Instance:
    """The row of a fork, which waits for its turn where its function has a queue, as others do.

    One that is for a version by name has that at once, and counts as one that has begun.
    """
    if version is not None and not isinstance(version, str):
        raise WrongArguments(f"a version is text, not {version!r:.50}")
    bound = program.functions.get(first.function)
    here = not version or version == program.version
    if here and (bound is None or bound.function.kind is not Kind.WORKFLOW):
        raise Conflict(
            f"version {program.version} has no workflow {first.function}, so nothing could go on with the fork",
            hint="fork to a version that has it: apiary versions " + program.app,
        )
    started = now_microseconds()
    fork = Instance(
        id=step_id(call.id, 0),
        function=first.function,
        version=version or program.version,
        input=first.input,
        caller=first.caller,
        roles=first.roles,
        key=None,
        parent=None,
        step=None,
        started=started,
        first=first.first,
        issued=first.first,
        due=started,
    )
    if bound is None or bound.function.kind is not Kind.WORKFLOW:
        session.keep_instance(replace(fork, due=NEVER), fresh=True)
        session.wake(fork.id, None)
        return fork
    if here:
        check_roles(bound.function, frozenset(fork.roles))
    queued = queued_call(
        program,
        bound.function,
        fork.input,
        AT_ONCE,
        id=fork.id,
        caller=fork.caller,
        roles=fork.roles,
        parent=None,
        now=started,
    )
    if version:
        queued = replace(queued, version=version)
    fork.version = queued.version or ""
    session.enqueue(queued)
    return fork


def _check_kept(session: WorkflowSession, workflow: Instance, end: int) -> None:
    """`Conflict` where of the steps below `end` one was undone, or is going to be: it is not to be taken for done."""
    if end <= workflow.first:
        return
    name = id_text(workflow.id)
    if workflow.state == CANCELLING or now_microseconds() >= workflow.deadline:
        raise Conflict(f"the workflow {name} is about to undo what it did", hint="fork it when it has ended")
    undone = []
    if workflow.state == UNDOING:
        undone = [undo.number for undo in read_failure(workflow.problem or "").undos]
    for number in range(workflow.first, end, PAGE):
        at = UNDO_FROM + 1 + number
        undone += [
            step.number - UNDO_FROM - 1
            for step in session.steps(workflow.id, at, min(at + PAGE, UNDO_FROM + 1 + end), 0)
        ]
    if undone and min(undone) < end:
        raise Conflict(
            f"the workflow {name} has undone its step {min(undone)}, so a fork cannot take that for done",
            hint=f"fork with step {min(undone)}: that one and all behind it are done again, undone or not",
        )


def _pause(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """Begin no more calls of a queue; those that run go on."""
    session.pause(_queue(program, call, given), paused=True)


def _unpause(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """Begin calls of a queue again."""
    session.pause(_queue(program, call, given), paused=False)


def _queue(program: Program, call: Call, given: Mapping[str, Any]) -> str:
    _check_admin(call)
    name = given.get("queue")
    if not isinstance(name, str) or name not in program.queues:
        known = ", ".join(sorted(program.queues)) or "none"
        raise NotFound(f"{program.app} has no queue {name!r:.80}", hint=f"there are: {known}")
    return name


def _copied(step: Step, fork: Instance, started: int) -> Record:
    return Record(
        id=step_id(fork.id, step.number),
        function=step.function,
        kind=step.kind,
        version=fork.version,
        caller=fork.caller,
        attempt=1,
        started=started,
        duration=0,
        status="ok" if step.error is None else "failed",
        input=step.input,
        output=step.output,
        error=step.error,
        parent=fork.id,
        step=step.number,
    )


def _begun(session: WorkflowSession, workflow: bytes) -> tuple[Instance, int]:
    """A workflow, running or ended, and the number behind its last step."""
    instance = session.instance(workflow, None)
    if instance is None:
        record = session.find(workflow, None)
        if record is None or record.kind != "workflow":
            raise _unknown(workflow)
        if record.lines == DROPPED:
            raise Conflict(f"what the workflow {id_text(workflow)} did is not kept any more, so it cannot be forked")
        instance = Instance(
            workflow, record.function, record.version, record.input, record.caller, (), None, None, None, 0
        )
    return instance, _end(session, workflow, instance.first)


def _end(session: WorkflowSession, workflow: bytes, first: int) -> int:
    """The number behind the last recorded step. Before that there may be any number of steps without a record."""
    end, at, width = first, first, PAGE
    while at < UNDO_FROM:
        steps = session.steps(workflow, at, min(at + width, UNDO_FROM), 0)
        end = steps[-1].number + 1 if steps else end
        at, width = at + width, PAGE if steps else 2 * width
    return end


def _running(session: WorkflowSession, call: Call, given: Mapping[str, Any]) -> Instance:
    workflow = _identifier(given)
    instance = session.instance(workflow, None)
    if instance is None:
        raise _not_running(session, call, workflow)
    check_starter(instance.caller, call.caller, call.roles)
    return instance


def _not_running(session: WorkflowSession, call: Call, workflow: bytes) -> Error:
    record = session.find(workflow, None)
    if record is None:
        return _unknown(workflow)
    check_starter(record.caller, call.caller, call.roles)
    return Conflict(f"the workflow {id_text(workflow)} has ended")


def _unknown(workflow: bytes) -> NotFound:
    return NotFound(f"there is no workflow {id_text(workflow)}", hint="list them: apiary workflow list")


def _identifier(given: Mapping[str, Any]) -> bytes:
    try:
        return id_bytes(str(given.get("workflow")))
    except ValueError:
        raise NotFound(f"{given.get('workflow')!r:.50} is not the id of a workflow") from None


OPERATIONS: dict[str, Operation] = {
    "apiary.send": _send,
    "apiary.cancel": _cancel,
    "apiary.resume": _resume,
    "apiary.fork": _fork,
    "apiary.pause": _pause,
    "apiary.unpause": _unpause,
}
